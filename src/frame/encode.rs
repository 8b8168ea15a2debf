//! Frames to bytes: whole into the caller's buffer, or head and body apart for
//! a vectored write that doesn't copy the body.

use super::header::{HEADER_BYTES, Header};
use super::pattern::MAX_SUBJECT_BYTES;
use super::stamp::STAMP_BYTES;
use super::typed::Frame;

/// Header, subject and fixed part of a body: all of a frame but its data.
#[derive(Clone, Debug)]
pub struct Head {
    bytes: [u8; HEADER_BYTES + MAX_SUBJECT_BYTES + STAMP_BYTES],
    used: usize,
}

impl Head {
    /// The bytes that go before the data.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.used.saturating_add(bytes.len());
        if let Some(place) = self.bytes.get_mut(self.used..end) {
            place.copy_from_slice(bytes);
            self.used = end;
        }
    }
}

/// The parts of a frame: subject, fixed part of the body, data.
struct Parts<'f> {
    flags: u8,
    subject: &'f str,
    fixed: [u8; STAMP_BYTES],
    fixed_bytes: usize,
    data: &'f [u8],
}

impl Parts<'_> {
    fn fixed(&self) -> &[u8] {
        self.fixed.get(..self.fixed_bytes).unwrap_or_default()
    }

    fn length(&self) -> usize {
        self.subject
            .len()
            .saturating_add(self.fixed_bytes)
            .saturating_add(self.data.len())
    }
}

impl<'a> Frame<'a> {
    /// Bytes of subject and body together, as the header will say.
    pub fn length(&self) -> usize {
        self.parts().length()
    }

    /// Appends the frame to `out`.
    ///
    /// The caller keeps [`Frame::length`] within what the receiver accepts, so
    /// below 4 GiB; a length beyond that would be written as 4294967295.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let parts = self.parts();
        out.reserve(HEADER_BYTES.saturating_add(parts.length()));
        out.extend_from_slice(&self.header(&parts).encode());
        out.extend_from_slice(parts.subject.as_bytes());
        out.extend_from_slice(parts.fixed());
        out.extend_from_slice(parts.data);
    }

    /// Splits the frame into its head and its data.
    pub fn split(&self) -> (Head, &'a [u8]) {
        let parts = self.parts();
        let bytes = [0; HEADER_BYTES + MAX_SUBJECT_BYTES + STAMP_BYTES];
        let mut head = Head { bytes, used: 0 };
        head.push(&self.header(&parts).encode());
        head.push(parts.subject.as_bytes());
        head.push(parts.fixed());
        (head, parts.data)
    }

    #[inline]
    fn header(&self, parts: &Parts<'_>) -> Header {
        Header {
            length: u32::try_from(parts.length()).unwrap_or(u32::MAX),
            kind: self.kind(),
            flags: parts.flags,
            // At most 255: a subject can't be made longer.
            subject_length: u16::try_from(parts.subject.len()).unwrap_or(u16::MAX),
            id: self.id(),
        }
    }

    #[inline]
    fn parts(&self) -> Parts<'a> {
        let mut parts = Parts {
            flags: 0,
            subject: "",
            fixed: [0; STAMP_BYTES],
            fixed_bytes: 0,
            data: &[],
        };
        match *self {
            Self::Subscribe {
                pattern,
                drop_oldest,
                ..
            } => {
                parts.subject = pattern.as_str();
                parts.flags = u8::from(drop_oldest);
            }
            Self::Serve { pattern, .. } => parts.subject = pattern.as_str(),
            Self::Publish { subject, body, .. } | Self::Request { subject, body, .. } => {
                parts.subject = subject.as_str();
                parts.data = body;
            }
            Self::Reply { body, .. } | Self::Ping { body, .. } | Self::Pong { body, .. } => {
                parts.data = body;
            }
            Self::Message {
                subject,
                stamp,
                body,
                ..
            }
            | Self::Deliver {
                subject,
                stamp,
                body,
                ..
            } => {
                parts.subject = subject.as_str();
                parts.fixed = stamp.encode();
                parts.fixed_bytes = STAMP_BYTES;
                parts.data = body;
            }
            Self::Answer { stamp, body, .. } => {
                parts.fixed = stamp.encode();
                parts.fixed_bytes = STAMP_BYTES;
                parts.data = body;
            }
            Self::Proof { nonce } | Self::Challenge { nonce } => parts.fix(&nonce),
            Self::Error { code, text, .. } => {
                parts.fix(&code.to_wire().to_be_bytes());
                parts.data = text.as_bytes();
            }
            Self::Gap { count, .. } => parts.fix(&count.to_be_bytes()),
            Self::GoAway { millis } => parts.fix(&millis.to_be_bytes()),
            Self::Unsubscribe { .. } | Self::Unserve { .. } | Self::Ok { .. } => (),
        }
        parts
    }
}

impl Parts<'_> {
    fn fix(&mut self, bytes: &[u8]) {
        if let Some(place) = self.fixed.get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
            self.fixed_bytes = bytes.len();
        }
    }
}
