//! The 16 bytes before each frame, checked as soon as they are there.

use std::fmt;

use super::stamp::STAMP_BYTES;
use super::typed::PROOF_BYTES;

/// Length of a header.
pub const HEADER_BYTES: usize = 16;

/// Which side of a connection sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A peer of the broker.
    Client,
    /// The broker.
    Broker,
}

/// Largest `length` (subject and body) that a receiver accepts: 1024 bytes to
/// 256 MiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FrameLimit(u32);

impl FrameLimit {
    /// 1024: holds the longest subject, a stamp, and the longest error text.
    pub const MIN: Self = Self(1 << 10);
    /// 256 MiB.
    pub const MAX: Self = Self(1 << 28);
    /// 1 MiB, the default of `max_frame_size`.
    pub const DEFAULT: Self = Self(1 << 20);

    /// `None` outside the bounds.
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes < Self::MIN.0 || bytes > Self::MAX.0 {
            None
        } else {
            Some(Self(bytes))
        }
    }

    /// So much larger that a publication of this size still arrives with its stamp.
    #[must_use]
    pub fn with_stamp(self) -> Self {
        let stamp = u32::try_from(STAMP_BYTES).unwrap_or(0);
        Self(self.0.saturating_add(stamp)).min(Self::MAX)
    }

    /// The bound in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $side:expr, $wire:literal;)*) => {
        /// What a frame is for.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            /// Every kind, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Reads the number. `None` for one that version 1 doesn't define.
            pub const fn from_wire(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The number on the wire.
            pub const fn to_wire(self) -> u8 {
                match self { $(Self::$name => $number,)* }
            }

            /// The name, as the specification spells it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $wire,)* }
            }

            /// The side that alone may send it; `None` for both.
            pub const fn sender(self) -> Option<Side> {
                match self { $(Self::$name => $side,)* }
            }
        }
    };
}

kinds! {
    /// Asks for the messages of a pattern.
    Subscribe = 0x01, Some(Side::Client), "SUBSCRIBE";
    /// Ends a subscription.
    Unsubscribe = 0x02, Some(Side::Client), "UNSUBSCRIBE";
    /// A message for all who subscribed.
    Publish = 0x03, Some(Side::Client), "PUBLISH";
    /// A message for one who serves the subject; it wants an answer.
    Request = 0x04, Some(Side::Client), "REQUEST";
    /// Offers to answer the requests of a pattern.
    Serve = 0x05, Some(Side::Client), "SERVE";
    /// Answers a DELIVER.
    Reply = 0x06, Some(Side::Client), "REPLY";
    /// Asks for a PONG.
    Ping = 0x07, None, "PING";
    /// Answers a PING.
    Pong = 0x08, None, "PONG";
    /// Ends a registration.
    Unserve = 0x09, Some(Side::Client), "UNSERVE";
    /// Answers a CHALLENGE.
    Proof = 0x0A, Some(Side::Client), "PROOF";
    /// A published message, for a subscription.
    Message = 0x11, Some(Side::Broker), "MESSAGE";
    /// A request, for one who serves it.
    Deliver = 0x12, Some(Side::Broker), "DELIVER";
    /// The answer to a request.
    Answer = 0x13, Some(Side::Broker), "ANSWER";
    /// The frame of that id is done.
    Ok = 0x14, Some(Side::Broker), "OK";
    /// The frame of that id is refused.
    Error = 0x15, Some(Side::Broker), "ERROR";
    /// Messages were dropped here.
    Gap = 0x16, Some(Side::Broker), "GAP";
    /// The broker is about to close.
    GoAway = 0x17, Some(Side::Broker), "GOAWAY";
    /// The broker wants to hear from the very process that connected.
    Challenge = 0x18, Some(Side::Broker), "CHALLENGE";
}

impl Kind {
    /// The flags that are defined for it.
    const fn flags(self) -> u8 {
        match self {
            Self::Subscribe => 0x01,
            _ => 0,
        }
    }

    /// Whether it carries a subject or a pattern.
    const fn has_subject(self) -> bool {
        matches!(
            self,
            Self::Subscribe
                | Self::Publish
                | Self::Request
                | Self::Serve
                | Self::Message
                | Self::Deliver
        )
    }

