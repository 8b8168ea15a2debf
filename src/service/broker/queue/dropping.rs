//! What is taken out of a queue: the oldest messages to make room, those of a
//! subscription that ends, requests that are no longer permitted.
//!
//! Not here: when room is to be made.

use super::gaps::Gaps;
use super::{PIECE_BYTES, Piece, Queue, peek};
use crate::frame::{HEADER_BYTES, Subject};
use crate::service::broker::run::QueuedRun;

/// What stays of a piece: some frames, then everything from `rest` on.
struct Split {
    kept: Vec<u8>,
    /// Bytes at the start of `kept` that end a frame of which a part has left.
    torn: usize,
    rest: usize,
}

impl Piece {
    /// Whether it is worth a look when messages are dropped.
    fn may_lose(&self, droppable: &impl Fn(u64) -> bool) -> bool {
        match self {
            Self::Gaps(_) => true,
            Self::Frames { keep, .. } => !keep,
            Self::Run(run) => droppable(run.id),
            Self::Shared { head, start, .. } => {
                let frame = peek(head).filter(|frame| *start == 0 && frame.is_message);
                frame.is_some_and(|frame| droppable(frame.id))
            }
        }
    }
}

/// The subject of a frame, if it is a message.
fn message_subject(frame: &[u8]) -> Option<Subject<'_>> {
    let head = peek(frame).filter(|head| head.is_message)?;
    let subject = frame.get(HEADER_BYTES..HEADER_BYTES + head.subject_bytes)?;
    Subject::new(subject)
}

impl Queue {
    /// Drops messages from the oldest on, of those subscriptions that `droppable`
    /// names, until `need` bytes are free or none is left.
    pub(in crate::service::broker) fn drop_oldest(
        &mut self,
        need: usize,
        droppable: impl Fn(u64) -> bool,
    ) {
        self.drop_to(self.bytes.saturating_sub(need), true, droppable);
    }

    /// Drops every message of one subscription, or of all.
    pub(in crate::service::broker) fn drop_all(&mut self, subscription: Option<u64>) {
        for piece in &mut self.pieces {
            if let Piece::Frames { keep, .. } = piece {
                *keep = false;
            }
        }
        self.drop_to(0, false, |id| {
            subscription.is_none_or(|wanted| wanted == id)
        });
    }

    /// Drops every message of each subscription that has one waiting whose subject is not
    /// `permitted`.
    pub(in crate::service::broker) fn drop_denied(
        &mut self,
        permitted: impl Fn(Subject<'_>) -> bool,
    ) {
        let mut denied = Vec::new();
        let mut look = |id: u64, frame: &[u8]| {
            if !message_subject(frame).is_none_or(&permitted) && !denied.contains(&id) {
                denied.push(id);
            }
        };
        for piece in &self.pieces {
            match piece {
                Piece::Frames {
                    bytes,
                    start,
                    boundary,
                    ..
                } => {
                    let mut at = *boundary;
                    while let Some(frame) = bytes.get(at..).and_then(peek) {
                        if at >= *start {
                            look(frame.id, bytes.get(at..).unwrap_or_default());
                        }
                        at += frame.total;
                    }
                }
                Piece::Shared { head, start: 0, .. } => {
                    if let Some(frame) = peek(head) {
                        look(frame.id, head);
                    }
                }
                Piece::Run(run) => run.whole_frames().for_each(|frame| look(run.id, frame)),
                Piece::Shared { .. } | Piece::Gaps(_) => {}
            }
        }
        for id in denied {
            self.drop_all(Some(id));
        }
    }

    /// Takes out requests of which nothing has left and whose subject is not
    /// `permitted`; returns their numbers.
    pub(in crate::service::broker) fn take_requests(
        &mut self,
        permitted: impl Fn(Subject<'_>) -> bool,
    ) -> Vec<u64> {
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
        let mut gaps = Gaps::default();
        let mut index = 0;
        while self.bytes > enough
            && let Some(piece) = self.pieces.get(index)
        {
            // To take it out and put it back again would move those behind it.
            if !piece.may_lose(&droppable) {
                index += 1;
                continue;
            }
            let Some(piece) = self.pieces.remove(index) else {
                break;
            };
            match piece {
                Piece::Gaps(earlier) => {
                    self.bytes -= earlier.charge();
                    gaps.merge(earlier);
                }
                Piece::Shared { head, data, .. } => {
                    self.bytes -= head.len() + data.len();
                    if let Some(frame) = peek(&head) {
                        gaps.count(frame.id, 1);
                    }
                }
                Piece::Run(run) => index += self.drop_run(index, run, enough, &mut gaps),
                Piece::Frames {
                    bytes,
                    start,
                    boundary,
                    ..
                } => {
                    let split = self.split(&bytes, start, boundary, enough, &droppable, &mut gaps);
                    index += self.put_back(index, bytes, &split, keep);
                }
            }
        }
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
        gaps: &mut Gaps,
    ) -> usize {
        let mut before = 0;
        // A frame that has left in part goes on first.
        let bytes = run.take_torn();
        if !bytes.is_empty() {
            let boundary = bytes.len();
            self.insert_kept(index, bytes, boundary);
            before = 1;
        }
        while self.bytes > enough
            && let Some(dropped) = run.drop_first()
        {
            self.bytes -= dropped;
            gaps.count(run.id, 1);
        }
        if run.bytes_left() > 0 {
            self.pieces.insert(index + before, Piece::Run(run));
        }
        before
    }

    /// Puts back frames that are not dropped; the first whole one begins at `boundary`.
    fn insert_kept(&mut self, index: usize, bytes: Vec<u8>, boundary: usize) {
        let piece = Piece::Frames {
            bytes,
            start: 0,
            boundary,
            keep: true,
        };
        self.pieces.insert(index, piece);
    }

    /// Decides what of a piece stays.
    fn split(
        &mut self,
        bytes: &[u8],
        start: usize,
        boundary: usize,
        enough: usize,
        droppable: &impl Fn(u64) -> bool,
        gaps: &mut Gaps,
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
                gaps.count(frame.id, 1);
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
            self.insert_kept(index, split.kept.clone(), split.torn);
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
}
