//! The lock file beside a socket: one server for each socket.
//!
//! Invariants: the lock counts only while the locked file is the one that the
//! name stands for, and it is removed only by its holder, so that removing it
//! at exit is safe against servers that wait for it. Nothing is written into a
//! file before it is known to have this one name, and to hold nothing but a pid.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::directory::Directory;
use super::error::BindError;
use super::file::{self, FileId};
use super::rights::{Rights, Trusted};
use super::staging::refuse_rights;
use crate::ids::{Gid, Pid, Uid};

/// How often the file is opened anew when its holder has just removed it.
const ATTEMPTS: u32 = 64;
/// Between two looks at a file that its holder hasn't finished.
const PAUSE: Duration = Duration::from_millis(2);
/// How often it is looked for the pid of a holder who has just locked the file.
const HOLDER_ATTEMPTS: u32 = 500;
/// Longest content, a pid and a line end.
const CONTENT_MAX_LEN: usize = 12;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: OwnedFd,
    id: FileId,
    name: OsString,
}

/// The name of the lock file for a socket called `socket`.
pub(super) fn name_for(socket: &OsStr) -> OsString {
    let mut name = socket.to_owned();
    name.push(".lock");
    name
}

impl Lock {
    /// Takes the lock for `socket`, without waiting, and writes this process'
    /// pid into it. The file belongs to `owner` and `group` from then on.
    pub(super) fn take(
        directory: &Directory,
        socket: &OsStr,
        trusted: Trusted,
        owner: Uid,
        group: Gid,
    ) -> Result<Self, BindError> {
        let name = name_for(socket);
        let path = directory.path.join(&name);
        for attempt in 0..ATTEMPTS {
            let (file, fresh) = match open(directory, &name, &path, trusted) {
                Ok(Some(opened)) => opened,
                // Somebody created or removed it between two of our looks, or
                // has created it under a umask and not yet mended the mode.
                Ok(None) => continue,
                Err(error) if is_denied(&error) && attempt + 1 < ATTEMPTS => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let at = directory.descriptor.as_fd();
            match claim(&file, at, &name, &path, trusted) {
                Ok(None) => {}
                Ok(Some(id)) => {
                    let lock = Self { file, id, name };
                    if let Err(error) = lock.sign(&path, owner, group) {
                        lock.remove(at);
                        return Err(error);
                    }
                    return Ok(lock);
                }
                Err(error) => {
                    if fresh {
                        withdraw(&file, at, &name);
                    }
                    return Err(error);
                }
            }
        }
        Err(BindError::Interfered { path })
    }

    /// Removes the file, if it still is the one that is locked, and unlocks it.
    pub(super) fn remove(self, directory: BorrowedFd<'_>) -> bool {
        file::is_at(directory, &self.name, self.id).unwrap_or(false)
            && rustix::fs::unlinkat(directory, &self.name, AtFlags::empty()).is_ok()
    }

    /// Writes the pid and sets the rights.
    fn sign(&self, path: &Path, owner: Uid, group: Gid) -> Result<(), BindError> {
        let refuse = |error: Errno| BindError::system("write", path, error);
        let rights = Rights {
            owner,
            group,
            mode: 0o600,
        };
        rustix::fs::ftruncate(&self.file, 0).map_err(refuse)?;
        let text = format!("{}\n", rustix::process::getpid().as_raw_nonzero());
        // A few bytes at the start of an empty regular file are written at once or not at all.
        let written = rustix::io::pwrite(&self.file, text.as_bytes(), 0).map_err(refuse)?;
        if written != text.len() {
            return Err(refuse(Errno::NOSPC));
        }
        file::set_rights(&self.file, rights).map_err(|error| refuse_rights(path, rights, error))
    }
}

/// Locks an opened file, if it is a lock file of ours. `None` if it isn't the
/// one that the name stands for any more.
fn claim(
    file: &OwnedFd,
    directory: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    trusted: Trusted,
) -> Result<Option<FileId>, BindError> {
    let examine =
        || rustix::fs::fstat(file).map_err(|error| BindError::system("examine", path, error));
    let stat = examine()?;
    if !is_lock(&stat, trusted) {
        return Err(refuse(path, &stat, trusted));
    }
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let pid = holder(file);
            return Err(BindError::Locked {
                path: path.to_owned(),
                pid,
            });
        }
        Err(Errno::INTR) => return Ok(None),
        Err(error) => return Err(BindError::system("lock", path, error)),
    }
    let id = FileId::of(&examine()?);
    if !has_this_one_name(directory, name, id, path)? {
        return Ok(None);
    }
    if content(file).is_none() {
        let (path, found) = (path.to_owned(), "other content".to_owned());
        return Err(BindError::LockForeign {
            path,
            found,
            expected: trusted,
        });
    }
    Ok(Some(id))
}

