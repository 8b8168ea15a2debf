//! Files that are known by their inode and reached through a descriptor.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::rights::Rights;
use crate::ids::{Gid, Uid};

/// Which file this is, as long as it exists or something holds it open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

/// Owner, group and mode of a file.
pub(super) fn rights(stat: &Stat) -> Rights {
    Rights {
        owner: Uid::from_raw(stat.st_uid).unwrap_or(Uid::OVERFLOW),
        group: Gid::from_raw(stat.st_gid).unwrap_or(Gid::OVERFLOW),
        mode: stat.st_mode & 0o7777,
    }
}

/// What a file is.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// What a file is, with its article.
pub(super) fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Unknown => "a file of unknown kind",
    }
}

/// What the name stands for now, without following it. `None` if nothing.
pub(super) fn look(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the name stands for this very file.
pub(super) fn is_at(directory: BorrowedFd<'_>, name: &OsStr, id: FileId) -> io::Result<bool> {
    Ok(look(directory, name)?.is_some_and(|stat| FileId::of(&stat) == id))
}

/// A reference to whatever the name stands for, which gives no access to it
/// (`O_PATH`, open(2)).
pub(super) fn refer(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// A reference to a directory. `ENOTDIR` also for a link to one.
pub(super) fn refer_directory(
    directory: BorrowedFd<'_>,
    name: &OsStr,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// A path to what the descriptor refers to: for bind(2), connect(2) and
/// chmod(2), which take no descriptor, or none that is opened with `O_PATH`.
/// It is short, however long the real path is (proc_pid_fd(5)).
pub(super) fn path_of(descriptor: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

/// Gives owner, group and exact mode to what the descriptor refers to, and no access
/// control list beside them. The mode comes after the owner, since chown(2) may clear bits
/// of it, and before the list goes: as long as there is one, the bits of the group are its
/// mask (acl(5)).
pub(super) fn set_rights(file: &OwnedFd, wanted: Rights) -> Result<(), RightsError> {
    let Rights { owner, group, mode } = wanted;
    let found = rustix::fs::fstat(file).map_err(|error| RightsError::Mode(error.into()))?;
    if (found.st_uid, found.st_gid) != (owner.as_raw(), group.as_raw()) {
        let (uid, gid) = (owner.as_raw(), group.as_raw());
        rustix::fs::chownat(
            file,
            "",
            Some(rustix::fs::Uid::from_raw(uid)),
            Some(rustix::fs::Gid::from_raw(gid)),
            AtFlags::EMPTY_PATH,
        )
        .map_err(|error| RightsError::Owner(error.into()))?;
    }
    rustix::fs::chmod(path_of(file.as_fd()), Mode::from_raw_mode(mode))
        .map_err(|error| RightsError::Mode(error.into()))?;
    // A directory above may have a default list, which what is made in it inherits.
    remove_list(file.as_fd(), "system.posix_acl_access").map_err(RightsError::Mode)?;
    if kind(&found) == FileType::Directory {
        remove_list(file.as_fd(), "system.posix_acl_default").map_err(RightsError::Mode)?;
    }
    let found = rustix::fs::fstat(file).map_err(|error| RightsError::Mode(error.into()))?;
    if rights(&found) == wanted {
        return Ok(());
    }
    // A file system that keeps no owners or modes, as FAT, can't be protected.
    Err(RightsError::Mode(io::Error::from_raw_os_error(
        libc::EOPNOTSUPP,
    )))
}

/// Removes an access control list (acl(5)), and looks that there is none. It is reached
/// by a path, since neither a socket nor `O_PATH` can be opened for it.
fn remove_list(file: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let path = path_of(file);
    match rustix::fs::removexattr(&path, name) {
        // There is none, or the file system has none at all.
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::getxattr_query(&path, name) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
    }
}

/// Which of the rights could not be given.
#[derive(Debug)]
pub(super) enum RightsError {
    Owner(io::Error),
    Mode(io::Error),
}

/// Moves a file to a name that must be free: `EEXIST` otherwise (rename(2)).
pub(super) fn move_to_free_name(
    from: BorrowedFd<'_>,
    old: &OsStr,
    to: BorrowedFd<'_>,
    new: &OsStr,
) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)
}
