//! How many workers there are, and how many there should be.
//!
//! Workers are started on demand by the supervisor, kept while they are needed,
//! and let go when they have been idle for a while.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::supervisor::Bell;

/// Idle workers that are kept for the next newcomers.
pub(super) const SPARE: usize = 4;
/// How many are started at once in a burst, at the most.
const BURST: usize = 32;

#[derive(Debug)]
pub(super) struct Pool {
    /// Workers in accept(2), or about to be.
    pub(super) idle: AtomicUsize,
    /// Workers that were started and have not been reaped.
    pub(super) total: AtomicUsize,
    /// As many as there may be.
    bound: AtomicUsize,
    asked: AtomicBool,
    /// How many workers are to leave.
    excess: AtomicUsize,
    /// Held by the one who may accept, while there is a pace.
    turn: Mutex<()>,
}

impl Pool {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            idle: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
            bound: AtomicUsize::new(bound),
            asked: AtomicBool::new(false),
            excess: AtomicUsize::new(0),
            turn: Mutex::new(()),
        }
    }

    /// Waits for the turn to accept, while there is a pace.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody is left in accept: the supervisor is to see to it, if it may.
    pub(super) fn ask_for_workers(&self, bell: &Bell) {
        let may_grow = self.total.load(Ordering::SeqCst) < self.bound.load(Ordering::SeqCst);
        if may_grow && !self.asked.swap(true, Ordering::SeqCst) {
            bell.ring();
        }
    }

    /// How many workers to start now.
    pub(super) fn missing(&self) -> usize {
        self.asked.store(false, Ordering::SeqCst);
        let total = self.total.load(Ordering::SeqCst);
        let idle = self.idle.load(Ordering::SeqCst);
        if idle > 0 {
            return 0;
        }
        // Twice as many in each round of a burst, so that a crowd is served soon.
        total
            .clamp(SPARE, BURST)
            .min(self.bound.load(Ordering::SeqCst).saturating_sub(total))
    }

    /// Another bound, from a reload. Workers beyond it leave when they are done.
    pub(super) fn set_bound(&self, bound: usize) {
        self.bound.store(bound, Ordering::SeqCst);
        let excess = self.total.load(Ordering::SeqCst).saturating_sub(bound);
        self.excess.store(excess, Ordering::SeqCst);
    }

    /// How many workers stand idle beyond the spare ones.
    pub(super) fn surplus(&self) -> usize {
        self.idle.load(Ordering::SeqCst).saturating_sub(SPARE)
    }

    /// Asks this many idle workers to leave; they have to be interrupted.
    pub(super) fn let_go(&self, count: usize) {
        self.excess.fetch_max(count, Ordering::SeqCst);
    }

    /// Whether some who are to leave have not left.
    pub(super) fn has_excess(&self) -> bool {
        self.excess.load(Ordering::SeqCst) > 0
    }

    /// Called by each worker before it goes idle: true to those that are let go.
    pub(super) fn may_leave(&self) -> bool {
        let taken = self
            .excess
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |excess| {
                excess.checked_sub(1)
            });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_met_by_doubling_up_to_the_bound() {
        let pool = Pool::new(40);
        let mut started = Vec::new();
        loop {
            let missing = pool.missing();
            if missing == 0 {
                break;
            }
            started.push(missing);
            pool.total.fetch_add(missing, Ordering::SeqCst);
        }
        assert_eq!(started, [4, 4, 8, 16, 8]);
    }

    #[test]
    fn nobody_is_started_while_somebody_is_idle() {
        let pool = Pool::new(10);
        pool.idle.store(1, Ordering::SeqCst);
        assert_eq!(pool.missing(), 0);
    }

    #[test]
    fn as_many_leave_as_are_let_go() {
        let pool = Pool::new(10);
        pool.idle.store(5, Ordering::SeqCst);
        assert_eq!(pool.surplus(), 1);
        pool.let_go(2);
        assert!(pool.may_leave());
        assert!(pool.may_leave());
        assert!(!pool.may_leave());
    }
}
