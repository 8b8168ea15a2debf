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

mod dropping;
mod gaps;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::frame::{Frame, HEADER_BYTES, Kind};

use self::gaps::Gaps;
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
    /// What waits, and what the places of gaps are charged for.
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
    /// Messages that are missing here.
    Gaps(Gaps),
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
    /// What it weighs, for the bounds and the account.
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
            self.bytes += gaps.add(id, count);
            return;
        }
        let mut gaps = Gaps::default();
        self.bytes += gaps.add(id, count);
        self.pieces.push_back(Piece::Gaps(gaps));
    }

    /// What to write next, oldest first, for one vectored write.
    pub(super) fn slices(&mut self) -> Vec<IoSlice<'_>> {
        for piece in self.pieces.iter_mut().take(MOST_SLICES) {
            if let Piece::Gaps(gaps) = piece {
                let mut bytes = Vec::new();
                gaps.encode(&mut bytes);
                self.bytes = self.bytes - gaps.charge() + bytes.len();
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

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
