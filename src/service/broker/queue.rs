//! The bytes that wait for one connection, as whole frames that can still be
//! dropped.
//!
//! Invariants:
//! - Frames leave in the order in which they came.
//! - A frame of which a part has left is never dropped, so that the stream is
//!   never torn.
//! - What is dropped is counted, for each subscription, in a GAP at its place.
//!
//! Not here: bounds, sockets, locks.

// Sums and differences of lengths of buffers that are in memory: no sum can reach the
// end of usize, and a difference that is wrong ends its connection, as arithmetic is
// checked in release builds as well. A saturating one would hide it.
#![allow(clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use crate::frame::{Frame, HEADER_BYTES, Kind, Subject};

use super::run::{QueuedRun, Run};

/// Small frames are collected in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces of one vectored write; writev(2) takes 1024.
const MOST_SLICES: usize = 128;
/// From here on a run is not copied for each queue that it waits in, but shared.
const SHARED_RUN_BYTES: usize = 8 << 10;
/// From here on the frames of a run are shared though their headers differ, on the
/// average of them. Below it, two slices for each would weigh more than a copy.
const SHARED_FRAME_BYTES: usize = 1 << 10;

#[derive(Debug, Default)]
pub(super) struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

#[derive(Debug)]
enum Piece {
    /// Whole frames from `boundary` on; what is before `start` has left.
    Frames {
        bytes: Vec<u8>,
        start: usize,
        boundary: usize,
        keep: bool,
    },
    /// One frame whose data other connections share.
    Shared {
        head: Box<[u8]>,
        data: Arc<[u8]>,
        start: usize,
    },
    /// Messages of one subscription, which other connections share.
    Run(QueuedRun),
    /// Dropped messages, by subscription.
    Gaps(BTreeMap<u64, u64>),
}

/// The fields of a header that this room needs.
struct Peek {
    total: usize,
    is_message: bool,
    is_request: bool,
    subject_bytes: usize,
    id: u64,
}

fn peek(bytes: &[u8]) -> Option<Peek> {
    let [l0, l1, l2, l3, kind, _, s0, s1, id @ ..] = *bytes.first_chunk::<HEADER_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).ok()?;
    Some(Peek {
        total: HEADER_BYTES + length,
        is_message: kind == Kind::Message.to_wire(),
        is_request: kind == Kind::Deliver.to_wire(),
        subject_bytes: usize::from(u16::from_be_bytes([s0, s1])),
        id: u64::from_be_bytes(id),
    })
}

/// The start of the frame in which the byte at `at` lies, where `bytes` starts
/// with a whole frame.
pub(super) fn frame_start(bytes: &[u8], at: usize) -> usize {
    let mut start = 0;
    while let Some(frame) = bytes.get(start..).and_then(peek) {
        if start + frame.total > at {
            break;
        }
        start += frame.total;
    }
    start
}

impl Queue {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Appends whole frames by copying them.
    pub(super) fn push(&mut self, frames: &[u8]) {
        self.bytes += frames.len();
        if let Some(Piece::Frames {
            bytes, keep: false, ..
        }) = self.pieces.back_mut()
            && bytes.len() + frames.len() <= PIECE_BYTES
        {
            bytes.extend_from_slice(frames);
            return;
        }
        self.pieces.push_back(Piece::Frames {
            bytes: frames.to_vec(),
            start: 0,
            boundary: 0,
            keep: false,
        });
    }

    /// Appends a frame that `encode` writes.
    pub(super) fn push_frame(&mut self, frame: &Frame<'_>) {
        let length = HEADER_BYTES + frame.length();
        self.bytes += length;
        if let Some(Piece::Frames {
            bytes, keep: false, ..
        }) = self.pieces.back_mut()
            && bytes.len() + length <= PIECE_BYTES
        {
            frame.encode(bytes);
            return;
        }
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.pieces.push_back(Piece::Frames {
            bytes,
            start: 0,
            boundary: 0,
            keep: false,
        });
    }

