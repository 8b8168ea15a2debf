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

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
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
    /// Locked, so that nobody takes it for left behind.
    directory: OwnedFd,
    id: FileId,
    /// The name of what is made in here.
    entry: OsString,
}

impl Staging {
    /// Makes the directory, for an entry called `entry` that is to be called
    /// `subject` in `parent`. Its name is kept for that subject, so that what a
    /// killed server left there is found and removed; if somebody else has that
    /// name, it gets one that nobody can guess.
    pub(super) fn create(
        parent: BorrowedFd<'_>,
        parent_path: &Path,
        subject: &OsStr,
        entry: &OsStr,
    ) -> Result<Self, BindError> {
        let kept = name_for(subject);
        for attempt in 0..ATTEMPTS {
            let name = match attempt {
                0 | 1 => kept.clone(),
                _ => {
                    let random = RandomState::new().build_hasher().finish();
                    OsString::from(format!(".secure_socket.{random:016x}"))
                }
            };
            if let Some(staging) = Self::try_name(parent, parent_path, &name, entry)? {
                return Ok(staging);
            }
            if attempt == 0 {
                Self::sweep(parent, subject, entry);
            }
        }
        let path = parent_path.to_owned();
        Err(BindError::Interfered { path })
    }

    /// Removes what a killed server left while it made this subject.
    pub(super) fn sweep(parent: BorrowedFd<'_>, subject: &OsStr, entry: &OsStr) {
        if let Ok(Some(left)) = Self::adopt(parent, &name_for(subject), entry) {
            // Killed between putting a file aside and replacing it: as before.
            let _back = file::move_to_free_name(left.as_fd(), ASIDE.as_ref(), parent, subject);
        }
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
            Err(Errno::EXIST | Errno::NAMETOOLONG) => return Ok(None),
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
        Self::adopt(parent, name, entry).map_err(|error| {
            // Out of descriptors, most likely. It is empty, so this can't harm.
            let _gone = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
            BindError::system("open", &parent_path.join(name), error)
        })
    }

    /// Takes a directory that is there, if it can be ours and nobody else's, and
    /// no other server works in it.
    fn adopt(
        parent: BorrowedFd<'_>,
        name: &OsStr,
        entry: &OsStr,
    ) -> rustix::io::Result<Option<Self>> {
        let reference = match file::refer_directory(parent, name) {
            Ok(reference) => reference,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let stat = rustix::fs::fstat(&reference)?;
        let (rights, id) = (file::rights(&stat), FileId::of(&stat));
        if rights.owner != effective_uid() || rights.mode & 0o077 != 0 {
            return Ok(None);
        }
        // The umask may have taken our own bits away.
        rustix::fs::chmod(file::path_of(reference.as_fd()), Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&reference, ".", flags, Mode::empty())?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error),
        }
        if !file::is_at(parent, name, id).unwrap_or(false) {
            return Ok(None);
        }
        let parent = rustix::io::fcntl_dupfd_cloexec(parent, 0)?;
        let (name, entry) = (name.to_owned(), entry.to_owned());
        Ok(Some(Self {
            parent,
            name,
            directory,
            id,
            entry,
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

/// The name of the directory in which `subject` is made.
fn name_for(subject: &OsStr) -> OsString {
    let mut name = OsString::from(".");
    name.push(subject);
    name.push(".new");
    name
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    use crate::testing::TempDir;

    /// A directory for us alone, and a descriptor of it.
    struct Temp(TempDir, OwnedFd);

    impl Temp {
        fn new() -> Self {
            let directory = TempDir::new();
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let descriptor = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
            Self(directory, descriptor)
        }

        fn left(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.0.directory(name, mode);
            fs::create_dir(path.join("entry")).unwrap();
            path
        }

        fn create(&self) -> Staging {
            let (subject, entry) = (OsStr::new("a"), OsStr::new("entry"));
            Staging::create(self.1.as_fd(), self.0.path(), subject, entry).unwrap()
        }
    }

    #[test]
    fn what_was_left_makes_room_and_what_is_in_use_or_open_to_others_does_not() {
        let temp = Temp::new();
        temp.left(".a.new", 0o700);
        let first = temp.create();
        assert_eq!(first.name, ".a.new");
        let flags = rustix::io::fcntl_getfd(first.as_fd()).unwrap();
        assert_eq!(flags, rustix::io::FdFlags::CLOEXEC);
        let second = temp.create();
        assert_ne!(second.name, first.name);
        assert!(format!("{second:?}").contains(second.name.to_str().unwrap()));
        drop((first, second));
        assert_eq!(fs::read_dir(temp.0.path()).unwrap().count(), 0);
        // Others could have put something in there.
        let open = temp.left(".a.new", 0o770);
        assert_ne!(temp.create().name, ".a.new");
        assert!(open.join("entry").exists());
    }
}
