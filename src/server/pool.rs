//! How many workers there are, and how many there should be.
//!
//! Workers are started on demand by the supervisor, kept while they are needed,
//! and let go when they have been idle for a while.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::shared::{Overload, Threads};
use super::supervisor::Bell;
use crate::sys;

/// Idle workers that are kept for the next newcomers.
pub(super) const SPARE: usize = 4;
/// How many are started at once in a burst, at the most.
const BURST: usize = 32;
/// Mappings that are left to all else in the process.
const MAPPINGS_ASIDE: usize = 4096;
/// Mappings that one worker takes: its stack, the one for signals, a guard for each, its
/// buffer, and in the broker one for a large frame; and one to spare.
const MAPPINGS_EACH: usize = 7;

/// The workers of all servers in this process.
static PLACES: Places = Places(AtomicUsize::new(0));

/// How many workers a process has mappings for. Beyond it a thread would begin that gets
/// no stack for signals, and std aborts the process then.
pub(crate) fn workers_possible() -> usize {
    workers_within(sys::process::max_map_count())
}

fn workers_within(max_map_count: usize) -> usize {
    (max_map_count.saturating_sub(MAPPINGS_ASIDE) / MAPPINGS_EACH).max(1)
}

/// How many connections there are threads for, at the most: a loop has room for all.
pub(crate) fn connections_possible(threads: Threads, overload: Overload) -> usize {
    match threads {
        Threads::Multi => connections_with(workers_possible(), overload),
        Threads::Loops(_) => usize::MAX,
    }
}

/// One less than workers where newcomers are turned away: somebody has to accept them
/// for that.
fn connections_with(workers: usize, overload: Overload) -> usize {
    match overload {
        Overload::Wait => workers,
        Overload::Refuse => workers.saturating_sub(1).max(1),
    }
}

/// Takes the place of one worker among those of all servers of the process.
///
/// # Errors
/// `OutOfMemory` when there is none.
pub(super) fn take_place() -> io::Result<Place> {
    PLACES.take(workers_possible())
}

#[derive(Debug)]
struct Places(AtomicUsize);

impl Places {
    fn take(&'static self, bound: usize) -> io::Result<Place> {
        let more = |taken: usize| taken.checked_add(1).filter(|taken| *taken <= bound);
        match self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
        {
            Ok(_) => Ok(Place(self)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("vm.max_map_count has room for {bound}"),
            )),
        }
    }
}

/// The place of one worker, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place(&'static Places);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

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
    fn workers_leave_mappings_for_the_rest_of_the_process() {
        assert_eq!(workers_within(65_530), 8_776);
        assert_eq!(workers_within(MAPPINGS_ASIDE + 2 * MAPPINGS_EACH - 1), 1);
        assert_eq!(workers_within(MAPPINGS_ASIDE + 2 * MAPPINGS_EACH), 2);
        assert_eq!(workers_within(0), 1);
        assert_eq!(connections_with(10, Overload::Wait), 10);
        assert_eq!(connections_with(10, Overload::Refuse), 9);
    }

    #[test]
    fn servers_of_one_process_share_its_places() {
        static PLACES: Places = Places(AtomicUsize::new(0));
        let first = PLACES.take(2).unwrap();
        let _second = PLACES.take(2).unwrap();
        let error = PLACES.take(2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        drop(first);
        assert!(PLACES.take(2).is_ok());
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
