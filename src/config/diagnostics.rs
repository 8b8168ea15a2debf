//! What is wrong with a configuration, all of it at once, each with its place.
//!
//! A diagnostic prints as `parameters.conf:7:18: max_connections: expected a
//! number from 1 to 65535, found "2OO"`, then the line, then a mark under the
//! value with a caret at the letter in question. Places on the command line are
//! `command line:ARGUMENT:COLUMN`, both counted from 1.
//!
//! - Text from outside is escaped: no control character, no bidirectional mark
//!   and no second line gets from an argument or a file to a terminal.
//! - Columns count characters, not bytes.

use std::fmt;
use std::sync::Arc;

use crate::exit;

/// Where a text was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An argument of the program.
    CommandLine,
    /// A file, by the name that was given for it.
    File(Arc<str>),
}

/// A stretch of text in the command line or in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the two.
    pub source: Source,
    /// The argument or line, counted from 1.
    pub row: u32,
    /// The first character, counted from 1.
    pub column: u32,
    /// Of the characters that are marked, the one before which the mark begins,
    /// counted from 1; at most `column`.
    pub start: u32,
    /// How many characters are marked, at least 1.
    pub width: u32,
    /// The whole argument or line.
    pub line: Arc<str>,
}

impl Place {
    /// Source and row, without the column: where a value came from.
    pub fn origin(&self) -> String {
        match &self.source {
            Source::CommandLine => format!("command line:{}", self.row),
            Source::File(name) => format!("{}:{}", Escaped(name), self.row),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin(), self.column)
    }
}

/// How much a diagnostic weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Nothing is started.
    Error,
    /// It works, but something should be looked at.
    Warning,
    /// Said for completeness.
    Notice,
}

/// One thing to say about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it weighs.
    pub weight: Weight,
    /// Where, if it has a place.
    pub place: Option<Place>,
    /// About which option, if it is about one; the name as it was given.
    pub option: Option<String>,
    /// What is wrong, and what was expected.
    pub text: String,
    /// The exit code that it stands for.
    code: u8,
}

impl fmt::Display for Diagnostic {
    /// One or three lines, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        match self.weight {
            Weight::Error => {}
            Weight::Warning => f.write_str("warning: ")?,
            Weight::Notice => f.write_str("notice: ")?,
        }
        if let Some(option) = &self.option {
            write!(f, "{}: ", Escaped(option))?;
        }
        f.write_str(&self.text)?;
        match &self.place {
            Some(place) if !place.line.is_empty() => excerpt(f, place),
            Some(_) | None => Ok(()),
        }
    }
}

/// How much of a line is shown on either side of the mark.
const SHOWN: usize = 60;

/// The line and the mark below it.
fn excerpt(f: &mut fmt::Formatter<'_>, place: &Place) -> fmt::Result {
    let column = |number: u32| {
        usize::try_from(number)
            .unwrap_or(usize::MAX)
            .saturating_sub(1)
    };
    let (caret, start) = (column(place.column), column(place.start));
    let end = start
        .saturating_add(usize::try_from(place.width).unwrap_or(usize::MAX))
        .max(caret + 1);
    let (first, last) = (caret.saturating_sub(SHOWN), caret.saturating_add(SHOWN));
    let mut shown = String::from(if first > 0 { "..." } else { "" });
    let mut mark = " ".repeat(shown.len());
    let mut length = 0;
    for (i, c) in place.line.chars().enumerate() {
        length = i + 1;
        if i < first || i >= last {
            continue;
        }
        let before = shown.len();
        let width_before = shown.chars().count();
        push_escaped(&mut shown, c);
        let width = shown.get(before..).map_or(1, |text| text.chars().count());
        debug_assert!(shown.chars().count() == width_before + width);
        match i {
            _ if i == caret => mark.push_str(&format!("^{}", "~".repeat(width - 1))),
            _ if i >= start && i < end => mark.push_str(&"~".repeat(width)),
            _ => mark.push_str(&" ".repeat(width)),
        }
    }
    if caret >= length {
        mark.push('^');
    }
    if length > last {
        shown.push_str("...");
    }
    write!(f, "\n    {shown}\n    {}", mark.trim_end())
}

/// Text as it may be shown: control characters, bidirectional marks and line
/// separators as `\n`, `\u{202e}` and so on, and a backslash doubled.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(self.0.len());
        self.0.chars().for_each(|c| push_escaped(&mut text, c));
        f.write_str(&text)
    }
}

fn push_escaped(text: &mut String, c: char) {
    match c {
        '\t' | '\n' | '\r' | '\\' => text.extend(c.escape_default()),
        '\u{200e}'
        | '\u{200f}'
        | '\u{061c}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => {
            text.extend(c.escape_unicode());
        }
        c if c.is_control() => text.extend(c.escape_unicode()),
        c => text.push(c),
    }
}

/// A text in double quotes, escaped, cut after 64 characters.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((at, _)) => format!("\"{}...\"", Escaped(text.get(..at).unwrap_or_default())),
        None => format!("\"{}\"", Escaped(text)),
    }
}

/// All that there is to say about a configuration, in the order in which it was
/// found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    /// How many there were beyond `MOST` of one weight.
    more: usize,
}

/// How many of each weight are kept: enough for any real file, and a bound for
/// one that is no configuration at all.
const MOST: usize = 500;

