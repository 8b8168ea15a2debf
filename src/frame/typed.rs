//! Frames as values: one variant for each kind, every field checked.

use super::code::ErrorCode;
use super::header::{FrameError, Header, Kind};
use super::pattern::{Pattern, Subject};
use super::stamp::{STAMP_BYTES, Stamp};

/// Length of the nonce in CHALLENGE and PROOF.
pub const PROOF_BYTES: usize = 16;

/// One frame, borrowed from the bytes that it came in or goes out from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the specification")]
pub enum Frame<'a> {
    /// Asks for the messages of a pattern.
    Subscribe {
        id: u64,
        pattern: Pattern<'a>,
        drop_oldest: bool,
    },
    /// Ends a subscription.
    Unsubscribe { id: u64 },
    /// A message for all who subscribed; `id` 0 wants no OK.
    Publish {
        id: u64,
        subject: Subject<'a>,
        body: &'a [u8],
    },
    /// A message for one who serves the subject.
    Request {
        id: u64,
        subject: Subject<'a>,
        body: &'a [u8],
    },
    /// Offers to answer requests.
    Serve { id: u64, pattern: Pattern<'a> },
    /// Answers the DELIVER of that id.
    Reply { id: u64, body: &'a [u8] },
    /// Asks for a PONG.
    Ping { id: u64, body: &'a [u8] },
    /// Answers a PING.
    Pong { id: u64, body: &'a [u8] },
    /// Ends a registration.
    Unserve { id: u64 },
    /// Answers a CHALLENGE.
    Proof { nonce: [u8; PROOF_BYTES] },
    /// A published message.
    Message {
        id: u64,
        subject: Subject<'a>,
        stamp: Stamp,
        body: &'a [u8],
    },
    /// A request to answer.
    Deliver {
        id: u64,
        subject: Subject<'a>,
        stamp: Stamp,
        body: &'a [u8],
    },
    /// The answer to a request.
    Answer {
        id: u64,
        stamp: Stamp,
        body: &'a [u8],
    },
    /// Done.
    Ok { id: u64 },
    /// Refused.
    Error {
        id: u64,
        code: ErrorCode,
        text: &'a str,
    },
    /// So many messages of that subscription were dropped here.
    Gap { id: u64, count: u64 },
    /// The broker closes in so many milliseconds.
    GoAway { millis: u32 },
    /// Prove that you are who connected.
    Challenge { nonce: [u8; PROOF_BYTES] },
}

impl<'a> Frame<'a> {
    /// Reads what follows a checked header.
    ///
    /// # Errors
    ///
    /// Names what breaks the format. `payload` of another length than the
    /// header says is such an error as well.
    #[inline]
    pub fn parse(header: &Header, payload: &'a [u8]) -> Result<Self, FrameError> {
        let (kind, id) = (header.kind, header.id);
        if payload.len() != header.payload_bytes() {
            return Err(FrameError::BodyLength(kind));
        }
        let (subject, body) = payload
            .split_at_checked(usize::from(header.subject_length))
            .ok_or(FrameError::BodyLength(kind))?;
        let as_subject = || Subject::new(subject).ok_or(FrameError::Subject(kind));
        let as_pattern = || Pattern::new(subject).ok_or(FrameError::Subject(kind));
        Ok(match kind {
            Kind::Publish => Self::Publish {
                id,
                subject: as_subject()?,
                body,
            },
            Kind::Request => Self::Request {
                id,
                subject: as_subject()?,
                body,
            },
            Kind::Reply => Self::Reply { id, body },
            Kind::Subscribe => {
                let drop_oldest = header.flags & 1 != 0;
                Self::Subscribe {
                    id,
                    pattern: as_pattern()?,
                    drop_oldest,
                }
            }
            Kind::Unsubscribe => Self::Unsubscribe { id },
            Kind::Serve => Self::Serve {
                id,
                pattern: as_pattern()?,
            },
            Kind::Unserve => Self::Unserve { id },
            Kind::Ping => Self::Ping { id, body },
            Kind::Pong => Self::Pong { id, body },
            Kind::Proof => Self::Proof {
                nonce: zero_id(header).and(exact(kind, body))?,
            },
            Kind::Challenge => Self::Challenge {
                nonce: zero_id(header).and(exact(kind, body))?,
            },
            Kind::Message => {
                let (stamp, body) = stamped(kind, body)?;
                Self::Message {
                    id,
                    subject: as_subject()?,
                    stamp,
                    body,
                }
            }
            Kind::Deliver => {
                let (stamp, body) = stamped(kind, body)?;
                Self::Deliver {
                    id,
                    subject: as_subject()?,
                    stamp,
                    body,
                }
            }
            Kind::Answer => {
                let (stamp, body) = stamped(kind, body)?;
                Self::Answer { id, stamp, body }
            }
            Kind::Ok => Self::Ok { id },
            Kind::Error => error(id, body)?,
            Kind::Gap => Self::Gap {
                id,
                count: u64::from_be_bytes(exact(kind, body)?),
            },
            Kind::GoAway => {
                zero_id(header)?;
                Self::GoAway {
                    millis: u32::from_be_bytes(exact(kind, body)?),
                }
            }
        })
    }

    /// What the frame is for.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Subscribe { .. } => Kind::Subscribe,
            Self::Unsubscribe { .. } => Kind::Unsubscribe,
            Self::Publish { .. } => Kind::Publish,
            Self::Request { .. } => Kind::Request,
            Self::Serve { .. } => Kind::Serve,
            Self::Reply { .. } => Kind::Reply,
            Self::Ping { .. } => Kind::Ping,
            Self::Pong { .. } => Kind::Pong,
            Self::Unserve { .. } => Kind::Unserve,
            Self::Proof { .. } => Kind::Proof,
            Self::Message { .. } => Kind::Message,
            Self::Deliver { .. } => Kind::Deliver,
            Self::Answer { .. } => Kind::Answer,
            Self::Ok { .. } => Kind::Ok,
            Self::Error { .. } => Kind::Error,
            Self::Gap { .. } => Kind::Gap,
            Self::GoAway { .. } => Kind::GoAway,
            Self::Challenge { .. } => Kind::Challenge,
        }
    }

    /// The id in its header, 0 where the kind has none.
    pub fn id(&self) -> u64 {
        match *self {
            Self::Subscribe { id, .. }
            | Self::Unsubscribe { id }
            | Self::Publish { id, .. }
            | Self::Request { id, .. }
            | Self::Serve { id, .. }
            | Self::Reply { id, .. }
            | Self::Ping { id, .. }
            | Self::Pong { id, .. }
            | Self::Unserve { id }
            | Self::Message { id, .. }
            | Self::Deliver { id, .. }
            | Self::Answer { id, .. }
            | Self::Ok { id }
            | Self::Error { id, .. }
            | Self::Gap { id, .. } => id,
            Self::Proof { .. } | Self::GoAway { .. } | Self::Challenge { .. } => 0,
        }
    }
}

fn zero_id(header: &Header) -> Result<(), FrameError> {
    if header.id == 0 {
        Ok(())
    } else {
        Err(FrameError::Id(header.kind))
    }
}

fn exact<const N: usize>(kind: Kind, body: &[u8]) -> Result<[u8; N], FrameError> {
    body.try_into().map_err(|_| FrameError::BodyLength(kind))
}

fn stamped(kind: Kind, body: &[u8]) -> Result<(Stamp, &[u8]), FrameError> {
    let (stamp, data) = body
        .split_first_chunk::<STAMP_BYTES>()
        .ok_or(FrameError::BodyLength(kind))?;
    Ok((Stamp::parse(stamp), data))
}

/// A code of a later version reads as `Protocol`: the frame ends something in
/// any case.
fn error(id: u64, body: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (code, text) = body
        .split_first_chunk::<2>()
        .ok_or(FrameError::BodyLength(Kind::Error))?;
    let code = ErrorCode::from_wire(u16::from_be_bytes(*code)).unwrap_or(ErrorCode::Protocol);
    let text = std::str::from_utf8(text).map_err(|_| FrameError::Text(Kind::Error))?;
    Ok(Frame::Error { id, code, text })
}
