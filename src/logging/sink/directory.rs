//! The directory of a log file, opened once, and what is done in it by name.
//!
//! Invariants: no symbolic link is followed in any component; each component is
//! owned by root or by us and not writable by others, or sticky. What is
//! missing is created 0700. After that the path is not used again: all goes
//! through the descriptor, so that directory rights suffice in a sandbox.

use super::super::LoggingError;
use super::super::rotation_names::Archive;
use crate::ids::{Gid, Uid};
use crate::sys::rename;
use rustix::fs::{self, Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Mode of directories that are created.
const DIRECTORY_MODE: u32 = 0o700;

/// Who owns what is created, and who may own what is found, besides root and
/// the process's own user.
pub(in super::super) type Owner = Option<(Uid, Gid)>;

/// An opened directory and the name of the log file in it.
pub(in super::super) struct Directory {
    descriptor: OwnedFd,
    /// A descriptor of its own for listing: it has a position.
    listing: Mutex<Dir>,
    path: PathBuf,
    pub(super) base: OsString,
    pub(super) owner: Owner,
}

impl Directory {
    /// Opens the directory of `file`, and creates it if it is missing.
    pub(in super::super) fn open(file: &Path, owner: Owner) -> Result<Self, LoggingError> {
        let absolute = std::path::absolute(file).map_err(|source| LoggingError::File {
            path: file.to_owned(),
            why: "the current directory can't be told".into(),
            source: Some(source),
        })?;
        let named = absolute.file_name().zip(absolute.parent());
        let Some((base, path)) = named.filter(|_| !ends_in_slash(file)) else {
            let why = "expected the path of a file".into();
            return Err(LoggingError::File {
                path: file.to_owned(),
                why,
                source: None,
            });
        };
        let descriptor = walk(path, owner)?;
        let listing = fs::openat(
            &descriptor,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(Dir::new)
        .map_err(|errno| wrong(path, "it can't be listed", Some(errno)))?;
        Ok(Self {
            descriptor,
            listing: Mutex::new(listing),
            path: path.to_owned(),
            base: base.to_owned(),
            owner,
        })
    }

    /// The directory's path, for messages.
    pub(in super::super) fn path(&self) -> &Path {
        &self.path
    }

    /// The log file's path, for messages.
    pub(in super::super) fn file_path(&self) -> PathBuf {
        self.path.join(&self.base)
    }

    /// What an administrator wants to know about it.
    pub(in super::super) fn remarks(&self) -> Vec<String> {
        remarks_on(&self.descriptor, &self.path, &self.file_path(), self.owner)
    }

    /// Opens a file here, never through a link, never waiting.
    pub(super) fn open_file(&self, name: &OsStr, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(fs::openat(
            &self.descriptor,
            name,
            flags,
            Mode::from_raw_mode(mode),
        )?)
    }

    /// What is at a name, without following a link.
    pub(super) fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(fs::statat(
            &self.descriptor,
            name,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Renames, and refuses to replace anything.
    pub(super) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(rename::to_free_name(self.descriptor.as_fd(), from, to)?)
    }

    pub(super) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.descriptor, name, AtFlags::empty())?)
    }

    /// Makes names durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.descriptor)?)
    }

    /// The rolled files, in the order of time.
    pub(super) fn archives(&self) -> io::Result<Vec<Archive>> {
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        listing.rewind();
        let mut archives = Vec::new();
        while let Some(entry) = listing.read() {
            let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
            archives.extend(Archive::parse(&self.base, &name));
        }
        archives.sort();
        Ok(archives)
    }

    /// The newest rolled file of ours: in a sticky directory others may have made such
    /// names, and must not say where ours end.
    pub(super) fn newest(&self) -> io::Result<Option<Archive>> {
        let archives = self.archives()?;
        let is_ours = |archive: &Archive| {
            let stat = self.stat(&archive.name(&self.base));
            stat.is_ok_and(|stat| is_ours(&stat, self.owner))
        };
        Ok(archives.into_iter().rev().find(is_ours))
    }
}

