//! Flushes: a caller asks for one and waits; the writer answers when all that was
//! logged before is written, or when it can't be.
//!
//! Invariants: flushes are answered in the order of their numbers; of several
//! that one answer is for, no caller hears that his lines are written if those of
//! one of them are not.

use super::ring::Position;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What callers and writer share.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    /// The number of the last one that was asked for.
    asked: AtomicU64,
    answers: Mutex<Answers>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Answers {
    /// The last flush that was answered, and the last that failed.
    last: u64,
    failed: u64,
}

/// One flush, on its way through the writer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flush {
    pub(super) number: u64,
    /// The place in the queue behind its lines.
    pub(super) end: Position,
    /// All before that place is with the sinks.
    pub(super) taken: bool,
}

/// How far a flush has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    Waits,
    Written,
    Failed,
}

impl Flushes {
    /// Asks for one; gives its number.
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The number of the last one that was asked for.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Answers all up to this number.
    pub(super) fn answer(&self, number: u64, written: bool) {
        let mut answers = self.answers();
        answers.last = number;
        if !written {
            answers.failed = number;
        }
        drop(answers);
        self.answered.notify_all();
    }

    /// Waits for an answer, as long as `goes_on` and up to `limit`. Gives whether
    /// all is written.
    pub(super) fn wait(&self, number: u64, limit: Duration, goes_on: impl Fn() -> bool) -> bool {
        let waits = |answers: &mut Answers| answers.last < number && goes_on();
        let answers = self
            .answered
            .wait_timeout_while(self.answers(), limit, waits);
        let answers = answers.unwrap_or_else(PoisonError::into_inner).0;
        answers.last >= number && answers.failed < number
    }

    /// Lets those who wait ask again whether they go on.
    pub(super) fn wake_all(&self) {
        drop(self.answers());
        self.answered.notify_all();
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_comes_after_a_failure_hears_that_all_is_written() {
        let flushes = Flushes::default();
        let numbers = [(); 4].map(|()| flushes.ask());
        assert_eq!((numbers, flushes.asked()), ([1, 2, 3, 4], 4));
        flushes.answer(2, false);
        flushes.answer(3, true);
        let heard = numbers.map(|number| flushes.wait(number, Duration::ZERO, || true));
        assert_eq!(heard, [false, false, true, false]);
    }
}
