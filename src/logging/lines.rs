//! Rendered lines: a stretch of bytes, and where each line in it ends.

use super::Severity;
use super::line::{Line, NO_SCOPE};

/// The end of one line, and what is to be known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Offset of the byte after the line feed.
    pub(super) end: usize,
    pub(super) severity: Severity,
    pub(super) scope: u8,
    pub(super) micros: u64,
}

/// Whole lines, one after the other.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    pub(super) marks: Vec<Mark>,
}

/// Bytes that a buffer keeps when it is emptied; what a rare burst of long
/// lines took beyond is given back.
const KEPT_BYTES: usize = 512 * 1024;

impl Lines {
    /// Ends a line that was just appended to `bytes`.
    pub(super) fn end_line(&mut self, line: &Line<'_>) {
        let (severity, scope, micros) = (line.severity, line.scope, line.micros);
        self.marks.push(Mark {
            end: self.bytes.len(),
            severity,
            scope,
            micros,
        });
    }

    /// Appends a whole line.
    pub(super) fn push(&mut self, line: &[u8], mark: &Mark) {
        self.bytes.extend_from_slice(line);
        self.marks.push(Mark {
            end: self.bytes.len(),
            ..*mark
        });
    }

    /// Where line `index` begins.
    pub(super) fn start(&self, index: usize) -> usize {
        let before = index
            .checked_sub(1)
            .and_then(|before| self.marks.get(before));
        before.map_or(0, |mark| mark.end)
    }

    /// The lines from `index` on, each with its line feed.
    pub(super) fn iter_from(&self, index: usize) -> impl Iterator<Item = (&[u8], &Mark)> {
        let mut start = self.start(index);
        self.marks.iter().skip(index).map(move |mark| {
            let line = self.bytes.get(start..mark.end).unwrap_or_default();
            start = mark.end;
            (line, mark)
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.marks.clear();
    }
}

/// Which lines a sink takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    /// The logger's own threshold.
    pub(super) base: u8,
    /// The sink's, if it has one.
    pub(super) level: Option<u8>,
}

impl Gate {
    /// A sink with a level of its own takes what is within that and within the
    /// module's, where the module has one; another takes what is within the
    /// module's, or else the logger's.
    pub(super) const fn admits(self, severity: Severity, scope: u8) -> bool {
        let within_scope = scope == NO_SCOPE || (severity as u8) < scope;
        match self.level {
            Some(level) => (severity as u8) < level && within_scope,
            None if scope == NO_SCOPE => (severity as u8) < self.base,
            None => within_scope,
        }
    }
}
