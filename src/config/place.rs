//! Where in the command line or in a file something stands, and how that is
//! shown: the line, and a mark under it.
//!
//! - Text from outside is escaped as in the log: no control character, no
//!   bidirectional mark and no second line gets to a terminal.
//! - Columns count characters, not bytes.

use std::fmt;
use std::sync::Arc;

use crate::logging::escape;

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

/// How much of a line is shown on either side of the mark.
const SHOWN: usize = 60;

/// The line and the mark below it.
pub(super) fn excerpt(f: &mut fmt::Formatter<'_>, place: &Place) -> fmt::Result {
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
        push_escaped(&mut shown, c);
        let width = shown.get(before..).map_or(1, |text| text.chars().count());
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

/// Text as it may be shown on a terminal, with the escapes of the log.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(self.0.len());
        escape::line(self.0, &mut text);
        f.write_str(&text)
    }
}

/// The log's escapes, one character at a time: they keep their columns.
fn push_escaped(text: &mut String, c: char) {
    escape::line(c.encode_utf8(&mut [0; 4]), text);
}

/// A text in double quotes, escaped, cut after 64 characters.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((at, _)) => format!("\"{}...\"", Escaped(text.get(..at).unwrap_or_default())),
        None => format!("\"{}\"", Escaped(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnostics::Diagnostics;
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
            "parameters.conf:7:4: name: wrong\n    \\tp=\\x1b[0mx\n        ^~~~~~~~\n",
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
}
