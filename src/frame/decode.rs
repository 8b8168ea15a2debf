//! Bytes to frames, in whatever pieces they come.

use super::greeting::{GREETING_BYTES, Greeting};
use super::header::{FrameError, FrameLimit, HEADER_BYTES, Header, Side};
use super::typed::Frame;

const FIRST_BUFFER_BYTES: usize = 4 << 10;
const LARGEST_READ_BYTES: usize = 64 << 10;

/// What a decoder found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Received<'a> {
    /// The sender's greeting; always the first, once.
    Greeting(Greeting),
    /// A whole frame.
    Frame(Frame<'a>),
    /// A frame beyond the limit. Its payload is skipped as it comes, without
    /// being kept; the next frame follows.
    TooLarge(Header),
}

/// Collects bytes of one direction of one connection, and yields its frames.
///
/// Ask [`Decoder::space`] where to read to, say with [`Decoder::filled`] how much
/// came, then take everything that is whole from [`Decoder::frames`]. The buffer
/// starts empty, grows only when it is full, to at most the limit (or 64 KiB, so
/// that one read can bring many frames), and is let go by [`Decoder::rest`].
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    state: State,
    limit: FrameLimit,
    sender: Side,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Greeting,
    Frames,
    Skip(u32),
    Broken(FrameError),
}

impl Decoder {
    /// A decoder of what `sender` sends, from its greeting on, that accepts
    /// frames of up to `limit`.
    pub fn new(sender: Side, limit: FrameLimit) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            state: State::Greeting,
            limit,
            sender,
        }
    }

    /// Says that the greeting was read elsewhere: frames come next.
    pub fn greeted(&mut self) {
        if matches!(self.state, State::Greeting) {
            self.state = State::Frames;
        }
    }

    /// Where the next bytes go. Never empty after [`Decoder::frames`] has yielded
    /// all that it has.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end.saturating_sub(self.start));
        }
        if self.end == self.buffer.len() {
            let doubled = self.buffer.len().saturating_mul(2).max(FIRST_BUFFER_BYTES);
            self.buffer.resize(doubled.min(self.largest_buffer()), 0);
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that so many bytes were put into [`Decoder::space`]. More than it
    /// held are not counted.
    pub fn filled(&mut self, bytes: usize) {
        let before = self.end.saturating_sub(self.start);
        self.end = self.buffer.len().min(self.end.saturating_add(bytes));
        // A read that filled everything says that more is waiting: the next one
        // may bring more at once.
        if before == 0 && self.end == self.buffer.len() && self.end < LARGEST_READ_BYTES {
            let doubled = self.end.saturating_mul(2).min(LARGEST_READ_BYTES);
            self.buffer.resize(doubled, 0);
        }
    }

    /// Copies `bytes` in, for callers without a socket, and says how many of them
    /// fitted: all, unless frames wait to be taken.
    pub fn push(&mut self, mut bytes: &[u8]) -> usize {
        let given = bytes.len();
        while !bytes.is_empty() {
            let space = self.space();
            let part = space.len().min(bytes.len());
            if part == 0 {
                break;
            }
            let (now, later) = bytes.split_at_checked(part).unwrap_or((bytes, &[]));
            if let Some(place) = space.get_mut(..part) {
                place.copy_from_slice(now);
            }
            self.filled(part);
            bytes = later;
            // What is being skipped must not be kept meanwhile.
            self.skip();
        }
        given.saturating_sub(bytes.len())
    }

    /// Everything that is whole by now. What the iterator was not asked for stays
    /// for the next call. It ends with an error; each later call yields that error, once.
    pub fn frames(&mut self) -> Frames<'_> {
        let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
        Frames {
            bytes,
            start: &mut self.start,
            state: &mut self.state,
            limit: self.limit,
            sender: self.sender,
            failed: false,
        }
    }

    /// Whether the bytes so far end between two frames.
    pub fn is_between_frames(&self) -> bool {
        self.start == self.end && matches!(self.state, State::Frames)
    }

    /// Whether the buffer has grown for a large frame.
    pub fn is_large(&self) -> bool {
        self.buffer.len() > LARGEST_READ_BYTES
    }

    /// Gives the buffer back if nothing is in it and it has grown for a large frame.
    pub fn rest(&mut self) {
        if self.start == self.end && self.is_large() {
            self.buffer = Vec::new();
            (self.start, self.end) = (0, 0);
        }
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn largest_buffer(&self) -> usize {
        let frame = usize::try_from(self.limit.bytes()).unwrap_or(usize::MAX);
        frame.saturating_add(HEADER_BYTES).max(LARGEST_READ_BYTES)
    }

    fn skip(&mut self) {
        if matches!(self.state, State::Skip(_)) {
            self.frames().discard();
        }
    }
}

/// The whole frames of a [`Decoder`], which share its buffer.
#[derive(Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    start: &'a mut usize,
    state: &'a mut State,
    limit: FrameLimit,
    sender: Side,
    failed: bool,
}

impl<'a> Frames<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.bytes.split_at_checked(bytes)?;
        self.bytes = left;
        *self.start = self.start.saturating_add(bytes);
        Some(taken)
    }

    fn discard(&mut self) {
        if let State::Skip(left) = *self.state {
            let have = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
            let now = have.min(left);
            self.take(usize::try_from(now).unwrap_or(0));
            *self.state = if now == left {
                State::Frames
            } else {
                State::Skip(left.saturating_sub(now))
            };
        }
    }

    fn greeting(&mut self) -> Result<Option<Received<'a>>, FrameError> {
        let Some(bytes) = self.bytes.first_chunk::<GREETING_BYTES>() else {
            return Ok(None);
        };
        let greeting = Greeting::parse(bytes)?;
        self.take(GREETING_BYTES);
        *self.state = State::Frames;
        Ok(Some(Received::Greeting(greeting)))
    }

    #[inline]
    fn frame(&mut self) -> Result<Option<Received<'a>>, FrameError> {
        let Some(bytes) = self.bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::parse(bytes, self.sender)?;
        if header.length > self.limit.bytes() {
            self.take(HEADER_BYTES);
            *self.state = State::Skip(header.length);
            return Ok(Some(Received::TooLarge(header)));
        }
        let total = HEADER_BYTES.saturating_add(header.payload_bytes());
        let Some(payload) = self.bytes.get(HEADER_BYTES..total) else {
            return Ok(None);
        };
        let frame = Frame::parse(&header, payload)?;
        self.take(total);
        Ok(Some(Received::Frame(frame)))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Received<'a>, FrameError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        self.discard();
        let found = match *self.state {
            State::Greeting => self.greeting(),
            State::Frames => self.frame(),
            State::Skip(_) => Ok(None),
            State::Broken(error) => Err(error),
        };
        if let Err(error) = found {
            *self.state = State::Broken(error);
            self.failed = true;
        }
        found.transpose()
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
