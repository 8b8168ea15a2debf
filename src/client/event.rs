//! What a broker sends, owned.

use crate::frame::{ErrorCode, Frame, Stamp};

/// Something that the broker sent and that no call was waiting for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are those of the protocol")]
pub enum Event {
    /// A message for a subscription.
    Message {
        id: u64,
        subject: String,
        stamp: Stamp,
        body: Vec<u8>,
    },
    /// A request; answer it with [`super::Client::reply`].
    Deliver {
        id: u64,
        subject: String,
        stamp: Stamp,
        body: Vec<u8>,
    },
    /// The answer to a request that [`super::Client::ask`] sent.
    Answer {
        id: u64,
        stamp: Stamp,
        body: Vec<u8>,
    },
    /// A frame of that id was refused, or what it began has ended.
    Error {
        id: u64,
        code: ErrorCode,
        text: String,
    },
    /// A frame of that id is done.
    Done { id: u64 },
    /// So many messages of that subscription were dropped.
    Gap { id: u64, count: u64 },
    /// The broker closes in so many milliseconds.
    GoAway { millis: u32 },
}

impl Event {
    /// The id of what is over with this.
    pub(super) fn ends(&self) -> Option<u64> {
        match self {
            Self::Answer { id, .. } | Self::Error { id, .. } | Self::Done { id } => Some(*id),
            _ => None,
        }
    }

    /// What it takes to keep it.
    pub(super) fn memory_bytes(&self) -> usize {
        let texts = match self {
            Self::Message { subject, body, .. } | Self::Deliver { subject, body, .. } => {
                subject.len() + body.len()
            }
            Self::Answer { body, .. } => body.len(),
            Self::Error { text, .. } => text.len(),
            Self::Done { .. } | Self::Gap { .. } | Self::GoAway { .. } => 0,
        };
        size_of::<Self>() + texts
    }

    /// `None` for a frame that a client answers by itself.
    pub(super) fn of(frame: &Frame<'_>) -> Option<Self> {
        Some(match *frame {
            Frame::Message {
                id,
                subject,
                stamp,
                body,
            } => Self::Message {
                id,
                subject: subject.to_string(),
                stamp,
                body: body.to_vec(),
            },
            Frame::Deliver {
                id,
                subject,
                stamp,
                body,
            } => Self::Deliver {
                id,
                subject: subject.to_string(),
                stamp,
                body: body.to_vec(),
            },
            Frame::Answer { id, stamp, body } => Self::Answer {
                id,
                stamp,
                body: body.to_vec(),
            },
            Frame::Error { id, code, text } => Self::Error {
                id,
                code,
                text: text.to_owned(),
            },
            Frame::Ok { id } | Frame::Pong { id, .. } => Self::Done { id },
            Frame::Gap { id, count } => Self::Gap { id, count },
            Frame::GoAway { millis } => Self::GoAway { millis },
            _ => return None,
        })
    }
}
