//! Finds out whether what lies at a socket's path is a stale socket of ours,
//! and removes it if it is.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags};

use super::address::Kind;
use super::error::BindError;
use super::file::{self, FileId};
use super::rights::Trusted;
use super::staging::{ASIDE, Staging};
use super::unix::socket_type;
use crate::ids::Uid;

/// What lies at the socket's path: nothing, or a stale socket. Anything else is
/// refused. The caller holds the lock, so no server of ours is there.
pub(super) fn examine(
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
    match probe_as_owner(&found, kind, rights.owner, rights.mode) {
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

/// A socket of ours whose mode keeps out even its owner (`socket_permissions=0060`) has to
/// let him in for the moment of the question.
fn probe_as_owner(found: &OwnedFd, kind: Kind, owner: Uid, mode: u32) -> rustix::io::Result<()> {
    let answer = probe(found, kind);
    if answer != Err(Errno::ACCESS) || owner != super::effective_uid() {
        return answer;
    }
    let path = file::path_of(found.as_fd());
    let set = |mode| rustix::fs::chmod(&path, Mode::from_raw_mode(mode));
    set(mode | 0o200)?;
    let answer = probe(found, kind);
    set(mode)?;
    answer
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
pub(super) fn remove(
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_that_lets_us_in_is_asked_and_left_as_it_is() {
        let path = std::env::temp_dir().join(format!("stale-{}", std::process::id()));
        let live = UnixListener::bind(&path).unwrap();
        let changed = || {
            let found = std::fs::symlink_metadata(&path).unwrap();
            (found.mode(), found.ctime(), found.ctime_nsec())
        };
        let before = changed();
        // Long enough that another change has another time.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let found = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
        let ask = || {
            probe_as_owner(
                &found,
                Kind::Stream,
                super::super::effective_uid(),
                before.0,
            )
        };
        assert_eq!(ask(), Ok(()));
        drop(live);
        assert_eq!(ask(), Err(Errno::CONNREFUSED));
        assert_eq!(changed(), before);
        std::fs::remove_file(path).unwrap();
    }
}
