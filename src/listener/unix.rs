//! Binds a Unix-domain socket: to a path, under a lock and by way of a staging
//! directory, or to an abstract name.
//!
//! Invariants: the socket appears at its path complete, with its owner and
//! mode, and listening; nothing that is there is replaced but a stale socket of
//! ours; a failure leaves everything as it was.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::address::{CLIENT_PATH_MAX_LEN, Kind, SocketPath};
use super::directory::{self, Creation, Directory};
use super::error::BindError;
use super::file::{self, FileId};
use super::lock::Lock;
use super::notice::Notice;
use super::options::Options;
use super::rights::{Rights, Trusted};
use super::staging::{ASIDE, Staging, refuse_rights};
use crate::ids::Gid;
use crate::sys::socket::set_pass_rights;

/// How often all is begun anew after someone interfered.
const ATTEMPTS: u32 = 8;
/// Longest name that still fits in `sun_path` behind `/proc/self/fd/N/`.
const ENTRY_MAX_LEN: usize = 80;

/// Where a socket of ours lies, and what it takes to remove it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: Directory,
    name: OsString,
    id: FileId,
    lock: Option<Lock>,
    /// A child that was forked off must not remove its parent's socket.
    process: i32,
}

/// What became of the socket's name when the listener was closed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Removal {
    /// There was nothing to remove: an abstract name, an internet address, or a
    /// socket that the service manager handed over.
    NotNeeded,
    /// The socket was unlinked.
    Removed,
    /// The path led to something else by now, or to nothing, which was left so.
    NotOurs,
    /// The socket could not be unlinked. The next start replaces it.
    Failed(io::Error),
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNeeded => f.write_str("no socket to unlink"),
            Self::Removed => f.write_str("socket unlinked"),
            Self::NotOurs => f.write_str("the path is no longer our socket's, so it stays"),
            Self::Failed(error) => write!(f, "the socket could not be unlinked: {error}"),
        }
    }
}

impl Place {
    /// Unlinks the socket if the name still stands for it, then the lock file.
    /// The second time there is nothing left to do.
    pub(super) fn clear(&mut self) -> Removal {
        let Some(lock) = self.lock.take() else {
            return Removal::NotNeeded;
        };
        if self.process != rustix::process::getpid().as_raw_pid() {
            return Removal::NotNeeded;
        }
        let at = self.directory.descriptor.as_fd();
        let removal = match file::is_at(at, &self.name, self.id) {
            Ok(true) => match rustix::fs::unlinkat(at, &self.name, AtFlags::empty()) {
                Ok(()) => Removal::Removed,
                Err(error) => Removal::Failed(error.into()),
            },
            Ok(false) => Removal::NotOurs,
            Err(error) => Removal::Failed(error),
        };
        lock.remove(at);
        removal
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _said_by_close = self.clear();
    }
}

/// Binds to an abstract name.
pub(super) fn bind_abstract(
    name: &[u8],
    address: &SocketPath,
    options: &Options,
    notices: &mut Vec<Notice>,
) -> Result<OwnedFd, BindError> {
    let object = PathBuf::from(address.to_os_string());
    let refuse = |error: Errno| BindError::system("bind", &object, error);
    let socket = create(options, &object, notices)?;
    let target = SocketAddrUnix::new_abstract_name(name).map_err(refuse)?;
    match rustix::net::bind(&socket, &target) {
        Ok(()) => {}
        Err(Errno::ADDRINUSE) => {
            return Err(BindError::NameInUse {
                name: address.clone(),
            });
        }
        Err(error) => return Err(refuse(error)),
    }
    listen(&socket, options, &object)?;
    notices.push(Notice::AbstractName {
        name: address.clone(),
    });
    Ok(socket)
}

/// Binds to a path.
pub(super) fn bind_path(
    path: &Path,
    options: &Options,
    notices: &mut Vec<Notice>,
) -> Result<(OwnedFd, Place), BindError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        notices.clear();
        match try_path(path, options, notices) {
            // The one who made the directory failed, and removed it again.
            Err(BindError::Interfered { .. }) if attempt < ATTEMPTS => {}
            other => return other,
        }
    }
}

