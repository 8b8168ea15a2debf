//! Where in its life the server is: it runs, drains, or ends by force.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

const RUNNING: u8 = 0;
const DRAINING: u8 = 1;
const FORCED: u8 = 2;

/// Only ever goes forward.
#[derive(Debug, Default)]
pub(super) struct Phase {
    now: AtomicU8,
    has_cut: AtomicBool,
    until: Mutex<Option<Instant>>,
}

impl Phase {
    pub(super) fn is_running(&self) -> bool {
        self.now.load(Ordering::SeqCst) == RUNNING
    }

    pub(super) fn is_forced(&self) -> bool {
        self.now.load(Ordering::SeqCst) == FORCED
    }

    /// Takes no newcomers from now on. Those who are here may stay until then; a
    /// later call can only bring that nearer.
    pub(super) fn drain(&self, until: Instant) {
        let mut known = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(known.map_or(until, |known| known.min(until)));
        drop(known);
        self.now.fetch_max(DRAINING, Ordering::SeqCst);
    }

    /// All connections end now.
    pub(super) fn force(&self) {
        self.now.fetch_max(FORCED, Ordering::SeqCst);
    }

    /// A peer was here that the force closed.
    pub(super) fn cut(&self) {
        self.has_cut.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_cut(&self) -> bool {
        self.has_cut.load(Ordering::SeqCst)
    }

    /// When what still drains is closed. `None` while the server runs.
    pub(super) fn until(&self) -> Option<Instant> {
        if self.is_running() {
            return None;
        }
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
