//! Rendered lines: a stretch of bytes, and where each line in it ends.

use super::Severity;
use super::line::Line;

/// The end of one line, and what is to be known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Offset of the byte after the line feed.
    pub(super) end: usize,
    pub(super) severity: Severity,
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
        let (severity, micros) = (line.severity, line.micros);
        self.marks.push(Mark {
            end: self.bytes.len(),
            severity,
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