    /// Appends a run of which `sent` bytes have left already, with `id` in its frames.
    pub(super) fn push_run(&mut self, id: u64, run: &mut Run, sent: usize) {
        let frame_bytes = run.bytes.len() / run.starts.len().max(1);
        let is_worth_it = run.shared_id() == id || frame_bytes >= SHARED_FRAME_BYTES;
        if run.bytes.len() >= SHARED_RUN_BYTES && is_worth_it {
            let run = QueuedRun::new(run.share(), id, sent);
            self.bytes += run.bytes_left();
            self.pieces.push_back(Piece::Run(run));
            return;
        }
        let torn = frame_start(&run.bytes, sent);
        let mut whole = run.bytes.get(torn..).unwrap_or_default();
        if torn < sent
            && let Some(frame) = peek(whole)
            && let Some((first, rest)) = whole.split_at_checked(frame.total)
        {
            self.push_rest(first, sent - torn);
            whole = rest;
        }
        if !whole.is_empty() {
            self.push(whole);
        }
    }

    /// Appends one frame of which `sent` bytes have left already.
    pub(super) fn push_rest(&mut self, frame: &[u8], sent: usize) {
        self.bytes += frame.len().saturating_sub(sent);
        self.pieces.push_back(Piece::Frames {
            bytes: frame.to_vec(),
            start: sent,
            boundary: 0,
            keep: false,
        });
    }

    /// Appends one frame, head and shared data, of which `sent` bytes have left.
    pub(super) fn push_shared(&mut self, head: &[u8], data: Arc<[u8]>, sent: usize) {
        self.bytes += (head.len() + data.len()).saturating_sub(sent);
        self.pieces.push_back(Piece::Shared {
            head: head.into(),
            data,
            start: sent,
        });
    }

    /// Says at the end that `count` messages of subscription `id` are missing.
    pub(super) fn push_gap(&mut self, id: u64, count: u64) {
        if let Some(Piece::Gaps(gaps)) = self.pieces.back_mut() {
            *gaps.entry(id).or_default() += count;
            return;
        }
        self.pieces
            .push_back(Piece::Gaps(BTreeMap::from([(id, count)])));
    }

    /// Drops messages from the oldest on, of those subscriptions that `droppable`
    /// names, until `need` bytes are free or none is left.
    pub(super) fn drop_oldest(&mut self, need: usize, droppable: impl Fn(u64) -> bool) {
        self.drop_to(self.bytes.saturating_sub(need), true, droppable);
    }

    /// Drops every message of one subscription, or of all.
    pub(super) fn drop_all(&mut self, subscription: Option<u64>) {
        for piece in &mut self.pieces {
            if let Piece::Frames { keep, .. } = piece {
                *keep = false;
            }
        }
        self.drop_to(0, false, |id| {
            subscription.is_none_or(|wanted| wanted == id)
        });
    }

