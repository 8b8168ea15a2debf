//! What can be wrong with a socket that was handed over.

use std::fmt;

use super::address::{Address, Kind, SocketMode};
use super::rights::{Rights, Trusted};
use crate::ids::Gid;

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
        expected: Kind,
    },
    /// It does not listen: the unit has `Accept=yes`.
    NotListening,
    /// It is bound to another address.
    Address {
        /// Where it is bound.
        found: String,
        /// Where it should be.
        expected: Address,
    },
    /// Its path doesn't lead to a socket any more.
    PathGone,
    /// Its path belongs to someone else.
    Owner {
        /// The owner and mode of the path.
        found: Rights,
        /// Who may own it.
        expected: Trusted,
    },
    /// Its mode lets more users connect than it should.
    TooOpen {
        /// The owner and mode of the path.
        found: Rights,
        /// The mode that was configured.
        expected: SocketMode,
    },
    /// Its mode lets a group connect that is not the one that it should be.
    Group {
        /// The owner, group and mode of the path.
        found: Rights,
        /// The group that was configured.
        expected: Gid,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family { found, expected } => write!(f, "expected {expected}, found {found}"),
            Self::Kind { found, expected } => write!(f, "expected {expected}, found {found}"),
            Self::NotListening => f.write_str(
                "expected a listening socket (Accept=no), found one that does not listen",
            ),
            Self::Address { found, expected } => {
                write!(f, "expected it to be bound to {expected}, found {found}")
            }
            Self::PathGone => f.write_str("expected a socket at its path, found none"),
            Self::Owner { found, expected } => {
                write!(f, "expected a socket owned by {expected}, found {found}")
            }
            Self::TooOpen { found, expected } => write!(
                f,
                "expected no more rights than {expected}, found {found}; set \
                 SocketMode={expected} in its unit"
            ),
            Self::Group { found, expected } => write!(
                f,
                "expected a socket of group gid {expected}, found {found}; set \
                 SocketGroup={expected} in its unit, or socket_group here"
            ),
        }
    }
}
