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
/// Short, or not known: to be set before the next receive.
const STALE: u8 = 2;

#[derive(Debug, Default)]
pub(super) struct Receiving {
    blocked: Blocked,
    interrupted: AtomicBool,
    bound: AtomicU8,
}

impl Receiving {
    /// Makes a receive that may block, for [`BOUND`] at most if it is `bounded`.
    /// `None` if somebody has called, or nothing has come.
    ///
    /// # Errors
    /// Those of `receive`; as setsockopt(2), which fails for no valid socket.
    pub(super) fn run(
        &self,
        socket: BorrowedFd<'_>,
        bounded: bool,
        receive: impl FnOnce() -> io::Result<Option<usize>>,
    ) -> io::Result<Option<usize>> {
        if !self.enter(socket, bounded)? {
            return Ok(None);
        }
        let received = receive();
        self.leave();
        if matches!(received, Ok(None)) {
            // Perhaps nobody has called: who did so a receive ago may have come to the
            // socket only now, after `limit`, and then the mark is wrong.
            self.bound.store(STALE, Ordering::SeqCst);
        }
        received
    }

    /// Announces that this thread blocks next. False if somebody has called: then it
    /// must not.
    fn enter(&self, socket: BorrowedFd<'_>, bounded: bool) -> io::Result<bool> {
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
    fn leave(&self) {
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
        self.bound.store(STALE, Ordering::SeqCst);
        // Without it a call in the shortest of moments would be missed; the socket
        // is valid, so it can't fail.
        let _ = set_socket_timeout(socket, Timeout::Recv, Some(AT_ONCE));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use rustix::net::sockopt::socket_timeout;

    use super::*;

    /// As a receive of the connection: nothing to be had is no error.
    fn receive(mut socket: &UnixStream) -> io::Result<Option<usize>> {
        match socket.read(&mut [0; 8]) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[test]
    fn one_who_calls_too_late_shortens_one_receive_only() {
        for bounded in [false, true] {
            let (socket, mut peer) = UnixStream::pair().unwrap();
            let receiving = Receiving::default();
            let run = || receiving.run(socket.as_fd(), bounded, || receive(&socket));
            peer.write_all(b"a").unwrap();
            assert_eq!(run().unwrap(), Some(1));
            // The last half of `shorten`, of one who called during that receive and was
            // held up until the next one had set mark and socket.
            set_socket_timeout(&socket, Timeout::Recv, Some(AT_ONCE)).unwrap();
            let begin = Instant::now();
            assert_eq!(run().unwrap(), None);
            assert!(begin.elapsed() < BOUND);
            peer.write_all(b"b").unwrap();
            assert_eq!(run().unwrap(), Some(1));
            let left = socket_timeout(&socket, Timeout::Recv).unwrap();
            assert_eq!(left, bounded.then_some(BOUND));
        }
    }

    #[test]
    fn who_calls_ends_the_receive_that_comes_next() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        let receiving = Receiving::default();
        receiving.interrupt(socket.as_fd());
        let run = || receiving.run(socket.as_fd(), false, || panic!("it blocks"));
        assert_eq!(run().unwrap(), None);
    }
}
