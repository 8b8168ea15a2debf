//! A receive that may block, and that other threads can end.
//!
//! The thread that is about to block says who it is, then looks whether somebody has
//! called meanwhile; who calls sets the mark, then looks whether anybody blocks. One
//! of the two sees the other. A thread between its look and the system call is caught
//! by the socket's own bound (`SO_RCVTIMEO`, socket(7)), which the caller makes as
//! short as it can be before it interrupts: a receive that begins after that returns
//! at once, one that has begun returns with `EINTR`.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::sys::interrupt::{Blocked, ThreadId};

/// How long a receive blocks at most that has a time to keep.
pub(crate) const BOUND: Duration = Duration::from_secs(1);
/// The kernel rounds it up to its next tick.
const AT_ONCE: Duration = Duration::from_micros(1);

/// What `SO_RCVTIMEO` is.
const NONE: u8 = 0;
const BOUNDED: u8 = 1;
const SHORT: u8 = 2;

#[derive(Debug, Default)]
pub(super) struct Receiving {
    blocked: Blocked,
    interrupted: AtomicBool,
    bound: AtomicU8,
}

impl Receiving {
    /// Announces that this thread blocks next, for [`BOUND`] at most if it is
    /// `bounded`. False if somebody has called: then it must not.
    ///
    /// # Errors
    /// As setsockopt(2); not for any valid socket.
    pub(super) fn enter(&self, socket: BorrowedFd<'_>, bounded: bool) -> io::Result<bool> {
        self.blocked.set(ThreadId::current());
        if self.interrupted.swap(false, Ordering::SeqCst) {
            self.blocked.clear();
            return Ok(false);
        }
        // One that is bounded though it need not be wakes once in vain; to change it
        // each time would cost more.
        let fits = match self.bound.load(Ordering::SeqCst) {
            NONE => !bounded,
            BOUNDED => true,
            _ => false,
        };
        if !fits {
            self.limit(socket, bounded)?;
        }
        Ok(true)
    }

    fn limit(&self, socket: BorrowedFd<'_>, bounded: bool) -> io::Result<()> {
        let (mark, bound) = if bounded {
            (BOUNDED, Some(BOUND))
        } else {
            (NONE, None)
        };
        self.bound.store(mark, Ordering::SeqCst);
        let set = set_socket_timeout(socket, Timeout::Recv, bound);
        // Who has called in between has made it short, and this may have undone it.
        if self.interrupted.load(Ordering::SeqCst) {
            self.shorten(socket);
        }
        set.inspect_err(|_| self.blocked.clear())?;
        Ok(())
    }

    /// It doesn't block any more. What it does next sees what the callers did before
    /// they called.
    pub(super) fn leave(&self) {
        self.blocked.clear();
        self.interrupted.store(false, Ordering::SeqCst);
    }

    /// Ends the receive that blocks now, or the next that would.
    pub(super) fn interrupt(&self, socket: BorrowedFd<'_>) {
        self.interrupted.store(true, Ordering::SeqCst);
        if let Some(thread) = self.blocked.get() {
            self.shorten(socket);
            thread.interrupt();
        }
    }

    fn shorten(&self, socket: BorrowedFd<'_>) {
        self.bound.store(SHORT, Ordering::SeqCst);
        // Without it a call in the shortest of moments would be missed; the socket
        // is valid, so it can't fail.
        let _ = set_socket_timeout(socket, Timeout::Recv, Some(AT_ONCE));
    }
}
