//! Takes over a listening socket from the service manager (sd_listen_fds(3)).

use std::fmt;

use super::address::SocketMode;

/// What differs between a socket that was handed over and the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Mismatch {
    /// It is of another address family.
    Family {
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// It is of another type.
    Kind {
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// It is bound to another address.
    Address {
        /// Where it is bound.
        found: String,
        /// Where it should be.
        expected: String,
    },
    /// It does not listen: the unit has `Accept=yes`, or is for datagrams.
    NotListening,
    /// Its path doesn't lead to a socket any more.
    PathGone,
    /// Its mode lets more users connect than it should.
    TooOpen {
        /// The mode of the path.
        found: SocketMode,
        /// The mode that was configured.
        expected: SocketMode,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family { found, expected } => {
                write!(f, "expected the address family {expected}, found {found}")
            }
            Self::Kind { found, expected } => {
                write!(f, "expected the socket type {expected}, found {found}")
            }
            Self::Address { found, expected } => {
                write!(f, "expected it to be bound to {expected}, found {found}")
            }
            Self::NotListening => f.write_str(
                "expected a listening socket, found one that does not listen (use Accept=no)",
            ),
            Self::PathGone => f.write_str("expected a socket at its path, found none"),
            Self::TooOpen { found, expected } => write!(
                f,
                "expected mode {expected} or less, found {found} (set SocketMode={expected})"
            ),
        }
    }
}
