//! A connection as a blocking stream, for an embedder's service: `Read`, `Write`,
//! and all bounds of time, which nobody else keeps while a service has the thread.
//!
//! Invariant: a wait ends at the first of: data, the bounds of the server, those of
//! the service, the exit of the authorised process, a forced end.
//!
//! Not here: how built-in services wait, which is the drivers' (`server`).

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::{CloseReason, Connection};

/// How many nanoseconds pass between two looks at the process while data flows.
const BETWEEN_LOOKS: u64 = 10_000_000;

/// What the server looks after while a service waits.
pub(crate) trait Watch: Send + Sync {
    /// When to look at the latest.
    fn due(&self) -> Option<Instant>;

    /// Looks. Gives why the connection must end, if so.
    fn look(&self, connection: &Connection, now: Instant) -> Option<CloseReason>;
}

/// What a connection has besides while a blocking service has it.
pub(super) struct Attended {
    own: Weak<Connection>,
    watch: Box<dyn Watch>,
    /// Nanoseconds; 0 is none.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
    /// When data moved last, in nanoseconds since the connection was opened.
    moved: AtomicU64,
    /// When the process was looked at last, alike.
    looked: AtomicU64,
    /// The process has exited, and nobody holds its end: what it sent is left to read.
    is_left: AtomicBool,
    is_cloned: AtomicBool,
    is_over: AtomicBool,
}

impl std::fmt::Debug for Attended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attended").finish_non_exhaustive()
    }
}

impl Connection {
    /// Makes it ready for blocking use.
    pub(crate) fn attend(self: &Arc<Self>, watch: Box<dyn Watch>) {
        let _ = self.attended.set(Box::new(Attended {
            own: Arc::downgrade(self),
            watch,
            read_timeout: AtomicU64::new(0),
            write_timeout: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            is_left: AtomicBool::new(false),
            is_cloned: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }));
    }

    /// The service has returned: those who hold clones are at the end as well.
    pub(super) fn service_is_over(&self) {
        let Some(attended) = self.attended.get() else {
            return;
        };
        attended.is_over.store(true, Ordering::SeqCst);
        if attended.is_cloned.load(Ordering::SeqCst) {
            let _ = self.shutdown(Shutdown::Both);
        }
    }

    /// Another handle on the same connection, for another thread: one that writes
    /// while this one reads. Both share position, timeouts and counters. When the
    /// service returns, the connection ends for its clones too.
    ///
    /// # Errors
    /// `NotConnected` once the service has returned or the connection was ended by
    /// force; `Unsupported` for a connection of a built-in service.
    pub fn try_clone(&self) -> io::Result<Arc<Self>> {
        let attended = self.attended.get().ok_or(io::ErrorKind::Unsupported)?;
        attended.is_cloned.store(true, Ordering::SeqCst);
        if attended.is_over.load(Ordering::SeqCst) || self.forced().is_some() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        attended
            .own
            .upgrade()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Bounds each `read` of this connection, besides the server's own bounds, which
    /// are for the connection as a whole. `None` is no bound. For blocking services.
    ///
    /// # Errors
    /// `InvalidInput` for a duration of zero, as std's; `Unsupported` for a connection
    /// of a built-in service.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let attended = self.attended.get().ok_or(io::ErrorKind::Unsupported)?;
        set(&attended.read_timeout, timeout)
    }