/// What there is to say about the directory of a log file as it is now: that others
/// share it, that the file can't be rolled in it. Nothing if it is missing. Makes and
/// changes nothing.
#[cfg(feature = "daemon")]
pub(crate) fn log_file_remarks(file: &Path, owner: Owner) -> Vec<String> {
    let Some(path) = file.parent() else {
        return Vec::new();
    };
    let flags = directory_flags().difference(OFlags::RDONLY) | OFlags::PATH;
    fs::open(path, flags, Mode::empty()).map_or_else(
        |_| Vec::new(),
        |directory| remarks_on(&directory, path, file, owner),
    )
}

fn remarks_on(directory: &OwnedFd, path: &Path, file: &Path, owner: Owner) -> Vec<String> {
    let Ok(stat) = fs::fstat(directory) else {
        return Vec::new();
    };
    let mut remarks = Vec::new();
    let shown = path.display();
    if stat.st_mode & 0o022 != 0 {
        remarks.push(format!(
            "log directory {shown} is shared with others (mode {:04o}, uid {}, gid {}); a \
             directory for the log alone is safer",
            stat.st_mode & 0o7777,
            stat.st_uid,
            stat.st_gid
        ));
    }
    if !can_roll(directory, &stat, owner) {
        let who = owner.map_or_else(
            || format!("uid {}", rustix::process::geteuid().as_raw()),
            |(uid, _)| format!("run_as_user (uid {uid})"),
        );
        remarks.push(format!(
            "log file {} can't be rolled, and grows: {who} may not write {shown}",
            file.display()
        ));
    }
    remarks
}

/// Whether files can be renamed and created here: by this process, or by the owner as far
/// as the mode tells.
fn can_roll(directory: &OwnedFd, stat: &Stat, owner: Owner) -> bool {
    let Some((uid, gid)) = owner else {
        let needed = Access::WRITE_OK | Access::EXEC_OK;
        return fs::accessat(directory, ".", needed, AtFlags::EACCESS) != Err(Errno::ACCESS);
    };
    let needed = if uid == Uid::ROOT {
        return true;
    } else if stat.st_uid == uid.as_raw() {
        0o300
    } else if stat.st_gid == gid.as_raw() {
        0o030
    } else {
        0o003
    };
    stat.st_mode & needed == needed
}

fn ends_in_slash(path: &Path) -> bool {
    path.as_os_str().as_bytes().last() == Some(&b'/')
}

/// Opens each component in turn, from the root.
fn walk(path: &Path, owner: Owner) -> Result<OwnedFd, LoggingError> {
    let mut walked = PathBuf::from("/");
    let mut current = fs::openat(CWD, "/", directory_flags(), Mode::empty())
        .map_err(|errno| wrong(&walked, "it can't be opened", Some(errno)))?;
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                walked.push(name);
                current = step(&current, name, &walked, owner)?;
                check(&current, &walked, owner)?;
            }
            Component::ParentDir | Component::Prefix(_) => {
                return Err(wrong(path, "expected a path without ..", None));
            }
        }
    }
    Ok(current)
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Opens one component, after creating it if it is missing.
fn step(
    parent: &OwnedFd,
    name: &OsStr,
    path: &Path,
    owner: Owner,
) -> Result<OwnedFd, LoggingError> {
    match open_directory(parent, name) {
        Err(Errno::NOENT) => {}
        other => return other.map_err(|errno| explain(parent, name, path, errno)),
    }
    match fs::mkdirat(parent, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => {
            return Err(wrong(
                path,
                "it is missing and can't be created",
                Some(errno),
            ));
        }
    }
    // Opened again rather than trusted: somebody may have been faster.
    let created =
        open_directory(parent, name).map_err(|errno| explain(parent, name, path, errno))?;
    let settled = fs::fchmod(&created, Mode::from_raw_mode(DIRECTORY_MODE))
        .and_then(|()| give_to(&created, owner));
    settled.map_err(|errno| wrong(path, "its mode and owner can't be set", Some(errno)))?;
    Ok(created)
}

