//! Which lines a sync has answered for, and how. Pure.
//!
//! The kernel tells a failure once, and takes the pages that it could not write for
//! written from then on (fsync(2)). So a later success says nothing about lines that were
//! there when a sync failed: they count as not on the disk for good.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

/// How many failures are told apart. Of more the oldest become one, with the lines
/// between them: who asks so late is told that his line is not on the disk.
const REMEMBERED: usize = 16;

/// Lines that may not be on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) errno: i32,
}

/// The answers so far.
#[derive(Debug)]
pub(super) struct Synced {
    answered: u64,
    failures: Vec<Failure>,
}

impl Synced {
    /// Lines up to this one are none of ours.
    pub(super) fn new(sequence: u64) -> Self {
        Self {
            answered: sequence,
            failures: Vec::new(),
        }
    }

    /// Whether no sync has answered for this line yet.
    pub(super) fn lacks(&self, sequence: u64) -> bool {
        self.answered < sequence
    }

    /// How it went for this line, with the error's number.
    pub(super) fn outcome(&self, sequence: u64) -> Option<Result<(), i32>> {
        let failure = self
            .failures
            .iter()
            .find(|failure| (failure.first..=failure.last).contains(&sequence));
        match failure {
            _ if self.lacks(sequence) => None,
            Some(failure) => Some(Err(failure.errno)),
            None => Some(Ok(())),
        }
    }

    /// A sync that began after this line was written succeeded.
    pub(super) fn succeeded(&mut self, sequence: u64) {
        self.answered = self.answered.max(sequence);
    }

    /// A sync failed, and this was the last line when that was known: it may have been
    /// among what the kernel gave up. Returns which lines are concerned.
    pub(super) fn failed(&mut self, sequence: u64, errno: i32) -> Option<Failure> {
        let failure = Failure {
            first: self.answered.saturating_add(1),
            last: sequence,
            errno,
        };
        if failure.first > failure.last {
            return None;
        }
        self.answered = sequence;
        self.failures.push(failure);
        if self.failures.len() > REMEMBERED {
            let oldest = self.failures.remove(0);
            if let Some(next) = self.failures.first_mut() {
                next.first = oldest.first;
            }
        }
        Some(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(synced: &Synced, sequence: u64, expect: Option<Result<(), i32>>) {
        assert_eq!(synced.outcome(sequence), expect, "line {sequence}");
    }

    #[test]
    fn a_later_success_mends_no_line_that_failed() {
        let mut synced = Synced::new(10);
        check(&synced, 11, None);
        synced.succeeded(12);
        let failure = synced.failed(15, 5).unwrap();
        assert_eq!((failure.first, failure.last), (13, 15));
        synced.succeeded(20);
        check(&synced, 12, Some(Ok(())));
        check(&synced, 13, Some(Err(5)));
        check(&synced, 15, Some(Err(5)));
        check(&synced, 16, Some(Ok(())));
        check(&synced, 20, Some(Ok(())));
        check(&synced, 21, None);
    }

    #[test]
    fn a_failure_takes_back_no_line_that_was_synced() {
        let mut synced = Synced::new(10);
        assert_eq!(synced.failed(10, 5), None);
        check(&synced, 10, Some(Ok(())));
    }

    #[test]
    fn of_many_failures_none_is_forgotten() {
        let mut synced = Synced::new(0);
        let most = 10 * REMEMBERED as u64;
        for number in 0..most {
            synced.succeeded(3 * number + 1);
            synced.failed(3 * number + 3, 5);
        }
        assert_eq!(synced.failures.len(), REMEMBERED);
        for number in 0..most {
            check(&synced, 3 * number + 2, Some(Err(5)));
            check(&synced, 3 * number + 3, Some(Err(5)));
        }
        check(&synced, 3 * most - 2, Some(Ok(())));
    }
}