    /// Bounds each `write`, alike.
    ///
    /// # Errors
    /// As [`set_read_timeout`](Self::set_read_timeout).
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let attended = self.attended.get().ok_or(io::ErrorKind::Unsupported)?;
        set(&attended.write_timeout, timeout)
    }

    /// Ends one direction or both (shutdown(2)): after `Shutdown::Write` the peer
    /// sees the end of the data and may still send.
    ///
    /// # Errors
    /// `NotConnected` when the peer is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(self.as_fd(), how)?)
    }

    /// One read, with all bounds.
    fn read_blocking(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let until = self.attended.get().and_then(|a| end(&a.read_timeout));
        self.end_if_exited()?;
        loop {
            self.end_if_pressing()?;
            // Where no time bounds the wait, the call itself may wait.
            let may_block = until.is_none() && self.first_deadline().is_none();
            match self.recv(buffer, may_block && !self.watches_process())? {
                // What ended it looks like an end of data; it must not pass for one.
                Some(0) if self.forced().is_some() => return Err(self.ended()),
                Some(length) => {
                    self.has_moved();
                    return Ok(length);
                }
                None if self.forced().is_some() => return Err(self.ended()),
                None => self.wait(PollFlags::IN, until)?,
            }
        }
    }

    /// One write, with all bounds.
    fn write_blocking(&self, bytes: &[u8]) -> io::Result<usize> {
        let own = self.attended.get().and_then(|a| end(&a.write_timeout));
        let bound = self.timeouts().write;
        let bound = bound.and_then(|bound| Instant::now().checked_add(bound));
        self.end_if_exited()?;
        loop {
            self.end_if_pressing()?;
            match self.send(bytes) {
                Err(_) if self.forced().is_some() => return Err(self.ended()),
                Err(error) => return Err(error),
                Ok(Some(length)) => {
                    self.has_moved();
                    return Ok(length);
                }
                Ok(None) if self.forced().is_some() => return Err(self.ended()),
                Ok(None) => {}
            }
            if is_over(bound, Instant::now()) {
                self.end_by_force(CloseReason::WriteTimeout);
                return Err(io::ErrorKind::TimedOut.into());
            }
            let until = [own, bound].into_iter().flatten().min();
            match self.wait(PollFlags::OUT, until) {
                Err(error) if error.kind() != io::ErrorKind::TimedOut => return Err(error),
                Err(error) if !is_over(bound, Instant::now()) => return Err(error),
                _ => {}
            }
        }
    }

    /// Waits once, until `until`, a bound of the server, or the exit of the process.
    fn wait(&self, events: PollFlags, until: Option<Instant>) -> io::Result<()> {
        let next = [until, self.first_deadline()].into_iter().flatten().min();
        let timeout = next.map(|next| crate::sys::time::until(next, Instant::now()));
        let mut fds = vec![PollFd::from_borrowed_fd(self.as_fd(), events)];
        if self.watches_process()
            && let Some(pidfd) = self.peer().pidfd()
        {
            fds.push(PollFd::from_borrowed_fd(pidfd, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut came = fds.iter().map(|fd| !fd.revents().is_empty());
        let (socket, exited) = (came.next() == Some(true), came.next() == Some(true));
        // What was sent in time, or before the process exited, still counts.
        if socket {
            return Ok(());
        }
        let now = Instant::now();
        self.end_if_pressing()?;
        let reason = if exited {
            Some(CloseReason::PeerExited)
        } else if is_over(self.first_byte_end(), now) {
            Some(CloseReason::FirstByteTimeout)
        } else if is_over(self.idle_end(), now) {
            Some(CloseReason::IdleTimeout)
        } else {
            None
        };
        match reason {
            Some(reason) => {
                self.end_by_force(reason);
                Err(self.ended())
            }
            None if is_over(until, now) => Err(io::ErrorKind::TimedOut.into()),
            None => Ok(()),
        }
    }

    /// Looks now and then whether the process has exited, however much data there is: it
    /// need not be its own. Where nobody holds its end, it is, and is read to its end.
    fn end_if_exited(&self) -> io::Result<()> {
        if !self.watches_process() {
            return Ok(());
        }
        let Some(attended) = self.attended.get() else {
            return Ok(());
        };
        let (now, looked) = (self.age().max(1), attended.looked.load(Ordering::Relaxed));
        if looked != 0 && now.saturating_sub(looked) < BETWEEN_LOOKS {
            return Ok(());
        }
        attended.looked.store(now, Ordering::Relaxed);
        if self.peer().is_alive().is_ok() {
            return Ok(());
        }
        if self.is_hung_up() {
            attended.is_left.store(true, Ordering::Relaxed);
            return Ok(());
        }
        self.end_by_force(CloseReason::PeerExited);
        Err(self.ended())
    }

    /// Ends it where that is due although data flows: for its age, or because the
    /// process runs another program.
    fn end_if_pressing(&self) -> io::Result<()> {
        let watch = self.attended.get().map(|attended| &attended.watch);
        let due = watch.and_then(|watch| watch.due());
        let next = [self.lifetime_end(), due].into_iter().flatten().min();
        let Some(now) = next.map(|_| Instant::now()) else {
            return Ok(());
        };
        let reason = if is_over(self.lifetime_end(), now) {
            Some(CloseReason::MaxLifetime)
        } else {
            watch.and_then(|watch| watch.look(self, now))
        };
        let Some(reason) = reason else { return Ok(()) };
        self.end_by_force(reason);
        Err(self.ended())
    }

    /// The first of the server's bounds.
    fn first_deadline(&self) -> Option<Instant> {
        let watch = self.attended.get().and_then(|a| a.watch.due());
        [self.lifetime_end(), self.first_byte_end(), self.idle_end()]
            .into_iter()
            .chain([watch])
            .flatten()
            .min()
    }

    fn lifetime_end(&self) -> Option<Instant> {
        self.timeouts()
            .max_lifetime
            .and_then(|bound| self.opened().checked_add(bound))
    }

    fn first_byte_end(&self) -> Option<Instant> {
        self.timeouts()
            .first_byte
            .filter(|_| self.traffic() == (0, 0))
            .and_then(|bound| self.admitted().checked_add(bound))
    }

    fn idle_end(&self) -> Option<Instant> {
        let bound = self.timeouts().idle?;
        let moved = self
            .attended
            .get()
            .map_or(0, |a| a.moved.load(Ordering::Relaxed));
        self.opened()
            .checked_add(Duration::from_nanos(moved).saturating_add(bound))
    }

    fn has_moved(&self) {
        if self.timeouts().idle.is_none() {
            return;
        }
        if let Some(attended) = self.attended.get() {
            attended.moved.store(self.age(), Ordering::Relaxed);
        }
    }

    /// Nanoseconds since it was opened.
    fn age(&self) -> u64 {
        u64::try_from(self.opened().elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn watches_process(&self) -> bool {
        let is_left = |attended: &Attended| attended.is_left.load(Ordering::Relaxed);
        self.ends_with_peer() && self.attended.get().is_some_and(|one| !is_left(one))
    }

    /// What a call gets on a connection that was ended by force.
    fn ended(&self) -> io::Error {
        let reason = self.forced().unwrap_or(CloseReason::Stopping);
        let kind = match reason {
            CloseReason::FirstByteTimeout
            | CloseReason::IdleTimeout
            | CloseReason::WriteTimeout
            | CloseReason::MaxLifetime => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, format!("the server ended the connection: {reason}"))
    }
}

/// Blocking use. Bounds of the server that are over end the connection and give
/// `TimedOut`; an end by the server, `ConnectionAborted`; a timeout that the service
/// set, `TimedOut`, and the connection goes on.
impl io::Read for &Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_blocking(buffer)
    }
}

/// As reading.
impl io::Write for &Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_blocking(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_blocking(buffer)
    }
}

impl io::Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_blocking(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_over(end: Option<Instant>, now: Instant) -> bool {
    end.is_some_and(|end| end <= now)
}

fn end(nanoseconds: &AtomicU64) -> Option<Instant> {
    match nanoseconds.load(Ordering::Relaxed) {
        0 => None,
        bound => Instant::now().checked_add(Duration::from_nanos(bound)),
    }
}

fn set(nanoseconds: &AtomicU64, timeout: Option<Duration>) -> io::Result<()> {
    let bound = match timeout {
        None => 0,
        Some(Duration::ZERO) => return Err(io::ErrorKind::InvalidInput.into()),
        Some(timeout) => u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
    };
    nanoseconds.store(bound, Ordering::Relaxed);
    Ok(())
}