/// Removes a file that we have just created, unless another server has it.
fn withdraw(file: &OwnedFd, directory: BorrowedFd<'_>, name: &OsStr) {
    let ours = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
        && rustix::fs::fstat(file)
            .is_ok_and(|stat| file::is_at(directory, name, FileId::of(&stat)).unwrap_or(false));
    if ours {
        let _gone = rustix::fs::unlinkat(directory, name, AtFlags::empty());
    }
}

/// Opens the lock file or creates it, and says whether it did. `None` if it came
/// or went meanwhile.
///
/// An existing file is opened without `O_CREAT`: with it, `fs.protected_regular`
/// (proc_sys_fs(5)) refuses files of the server's user to root in a sticky directory.
fn open(
    directory: &Directory,
    name: &OsStr,
    path: &Path,
    trusted: Trusted,
) -> Result<Option<(OwnedFd, bool)>, BindError> {
    // O_NONBLOCK: neither a FIFO nor a lease (fcntl(2)) must make us wait.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let at = directory.descriptor.as_fd();
    match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Ok(file) => return Ok(Some((file, false))),
        Err(Errno::NOENT) => {}
        // A link, a socket, a directory: let the look at it say so.
        Err(error) => return foreign(directory, name, path, trusted, error),
    }
    let flags = flags | OFlags::CREATE | OFlags::EXCL;
    match rustix::fs::openat(at, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(Some((file, true))),
        Err(Errno::EXIST) => Ok(None),
        Err(error) => Err(directory.refuse_creation("create a lock file in", error.into())),
    }
}

/// Why the file can't be opened.
fn foreign(
    directory: &Directory,
    name: &OsStr,
    path: &Path,
    trusted: Trusted,
    error: Errno,
) -> Result<Option<(OwnedFd, bool)>, BindError> {
    match file::look(directory.descriptor.as_fd(), name) {
        Ok(Some(stat)) if !is_lock(&stat, trusted) => Err(refuse(path, &stat, trusted)),
        Ok(Some(_)) => Err(BindError::system("open", path, error)),
        Ok(None) => Ok(None),
        Err(error) => Err(directory.refuse_creation("look into", error)),
    }
}