/// Some directories may be crossed but not read: those are opened as paths.
fn open_directory(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let open = |flags| {
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        match fs::openat2(parent, name, flags, Mode::empty(), resolve) {
            // No openat2 before Linux 5.6: one component, no link followed.
            Err(Errno::NOSYS | Errno::PERM) => fs::openat(parent, name, flags, Mode::empty()),
            other => other,
        }
    };
    match open(directory_flags()) {
        Err(Errno::ACCESS) => open(directory_flags().difference(OFlags::RDONLY) | OFlags::PATH),
        other => other,
    }
}

fn give_to(descriptor: &OwnedFd, owner: Owner) -> Result<(), Errno> {
    let Some((uid, gid)) = owner else {
        return Ok(());
    };
    let (uid, gid) = (
        fs::Uid::from_raw(uid.as_raw()),
        fs::Gid::from_raw(gid.as_raw()),
    );
    fs::fchown(descriptor, Some(uid), Some(gid))
}

/// The kernel says ELOOP or ENOTDIR for a link: say where it leads.
fn explain(parent: &OwnedFd, name: &OsStr, path: &Path, errno: Errno) -> LoggingError {
    if let Ok(target) = fs::readlinkat(parent, name, Vec::new()) {
        let target = target.to_string_lossy().into_owned();
        let why = format!("it is a symbolic link to {target}; expected the real path");
        return wrong(path, &why, None);
    }
    wrong(path, "it can't be opened as a directory", Some(errno))
}

fn check(descriptor: &OwnedFd, path: &Path, owner: Owner) -> Result<(), LoggingError> {
    let stat = fs::fstat(descriptor)
        .map_err(|errno| wrong(path, "its owner can't be told", Some(errno)))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(wrong(path, "expected a directory", None));
    }
    if !may_own(stat.st_uid, owner) {
        let why = format!(
            "it is owned by uid {}, expected root or the server's user",
            stat.st_uid
        );
        return Err(wrong(path, &why, None));
    }
    let (writable_by_others, sticky) = (stat.st_mode & 0o022 != 0, stat.st_mode & 0o1000 != 0);
    if writable_by_others && !sticky {
        let why = format!(
            "others can write it (mode {:04o}), expected a directory that only its owner can write",
            stat.st_mode & 0o7777
        );
        return Err(wrong(path, &why, None));
    }
    Ok(())
}

/// Whether a thing of this user is as good as ours.
pub(super) fn may_own(uid: u32, owner: Owner) -> bool {
    uid == 0
        || uid == rustix::process::geteuid().as_raw()
        || owner.is_some_and(|(owner, _)| owner.as_raw() == uid)
}

/// Whether it is a regular file that may be touched as one of ours. One with a second name
/// is none: in a sticky directory that may have been given by another user.
pub(super) fn is_ours(stat: &Stat, owner: Owner) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_nlink == 1
        && may_own(stat.st_uid, owner)
}

/// Gives a file of ours its exact mode and owner.
pub(super) fn settle(file: impl AsFd, mode: u32, owner: Owner) -> io::Result<()> {
    let stat = fs::fstat(&file)?;
    if let Some((uid, gid)) = owner
        && (stat.st_uid != uid.as_raw() || stat.st_gid != gid.as_raw())
    {
        let (uid, gid) = (
            fs::Uid::from_raw(uid.as_raw()),
            fs::Gid::from_raw(gid.as_raw()),
        );
        fs::fchown(&file, Some(uid), Some(gid))?;
    }
    if stat.st_mode & 0o7777 != mode {
        fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    }
    Ok(())
}

fn wrong(path: &Path, why: &str, errno: Option<Errno>) -> LoggingError {
    LoggingError::Directory {
        path: path.to_owned(),
        why: why.to_owned(),
        source: errno.map(io::Error::from),
    }
}
