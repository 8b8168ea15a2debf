//! Binds a Unix-domain socket: to a path, under a lock and by way of a staging
//! directory, or to an abstract name.
//!
//! Invariants: the socket appears at its path complete, with its owner and
//! mode, and listening; nothing that is there is replaced but a stale socket of
//! ours; a failure leaves everything as it was.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::address::{CLIENT_PATH_MAX_LEN, Kind, SocketPath};
use super::directory::{self, Creation, Directory};
use super::error::BindError;
use super::file::{self, FileId};
use super::lock::Lock;
use super::notice::Notice;
use super::options::Options;
use super::place::Place;
use super::rights::{Rights, Trusted};
use super::staging::{Staging, refuse_rights};
use super::stale;
use crate::ids::Gid;
use crate::sys::socket::set_pass_rights;

/// How often all is begun anew after someone interfered.
const ATTEMPTS: u32 = 8;
/// Longest name that still fits in `sun_path` behind `/proc/self/fd/N/`.
const ENTRY_MAX_LEN: usize = 80;

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
    for _ in 1..ATTEMPTS {
        match try_path(path, options, notices) {
            // The one who made the directory failed, and removed it again.
            Err(BindError::Interfered { .. }) => notices.clear(),
            other => return other,
        }
    }
    try_path(path, options, notices)
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
    let directory = directory::open(parent, path, trusted, Some(creation), notices)?;
    let lock = Lock::take(&directory, name, trusted, owner, group)?;
    let rights = Rights {
        owner,
        group: options.socket_group.unwrap_or(group),
        mode: options.mode_bits().bits(),
    };
    let made = make(&directory, path, name, trusted, rights, options, notices);
    let (socket, id) = match made {
        Ok(made) => made,
        Err(error) => {
            lock.remove(directory.descriptor.as_fd());
            return Err(error);
        }
    };
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
    let staging = Staging::create(at, &directory.path, name, entry)?;
    let old = stale::examine(at, name, path, trusted, options.kind)?;
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

    if let Some(old) = old {
        stale::remove(at, name, path, &staging, old)?;
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
    let known = set_pass_rights(socket, options.pass_descriptors)
        .map_err(|error| BindError::system("refuse descriptors at", object, error))?;
    notices.extend(unwanted_descriptors(known, options.pass_descriptors));
    // A socket that was handed over may ask for more: a receive that has no room for what
    // the kernel then adds is told that something was cut off.
    let set = || {
        crate::sys::peer::pass_credentials(socket, options.pass_credentials)?;
        crate::sys::socket::add_nothing(socket)
    };
    set().map_err(|error| BindError::system("choose what comes with messages at", object, error))
}

/// What to say where this kernel can't keep out what nobody wants.
fn unwanted_descriptors(kernel_can: bool, wanted: bool) -> Option<Notice> {
    (!kernel_can && !wanted).then_some(Notice::NoPassRights)
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
    if options.mode_bits().is_world_accessible() {
        notices.push(Notice::WorldAccessible {
            path: path.to_owned(),
            mode: options.mode_bits(),
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

#[cfg(test)]
mod tests {
    use super::super::SocketMode;
    use super::*;
    use rustix::net::sockopt;

    #[test]
    fn descriptors_that_come_in_unwanted_are_said() {
        let said = |kernel_can, wanted| unwanted_descriptors(kernel_can, wanted).is_some();
        assert!(said(false, false));
        assert!(!said(false, true) && !said(true, false) && !said(true, true));
    }

    #[test]
    fn what_is_wrong_with_a_path_is_said() {
        let trusted = Trusted::new(super::super::effective_uid());
        let root = Path::new("/");
        let mut directory = directory::open(root, root, trusted, None, &mut Vec::new()).unwrap();
        let options = Options::at("/a").unwrap();
        let told = |directory: &Directory, options: &Options, length: usize| {
            let path = format!("/{}", "a".repeat(length - 1));
            let mut notices = Vec::new();
            note(Path::new(&path), directory, options, &mut notices);
            notices
        };
        directory.rights.mode = 0o700;
        directory.rights.owner = options.server_uid;
        assert_eq!(told(&directory, &options, CLIENT_PATH_MAX_LEN), []);
        let path = "/a".into();
        let mode = SocketMode::from_bits(0o606).unwrap();
        assert_eq!(
            told(&directory, &options.clone().mode(mode), 2),
            [Notice::WorldAccessible { path, mode }]
        );
        for length in [CLIENT_PATH_MAX_LEN + 1, CLIENT_PATH_MAX_LEN + 2] {
            let path = format!("/{}", "a".repeat(length - 1)).into();
            assert_eq!(
                told(&directory, &options, length),
                [Notice::LongPath { path, length }]
            );
        }
        let server = crate::ids::Uid::from_raw(7).unwrap();
        let gid = Gid::from_raw(7).unwrap();
        let path = "/".into();
        assert_eq!(
            told(&directory, &options.run_as(server, gid), 2),
            [Notice::CannotCleanUp { path, server }]
        );
    }

    /// A service manager may have asked for them (systemd.socket(5), `PassCredentials=`).
    #[test]
    fn senders_are_told_only_where_they_are_wanted() {
        let kinds = (AddressFamily::UNIX, SocketType::STREAM);
        let socket = rustix::net::socket_with(kinds.0, kinds.1, SocketFlags::CLOEXEC, None);
        let socket = socket.unwrap();
        let name = "/a".parse().map(super::super::Address::Unix).unwrap();
        let options = Options::new(name);
        for wanted in [false, true] {
            sockopt::set_socket_passcred(&socket, true).unwrap();
            let options = options.clone().pass_credentials(wanted);
            protect(socket.as_fd(), &options, Path::new("/a"), &mut Vec::new()).unwrap();
            assert_eq!(sockopt::socket_passcred(&socket), Ok(wanted));
        }
    }
}
