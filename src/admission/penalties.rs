//! Until when any penalty may hold: outside of that nobody has to be looked up, and a
//! newcomer costs no lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ledger::Account;
use super::refusal::Refusal;
use super::subject::Subject;

/// When the last one ends.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    /// When the first one began.
    first: OnceLock<Instant>,
    /// Milliseconds from then to the end of the last one, rounded up.
    end_ms: AtomicU64,
}

impl Penalties {
    /// One began, of that length.
    pub(super) fn begun(&self, length: Duration, now: Instant) {
        let first = *self.first.get_or_init(|| now);
        let end = now.saturating_duration_since(first).saturating_add(length);
        let end_ms = u64::try_from(end.as_millis()).map_or(u64::MAX, |ms| ms.saturating_add(1));
        self.end_ms.fetch_max(end_ms, Ordering::Release);
    }

    /// Whether one may hold now. True too early rather than false too early.
    pub(super) fn may_hold(&self, now: Instant) -> bool {
        self.first.get().is_some_and(|first| {
            let passed = now.saturating_duration_since(*first).as_millis();
            passed < u128::from(self.end_ms.load(Ordering::Acquire))
        })
    }
}

/// A penalty of the user as a whole comes before one of the process.
pub(super) fn penalty_of(
    account: &mut Account,
    subject: &Subject,
    now: Instant,
) -> Option<Refusal> {
    account.strikes.refuse(false, now).or_else(|| {
        let process = subject.process?;
        account.strikes_of(Some(process))?.refuse(true, now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_may_hold_from_its_beginning_to_its_end() {
        let (penalties, start) = (Penalties::default(), Instant::now());
        assert!(!penalties.may_hold(start));
        penalties.begun(Duration::from_micros(10_500), start);
        assert!(penalties.may_hold(start));
        assert!(penalties.may_hold(start + Duration::from_micros(10_499)));
        assert!(!penalties.may_hold(start + Duration::from_millis(12)));
        let earlier = start.checked_sub(Duration::from_secs(1)).unwrap();
        assert!(
            penalties.may_hold(earlier),
            "seen by a clock that was read before"
        );
    }

    #[test]
    fn a_short_one_does_not_end_a_long_one() {
        let (penalties, start) = (Penalties::default(), Instant::now());
        penalties.begun(Duration::from_secs(60), start);
        penalties.begun(Duration::from_secs(1), start + Duration::from_secs(5));
        assert!(penalties.may_hold(start + Duration::from_secs(59)));
        penalties.begun(Duration::MAX, start);
        assert!(penalties.may_hold(start + Duration::from_secs(1 << 40)));
    }
}