fn try_path(
    path: &Path,
    options: &Options,
    notices: &mut Vec<Notice>,
) -> Result<(OwnedFd, Place), BindError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        // A SocketPath has both.
        return Err(BindError::DirectoryMissing {
            path: path.to_owned(),
        });
    };
    let trusted = Trusted::new(options.server_uid);
    let (owner, group) = options
        .owner
        .unwrap_or((super::effective_uid(), effective_gid()));
    let creation = Creation {
        owner,
        group,
        crossed_by: options.socket_group,
        others_authorised: options.others_authorised,
    };
    let mut directory = directory::open(parent, path, trusted, Some(creation), notices)?;
    let lock = Lock::take(&directory, name, trusted, owner, group)?;
    let rights = Rights {
        owner,
        group: options.socket_group.unwrap_or(group),
        mode: options.mode.bits(),
    };
    let made = make(&directory, path, name, trusted, rights, options, notices);
    let (socket, id) = match made {
        Ok(made) => made,
        Err(error) => {
            lock.remove(directory.descriptor.as_fd());
            return Err(error);
        }
    };
    directory.keep();
    note(path, &directory, options, notices);
    let process = rustix::process::getpid().as_raw_pid();
    let name = name.to_owned();
    let place = Place {
        directory,
        name,
        id,
        lock: Some(lock),
        process,
    };
    Ok((socket, place))
}

/// Makes the socket in a staging directory, clears its place, and moves it there.
fn make(
    directory: &Directory,
    path: &Path,
    name: &OsStr,
    trusted: Trusted,
    rights: Rights,
    options: &Options,
    notices: &mut Vec<Notice>,
) -> Result<(OwnedFd, FileId), BindError> {
    let at = directory.descriptor.as_fd();
    let entry = if name.len() <= ENTRY_MAX_LEN {
        name
    } else {
        OsStr::new("socket")
    };
    let staging = Staging::create_for(at, &directory.path, name, entry)?;
    let stale = examine(at, name, path, trusted, options.kind)?;
    let refuse = |error: Errno| BindError::system("bind", path, error);

    let socket = create(options, path, notices)?;
    // The path gets the mode that the descriptor has at bind, less the umask.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(rights.mode)).map_err(refuse)?;
    let target = file::path_of(staging.as_fd()).join(entry);
    let target = SocketAddrUnix::new(&target).map_err(refuse)?;
    rustix::net::bind(&socket, &target).map_err(refuse)?;
    let made = file::refer(staging.as_fd(), entry).map_err(refuse)?;
    let id = FileId::of(&rustix::fs::fstat(&made).map_err(refuse)?);
    file::set_rights(&made, rights).map_err(|error| refuse_rights(path, rights, error))?;
    listen(&socket, options, path)?;

    if let Some(stale) = stale {
        remove_stale(at, name, path, &staging, stale)?;
        notices.push(Notice::ReplacedStale {
            path: path.to_owned(),
        });
    }
    match staging.publish(at, name) {
        Ok(()) => Ok((socket, id)),
        Err(Errno::EXIST) => Err(BindError::Interfered {
            path: path.to_owned(),
        }),
        Err(error) => Err(BindError::system("put a socket at", path, error)),
    }
}

/// What lies at the socket's path: nothing, or a stale socket. Anything else is
/// refused. The caller holds the lock, so no server of ours is there.
fn examine(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    trusted: Trusted,
    kind: Kind,
) -> Result<Option<FileId>, BindError> {
    let found = match file::refer(directory, name) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(BindError::system("examine", path, error)),
    };
    let stat =
        rustix::fs::fstat(&found).map_err(|error| BindError::system("examine", path, error))?;
    let path = path.to_owned();
    match file::kind(&stat) {
        FileType::Socket => {}
        other => {
            return Err(BindError::Occupied {
                path,
                found: file::describe(other),
            });
        }
    }
    let rights = file::rights(&stat);
    if !trusted.includes(rights.owner) {
        return Err(BindError::SocketOwner {
            path,
            found: rights,
            expected: trusted,
        });
    }
    match probe(&found, kind) {
        Err(Errno::CONNREFUSED) => Ok(Some(FileId::of(&stat))),
        // The backlog is full, or the other socket is of another type: someone
        // is there in any case (unix(7), connect(2)).
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE | Errno::INPROGRESS) => {
            Err(BindError::Live { path })
        }
        Err(error) => Err(BindError::Undecidable {
            path,
            source: error.into(),
        }),
    }
}

