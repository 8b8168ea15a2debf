//! One option as it was given: its key, its text, and where every letter of it
//! stands in the command line or in the file.

use std::ops::Range;
use std::sync::Arc;

use super::key::Key;
use super::place::{Place, Source, quoted};

/// One option as it was given.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// Which option.
    pub(crate) key: &'static Key,
    /// Its value, without quotes.
    pub(crate) text: String,
    /// Where the value stands.
    pub(crate) at: At,
}

/// Where a value stands.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub(crate) source: Source,
    pub(crate) row: u32,
    pub(crate) line: Arc<str>,
    /// Byte of the line where the value begins, behind an opening quote.
    pub(crate) start: usize,
    /// Whether backslashes before `"` and `\` were taken away.
    pub(crate) unescaped: bool,
}

impl At {
    /// The place of these bytes of the value, with the caret at byte `caret`.
    pub(crate) fn place(&self, text: &str, bytes: Range<usize>, caret: usize) -> Place {
        let start = self.column(text, bytes.start);
        let end = self.column(text, bytes.end);
        Place {
            source: self.source.clone(),
            row: self.row,
            column: self.column(text, caret),
            start,
            width: end.saturating_sub(start).max(1),
            line: Arc::clone(&self.line),
        }
    }

    /// Column, from 1, of byte `byte` of the value.
    fn column(&self, text: &str, byte: usize) -> u32 {
        let (before, value) = self
            .line
            .split_at_checked(self.start)
            .unwrap_or((&self.line, ""));
        let inside = text.get(..byte.min(text.len())).unwrap_or(text);
        let mut column = before.chars().count() + 1;
        let mut written = value.chars().peekable();
        for c in inside.chars() {
            column += 1;
            let first = written.next();
            let escaped = self.unescaped && first == Some('\\') && c != '\\';
            let doubled = self.unescaped && c == '\\' && written.peek() == Some(&'\\');
            if escaped || doubled {
                column += 1;
                written.next();
            }
        }
        u32::try_from(column).unwrap_or(u32::MAX)
    }
}

impl Given {
    /// The place of the whole value.
    pub(crate) fn place(&self) -> Place {
        self.at.place(&self.text, 0..self.text.len(), 0)
    }

    /// The place of a part of the value.
    pub(crate) fn place_of(&self, bytes: Range<usize>, caret: usize) -> Place {
        self.at.place(&self.text, bytes, caret)
    }
}

/// Why a text is not a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// What is wrong, and what was expected.
    pub(crate) text: String,
    /// The bytes at fault.
    pub(crate) bytes: Range<usize>,
    /// The byte at which the fault shows.
    pub(crate) caret: usize,
}

impl Wrong {
    /// `expected WHAT, found "TEXT"`, with the caret at byte `caret` of it.
    pub(crate) fn expected(what: &str, text: &str, caret: usize) -> Self {
        let found = if text.is_empty() {
            "nothing".to_owned()
        } else {
            quoted(text)
        };
        Self {
            text: format!("expected {what}, found {found}"),
            bytes: 0..text.len(),
            caret,
        }
    }

    /// A sentence of its own about the whole of a text.
    pub(crate) fn says(sentence: impl Into<String>, text: &str) -> Self {
        Self {
            text: sentence.into(),
            bytes: 0..text.len(),
            caret: 0,
        }
    }

    /// The same fault in a text in which this one begins at byte `by`.
    pub(crate) fn moved(self, by: usize) -> Self {
        Self {
            bytes: self.bytes.start + by..self.bytes.end + by,
            caret: self.caret + by,
            ..self
        }
    }
}
