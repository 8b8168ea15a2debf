//! The signals that the daemon answers, as a descriptor (signalfd(2)).
//!
//! They are blocked before any thread exists, so that none of them interrupts or
//! ends another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    /// TERM or INT.
    Stop,
    /// HUP.
    Reload,
    /// USR1.
    Summary,
}

#[derive(Debug)]
pub(super) struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Blocks them in this thread and all that it will start.
    pub(super) fn block() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGUSR1,
        ] {
            set.add(signal);
        }
        set.thread_block()?;
        // A file that may not grow is an error of write, not the end: it stays
        // pending for ever (setrlimit(2)).
        let mut ignored = SigSet::empty();
        ignored.add(Signal::SIGXFSZ);
        ignored.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self {
            descriptor: SignalFd::with_flags(&set, flags)?,
        })
    }

    /// The next one that came, with who sent it (pid, uid).
    pub(super) fn next(&self) -> Option<(Request, u32, u32)> {
        let info = self.descriptor.read_signal().ok().flatten()?;
        let signal = i32::try_from(info.ssi_signo)
            .ok()
            .and_then(|n| Signal::try_from(n).ok())?;
        let request = match signal {
            Signal::SIGHUP => Request::Reload,
            Signal::SIGUSR1 => Request::Summary,
            _ => Request::Stop,
        };
        Some((request, info.ssi_pid, info.ssi_uid))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
