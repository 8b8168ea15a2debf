//! Counts what is held against one user or process, and its penalties.
//!
//! Pure: the time is an argument.
//!
//! Denials, and signs of abuse where they count, are counted from the first on for the
//! length of a penalty, then anew. A penalty is twice as long as the one before
//! it; for each length of the last penalty that passes in peace after its end,
//! one doubling is forgotten.

use std::time::{Duration, Instant};

use super::limits::Limits;
use super::refusal::{Fold, Refusal, RefusalReason};

/// How often a penalty can double: a nanosecond then is half a minute, and any
/// longer penalty has reached its bound.
const MOST_DOUBLINGS: u32 = 30;

/// What is held against one user or process.
#[derive(Clone, Debug, Default)]
pub(super) struct Strikes {
    offences: Window,
    penalty: Option<Penalty>,
    pub(super) fold: Fold,
}

#[derive(Clone, Copy, Debug)]
struct Penalty {
    until: Instant,
    length: Duration,
    doublings: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    count: u32,
    until: Option<Instant>,
}

impl Window {
    /// Counts one; true if that makes `bound` within `length`.
    fn reaches(&mut self, bound: u32, length: Duration, now: Instant) -> bool {
        if bound == 0 {
            return false;
        }
        if self.until.is_none_or(|until| now >= until) {
            *self = Self {
                count: 0,
                until: now.checked_add(length),
            };
        }
        self.count = self.count.saturating_add(1);
        if self.count < bound {
            return false;
        }
        *self = Self::default();
        true
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }
}

impl Strikes {
    /// How much is left of a penalty. `None` outside of one.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let until = self.penalty?.until;
        until
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }

    /// Refuses if a penalty holds.
    pub(super) fn refuse(&mut self, process: bool, now: Instant) -> Option<Refusal> {
        let left = self.left(now)?;
        Some(
            self.fold
                .refuse(RefusalReason::Penalty { left, process }, now),
        )
    }

    /// Counts an offence. The length of the penalty if one begins.
    pub(super) fn strike(&mut self, limits: &Limits, now: Instant) -> Option<Duration> {
        let begins = self
            .offences
            .reaches(limits.denials_before_penalty, limits.penalty, now);
        begins.then(|| self.begin(limits, now)).flatten()
    }

    /// `None` if one holds already: what was in flight when it began adds nothing.
    fn begin(&mut self, limits: &Limits, now: Instant) -> Option<Duration> {
        if self.left(now).is_some() || limits.penalty.is_zero() {
            return None;
        }
        let doublings = self.doublings_left(now);
        let longest = limits.penalty_max.max(limits.penalty);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let length = limits.penalty.saturating_mul(factor).min(longest);
        let next = doublings.saturating_add(1).min(MOST_DOUBLINGS);
        self.penalty = Some(Penalty {
            until: now.checked_add(length)?,
            length,
            doublings: next,
        });
        Some(length)
    }

    /// How often the next penalty would be doubled.
    fn doublings_left(&self, now: Instant) -> u32 {
        let Some(last) = self.penalty else { return 0 };
        let peace = now.saturating_duration_since(last.until).as_nanos();
        let forgotten = peace.checked_div(last.length.as_nanos()).unwrap_or(0);
        last.doublings
            .saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    /// Whether nothing is lost if it is forgotten.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        self.offences.is_over(now)
            && self.left(now).is_none()
            && self.doublings_left(now) == 0
            && self.fold.is_forgettable(now)
    }

    /// When the penalty that holds ends, for choosing what to forget first.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.penalty.map(|penalty| penalty.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            denials_before_penalty: 5,
            penalty: Duration::from_secs(60),
            ..Limits::default()
        }
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_penalty_begins_with_the_last_denial_and_not_before() {
        let (mut strikes, limits, start) = (Strikes::default(), limits(), Instant::now());
        for _ in 0..4 {
            assert_eq!(strikes.strike(&limits, start), None);
        }
        assert_eq!(
            strikes.strike(&limits, start + seconds(59)),
            Some(seconds(60))
        );
        assert!(strikes.refuse(false, start + seconds(118)).is_some());
        assert!(strikes.refuse(false, start + seconds(119)).is_none());
    }

    #[test]
    fn denials_spread_over_more_than_the_penaltys_time_count_anew() {
        let (mut strikes, limits, start) = (Strikes::default(), limits(), Instant::now());
        for place in 0..40 {
            assert_eq!(strikes.strike(&limits, start + seconds(place * 20)), None);
        }
    }

    #[test]
    fn penalties_double_up_to_the_bound_and_decay_in_peace() {
        let (mut strikes, limits, mut now) = (Strikes::default(), limits(), Instant::now());
        let mut lengths = Vec::new();
        for _ in 0..8 {
            let length = (0..5).find_map(|_| strikes.strike(&limits, now)).unwrap();
            lengths.push(length.as_secs());
            now += length;
        }
        assert_eq!(lengths, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        // Eight doublings, and one is forgotten for each hour of peace.
        now += seconds(3600) * 6;
        assert_eq!(
            (0..5).find_map(|_| strikes.strike(&limits, now)),
            Some(seconds(240))
        );
        assert!(!strikes.is_forgettable(now + seconds(240)));
        assert!(strikes.is_forgettable(now + seconds(240 * 4)));
    }

    #[test]
    fn zero_means_never() {
        let limits = Limits {
            denials_before_penalty: 0,
            ..limits()
        };
        let (mut strikes, now) = (Strikes::default(), Instant::now());
        assert!((0..1_000).all(|_| strikes.strike(&limits, now).is_none()));
        assert!(strikes.is_forgettable(now));
    }

    #[test]
    fn what_is_denied_during_a_penalty_does_not_lengthen_it() {
        let (mut strikes, limits, now) = (Strikes::default(), limits(), Instant::now());
        assert!((0..5).any(|_| strikes.strike(&limits, now).is_some()));
        assert!((0..50).all(|_| strikes.strike(&limits, now + seconds(30)).is_none()));
        assert_eq!(strikes.left(now + seconds(30)), Some(seconds(30)));
    }
}
