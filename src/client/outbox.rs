//! What has still to be sent. Whatever interrupts a send, the next one goes on from the
//! byte where it stopped: the other end reads frames by their lengths, and would take
//! the body of one that was begun twice for frames of its own.
//!
//! Invariants: the bytes begin with a frame (or the greeting), of which the kernel has
//! `sent` bytes; answers to the broker stand behind it and before everything else.
//!
//! Not here: the socket.

use crate::frame::{Frame, HEADER_BYTES};

#[derive(Debug)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// So many of the bytes have left.
    sent: usize,
    /// Where the answers end, if there are any.
    answers_end: usize,
}

impl Outbox {
    /// Nothing else is put in before the greeting has left.
    pub(super) fn new(greeting: Vec<u8>) -> Self {
        Self {
            bytes: greeting,
            sent: 0,
            answers_end: 0,
        }
    }

    pub(super) fn push(&mut self, frame: &Frame<'_>) {
        frame.encode(&mut self.bytes);
    }

    /// Puts whole frames before all that nobody has begun to send, except earlier
    /// answers: a proof must come before what it is asked for.
    pub(super) fn answer(&mut self, frames: Vec<u8>) {
        let (at, length) = (self.answers_end.max(self.begun()), frames.len());
        self.bytes.splice(at..at, frames);
        self.answers_end = at + length;
    }

    /// Whether the broker waits for something: for an answer, or the rest of a frame.
    pub(super) fn is_urgent(&self) -> bool {
        self.sent > 0 || self.answers_end > 0
    }

    /// Bytes of answers that nobody has begun to send.
    pub(super) fn owed(&self) -> usize {
        self.answers_end.saturating_sub(self.begun())
    }

    /// What has not left.
    pub(super) fn left(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// So many bytes more have left.
    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
        let gone = if self.left().is_empty() {
            self.bytes.len()
        } else {
            self.whole_frames_sent()
        };
        self.bytes.drain(..gone);
        self.sent = self.sent.saturating_sub(gone);
        self.answers_end = self.answers_end.saturating_sub(gone);
    }

    pub(super) fn clear(&mut self) {
        self.advance(self.left().len());
    }

    fn whole_frames_sent(&self) -> usize {
        let mut end = 0;
        while let Some(next) = self.end_of(end).filter(|next| *next <= self.sent) {
            end = next;
        }
        end
    }

    /// Where the frame ends that has partly left, or the start.
    fn begun(&self) -> usize {
        match self.sent {
            0 => 0,
            _ => self.end_of(0).unwrap_or(self.bytes.len()),
        }
    }

    /// Where the frame ends that begins at `start`.
    fn end_of(&self, start: usize) -> Option<usize> {
        let length = self.bytes.get(start..)?.first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let end = start.checked_add(HEADER_BYTES)?.checked_add(length)?;
        (end <= self.bytes.len()).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Decoder, FrameLimit, Greeting, Received, Side, Subject};

    fn publish(id: u64, body: &[u8]) -> Frame<'_> {
        let subject = Subject::new(b"a").unwrap();
        Frame::Publish { id, subject, body }
    }

    fn pong(id: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Frame::Pong { id, body: b"tick" }.encode(&mut bytes);
        bytes
    }

    /// The ids of all frames, in the order in which they leave.
    #[track_caller]
    fn ids(bytes: &[u8]) -> Vec<u64> {
        let mut decoder = Decoder::new(Side::Client, FrameLimit::MAX);
        let greeting = Greeting {
            accepts: FrameLimit::MIN,
        };
        decoder.push(&greeting.encode());
        decoder.frames().next();
        let mut found = Vec::new();
        for byte in bytes {
            decoder.push(&[*byte]);
            found.extend(decoder.frames().map(|item| match item.unwrap() {
                Received::Frame(Frame::Publish { id, .. } | Frame::Pong { id, .. }) => id,
                other => panic!("{other:?}"),
            }));
        }
        assert!(decoder.is_between_frames(), "a frame is torn");
        found
    }

    #[test]
    fn wherever_a_send_stops_frames_leave_whole_and_answers_first() {
        let mut whole = Vec::new();
        publish(1, b"first").encode(&mut whole);
        let first = whole.len();
        publish(2, &[0; 40]).encode(&mut whole);
        let second = whole.len();
        for cut in 0..second {
            let mut outbox = Outbox::new(Vec::new());
            outbox.push(&publish(1, b"first"));
            outbox.push(&publish(2, &[0; 40]));
            let mut left = outbox.left().get(..cut).unwrap().to_vec();
            outbox.advance(cut);
            outbox.answer(pong(8));
            outbox.answer(pong(9));
            assert_eq!(outbox.owed(), 2 * pong(0).len(), "cut at {cut}");
            outbox.push(&publish(3, b""));
            left.extend(outbox.left());
            let expected = match cut {
                0 => [8, 9, 1, 2, 3],
                _ if cut <= first => [1, 8, 9, 2, 3],
                _ => [1, 2, 8, 9, 3],
            };
            assert_eq!(ids(&left), expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_has_left_is_forgotten_frame_by_frame() {
        let mut outbox = Outbox::new(b"greeting".to_vec());
        outbox.advance(3);
        outbox.advance(5);
        assert_eq!(outbox.left(), b"");
        outbox.push(&publish(1, &[7; 100]));
        outbox.push(&publish(2, &[7; 100]));
        let frame = outbox.left().len() / 2;
        for (step, kept) in [
            (frame - 1, 2 * frame),
            (1, frame),
            (1, frame),
            (frame - 1, 0),
        ] {
            outbox.advance(step);
            assert_eq!(outbox.bytes.len(), kept);
        }
        assert!(!outbox.is_urgent());
        outbox.push(&publish(3, b""));
        assert!(!outbox.is_urgent(), "not begun");
        outbox.answer(pong(4));
        outbox.advance(pong(4).len() - 1);
        assert!(outbox.is_urgent(), "the rest of an answer");
        outbox.advance(1);
        assert!(!outbox.is_urgent());
        outbox.advance(1);
        assert!(outbox.is_urgent(), "the rest of a frame");
        outbox.clear();
        assert!(outbox.left().is_empty() && !outbox.is_urgent());
    }
}
