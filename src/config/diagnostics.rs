//! What is wrong with a configuration, all of it at once, each with its place.
//!
//! A diagnostic prints as `parameters.conf:7:18: max_connections: expected a
//! number from 1 to 65535, found "2OO"`, then the line, then a mark under the
//! value with a caret at the letter in question. Places on the command line are
//! `command line:ARGUMENT:COLUMN`, both counted from 1.
//!
//! - An error forbids to start; with one, warnings and notices are not said.
//! - How much is said is bounded.

use std::fmt;

use super::place::{Escaped, Place, Source, excerpt};
use crate::exit;

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
