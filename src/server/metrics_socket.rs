//! Answers each connection to a second socket with the metrics, in an HTTP/1.0
//! response, and closes it.
//!
//! One thread for a few readers at once, each with a deadline, so that one that
//! dawdles holds up nobody. When there are more, the user who has most of them gives
//! up the oldest. A peer is judged like any other, by a policy of its own; one that
//! is denied is closed unread.
//!
//! Not here: the way of one reader (`metrics_reader`), what is told (`metrics`).

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::Handle;
use super::metrics::Metrics;
use super::metrics_reader::{Progress, Reader};
use super::rules::Rules;
use crate::listener::{Listener, Sealed};

/// How many are read for at once.
const READERS: usize = 16;
/// How long to wait after accept failed.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The thread's work.
pub struct MetricsSocket {
    listener: Listener<Sealed>,
    rules: Mutex<Arc<Rules>>,
    metrics: Arc<Metrics>,
    handle: Handle,
    stopped: AtomicBool,
}

impl MetricsSocket {
    /// `rules` say who may ask; of them policy and inspector count. The listener
    /// was bound not to block.
    pub fn new(
        listener: Listener<Sealed>,
        rules: Rules,
        metrics: Arc<Metrics>,
        handle: Handle,
    ) -> Self {
        let rules = Mutex::new(Arc::new(rules));
        let stopped = AtomicBool::new(false);
        Self {
            listener,
            rules,
            metrics,
            handle,
            stopped,
        }
    }

    /// Answers until [`stop`](Self::stop). The body of a thread of
    /// [`Role::Metrics`](crate::sandbox::Role::Metrics).
    pub fn run(&self) {
        let mut readers = Vec::new();
        while !self.stopped.load(Ordering::SeqCst) {
            if let Err(error) = self.wait(&readers) {
                self.after_failure("poll", &error);
            }
            self.accept(&mut readers);
            let now = Instant::now();
            let render = |form| self.metrics.render(&self.handle, form);
            readers.retain_mut(|reader| reader.go_on(now, render) == Progress::Pending);
        }
    }

    /// Puts other rules in force, for who comes from now on.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// Ends [`run`](Self::run), after the answers that it is at.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Err(error) = self.listener.shut_down() {
            crate::debug!("shutdown of the metrics socket: {error}");
        }
    }

    /// The socket, to be removed at the end.
    pub fn into_listener(self) -> Listener<Sealed> {
        self.listener
    }

    /// Until a newcomer is there, or a reader can go on.
    fn wait(&self, readers: &[Reader]) -> io::Result<()> {
        let listener = PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN);
        let each = |reader| PollFd::from_borrowed_fd(Reader::as_fd(reader), reader.events());
        let mut fds: Vec<PollFd<'_>> = readers.iter().map(each).collect();
        fds.push(listener);
        let next = readers.iter().map(Reader::next_look).min();
        let timeout = next.map(|next| crate::sys::time::until(next, Instant::now()));
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes who is there, at most as many as are read for at once.
    fn accept(&self, readers: &mut Vec<Reader>) {
        for _ in 0..READERS {
            match self.listener.accept() {
                Ok(accepted) => {
                    let rules =
                        Arc::clone(&self.rules.lock().unwrap_or_else(PoisonError::into_inner));
                    if readers.len() >= READERS {
                        give_one_up(readers);
                    }
                    readers.push(Reader::new(accepted, rules, Instant::now()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.after_failure("accept", &error),
            }
        }
    }

    fn after_failure(&self, call: &str, error: &io::Error) {
        if self.stopped.load(Ordering::SeqCst) || error.kind() == io::ErrorKind::Interrupted {
            return;
        }
        crate::limited!(error, "metrics socket: {call}: {error}");
        std::thread::sleep(AFTER_FAILURE);
    }
}

impl std::fmt::Debug for MetricsSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsSocket").finish_non_exhaustive()
    }
}

/// The oldest of the user who has most.
fn give_one_up(readers: &mut Vec<Reader>) {
    let held = |reader: &Reader| {
        let same = readers.iter().filter(|other| other.uid() == reader.uid());
        same.count()
    };
    let most = readers.iter().map(held).max();
    let place = readers.iter().position(|reader| Some(held(reader)) == most);
    if let Some(place) = place {
        let reader = readers.remove(place);
        crate::limited!(notice, "metrics: too many readers: {reader} gets no answer");
    }
}
