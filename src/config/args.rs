//! A command line: a command, its words, and `option=value` arguments.
//!
//! `option=value` and `--option=value` are the same. The value is taken as it
//! stands, since the shell has dealt with quotes already. Arguments that are not
//! UTF-8 are refused and shown with U+FFFD, never guessed at; those behind `--`
//! are passed on as they are.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::diagnostics::Diagnostics;
use super::given::{At, Given};
use super::key::{self, Key, Kind, Table};
use super::place::{Place, Source, quoted};
use crate::logging::escape::Untrusted;

/// What a program's command line may look like.
pub(crate) struct Grammar {
    pub(crate) program: &'static str,
    pub(crate) table: Table,
    pub(crate) verbs: &'static [Verb],
    /// Names that look like options of some command, and are none.
    pub(crate) extras: &'static [&'static str],
    /// Whether `--option` alone means yes.
    pub(crate) bare_flags: bool,
}

/// One command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    /// How many words may follow it.
    pub(crate) max_words: usize,
    /// Whether `--` and anything may follow those.
    pub(crate) takes_rest: bool,
}

impl Verb {
    pub(crate) const fn new(name: &'static str, max_words: usize) -> Self {
        Self {
            name,
            max_words,
            takes_rest: false,
        }
    }
}

/// A word or an extra of a command line, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) at: At,
}

impl Word {
    pub(crate) fn place(&self) -> Place {
        self.at.place(&self.text, 0..self.text.len(), 0)
    }
}

/// A command line, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// The command, if one was written.
    pub(crate) verb: Option<(&'static Verb, Place)>,
    pub(crate) given: Vec<Given>,
    pub(crate) words: Vec<Word>,
    /// What stands behind `--`.
    pub(crate) rest: Vec<OsString>,
    /// Values of the grammar's extras, by name.
    pub(crate) extras: Vec<(&'static str, Word)>,
    pub(crate) wants_help: bool,
    pub(crate) wants_version: bool,
}

impl Line {
    /// Name of the command, or nothing.
    pub(crate) fn verb_name(&self) -> &'static str {
        self.verb.as_ref().map_or("", |(verb, _)| verb.name)
    }
}

/// Takes the arguments apart, without the program's name.
pub(crate) fn read(
    grammar: &'static Grammar,
    args: impl Iterator<Item = OsString>,
    diagnostics: &mut Diagnostics,
) -> Line {
    let mut line = Line::default();
    let mut args = (1..).zip(args);
    while let Some((row, arg)) = args.next() {
        let arg = Argument::new(grammar, row, &arg);
        if let Some(bad) = arg.bad {
            let end = bad + char::MAX.len_utf8();
            let place = arg.place(bad, end);
            diagnostics.error(Some(place), "", "the argument is not UTF-8");
            continue;
        }
        let takes_rest = line.verb.as_ref().is_some_and(|(verb, _)| verb.takes_rest);
        match &*arg.text {
            "-h" | "--help" => line.wants_help = true,
            "-V" | "--version" => line.wants_version = true,
            "--" if takes_rest => {
                line.rest = args.map(|(_, arg)| arg).collect();
                break;
            }
            text if text.contains('=') => arg.option(&mut line, diagnostics),
            text if text.starts_with('-') => arg.dashed(&mut line, diagnostics),
            _ => arg.word(&mut line, diagnostics),
        }
    }
    line
}

/// One argument, as text that can be shown.
struct Argument {
    grammar: &'static Grammar,
    row: u32,
    text: Arc<str>,
    /// The byte at which it stops to be UTF-8.
    bad: Option<usize>,
}

impl Argument {
    fn new(grammar: &'static Grammar, row: u32, arg: &OsStr) -> Self {
        let bad = std::str::from_utf8(arg.as_bytes()).err();
        let bad = bad.map(|error| error.valid_up_to());
        Self {
            grammar,
            row,
            text: Untrusted(arg.as_bytes()).to_string().into(),
            bad,
        }
    }

    /// The place of these bytes.
    fn place(&self, start: usize, end: usize) -> Place {
        self.at(0).place(&self.text, start..end, start)
    }

    fn whole(&self) -> Place {
        self.place(0, self.text.len())
    }

    fn at(&self, start: usize) -> At {
        At {
            source: Source::CommandLine,
            row: self.row,
            line: Arc::clone(&self.text),
            start,
            unescaped: false,
        }
    }