    /// Takes out requests of which nothing has left and whose subject is not
    /// `permitted`; returns their numbers.
    pub(super) fn take_requests(&mut self, permitted: impl Fn(Subject<'_>) -> bool) -> Vec<u64> {
        let mut taken = Vec::new();
        for piece in &mut self.pieces {
            let Piece::Frames {
                bytes,
                start,
                boundary,
                ..
            } = piece
            else {
                continue;
            };
            let mut at = *boundary;
            while let Some(frame) = bytes.get(at..).and_then(peek) {
                let payload = at + HEADER_BYTES;
                let subject = bytes.get(payload..payload + frame.subject_bytes);
                let is_permitted = subject.and_then(Subject::new).is_some_and(&permitted);
                if frame.is_request && at >= *start && !is_permitted {
                    bytes.drain(at..at + frame.total);
                    self.bytes -= frame.total;
                    taken.push(frame.id);
                } else {
                    at += frame.total;
                }
            }
        }
        let is_over = |piece: &Piece| match piece {
            Piece::Frames { bytes, start, .. } => *start >= bytes.len(),
            Piece::Shared { .. } | Piece::Run(_) | Piece::Gaps(_) => false,
        };
        self.pieces.retain(|piece| !is_over(piece));
        taken
    }

    /// `keep`: what stays of a piece need not be looked at again.
    fn drop_to(&mut self, enough: usize, keep: bool, droppable: impl Fn(u64) -> bool) {
        let mut gaps = BTreeMap::new();
        let mut index = 0;
        while self.bytes > enough && index < self.pieces.len() {
            let Some(piece) = self.pieces.remove(index) else {
                break;
            };
            match piece {
                Piece::Gaps(earlier) => {
                    for (id, count) in earlier {
                        *gaps.entry(id).or_default() += count;
                    }
                }
                Piece::Shared {
                    ref head,
                    ref data,
                    start: 0,
                } if peek(head).is_some_and(|frame| frame.is_message && droppable(frame.id)) => {
                    self.bytes -= head.len() + data.len();
                    if let Some(frame) = peek(head) {
                        *gaps.entry(frame.id).or_default() += 1;
                    }
                }
                Piece::Run(run) if droppable(run.id) => {
                    let count = gaps.entry(run.id).or_default();
                    index += self.drop_run(index, run, enough, count);
                }
                Piece::Frames {
                    bytes,
                    start,
                    boundary,
                    keep: false,
                } => {
                    let split = self.split(&bytes, start, boundary, enough, &droppable, &mut gaps);
                    index += self.put_back(index, bytes, &split, keep);
                }
                other => {
                    self.pieces.insert(index, other);
                    index += 1;
                }
            }
        }
        gaps.retain(|_, count| *count > 0);
        if !gaps.is_empty() {
            self.pieces
                .insert(index.min(self.pieces.len()), Piece::Gaps(gaps));
        }
    }

    /// Drops the oldest messages of a run that was at `index`, counts them, and puts
    /// back what stays; returns how many pieces lie before the place of its gap.
    fn drop_run(
        &mut self,
        index: usize,
        mut run: QueuedRun,
        enough: usize,
        count: &mut u64,
    ) -> usize {
        let mut before = 0;
        // A frame that has left in part goes on first.
        let bytes = run.take_torn();
        if !bytes.is_empty() {
            let boundary = bytes.len();
            let (start, keep) = (0, true);
            self.pieces.insert(
                index,
                Piece::Frames {
                    bytes,
                    start,
                    boundary,
                    keep,
                },
            );
            before = 1;
        }
        while self.bytes > enough
            && let Some(dropped) = run.drop_first()
        {
            self.bytes -= dropped;
            *count += 1;
        }
        if run.bytes_left() > 0 {
            self.pieces.insert(index + before, Piece::Run(run));
        }
        before
    }

    /// Decides what of a piece stays.
    fn split(
        &mut self,
        bytes: &[u8],
        start: usize,
        boundary: usize,
        enough: usize,
        droppable: &impl Fn(u64) -> bool,
        gaps: &mut BTreeMap<u64, u64>,
    ) -> Split {
        let mut at = boundary;
        while at < start {
            match bytes.get(at..).and_then(peek) {
                Some(frame) => at += frame.total,
                None => break,
            }
        }
        // A frame that has left in part, if any, goes on first.
        let first = bytes.get(start..at).unwrap_or_default();
        let mut split = Split {
            kept: first.to_vec(),
            torn: first.len(),
            rest: bytes.len(),
        };
        while let Some(frame) = bytes.get(at..).and_then(peek) {
            if self.bytes <= enough {
                break;
            }
            let end = at + frame.total;
            if frame.is_message && droppable(frame.id) {
                *gaps.entry(frame.id).or_default() += 1;
                self.bytes -= frame.total;
            } else {
                split
                    .kept
                    .extend_from_slice(bytes.get(at..end).unwrap_or_default());
            }
            at = end;
        }
        split.rest = at;
        split
    }

    /// Puts what stays of a piece back at `index`; returns how many pieces lie
    /// before the place of its gap.
    fn put_back(&mut self, index: usize, bytes: Vec<u8>, split: &Split, keep: bool) -> usize {
        let mut before = 0;
        let joined = split.kept.is_empty() || keep && self.join_kept(index, split);
        if !joined {
            // The torn part isn't a frame, so the walk must begin after it.
            let (bytes, boundary) = (split.kept.clone(), split.torn);
            let start = 0;
            self.pieces.insert(
                index,
                Piece::Frames {
                    bytes,
                    start,
                    boundary,
                    keep: true,
                },
            );
            before = 1;
        }
        if split.rest < bytes.len() {
            let (start, boundary) = (split.rest, split.rest);
            let rest = Piece::Frames {
                bytes,
                start,
                boundary,
                keep: false,
            };
            self.pieces.insert(index + before, rest);
        }
        before
    }

    /// Joins small kept parts, so that their number stays small.
    fn join_kept(&mut self, index: usize, split: &Split) -> bool {
        let previous = index
            .checked_sub(1)
            .and_then(|before| self.pieces.get_mut(before));
        match previous {
            Some(Piece::Frames {
                bytes, keep: true, ..
            }) if bytes.len() + split.kept.len() <= PIECE_BYTES => {
                bytes.extend_from_slice(&split.kept);
                true
            }
            _ => false,
        }
    }

    /// What to write next, oldest first, for one vectored write.
    pub(super) fn slices(&mut self) -> Vec<IoSlice<'_>> {
        for piece in self.pieces.iter_mut().take(MOST_SLICES) {
            if let Piece::Gaps(gaps) = piece {
                let mut bytes = Vec::new();
                for (&id, &count) in gaps.iter() {
                    Frame::Gap { id, count }.encode(&mut bytes);
                }
                self.bytes += bytes.len();
                *piece = Piece::Frames {
                    bytes,
                    start: 0,
                    boundary: 0,
                    keep: true,
                };
            }
        }
        let mut slices = Vec::with_capacity(MOST_SLICES.min(self.pieces.len() * 2));
        for piece in &self.pieces {
            if slices.len() + 2 > MOST_SLICES {
                break;
            }
            match piece {
                Piece::Frames { bytes, start, .. } => {
                    slices.push(IoSlice::new(bytes.get(*start..).unwrap_or_default()));
                }
                Piece::Shared { head, data, start } => {
                    let head_left = head.get(*start..).unwrap_or_default();
                    let data_from = start.saturating_sub(head.len());
                    if !head_left.is_empty() {
                        slices.push(IoSlice::new(head_left));
                    }
                    slices.push(IoSlice::new(data.get(data_from..).unwrap_or_default()));
                }
                // What finds no place comes before what follows it.
                Piece::Run(run) => run.slices(MOST_SLICES, &mut slices),
                Piece::Gaps(_) => break,
            }
        }
        slices
    }

    /// Says that the oldest `sent` bytes have left.
    pub(super) fn advance(&mut self, mut sent: usize) {
        self.bytes = self.bytes.saturating_sub(sent);
        while let Some(piece) = self.pieces.front_mut() {
            let (length, start) = match piece {
                Piece::Frames { bytes, start, .. } => (bytes.len(), start),
                Piece::Shared { head, data, start } => (head.len() + data.len(), start),
                Piece::Run(run) => run.progress(),
                Piece::Gaps(_) => return,
            };
            if sent < length - *start {
                *start += sent;
                return;
            }
            sent -= length - *start;
            self.pieces.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What stays of a piece: some frames, then everything from `rest` on.
struct Split {
    kept: Vec<u8>,
    /// Bytes at the start of `kept` that end a frame of which a part has left.
    torn: usize,
    rest: usize,
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
