//! Why a listener could not be bound, each reason with what was found and what
//! was expected.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::address::{SocketPath, SocketPathError};
use super::mismatch::Mismatch;
use super::rights::{Rights, Trusted};
use crate::ids::{Gid, Pid, Uid};
use crate::peer::{PinError, Shortcoming};

/// `EX_OSERR` of sysexits.h: the system refused a resource.
const EX_OSERR: u8 = 71;
/// `EX_CANTCREAT`: the socket can't be created.
const EX_CANTCREAT: u8 = 73;
/// `EX_NOPERM`: the file system's permissions forbid it.
const EX_NOPERM: u8 = 77;
/// `EX_CONFIG`: the configuration asks for what is never done.
const EX_CONFIG: u8 = 78;

/// Why a listener could not be bound. Nothing is left behind by any of these.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// A component of the path is a symbolic link.
    SymbolicLink {
        /// The link.
        link: PathBuf,
        /// What it points to.
        target: PathBuf,
        /// The socket's path without links, if it could be found out.
        instead: Option<PathBuf>,
    },
    /// A component of the path is there, but no directory.
    NotADirectory {
        /// The component.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A directory of the path is missing and was not to be created.
    DirectoryMissing {
        /// The directory.
        path: PathBuf,
    },
    /// A directory of the path belongs to someone else.
    DirectoryOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner and mode.
        found: Rights,
        /// Who may own it.
        expected: Trusted,
    },
    /// A directory of the path can be written by its group or by others, and has no sticky bit.
    DirectoryWritable {
        /// The directory.
        path: PathBuf,
        /// Its owner and mode.
        found: Rights,
    },
    /// A directory forbids what has to be done in it.
    DirectoryAccess {
        /// What was to be done, as a verb.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// Its owner and mode.
        found: Rights,
        /// The system's reason.
        source: io::Error,
    },
    /// Another server has locked this socket.
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, if it has written that down.
        pid: Option<Pid>,
    },
    /// What lies at the lock file's path is no lock file of this server.
    LockForeign {
        /// The lock file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// Who may own it.
        expected: Trusted,
    },
    /// Something that is no socket lies at the path.
    Occupied {
        /// The socket's path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// The socket at the path belongs to someone else.
    SocketOwner {
        /// The socket's path.
        path: PathBuf,
        /// Its owner and mode.
        found: Rights,
        /// Who may own it.
        expected: Trusted,
    },
    /// A server that holds no lock answers at the path.
    Live {
        /// The socket's path.
        path: PathBuf,
    },
    /// It can't be found out whether a server still uses the socket at the path.
    Undecidable {
        /// The socket's path.
        path: PathBuf,
        /// What connecting to it came to.
        source: io::Error,
    },
    /// Someone changed the directory meanwhile.
    Interfered {
        /// What was changed.
        path: PathBuf,
    },
    /// The group or owner can't be given to a file.
    Ownership {
        /// The file.
        path: PathBuf,
        /// The owner that it was to have.
        owner: Uid,
        /// The group that it was to have.
        group: Gid,
        /// The system's reason.
        source: io::Error,
    },
    /// An abstract name is taken.
    NameInUse {
        /// The name.
        name: SocketPath,
    },
    /// A port is taken.
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address is not loopback, and exposing it was not asked for.
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// Records were asked for on an internet address.
    SeqPacketNeedsUnix,
    /// The socket that the service manager handed over is not the configured one.
    HandedOver {
        /// Its name in `LISTEN_FDNAMES`, or its number.
        name: String,
        /// What differs.
        problem: Mismatch,
    },
    /// The service manager handed over more sockets than can be used.
    SeveralHandedOver {
        /// Their names.
        names: Vec<String>,
    },
    /// A variable of the service manager can't be understood.
    Activation {
        /// Its name.
        variable: &'static str,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// What should be the path of a socket is none.
    Path {
        /// What is wrong with it.
        source: SocketPathError,
    },
    /// The policy asks for what can't be found out about peers here.
    PolicyOutOfReach {
        /// What is missing, each with its remedy.
        missing: Vec<Shortcoming>,
    },
    /// What the policy's rules name can't be relied upon.
    PolicyUnreliable {
        /// Each path or process that is at fault.
        errors: Vec<PinError>,
    },
    /// The one user that the policy admits can't be looked up, so that the socket
    /// could not be opened to it.
    Account {
        /// The user.
        uid: Uid,
        /// What the name service failed with.
        source: io::Error,
    },
    /// A system call failed.
    System {
        /// What was to be done, as a verb.
        action: &'static str,
        /// What it was to be done with.
        object: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl BindError {
    /// The exit code of sysexits.h for this: 71, 73, 77 or 78.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotLoopback { .. }
            | Self::SeqPacketNeedsUnix
            | Self::HandedOver { .. }
            | Self::SeveralHandedOver { .. }
            | Self::Activation { .. }
            | Self::Path { .. }
            | Self::PolicyOutOfReach { .. }
            | Self::PolicyUnreliable { .. } => EX_CONFIG,
            Self::DirectoryAccess { source, .. }
            | Self::Ownership { source, .. }
            | Self::Undecidable { source, .. }
            | Self::System { source, .. } => match source.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => EX_NOPERM,
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => EX_OSERR,
                _ => EX_CANTCREAT,
            },
            _ => EX_CANTCREAT,
        }
    }

    pub(super) fn system(
        action: &'static str,
        object: &Path,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::System {
            action,
            object: object.to_owned(),
            source: source.into(),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SymbolicLink {
                link,
                target,
                instead,
            } => {
                let (link, target) = (link.display(), target.display());
                write!(
                    f,
                    "{link}: expected a directory, found a symbolic link to {target}"
                )?;
                match instead {
                    Some(path) => write!(f, "; use {} instead", path.display()),
                    None => f.write_str(", which leads nowhere"),
                }
            }
            Self::NotADirectory { path, found } => {
                write!(
                    f,
                    "{}: expected a directory, found {}",
                    path.display(),
                    found
                )
            }
            Self::DirectoryMissing { path } => {
                write!(f, "{}: expected a directory, found nothing", path.display())
            }
            Self::DirectoryOwner {
                path,
                found,
                expected,
            } => write!(
                f,
                "{}: expected a directory owned by {expected}, found {found}",
                path.display()
            ),
            Self::DirectoryWritable { path, found } => write!(
                f,
                "{}: expected a directory that only its owner can write (mode {:04o}), or a \
                 sticky one, found {found}",
                path.display(),
                found.mode & !0o022
            ),
            Self::DirectoryAccess {
                action,
                path,
                found,
                ..
            } => {
                write!(
                    f,
                    "{}: can't {action} this directory, found {found}",
                    path.display()
                )
            }
            Self::Locked {
                path,
                pid: Some(pid),
            } => {
                write!(
                    f,
                    "{}: another server holds this lock, pid {pid}",
                    path.display()
                )
            }
            Self::Locked { path, pid: None } => {
                write!(f, "{}: another server holds this lock", path.display())
            }
            Self::LockForeign {
                path,
                found,
                expected,
            } => write!(
                f,
                "{}: expected a lock file of this server (a regular file with one name, mode \
                 0600, owned by {expected}, that holds a pid), found {found}",
                path.display()
            ),
            Self::Occupied { path, found } => write!(
                f,
                "{}: expected nothing or a stale socket, found {}, which is left alone",
                path.display(),
                found
            ),
            Self::SocketOwner {
                path,
                found,
                expected,
            } => write!(
                f,
                "{}: expected nothing or a stale socket owned by {expected}, found a socket of \
                 {found}",
                path.display()
            ),
            Self::Live { path } => {
                write!(
                    f,
                    "{}: another server answers at this socket",
                    path.display()
                )
            }
            Self::Undecidable { path, .. } => {
                write!(
                    f,
                    "{}: can't find out whether this socket is in use",
                    path.display()
                )
            }
            Self::Interfered { path } => {
                write!(
                    f,
                    "{}: someone changed this while the socket was bound",
                    path.display()
                )
            }
            Self::Ownership {
                path, owner, group, ..
            } => write!(
                f,
                "{}: can't be given to owner uid {owner}, group gid {group}",
                path.display()
            ),
            Self::NameInUse { name } => {
                write!(f, "{name}: another server has this abstract name")
            }
            Self::PortInUse { address } => write!(f, "{address}: another server has this port"),
            Self::NotLoopback { address } => write!(
                f,
                "{address}: expected a loopback address, since exposing the socket to the \
                 network was not asked for"
            ),
            Self::SeqPacketNeedsUnix => {
                f.write_str("SOCK_SEQPACKET: expected a Unix-domain address, found an internet one")
            }
            Self::HandedOver { name, problem } => {
                write!(f, "socket {name} from the service manager: {problem}")
            }
            Self::SeveralHandedOver { names } => write!(
                f,
                "expected one socket from the service manager, found {}: {}",
                names.len(),
                names.join(", ")
            ),
            Self::Activation {
                variable,
                expected,
                found,
            } => {
                write!(f, "{variable}: expected {expected}, found {found:?}")
            }
            Self::Path { .. } => f.write_str("no path for a socket"),
            Self::PolicyOutOfReach { missing } => f.write_str(&joined(missing)),
            Self::PolicyUnreliable { errors } => f.write_str(&joined(errors)),
            Self::Account { uid, .. } => write!(f, "can't look up uid {uid}"),
            Self::System { action, object, .. } => {
                write!(f, "{}: can't {action}", object.display())
            }
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::DirectoryAccess { source, .. }
            | Self::Ownership { source, .. }
            | Self::Undecidable { source, .. }
            | Self::Account { source, .. }
            | Self::System { source, .. } => Some(source),
            Self::Path { source } => Some(source),
            _ => None,
        }
    }
}

impl From<SocketPathError> for BindError {
    fn from(source: SocketPathError) -> Self {
        Self::Path { source }
    }
}

fn joined<T: fmt::Display>(all: &[T]) -> String {
    let texts: Vec<String> = all.iter().map(T::to_string).collect();
    texts.join("; ")
}