    /// An argument with `=` in it.
    fn option(&self, line: &mut Line, diagnostics: &mut Diagnostics) {
        let dashes = if self.text.starts_with("--") { 2 } else { 0 };
        let body = self.text.get(dashes..).unwrap_or_default();
        let (name, value) = body.split_once('=').unwrap_or((body, ""));
        let at = self.at(dashes + name.len() + 1);
        let place = || self.place(dashes, dashes + name.len());
        if let Some(extra) = self.grammar.extras.iter().find(|extra| **extra == name) {
            if line.extras.iter().any(|(earlier, _)| earlier == extra) {
                diagnostics.error(Some(place()), name, "given twice");
            }
            line.extras.push((
                extra,
                Word {
                    text: value.to_owned(),
                    at,
                },
            ));
            return;
        }
        if let Some(key) = find(self.grammar, name, place, diagnostics) {
            line.given.push(Given {
                key,
                text: value.to_owned(),
                at,
            });
        }
    }

    /// An argument without `=` that begins with a dash.
    fn dashed(&self, line: &mut Line, diagnostics: &mut Diagnostics) {
        let Grammar {
            program,
            table,
            bare_flags,
            ..
        } = *self.grammar;
        let name = self.text.trim_start_matches('-');
        let text = match table.find(name) {
            Some(key) if bare_flags && key.kind == Kind::YesNo => {
                line.given.push(Given {
                    key,
                    text: "yes".to_owned(),
                    at: self.at(0),
                });
                return;
            }
            Some(key) => format!("expected --{name}=VALUE, with {}", super::help::value(key)),
            None => match table.nearest(name) {
                Some(near) => format!("unknown argument; did you mean {near}=VALUE?"),
                None => format!("unknown argument; see {program} help"),
            },
        };
        diagnostics.error(Some(self.whole()), &self.text, text);
    }

    /// An argument that is neither: a command, or a word that belongs to one.
    fn word(&self, line: &mut Line, diagnostics: &mut Diagnostics) {
        let verbs = self.grammar.verbs;
        let Some((verb, _)) = &line.verb else {
            match verbs.iter().find(|verb| verb.name == &*self.text) {
                Some(verb) => line.verb = Some((verb, self.whole())),
                // `--help port` asks for help with an option.
                None if line.wants_help && line.words.is_empty() => {
                    line.words.push(Word {
                        text: self.text.to_string(),
                        at: self.at(0),
                    });
                }
                None => diagnostics.error(Some(self.whole()), "", self.unknown()),
            }
            return;
        };
        if line.words.len() < verb.max_words {
            line.words.push(Word {
                text: self.text.to_string(),
                at: self.at(0),
            });
        } else if verbs.iter().any(|verb| verb.name == &*self.text) {
            diagnostics.error(Some(self.whole()), &self.text, "a second command");
        } else {
            diagnostics.error(Some(self.whole()), "", self.unknown());
        }
    }

    fn unknown(&self) -> String {
        let text = &*self.text;
        let Grammar { table, verbs, .. } = *self.grammar;
        if text.is_empty() {
            return "an empty argument".to_owned();
        }
        if let Some(key) = table.find(text) {
            return format!("expected {text}=VALUE, with {}", super::help::value(key));
        }
        let near = match key::nearest(text, verbs.iter().map(|verb| verb.name)) {
            Some(near) => format!("; did you mean {near}?"),
            None => match table.nearest(text) {
                Some(near) => format!("; did you mean {near}=VALUE?"),
                None => String::new(),
            },
        };
        let found = quoted(text);
        format!("expected a command or option=value, found {found}{near}")
    }
}

/// The option of that name, or an error that names the nearest.
pub(crate) fn find(
    grammar: &Grammar,
    name: &str,
    place: impl Fn() -> Place,
    diagnostics: &mut Diagnostics,
) -> Option<&'static Key> {
    let Grammar { program, table, .. } = *grammar;
    if let Some(key) = table.find(name) {
        return Some(key);
    }
    if let Some(key) = table.find_original(name) {
        let text = format!("the original's name, read as {}", key.name);
        diagnostics.notice(Some(place()), name, text);
        return Some(key);
    }
    let text = match table.nearest(name) {
        _ if name.is_empty() => "expected the name of an option before =".to_owned(),
        Some(near) => format!("unknown option; did you mean {near}?"),
        None => format!("unknown option; see {program} help"),
    };
    diagnostics.error(Some(place()), name, text);
    None
}
