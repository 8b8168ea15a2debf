//! What to do when accept(2) fails: which errors pass by themselves, how long
//! to wait for the others, and how often to say so.
//!
//! Without a wait, a server at its descriptor limit would spin: accept fails
//! before it looks whether anybody is there.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
const BETWEEN_LINES: Duration = Duration::from_secs(1);

/// What an error of accept means for the one who called it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AcceptError {
    /// Concerns that one connection, or nobody: try again at once.
    Passing,
    /// Nothing is there (or somebody interrupted the wait).
    Nothing,
    /// Descriptors, memory or watches ran out: wait.
    Exhausted,
    /// The listener itself is broken, or was shut down.
    Broken,
}

impl AcceptError {
    /// Sorts an error, as accept(2) and, of watching the listener, epoll_ctl(2) describe
    /// them.
    pub(super) fn of(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::AGAIN | Errno::INTR) => Self::Nothing,
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC) => {
                Self::Exhausted
            }
            Some(
                Errno::CONNABORTED
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::PERM
                | Errno::TIMEDOUT,
            ) => Self::Passing,
            _ => Self::Broken,
        }
    }
}

/// What helps where something ran out.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NFILE) => "raise fs.file-max or lower max_connections",
        Some(Errno::NOBUFS | Errno::NOMEM) => {
            "raise MemoryMax= or what memory there is, or lower max_connections"
        }
        Some(Errno::NOSPC) => "raise fs.epoll.max_user_watches or lower max_connections",
        _ => "raise RLIMIT_NOFILE (LimitNOFILE=) or lower max_connections",
    }
}

#[derive(Debug)]
struct State {
    wait: Duration,
    said: Option<Instant>,
    unsaid: u64,
    failures: u64,
}

/// Shared by all that accept.
#[derive(Debug)]
pub(super) struct Exhaustion {
    state: Mutex<State>,
    freed: Condvar,
    /// Whether the last accept failed, and how many wait: looked at for each
    /// connection, which then need not take the lock. A wake that is missed costs
    /// no more than the wait, which is bounded.
    failing: AtomicBool,
    waiting: AtomicUsize,
}

impl Exhaustion {
    pub(super) fn new() -> Self {
        let state = State {
            wait: FIRST_WAIT,
            said: None,
            unsaid: 0,
            failures: 0,
        };
        Self {
            state: Mutex::new(state),
            freed: Condvar::new(),
            failing: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Counts one failure. Gives how long to wait, and, at most once a second,
    /// how many failures there were since the last time it was said.
    pub(super) fn failed(&self, now: Instant) -> (Duration, Option<u64>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.failing.store(true, Ordering::SeqCst);
        let wait = state.wait;
        state.wait = (state.wait * 2).min(LONGEST_WAIT);
        state.unsaid += 1;
        state.failures += 1;
        let due = state
            .said
            .is_none_or(|said| now.saturating_duration_since(said) >= BETWEEN_LINES);
        if !due {
            return (wait, None);
        }
        state.said = Some(now);
        (wait, Some(std::mem::take(&mut state.unsaid)))
    }

    /// How many failures there were since the start.
    pub(super) fn failures(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures
    }

    /// Waits, at most `time`, for a connection to close.
    pub(super) fn wait(&self, time: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.freed.wait_timeout(state, time));
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// A connection closed: one who waits may try again.
    pub(super) fn freed(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Whoever has counted itself waits by the time that the lock is free.
            drop(self.state.lock().unwrap_or_else(PoisonError::into_inner));
            self.freed.notify_one();
        }
    }

    /// An accept succeeded: the next failure starts with a short wait again.
    pub(super) fn recovered(&self) {
        if self.failing.load(Ordering::Relaxed) && self.failing.swap(false, Ordering::SeqCst) {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.wait = FIRST_WAIT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(errno: Errno, expect: AcceptError) {
        assert_eq!(AcceptError::of(&io::Error::from(errno)), expect);
    }

    #[test]
    fn errors_are_sorted_by_what_helps() {
        check(Errno::MFILE, AcceptError::Exhausted);
        check(Errno::NOMEM, AcceptError::Exhausted);
        check(Errno::NOSPC, AcceptError::Exhausted);
        check(Errno::CONNABORTED, AcceptError::Passing);
        check(Errno::INTR, AcceptError::Nothing);
        check(Errno::BADF, AcceptError::Broken);
        check(Errno::INVAL, AcceptError::Broken);
    }

    #[test]
    fn waits_grow_to_a_bound_and_lines_come_once_a_second() {
        let exhaustion = Exhaustion::new();
        let start = Instant::now();
        assert_eq!(exhaustion.failed(start), (FIRST_WAIT, Some(1)));
        assert_eq!(exhaustion.failed(start).1, None);
        for _ in 0..20 {
            exhaustion.failed(start);
        }
        assert_eq!(
            exhaustion.failed(start + BETWEEN_LINES),
            (LONGEST_WAIT, Some(22))
        );
        exhaustion.recovered();
        assert_eq!(exhaustion.failed(start + BETWEEN_LINES).0, FIRST_WAIT);
    }
}
