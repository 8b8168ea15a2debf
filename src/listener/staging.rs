//! A directory of our own inside another, where a file gets its owner and mode
//! before anyone else can reach it.
//!
//! Invariants: mode `0700` and our own user from the first moment, so that
//! nobody but us (and root) can put a file of theirs in place of ours between
//! two system calls, even where the directory around it belongs to somebody
//! else. When it is dropped it is removed, with what was made in it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::effective_uid;
use super::error::BindError;
use super::file::{self, FileId, RightsError};
use super::rights::Rights;

/// How often a name is chosen anew if it is taken.
const ATTEMPTS: u32 = 16;
/// The name that an old file of the socket's path has in here, until it is known
/// to be the stale socket and removed.
pub(super) const ASIDE: &str = "replaced";

pub(super) struct Staging {
    parent: OwnedFd,
    name: OsString,
    directory: OwnedFd,
    id: FileId,
    /// The name of what is made in here.
    entry: OsString,
}

impl Staging {
    /// Makes the directory under a name that nobody can guess, for an entry
    /// called `entry`.
    pub(super) fn create(
        parent: BorrowedFd<'_>,
        parent_path: &Path,
        entry: &OsStr,
    ) -> Result<Self, BindError> {
        for _ in 0..ATTEMPTS {
            let random = RandomState::new().build_hasher().finish();
            let name = OsString::from(format!(".secure_socket.{random:016x}"));
            if let Some(staging) = Self::try_name(parent, parent_path, &name, entry)? {
                return Ok(staging);
            }
        }
        Err(BindError::Interfered {
            path: parent_path.to_owned(),
        })
    }

    /// Makes the directory under the name that is kept for this socket, so
    /// that what a killed server left there is found and removed. The caller
    /// holds the socket's lock. Falls back to a name that nobody can guess.
    pub(super) fn create_for(
        parent: BorrowedFd<'_>,
        parent_path: &Path,
        socket: &OsStr,
        entry: &OsStr,
    ) -> Result<Self, BindError> {
        let mut name = OsString::from(".");
        name.push(socket);
        name.push(".new");
        if let Some(staging) = Self::try_name(parent, parent_path, &name, entry)? {
            return Ok(staging);
        }
        if let Ok(Some(left)) = Self::adopt(parent, &name, entry) {
            // Killed between putting a file aside and replacing it: as before.
            let _back = file::move_to_free_name(left.as_fd(), ASIDE.as_ref(), parent, socket);
        }
        if let Some(staging) = Self::try_name(parent, parent_path, &name, entry)? {
            return Ok(staging);
        }
        Self::create(parent, parent_path, entry)
    }

    /// The directory.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// `None` if the name is taken.
    fn try_name(
        parent: BorrowedFd<'_>,
        parent_path: &Path,
        name: &OsStr,
        entry: &OsStr,
    ) -> Result<Option<Self>, BindError> {
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(None),
            Err(error) => {
                let found = rustix::fs::fstat(parent)
                    .map_err(|error| BindError::system("examine", parent_path, error))?;
                return Err(BindError::DirectoryAccess {
                    action: "create a file in",
                    path: parent_path.to_owned(),
                    found: file::rights(&found),
                    source: error.into(),
                });
            }
        }
        let path = parent_path.join(name);
        let made = match Self::adopt(parent, name, entry) {
            // The umask may have taken our own bits away.
            Ok(Some(staging)) => rustix::fs::chmod(file::path_of(staging.as_fd()), Mode::RWXU)
                .map(|()| staging)
                .map_err(|error| BindError::system("change the mode of", &path, error)),
            Ok(None) => Err(BindError::Interfered { path }),
            Err(error) => {
                // Out of descriptors, most likely. It is empty, so this can't harm.
                let _gone = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
                Err(BindError::system("open", &path, error))
            }
        };
        made.map(Some)
    }

    /// Takes a directory that is there, if it can be ours and nobody else's.
    fn adopt(
        parent: BorrowedFd<'_>,
        name: &OsStr,
        entry: &OsStr,
    ) -> rustix::io::Result<Option<Self>> {
        let directory = match file::refer_directory(parent, name) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = rustix::fs::fstat(&directory)?;
        let rights = file::rights(&stat);
        if rights.owner != effective_uid() || rights.mode & 0o077 != 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            parent: rustix::io::fcntl_dupfd_cloexec(parent, 0)?,
            name: name.to_owned(),
            directory,
            id: FileId::of(&stat),
            entry: entry.to_owned(),
        }))
    }

    /// Moves what was made here to its place, where nothing may lie yet.
    pub(super) fn publish(&self, to: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
        file::move_to_free_name(self.as_fd(), &self.entry, to, name)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What is gone already needs no removal, and what can't be removed is
        // found again at the next start. Nothing but a socket or an empty
        // directory is ever made here, so nothing else is removed.
        let made = file::look(self.as_fd(), &self.entry).ok().flatten();
        let flags = match made.map(|stat| file::kind(&stat)) {
            Some(FileType::Socket) => Some(AtFlags::empty()),
            Some(FileType::Directory) => Some(AtFlags::REMOVEDIR),
            _ => None,
        };
        if let Some(flags) = flags {
            let _gone = rustix::fs::unlinkat(self.as_fd(), &self.entry, flags);
        }
        if file::is_at(self.parent.as_fd(), &self.name, self.id).unwrap_or(false) {
            let _gone = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
        }
    }
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The refusal for rights that could not be given to `path`.
pub(super) fn refuse_rights(path: &Path, wanted: Rights, error: RightsError) -> BindError {
    match error {
        RightsError::Owner(source) => BindError::Ownership {
            path: path.to_owned(),
            owner: wanted.owner,
            group: wanted.group,
            source,
        },
        RightsError::Mode(source) => BindError::system("change the mode of", path, source),
    }
}
