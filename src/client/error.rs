//! What can go wrong on the client's side.

use std::fmt;
use std::io;

use crate::frame::{ErrorCode, FrameError};
use crate::policy::ServerError;

/// Why something didn't work.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The socket can't be reached, or failed.
    Socket(io::Error),
    /// The server is not who it should be.
    Untrusted(ServerError),
    /// Who it is can't be found out.
    CannotVerify(ServerError),
    /// The server closed the connection. Before the first frame: it didn't admit
    /// this process.
    Closed,
    /// It did not happen in time.
    Timeout,
    /// The broker breaks the protocol.
    Protocol(FrameError),
    /// The broker refused.
    Refused {
        /// Its code.
        code: ErrorCode,
        /// Its words.
        text: String,
    },
    /// What was given is no subject, or no pattern.
    Subject(String),
    /// The frame is larger than the broker accepts, in bytes.
    TooLarge {
        /// Subject and body.
        length: usize,
        /// What it accepts.
        accepted: u32,
    },
    /// 64 MiB have come in that nobody has taken, and nothing more is read:
    /// [`Client::next`](super::Client::next) or
    /// [`Client::try_next`](super::Client::try_next) makes room.
    InboxFull,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(_) => f.write_str("the socket failed"),
            Self::Untrusted(error) => error.fmt(f),
            Self::CannotVerify(_) => f.write_str("the server can not be verified"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Protocol(_) => f.write_str("the broker breaks the protocol"),
            Self::Refused { code, text } => write!(f, "refused: {code}: {text}"),
            Self::Subject(text) => write!(f, "{text:?} is no subject or pattern"),
            Self::TooLarge { length, accepted } => {
                write!(
                    f,
                    "{length} bytes are more than the {accepted} that the broker accepts"
                )
            }
            Self::InboxFull => f.write_str("too much has come in that nobody has taken"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket(error) => Some(error),
            Self::Protocol(error) => Some(error),
            Self::CannotVerify(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error)
    }
}