fn is_denied(error: &BindError) -> bool {
    matches!(error, BindError::System { source, .. }
        if source.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether only trusted users can have made this file, and no name elsewhere
/// leads to it. A file that has just lost its last name is judged by its name.
fn is_lock(stat: &Stat, trusted: Trusted) -> bool {
    let rights = file::rights(stat);
    file::kind(stat) == FileType::RegularFile
        && trusted.includes(rights.owner)
        && rights.mode & !0o600 == 0
        && stat.st_nlink <= 1
}

fn refuse(path: &Path, stat: &Stat, expected: Trusted) -> BindError {
    let kind = file::describe(file::kind(stat));
    let (rights, names) = (file::rights(stat), stat.st_nlink);
    let plural = if names == 1 { "name" } else { "names" };
    BindError::LockForeign {
        path: path.to_owned(),
        found: format!("{kind} with {names} {plural}, {rights}"),
        expected,
    }
}

/// Whether the name stands for the locked file, and it has no other. One call
/// tells both, so no link can come and go in between.
fn has_this_one_name(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    id: FileId,
    path: &Path,
) -> Result<bool, BindError> {
    let stat =
        file::look(directory, name).map_err(|error| BindError::system("examine", path, error))?;
    Ok(stat.is_some_and(|stat| FileId::of(&stat) == id && stat.st_nlink == 1))
}

/// What is written in the file, if it is nothing, or a pid.
fn content(file: &OwnedFd) -> Option<Option<Pid>> {
    let mut buffer = [0_u8; CONTENT_MAX_LEN + 1];
    let length = rustix::io::pread(file, &mut buffer[..], 0).ok()?;
    let text = std::str::from_utf8(buffer.get(..length)?).ok()?;
    if text.is_empty() {
        return Some(None);
    }
    let number = text.strip_suffix('\n')?.parse().ok()?;
    Some(Some(Pid::from_raw(number)?))
}

/// The pid of the one who holds the lock, who may be just about to write it.
fn holder(file: &OwnedFd) -> Option<Pid> {
    for _ in 0..HOLDER_ATTEMPTS {
        if let Some(Some(pid)) = content(file) {
            return Some(pid);
        }
        thread::sleep(PAUSE);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    use crate::testing::TempDir;

    #[test]
    fn the_content_is_nothing_or_a_pid_and_no_longer_than_one() {
        let path = std::env::temp_dir().join(format!("lock-{}", std::process::id()));
        let mut options = std::fs::File::options();
        let options = options.read(true).write(true).create_new(true);
        let file = options.open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let descriptor = OwnedFd::from(file.try_clone().unwrap());
        let longest = format!("{:0>width$}\n", 7, width = CONTENT_MAX_LEN - 1);
        let longer = format!("00{longest}");
        let more = format!("{longest}7\n");
        let pid = |number| Some(Pid::from_raw(number));
        for (text, expected) in [
            ("", Some(None)),
            ("7\n", pid(7)),
            (&longest, pid(7)),
            (&longer, None),
            (&more, None),
            ("7", None),
            ("0\n", None),
            ("seven\n", None),
        ] {
            file.set_len(0).unwrap();
            file.write_all_at(text.as_bytes(), 0).unwrap();
            assert_eq!(content(&descriptor), expected, "{text:?}");
        }
    }

    #[test]
    fn a_lock_file_is_ours_alone_and_withdrawn_unless_another_has_it() {
        let temp = TempDir::new();
        let path = temp.path();
        let trusted = Trusted::new(super::super::effective_uid());
        let directory =
            super::super::directory::open(path, path, trusted, None, &mut Vec::new()).unwrap();
        let (name, at) = (OsStr::new("a.lock"), directory.descriptor.as_fd());
        let file_path = path.join(name);
        let take = || {
            open(&directory, name, &file_path, trusted)
                .unwrap()
                .unwrap()
        };
        let (file, fresh) = take();
        assert!(fresh);
        let (again, fresh) = take();
        assert!(!fresh);
        for file in [&file, &again] {
            let flags = rustix::io::fcntl_getfd(file).unwrap();
            assert_eq!(flags, rustix::io::FdFlags::CLOEXEC);
            let flags = rustix::fs::fcntl_getfl(file).unwrap();
            assert_eq!(flags & OFlags::ACCMODE, OFlags::RDWR);
            // An open file that somebody has a lease on must not make us wait (fcntl(2)).
            assert!(flags.contains(OFlags::NONBLOCK));
        }
        let rights = file::rights(&rustix::fs::fstat(&file).unwrap());
        assert_eq!(rights.mode, 0o600);
        let id = |file: &OwnedFd| FileId::of(&rustix::fs::fstat(file).unwrap());
        let one_name = |file| has_this_one_name(at, name, id(file), &file_path).unwrap();
        assert!(one_name(&file));
        std::fs::hard_link(&file_path, path.join("second")).unwrap();
        assert!(!one_name(&file), "two names");
        std::fs::remove_file(path.join("second")).unwrap();
        // Another server was faster: the file is its.
        rustix::fs::flock(&again, FlockOperation::NonBlockingLockExclusive).unwrap();
        withdraw(&file, at, name);
        assert!(file_path.exists());
        rustix::fs::flock(&again, FlockOperation::Unlock).unwrap();
        withdraw(&file, at, name);
        assert!(!file_path.exists());
        // Somebody has put another file there.
        let (other, fresh) = take();
        assert!(fresh && !one_name(&file) && one_name(&other));
        withdraw(&file, at, name);
        assert!(file_path.exists());
    }

    #[test]
    fn only_a_file_that_may_not_be_opened_is_looked_at_again() {
        let path = Path::new("/a");
        assert!(is_denied(&BindError::system("open", path, Errno::ACCESS)));
        assert!(is_denied(&BindError::system("open", path, Errno::PERM)));
        assert!(!is_denied(&BindError::system("open", path, Errno::MFILE)));
        let locked = BindError::Locked {
            path: path.to_owned(),
            pid: None,
        };
        assert!(!is_denied(&locked));
    }
}
