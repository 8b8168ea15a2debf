//! The command line: a command, and `option=value` arguments.
//!
//! `option=value` and `--option=value` are the same. The value is taken as it
//! stands, since the shell has dealt with quotes already. Arguments that are not
//! UTF-8 are refused and shown escaped, never guessed at.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::diagnostics::{Diagnostics, Place, Source, quoted};
use super::given::{At, Given};
use super::key::{self, Key};

/// What the program is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Serve,
    Check,
    Explain,
    Help,
    Version,
}

const VERBS: &[(&str, Verb)] = &[
    ("serve", Verb::Serve),
    ("check", Verb::Check),
    ("explain", Verb::Explain),
    ("help", Verb::Help),
    ("version", Verb::Version),
];

/// A command line, taken apart.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) verb: Verb,
    pub(crate) given: Vec<Given>,
    /// The argument of `help`.
    pub(crate) topic: Option<&'static Key>,
    /// `peer=` of `explain`: its text and where it stands.
    pub(crate) peer: Option<(String, At)>,
    /// The command itself, if it was written.
    pub(crate) verb_place: Option<Place>,
}

/// Takes the arguments apart, without the program's name.
pub(crate) fn read(args: impl Iterator<Item = OsString>, diagnostics: &mut Diagnostics) -> Line {
    let mut line = Line {
        verb: Verb::Serve,
        given: Vec::new(),
        topic: None,
        peer: None,
        verb_place: None,
    };
    let mut asked = None;
    for (row, arg) in (1..).zip(args) {
        let arg = Argument::new(row, &arg);
        if !arg.is_text {
            let place = arg.place(0, arg.text.len());
            diagnostics.error(Some(place), "", "the argument is not UTF-8");
            continue;
        }
        match &*arg.text {
            "-h" | "--help" => asked = asked.or(Some(Verb::Help)),
            "-V" | "--version" => asked = asked.or(Some(Verb::Version)),
            text if text.contains('=') => option(&arg, &mut line, diagnostics),
            text if text.starts_with('-') => stray(&arg, diagnostics),
            _ => word(&arg, &mut line, asked, diagnostics),
        }
    }
    if let Some(verb) = asked {
        line.verb = verb;
    }
    line
}

/// One argument, as text that can be shown.
struct Argument {
    row: u32,
    text: Arc<str>,
    is_text: bool,
}

impl Argument {
    fn new(row: u32, arg: &OsString) -> Self {
        match arg.to_str() {
            Some(text) => Self {
                row,
                text: text.into(),
                is_text: true,
            },
            None => {
                let text: String = arg.as_bytes().escape_ascii().to_string();
                Self {
                    row,
                    text: text.into(),
                    is_text: false,
                }
            }
        }
    }

    /// The place of these bytes.
    fn place(&self, start: usize, end: usize) -> Place {
        self.at(0).place(&self.text, start..end, start)
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
}

/// An argument with `=` in it.
fn option(arg: &Argument, line: &mut Line, diagnostics: &mut Diagnostics) {
    let dashes = if arg.text.starts_with("--") { 2 } else { 0 };
    let body = arg.text.get(dashes..).unwrap_or_default();
    let (name, value) = body.split_once('=').unwrap_or((body, ""));
    let at = arg.at(dashes + name.len() + 1);
    if name == "peer" {
        let earlier = line.peer.replace((value.to_owned(), at));
        if earlier.is_some() {
            let place = arg.place(dashes, dashes + name.len());
            diagnostics.error(Some(place), name, "given twice");
        }
        return;
    }
    let place = || arg.place(dashes, dashes + name.len());
    if let Some(key) = find(name, place, diagnostics) {
        line.given.push(Given {
            key,
            text: value.to_owned(),
            at,
        });
    }
}

/// The option of that name, or an error that names the nearest.
pub(crate) fn find(
    name: &str,
    place: impl Fn() -> Place,
    diagnostics: &mut Diagnostics,
) -> Option<&'static Key> {
    if let Some(key) = key::find(name) {
        return Some(key);
    }
    if let Some(key) = key::find_original(name) {
        let text = format!("the original's name, read as {}", key.name);
        diagnostics.notice(Some(place()), name, text);
        return Some(key);
    }
    let names = key::all().map(|key| key.name);
    let text = match key::nearest(name, names) {
        _ if name.is_empty() => "expected the name of an option before =".to_owned(),
        Some(near) => format!("unknown option; did you mean {near}?"),
        None => "unknown option; see secure_socket help".to_owned(),
    };
    diagnostics.error(Some(place()), name, text);
    None
}

/// An argument without `=` that begins with a dash.
fn stray(arg: &Argument, diagnostics: &mut Diagnostics) {
    let name = arg.text.trim_start_matches('-');
    let place = Some(arg.place(0, arg.text.len()));
    let text = match key::find(name) {
        Some(key) => format!("expected --{name}=VALUE, with {}", super::help::value(key)),
        None => match key::nearest(name, key::all().map(|key| key.name)) {
            Some(near) => format!("unknown argument; did you mean {near}=VALUE?"),
            None => "unknown argument; see secure_socket help".to_owned(),
        },
    };
    diagnostics.error(place, &arg.text, text);
}

/// An argument that is neither: a command, or the argument of `help`.
fn word(arg: &Argument, line: &mut Line, asked: Option<Verb>, diagnostics: &mut Diagnostics) {
    let place = arg.place(0, arg.text.len());
    let helping = line.verb == Verb::Help || asked == Some(Verb::Help);
    if helping && line.topic.is_none() {
        let name = arg.text.trim_end_matches('=');
        line.topic = find(name, || place.clone(), diagnostics);
        return;
    }
    let verb = VERBS.iter().find(|(name, _)| *name == &*arg.text);
    match verb {
        Some((_, verb)) if line.verb_place.is_none() => {
            line.verb = *verb;
            line.verb_place = Some(place);
        }
        Some(_) => diagnostics.error(Some(place), &arg.text, "a second command"),
        None => diagnostics.error(Some(place), "", unknown_word(&arg.text)),
    }
}

fn unknown_word(text: &str) -> String {
    if text.is_empty() {
        return "an empty argument".to_owned();
    }
    if let Some(key) = key::find(text) {
        return format!("expected {text}=VALUE, with {}", super::help::value(key));
    }
    let verbs = VERBS.iter().map(|(name, _)| *name);
    let near = match key::nearest(text, verbs) {
        Some(near) => format!("; did you mean {near}?"),
        None => String::new(),
    };
    format!(
        "expected a command or option=value, found {}{near}",
        quoted(text)
    )
}