    /// Fewest and most bytes of body; `usize::MAX` where only the limit counts.
    const fn body(self) -> (usize, usize) {
        match self {
            Self::Subscribe | Self::Unsubscribe | Self::Serve | Self::Unserve | Self::Ok => (0, 0),
            Self::Publish | Self::Request | Self::Reply | Self::Ping | Self::Pong => {
                (0, usize::MAX)
            }
            Self::Proof | Self::Challenge => (PROOF_BYTES, PROOF_BYTES),
            Self::Message | Self::Deliver | Self::Answer => (STAMP_BYTES, usize::MAX),
            Self::Error => (2, usize::MAX),
            Self::Gap => (8, 8),
            Self::GoAway => (4, 4),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How bytes break the format. Each is a protocol error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FrameError {
    /// A greeting doesn't start with `SSB1`.
    Magic,
    /// A greeting of another version.
    Version(u16),
    /// Bytes of a greeting that must be 0 are not.
    Reserved,
    /// A greeting whose sender accepts less than [`FrameLimit::MIN`].
    LimitTooSmall(u32),
    /// A kind that version 1 doesn't define.
    UnknownKind(u8),
    /// A kind that only the other side may send.
    WrongSide(Kind),
    /// Flags that the kind doesn't define.
    Flags(Kind, u8),
    /// A subject where none belongs, none where one belongs, one longer than
    /// 255 bytes or than the frame.
    SubjectLength(Kind, u16),
    /// A body that is too short or too long for its kind.
    BodyLength(Kind),
    /// A subject that isn't tokens joined by dots.
    Subject(Kind),
    /// An id that isn't 0 where it must be.
    Id(Kind),
    /// A text that isn't UTF-8.
    Text(Kind),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => write!(f, "expected a greeting that starts with SSB1"),
            Self::Version(found) => write!(f, "expected version 1, found {found}"),
            Self::Reserved => write!(f, "expected 0 in the reserved bytes of the greeting"),
            Self::LimitTooSmall(found) => {
                write!(
                    f,
                    "expected a frame limit of at least {}, found {found}",
                    FrameLimit::MIN.0
                )
            }
            Self::UnknownKind(found) => write!(f, "unknown kind {found:#04x}"),
            Self::WrongSide(kind) => write!(f, "{kind} is not for this side to send"),
            Self::Flags(kind, found) => write!(f, "undefined flags {found:#04x} in {kind}"),
            Self::SubjectLength(kind, found) => {
                write!(f, "subject length {found} does not fit {kind}")
            }
            Self::BodyLength(kind) => write!(f, "length of the body does not fit {kind}"),
            Self::Subject(kind) => {
                write!(
                    f,
                    "{kind}: expected 1 to 16 tokens of A-Z a-z 0-9 _ - joined by dots"
                )
            }
            Self::Id(kind) => write!(f, "expected id 0 in {kind}"),
            Self::Text(kind) => write!(f, "the text of {kind} is not UTF-8"),
        }
    }
}

impl std::error::Error for FrameError {}

/// A header whose kind, flags and lengths fit each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Bytes of subject and body together.
    pub length: u32,
    /// What the frame is for.
    pub kind: Kind,
    /// Flags that the kind defines.
    pub flags: u8,
    /// Bytes of the subject, at most `length` and 255.
    pub subject_length: u16,
    /// Meaning depends on the kind.
    pub id: u64,
}

