//! A descriptor kept in reserve, so that a connection that took the last one can
//! still be examined: a peer must not be denied, or a server fail, for want of
//! the pidfd's number.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// One descriptor that is free to give.
#[derive(Debug)]
pub(super) struct Reserve {
    kept: Mutex<Option<File>>,
    spent: AtomicBool,
}

impl Reserve {
    /// # Errors
    /// When no descriptor is free already.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            kept: Mutex::new(Some(open()?)),
            spent: AtomicBool::new(false),
        })
    }

    /// Does something for which no descriptor was free, with the reserve given up
    /// for as long as it takes to find another. Nobody else takes what is set
    /// free before this thread does, except by luck.
    pub(super) fn spend_on<T>(&self, attempt: impl FnOnce() -> T) -> T {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        drop(kept.take());
        let result = attempt();
        *kept = open().ok();
        self.spent.store(kept.is_none(), Ordering::Relaxed);
        result
    }

    /// A descriptor was closed: keep one again, if the last was given up.
    pub(super) fn refill(&self) {
        if self.spent.load(Ordering::Relaxed) {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = kept.take().or_else(|| open().ok());
            self.spent.store(kept.is_none(), Ordering::Relaxed);
        }
    }
}

fn open() -> io::Result<File> {
    // An eventfd needs no path, and so no right that a sandbox takes.
    let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    Ok(File::from(fd))
}
