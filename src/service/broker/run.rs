//! Messages that are encoded once for all who get them.

// Sums and differences of lengths of buffers that are in memory, as in `queue`.
#![allow(clippy::arithmetic_side_effects)]

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

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
    shared: Option<Arc<SharedRun>>,
}

/// A run as it waits in queues: one copy for all who can't take it at once.
#[derive(Debug)]
pub(super) struct SharedRun {
    bytes: Box<[u8]>,
    /// Where each frame starts.
    starts: Box<[usize]>,
    /// The id in its frames.
    id: u64,
}

impl SharedRun {
    /// Number and place of the frame in which the byte at `at` lies.
    fn frame_at(&self, at: usize) -> Option<(usize, Range<usize>)> {
        if at >= self.bytes.len() {
            return None;
        }
        let next = self.starts.partition_point(|start| *start <= at);
        let number = next.checked_sub(1)?;
        let end = self.starts.get(next).copied().unwrap_or(self.bytes.len());
        Some((number, *self.starts.get(number)?..end))
    }
}

/// A shared run in one queue, for one subscription.
#[derive(Debug)]
pub(super) struct QueuedRun {
    run: Arc<SharedRun>,
    /// The subscription.
    pub(super) id: u64,
    /// Its headers, where those of the run carry another id; else empty.
    heads: Box<[u8]>,
    /// What is before has left.
    start: usize,
}

impl QueuedRun {
    /// `sent` bytes have left already.
    pub(super) fn new(run: Arc<SharedRun>, id: u64, sent: usize) -> Self {
        let mut heads = Vec::new();
        if run.id != id {
            heads.reserve_exact(run.starts.len() * HEADER_BYTES);
            for start in &run.starts {
                heads.extend_from_slice(run.bytes.get(*start..start + 8).unwrap_or_default());
                heads.extend_from_slice(&id.to_be_bytes());
            }
        }
        Self {
            run,
            id,
            heads: heads.into(),
            start: sent,
        }
    }

    pub(super) fn bytes_left(&self) -> usize {
        self.run.bytes.len().saturating_sub(self.start)
    }

    /// Its length, and how much of that has left.
    pub(super) fn progress(&mut self) -> (usize, &mut usize) {
        (self.run.bytes.len(), &mut self.start)
    }

    /// What has not left, appended to `slices` as long as these are at most `most`.
    pub(super) fn slices<'q>(&'q self, most: usize, slices: &mut Vec<IoSlice<'q>>) {
        if self.heads.is_empty() {
            let left = self.run.bytes.get(self.start..).unwrap_or_default();
            slices.push(IoSlice::new(left));
            return;
        }
        let mut at = self.start;
        while slices.len() + 2 <= most
            && let Some((number, frame)) = self.run.frame_at(at)
        {
            if let Some(head) = self.head(number, at - frame.start) {
                slices.push(IoSlice::new(head));
            }
            let rest = at.max(frame.start + HEADER_BYTES)..frame.end;
            slices.push(IoSlice::new(self.run.bytes.get(rest).unwrap_or_default()));
            at = frame.end;
        }
    }

    /// What is left of a header of which `sent` bytes have left.
    fn head(&self, number: usize, sent: usize) -> Option<&[u8]> {
        let first = number * HEADER_BYTES;
        let head = self.heads.get(first + sent..first + HEADER_BYTES)?;
        (!head.is_empty()).then_some(head)
    }

    /// The frames of which nothing has left.
    pub(super) fn whole_frames(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.run.starts.iter().skip(1).copied();
        let ends = ends.chain([self.run.bytes.len()]);
        let frames = self.run.starts.iter().copied().zip(ends);
        let whole = frames.filter(|(start, _)| *start >= self.start);
        whole.map(|(start, end)| self.run.bytes.get(start..end).unwrap_or_default())
    }

    /// Takes out the rest of a frame that has left in part, if there is one.
    pub(super) fn take_torn(&mut self) -> Vec<u8> {
        let Some((_, frame)) = self.run.frame_at(self.start) else {
            return Vec::new();
        };
        let sent = self.start - frame.start;
        if sent == 0 {
            return Vec::new();
        }
        self.start = frame.end;
        let mut bytes = self.run.bytes.get(frame).unwrap_or_default().to_vec();
        if let Some(place) = bytes.get_mut(8..HEADER_BYTES) {
            place.copy_from_slice(&self.id.to_be_bytes());
        }
        bytes.split_off(sent)
    }

    /// Drops the first frame, which has not left in part; returns its length.
    pub(super) fn drop_first(&mut self) -> Option<usize> {
        let (_, frame) = self.run.frame_at(self.start)?;
        self.start = frame.end;
        Some(frame.len())
    }
}

impl Run {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
        (self.longest, self.id) = (0, 0);
        self.shared = None;
    }

    /// One that queues can share.
    pub(super) fn share(&mut self) -> Arc<SharedRun> {
        let share = || {
            Arc::new(SharedRun {
                bytes: self.bytes.as_slice().into(),
                starts: self.starts.as_slice().into(),
                id: self.id,
            })
        };
        Arc::clone(self.shared.get_or_insert_with(share))
    }

    /// The id in the shared one, or that would be.
    pub(super) fn shared_id(&self) -> u64 {
        self.shared.as_ref().map_or(self.id, |shared| shared.id)
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
        let at = HEADER_BYTES.saturating_add(subject_bytes).saturating_add(8);
        for (sequence, start) in (first..).zip(&self.starts) {
            let frame = self.bytes.get_mut(*start..);
            let stamp = frame.and_then(|frame| frame.get_mut(at..));
            if let Some(place) = stamp.and_then(<[u8]>::first_chunk_mut::<8>) {
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
            let frame = self.bytes.get_mut(*start..);
            if let Some(place) = frame.and_then(|frame| frame.get_mut(8..HEADER_BYTES)) {
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
