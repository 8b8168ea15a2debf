//! Messages that are encoded once for all who get them.

use crate::frame::{Frame, HEADER_BYTES};

/// Messages of one subject that go to several connections: encoded once, with
/// the subscription's id written in for each.
#[derive(Default)]
pub(super) struct Run {
    pub(super) bytes: Vec<u8>,
    /// Where each frame starts.
    pub(super) starts: Vec<usize>,
    pub(super) longest: usize,
    id: u64,
}

impl Run {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
        (self.longest, self.id) = (0, 0);
    }

    /// Appends a frame with the id 0.
    pub(super) fn push(&mut self, frame: &Frame<'_>) {
        self.starts.push(self.bytes.len());
        self.longest = self.longest.max(frame.length());
        frame.encode(&mut self.bytes);
    }

    /// Writes the places in the order into the stamps, which lie behind a subject
    /// of this length and the connection's number.
    pub(super) fn set_sequence(&mut self, first: u64, subject_bytes: usize) {
        let at = HEADER_BYTES + subject_bytes + 8;
        for (sequence, start) in (first..).zip(&self.starts) {
            if let Some(place) = self.bytes.get_mut(start + at..start + at + 8) {
                place.copy_from_slice(&sequence.to_be_bytes());
            }
        }
    }

    /// Writes the id of a subscription into every frame.
    pub(super) fn set_id(&mut self, id: u64) {
        if self.id == id {
            return;
        }
        let id_bytes = id.to_be_bytes();
        for start in &self.starts {
            if let Some(place) = self.bytes.get_mut(start + 8..start + HEADER_BYTES) {
                place.copy_from_slice(&id_bytes);
            }
        }
        self.id = id;
    }

    /// The frames, one after the other.
    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self
            .starts
            .iter()
            .skip(1)
            .copied()
            .chain([self.bytes.len()]);
        let frame = |(start, end): (&usize, usize)| self.bytes.get(*start..end).unwrap_or_default();
        self.starts.iter().zip(ends).map(frame)
    }
}