impl Diagnostics {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Whether one of them forbids to start.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.weight == Weight::Error)
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The code to exit with: that of a bad command line if an error is there,
    /// else that of a bad configuration; 0 without an error.
    pub fn exit_code(&self) -> u8 {
        let codes = self
            .list
            .iter()
            .filter(|d| d.weight == Weight::Error)
            .map(|d| d.code);
        codes.min().unwrap_or(exit::OK)
    }

    /// The errors alone: beside them, warnings about a configuration that is not
    /// to be are noise.
    pub(super) fn into_errors(self) -> Self {
        let errors = self.list.into_iter().filter(|d| d.weight == Weight::Error);
        Self {
            list: errors.collect(),
            more: self.more,
        }
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        let alike = self.list.iter().filter(|d| d.weight == diagnostic.weight);
        if alike.count() >= MOST {
            self.more += 1;
        } else if !self.list.contains(&diagnostic) {
            // One fault in one place is said once, however many rules it breaks.
            self.list.push(diagnostic);
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        self.more += other.more;
        other
            .list
            .into_iter()
            .for_each(|diagnostic| self.push(diagnostic));
    }

    pub(super) fn error(&mut self, place: Option<Place>, option: &str, text: impl Into<String>) {
        self.add(Weight::Error, place, option, text.into());
    }

    pub(super) fn warning(&mut self, place: Option<Place>, option: &str, text: impl Into<String>) {
        self.add(Weight::Warning, place, option, text.into());
    }

    pub(super) fn notice(&mut self, place: Option<Place>, option: &str, text: impl Into<String>) {
        self.add(Weight::Notice, place, option, text.into());
    }

    /// An error in the command line as a whole.
    pub(super) fn bad_usage(&mut self, text: &str) {
        let (place, option, text) = (None, None, text.to_owned());
        self.push(Diagnostic {
            weight: Weight::Error,
            place,
            option,
            text,
            code: exit::USAGE,
        });
    }

    /// An error whose place is on the command line, but whose cause is not: the
    /// file that is named there.
    pub(super) fn bad_file(&mut self, place: Option<Place>, option: &str, text: String) {
        let option = Some(option.to_owned());
        self.push(Diagnostic {
            weight: Weight::Error,
            place,
            option,
            text,
            code: exit::CONFIG,
        });
    }

    fn add(&mut self, weight: Weight, place: Option<Place>, option: &str, text: String) {
        let option = (!option.is_empty()).then(|| option.to_owned());
        let code = match place.as_ref().map(|place| &place.source) {
            Some(Source::CommandLine) => exit::USAGE,
            Some(Source::File(_)) | None => exit::CONFIG,
        };
        self.push(Diagnostic {
            weight,
            place,
            option,
            text,
            code,
        });
    }

    /// Sorts by place: the command line first, then the file from its first line
    /// to its last, then what has no place. What shares a place keeps its order.
    pub(super) fn sort(&mut self) {
        self.list.sort_by_key(|d| match &d.place {
            Some(Place {
                source: Source::CommandLine,
                row,
                column,
                ..
            }) => (0, *row, *column),
            Some(Place {
                source: Source::File(_),
                row,
                column,
                ..
            }) => (1, *row, *column),
            None => (2, 0, 0),
        });
    }
}

impl fmt::Display for Diagnostics {
    /// Each on its own lines, each line ended by a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = self.list.iter();
        list.try_for_each(|diagnostic| writeln!(f, "{diagnostic}"))?;
        match self.more {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, column: u32, start: u32, width: u32, expected: &str) {
        let place = Place {
            source: Source::File("parameters.conf".into()),
            row: 7,
            column,
            start,
            width,
            line: line.into(),
        };
        let mut list = Diagnostics::default();
        list.error(Some(place), "name", "wrong");
        assert_eq!(list.to_string(), expected);
    }

    #[test]
    fn the_caret_is_under_the_letter_and_the_value_is_marked() {
        check(
            "max_connections=2OO",
            18,
            17,
            3,
            "parameters.conf:7:18: name: wrong\n    max_connections=2OO\n                    ~^~\n",
        );
    }

    #[test]
    fn the_caret_stands_behind_a_value_that_is_missing() {
        check(
            "port=",
            6,
            6,
            1,
            "parameters.conf:7:6: name: wrong\n    port=\n         ^\n",
        );
    }

    #[test]
    fn what_would_move_the_cursor_is_escaped_and_the_mark_keeps_its_column() {
        check(
            "\tp=\u{1b}[0mx",
            4,
            4,
            5,
            "parameters.conf:7:4: name: wrong\n    \\tp=\\u{1b}[0mx\n        ^~~~~~~~~~\n",
        );
    }

    #[test]
    fn a_long_line_is_cut_on_both_sides() {
        let line = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let expected = format!(
            "parameters.conf:7:501: name: wrong\n    ...{}X{}...\n    {}^\n",
            "a".repeat(60),
            "b".repeat(59),
            " ".repeat(63)
        );
        check(&line, 501, 501, 1, &expected);
    }

    #[test]
    fn an_error_on_the_command_line_decides_the_exit_code() {
        let place = |source| {
            Some(Place {
                source,
                row: 1,
                column: 1,
                start: 1,
                width: 1,
                line: "x".into(),
            })
        };
        let mut list = Diagnostics::default();
        list.notice(place(Source::CommandLine), "", "a");
        assert_eq!(list.exit_code(), exit::OK);
        list.error(place(Source::File("f".into())), "", "b");
        assert_eq!(list.exit_code(), exit::CONFIG);
        list.error(place(Source::CommandLine), "", "c");
        assert_eq!(list.exit_code(), exit::USAGE);
    }
}
