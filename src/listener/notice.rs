//! What there is to say about a bound listener, for whoever has a log by then.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::address::{SocketMode, SocketPath};
use super::rights::Rights;
use crate::ids::{Gid, Uid};

/// Something that an administrator wants to know about a bound listener.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// The socket lies in a directory that others can write, and only the
    /// sticky bit keeps them from replacing it.
    SharedDirectory {
        /// The directory.
        path: PathBuf,
        /// Its owner and mode.
        found: Rights,
    },
    /// The socket's mode has bits for everyone.
    WorldAccessible {
        /// The socket.
        path: PathBuf,
        /// Its mode.
        mode: SocketMode,
    },
    /// Others are authorised, but can't cross this directory.
    NotCrossable {
        /// The directory.
        path: PathBuf,
        /// Its owner and mode.
        found: Rights,
        /// The socket's group, if there is one.
        group: Option<Gid>,
    },
    /// A socket that a server had left behind was replaced.
    ReplacedStale {
        /// The socket.
        path: PathBuf,
    },
    /// A directory was created.
    CreatedDirectory {
        /// The directory.
        path: PathBuf,
        /// Its owner and mode.
        rights: Rights,
    },
    /// The path is longer than most clients can connect to.
    LongPath {
        /// The socket.
        path: PathBuf,
        /// Its length in bytes, more than 107.
        length: usize,
    },
    /// The server's user can't write the directory, so the socket stays when
    /// the server exits, until the next start replaces it.
    CannotCleanUp {
        /// The directory.
        path: PathBuf,
        /// The server's user.
        server: Uid,
    },
    /// An abstract name has neither mode nor owner: everyone in the network
    /// namespace can connect, and only the policy decides.
    AbstractName {
        /// The name.
        name: SocketPath,
    },
    /// The address can be reached from the network.
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// The policy admits others, but names no single user or group that the socket
    /// could be opened to, and none was given.
    NoGroup,
    /// This kernel has no `SO_PASSRIGHTS`, so peers can push descriptors in.
    NoPassRights,
}

impl Notice {
    /// Whether this weakens the protection, rather than just being news.
    pub fn is_warning(&self) -> bool {
        !matches!(
            self,
            Self::ReplacedStale { .. } | Self::CreatedDirectory { .. } | Self::NoPassRights
        )
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedDirectory { path, found } => write!(
                f,
                "directory {} is shared with others ({found}); a directory for the socket alone \
                 is safer",
                path.display()
            ),
            Self::WorldAccessible { path, mode } => write!(
                f,
                "socket {} has mode {mode}: every user may connect, and only the policy decides",
                path.display()
            ),
            Self::NotCrossable { path, found, group } => {
                write!(
                    f,
                    "directory {} ({found}) can't be crossed by ",
                    path.display()
                )?;
                match group {
                    Some(group) => write!(
                        f,
                        "gid {group}, so authorised peers may not reach the socket"
                    ),
                    None => f.write_str("others, so authorised peers may not reach the socket"),
                }
            }
            Self::ReplacedStale { path } => {
                write!(f, "replaced the stale socket {}", path.display())
            }
            Self::CreatedDirectory { path, rights } => {
                write!(f, "created directory {} ({rights})", path.display())
            }
            Self::LongPath { path, length } => write!(
                f,
                "socket {} has a path of {length} bytes; most clients can't connect to more \
                 than 107",
                path.display()
            ),
            Self::CannotCleanUp { path, server } => write!(
                f,
                "directory {} can't be written by uid {server}: the socket and its lock file \
                 stay there when the server exits, and the next start replaces them",
                path.display()
            ),
            Self::AbstractName { name } => write!(
                f,
                "socket {name} is in the abstract namespace: everyone in this network namespace \
                 may connect, and only the policy decides"
            ),
            Self::Exposed { address } => {
                write!(f, "socket {address} can be reached from the network")
            }
            Self::NoGroup => f.write_str(
                "the rules admit others than the server's own user, but name no single user or \
                 group that the socket could be opened to: give it a group",
            ),
            Self::NoPassRights => f.write_str(
                "this kernel has no SO_PASSRIGHTS: descriptors that peers send are closed on \
                 arrival instead of being refused",
            ),
        }
    }
}
