//! The name of a bound socket, and its removal.
//!
//! Invariants: it goes by the directory that was opened when the socket was
//! bound, so it works after the privileges are gone, and needs to remove files
//! there and nothing else; what the name stands for is unlinked only if it is
//! the inode that was bound, which can't be another's while the socket is open.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::AtFlags;

use super::directory::Directory;
use super::file::{self, FileId};
use super::lock::Lock;

/// Where a socket of ours lies, and what it takes to remove it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: Directory,
    pub(super) name: OsString,
    pub(super) id: FileId,
    /// Taken when there is nothing left to clear.
    pub(super) lock: Option<Lock>,
    /// A child that was forked off must not remove its parent's socket.
    pub(super) process: i32,
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
