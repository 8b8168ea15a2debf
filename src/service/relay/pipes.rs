//! Pipes for `splice(2)`, shared by all connections: one is taken only while
//! bulk data moves, and is empty whenever it is given back.
//!
//! Invariants: at most [`PIPES_MAX`] exist at once, so they cost at most twice as
//! many descriptors; where none is to be had, data is copied instead.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Pipes at once: as many of 1 MiB as one user may have without privilege
/// (pipe(7), `pipe-user-pages-soft`).
pub const PIPES_MAX: usize = 64;

/// Pipes that wait for the next use; more are closed.
const IDLE_MAX: usize = 16;

/// The size asked for, in bytes: `pipe-max-size` without privilege.
const WANTED: usize = 1 << 20;

/// Below this a pipe moves less at once than a copy does.
const USEFUL: usize = 64 << 10;

/// One pipe. Not blocking, closed on exec.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
    /// Bytes that fit if they are contiguous.
    pub(super) capacity: usize,
    made: Arc<AtomicUsize>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.made.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The pipes of one relay.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    idle: Mutex<Vec<Pipe>>,
    made: Arc<AtomicUsize>,
}

impl Pipes {
    /// An empty pipe, unless the bound or a limit of the system is reached.
    pub(super) fn take(&self) -> Option<Pipe> {
        if let Some(pipe) = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
        {
            return Some(pipe);
        }
        if self.made.fetch_add(1, Ordering::Relaxed) >= PIPES_MAX {
            self.made.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        make(&self.made).ok().filter(|pipe| pipe.capacity >= USEFUL)
    }

    /// Takes back a pipe that is empty.
    pub(super) fn give_back(&self, pipe: Pipe) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(pipe);
        }
    }

    #[cfg(test)]
    pub(super) fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }
}

/// Counts as made from the caller's increment on, also if it fails half-way.
fn make(made: &Arc<AtomicUsize>) -> io::Result<Pipe> {
    let (read, write) = match pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC) {
        Ok(ends) => ends,
        Err(error) => {
            made.fetch_sub(1, Ordering::Relaxed);
            return Err(error.into());
        }
    };
    let mut pipe = Pipe {
        read,
        write,
        capacity: 0,
        made: Arc::clone(made),
    };
    // Past the user's soft limit a new pipe has two pages, and can't grow (EPERM).
    pipe.capacity = match fcntl_setpipe_size(&pipe.write, WANTED) {
        Ok(size) => size,
        Err(_) => rustix::pipe::fcntl_getpipe_size(&pipe.write)?,
    };
    Ok(pipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_every_pipe_is_counted_back() {
        let pipes = Pipes::default();
        let all: Vec<Pipe> = std::iter::from_fn(|| pipes.take()).collect();
        assert!(!all.is_empty() && all.len() <= PIPES_MAX);
        assert!(pipes.take().is_none());
        for pipe in all {
            pipes.give_back(pipe);
        }
        assert_eq!(pipes.made(), IDLE_MAX);
        let again = pipes.take().unwrap();
        drop(again);
        assert_eq!(pipes.made(), IDLE_MAX - 1);
    }
}