impl Header {
    /// The bytes on the wire.
    #[inline]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let first = u64::from(self.length) << 32
            | u64::from(self.kind.to_wire()) << 24
            | u64::from(self.flags) << 16
            | u64::from(self.subject_length);
        (u128::from(first) << 64 | u128::from(self.id)).to_be_bytes()
    }

    /// Reads a header that `sender` sent, whatever its length: the caller
    /// compares that with its limit before it takes memory for it.
    ///
    /// # Errors
    ///
    /// Names the first thing that breaks the format.
    #[inline]
    pub fn parse(bytes: &[u8; HEADER_BYTES], sender: Side) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, kind, flags, s0, s1, id @ ..] = *bytes;
        let kind = Kind::from_wire(kind).ok_or(FrameError::UnknownKind(kind))?;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let subject_length = u16::from_be_bytes([s0, s1]);
        let header = Self {
            length,
            kind,
            flags,
            subject_length,
            id: u64::from_be_bytes(id),
        };
        if kind.sender().is_some_and(|side| side != sender) {
            return Err(FrameError::WrongSide(kind));
        }
        if flags & !kind.flags() != 0 {
            return Err(FrameError::Flags(kind, flags));
        }
        if u32::from(subject_length) > length.min(255) || (subject_length > 0) != kind.has_subject()
        {
            return Err(FrameError::SubjectLength(kind, subject_length));
        }
        let body = length.saturating_sub(u32::from(subject_length));
        let body = usize::try_from(body).unwrap_or(usize::MAX);
        let (least, most) = kind.body();
        if body < least || body > most {
            return Err(FrameError::BodyLength(kind));
        }
        Ok(header)
    }

    /// `length` as a size in memory.
    #[inline]
    pub fn payload_bytes(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_go_there_and_back() {
        for number in 0..=u8::MAX {
            if let Some(kind) = Kind::from_wire(number) {
                assert_eq!(kind.to_wire(), number);
                assert_eq!(kind as u8, number);
            }
        }
        assert_eq!(Kind::ALL.len(), 18);
    }

    #[track_caller]
    fn check(kind: Kind, length: u32, subject: u16, flags: u8, expect: Option<FrameError>) {
        let header = Header {
            length,
            kind,
            flags,
            subject_length: subject,
            id: u64::MAX - 1,
        };
        let sender = kind.sender().unwrap_or(Side::Client);
        let expect = expect.map_or(Ok(header), Err);
        assert_eq!(Header::parse(&header.encode(), sender), expect);
        if kind.sender().is_some() {
            let other = if sender == Side::Client {
                Side::Broker
            } else {
                Side::Client
            };
            assert_eq!(
                Header::parse(&header.encode(), other),
                Err(FrameError::WrongSide(kind))
            );
        }
    }

    #[test]
    fn lengths_fit_the_kind() {
        let subject = |kind, n| Some(FrameError::SubjectLength(kind, n));
        check(Kind::Publish, 254, 254, 0, None);
        check(Kind::Publish, 255, 255, 0, None);
        check(Kind::Publish, 256, 256, 0, subject(Kind::Publish, 256));
        check(Kind::Publish, 0, 0, 0, subject(Kind::Publish, 0));
        check(Kind::Publish, 3, 4, 0, subject(Kind::Publish, 4));
        check(Kind::Publish, u32::MAX, 4, 0, None);
        check(Kind::Reply, 4, 4, 0, subject(Kind::Reply, 4));
        check(
            Kind::Subscribe,
            5,
            4,
            0,
            Some(FrameError::BodyLength(Kind::Subscribe)),
        );
        check(Kind::Subscribe, 4, 4, 1, None);
        check(
            Kind::Subscribe,
            4,
            4,
            3,
            Some(FrameError::Flags(Kind::Subscribe, 3)),
        );
        check(
            Kind::Serve,
            4,
            4,
            1,
            Some(FrameError::Flags(Kind::Serve, 1)),
        );
        for (bytes, fits) in [(15, false), (16, true), (17, false)] {
            let error = (!fits).then_some(FrameError::BodyLength(Kind::Proof));
            check(Kind::Proof, bytes, 0, 0, error);
        }
        check(
            Kind::Message,
            33,
            2,
            0,
            Some(FrameError::BodyLength(Kind::Message)),
        );
        check(Kind::Message, 34, 2, 0, None);
    }

    #[test]
    fn each_error_says_what_was_expected_and_where() {
        let kind = Kind::Publish;
        let name = kind.to_string();
        assert_eq!(name, kind.name());
        for (error, expect) in [
            (FrameError::Magic, "SSB1"),
            (FrameError::Version(7), "found 7"),
            (FrameError::Reserved, "reserved"),
            (FrameError::LimitTooSmall(9), "at least 1024, found 9"),
            (FrameError::UnknownKind(0xfe), "0xfe"),
            (FrameError::Flags(kind, 4), "0x04"),
            (FrameError::SubjectLength(kind, 300), "300"),
            (FrameError::WrongSide(kind), &name),
            (FrameError::BodyLength(kind), &name),
            (FrameError::Subject(kind), &name),
            (FrameError::Id(kind), &name),
            (FrameError::Text(kind), &name),
        ] {
            let text = error.to_string();
            assert!(text.contains(expect), "{text}");
        }
    }
}