/// Connects to the very socket that was opened, whatever its name is by now.
fn probe(found: &OwnedFd, kind: Kind) -> rustix::io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let client = rustix::net::socket_with(AddressFamily::UNIX, socket_type(kind), flags, None)?;
    let target = SocketAddrUnix::new(file::path_of(found.as_fd()))?;
    rustix::net::connect(&client, &target)
}

/// Removes the stale socket and nothing else: what the name stands for is put
/// aside first, and put back if it is another file by now.
fn remove_stale(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    staging: &Staging,
    stale: FileId,
) -> Result<(), BindError> {
    let refuse = |error: Errno| BindError::system("replace the stale socket", path, error);
    let aside = OsStr::new(ASIDE);
    match file::move_to_free_name(directory, name, staging.as_fd(), aside) {
        Ok(()) => {}
        // Somebody else has removed it, which is as good.
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(refuse(error)),
    }
    let is_stale = file::is_at(staging.as_fd(), aside, stale)
        .map_err(|error| BindError::system("examine", path, error))?;
    if is_stale {
        return rustix::fs::unlinkat(staging.as_fd(), aside, AtFlags::empty()).map_err(refuse);
    }
    file::move_to_free_name(staging.as_fd(), aside, directory, name).map_err(refuse)?;
    Err(BindError::Interfered {
        path: path.to_owned(),
    })
}

/// A socket with the options that accepted ones inherit.
fn create(
    options: &Options,
    object: &Path,
    notices: &mut Vec<Notice>,
) -> Result<OwnedFd, BindError> {
    let refuse = |error: Errno| BindError::system("create a socket", object, error);
    let mut flags = SocketFlags::CLOEXEC;
    flags.set(SocketFlags::NONBLOCK, options.nonblocking);
    let kind = socket_type(options.kind);
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).map_err(refuse)?;
    protect(socket.as_fd(), options, object, notices)?;
    Ok(socket)
}

/// Keeps descriptors out, and asks for credentials if those are wanted.
pub(super) fn protect(
    socket: BorrowedFd<'_>,
    options: &Options,
    object: &Path,
    notices: &mut Vec<Notice>,
) -> Result<(), BindError> {
    let known = set_pass_rights(socket, false)
        .map_err(|error| BindError::system("refuse descriptors at", object, error))?;
    if !known {
        notices.push(Notice::NoPassRights);
    }
    if options.pass_credentials {
        rustix::net::sockopt::set_socket_passcred(socket, true)
            .map_err(|error| BindError::system("ask for credentials at", object, error))?;
    }
    Ok(())
}

fn listen(socket: &OwnedFd, options: &Options, object: &Path) -> Result<(), BindError> {
    rustix::net::listen(socket, options.backlog_for_listen())
        .map_err(|error| BindError::system("listen at", object, error))
}

pub(super) fn socket_type(kind: Kind) -> SocketType {
    match kind {
        Kind::Stream => SocketType::STREAM,
        Kind::SeqPacket => SocketType::SEQPACKET,
    }
}

/// What there is to say about a socket at this path.
fn note(path: &Path, directory: &Directory, options: &Options, notices: &mut Vec<Notice>) {
    if options.mode.is_world_accessible() {
        notices.push(Notice::WorldAccessible {
            path: path.to_owned(),
            mode: options.mode,
        });
    }
    let length = path.as_os_str().len();
    if length > CLIENT_PATH_MAX_LEN {
        notices.push(Notice::LongPath {
            path: path.to_owned(),
            length,
        });
    }
    if !directory.lets_remove(options.server_uid) {
        let path = directory.path.clone();
        notices.push(Notice::CannotCleanUp {
            path,
            server: options.server_uid,
        });
    }
}

/// The effective group of this process.
fn effective_gid() -> Gid {
    // No process has the id -1 (setresgid(2)); were it so, it would be nobody's.
    Gid::from_raw(rustix::process::getegid().as_raw()).unwrap_or(Gid::OVERFLOW)
}
