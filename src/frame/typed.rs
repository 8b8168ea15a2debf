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

#[cfg(test)]
mod tests {
    use super::super::{HEADER_BYTES, Side};
    use super::*;

    /// One of each kind that has an id of its own, then those without.
    fn frames() -> Vec<Frame<'static>> {
        let (id, body) = (0x1_0000_0007, &b"body"[..]);
        let subject = Subject::new(b"a.b").unwrap();
        let pattern = Pattern::new(b"a.*.>").unwrap();
        let stamp = Stamp::parse(&std::array::from_fn(|i| u8::try_from(i).unwrap()));
        let subscribe = |drop_oldest| Frame::Subscribe {
            id,
            pattern,
            drop_oldest,
        };
        vec![
            subscribe(false),
            subscribe(true),
            Frame::Unsubscribe { id },
            Frame::Publish { id, subject, body },
            Frame::Request { id, subject, body },
            Frame::Serve { id, pattern },
            Frame::Unserve { id },
            Frame::Reply { id, body },
            Frame::Ping { id, body },
            Frame::Pong { id, body },
            Frame::Message {
                id,
                subject,
                stamp,
                body,
            },
            Frame::Deliver {
                id,
                subject,
                stamp,
                body,
            },
            Frame::Answer { id, stamp, body },
            Frame::Ok { id },
            Frame::Error {
                id,
                code: ErrorCode::Quota,
                text: "too many",
            },
            Frame::Gap {
                id,
                count: 0x0102_0304_0506_0708,
            },
            Frame::GoAway {
                millis: 0x0102_0304,
            },
            Frame::Proof {
                nonce: *b"0123456789abcdef",
            },
            Frame::Challenge {
                nonce: *b"fedcba9876543210",
            },
        ]
    }

    fn read(bytes: &[u8], change: impl Fn(&mut Header)) -> Result<Frame<'_>, FrameError> {
        let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
        let read = Header::parse(header, Side::Client);
        let mut header = read.or_else(|_| Header::parse(header, Side::Broker))?;
        change(&mut header);
        Frame::parse(&header, payload)
    }

    #[test]
    fn each_frame_comes_back_as_it_was_whole_or_in_two_parts() {
        for frame in frames() {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            assert_eq!(read(&bytes, |_| {}), Ok(frame));
            assert_eq!(bytes.len(), HEADER_BYTES + frame.length());
            let (head, data) = frame.split();
            assert_eq!([head.as_bytes(), data].concat(), bytes);
            let has_id = !matches!(frame.kind(), Kind::GoAway | Kind::Proof | Kind::Challenge);
            assert_eq!(frame.id(), if has_id { 0x1_0000_0007 } else { 0 });
        }
    }

    #[test]
    fn where_no_id_belongs_there_is_none() {
        for frame in frames().into_iter().filter(|frame| frame.id() == 0) {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            let read = read(&bytes, |header| header.id = 1);
            assert_eq!(read, Err(FrameError::Id(frame.kind())));
        }
    }

    #[test]
    fn another_flag_than_the_first_is_not_taken_for_it() {
        let mut bytes = Vec::new();
        let dropping = frames().swap_remove(1);
        dropping.encode(&mut bytes);
        let other = read(&bytes, |header| header.flags = 2);
        assert_eq!(other, Ok(frames().swap_remove(0)));
    }

    #[test]
    fn a_payload_of_another_length_is_refused() {
        for frame in frames() {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            let read = read(&bytes, |header| header.length += 1);
            assert_eq!(read, Err(FrameError::BodyLength(frame.kind())));
        }
    }
}
