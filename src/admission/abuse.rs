//! Recognises patterns that no single connection shows.
//!
//! Each sign is counted for the one who gave it; when there are as many as no
//! honest client gives within a minute, that is noticed: once, and again only
//! after a minute without notice.

use std::fmt;
use std::time::{Duration, Instant};

/// The time within which signs are counted.
const SPAN: Duration = Duration::from_secs(60);

/// A sign that somebody wastes what others need.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Abuse {
    /// Connections beyond a bound or a rate.
    Flood,
    /// Connected and sent nothing, or not enough, in time.
    SlowSender,
    /// Did not take what it was sent, in time or within a quota.
    SlowReader,
    /// Broke the protocol, sent messages larger than allowed, descriptors, or a wrong proof.
    Protocol,
    /// Closed without having moved a byte.
    Vanished,
}

impl Abuse {
    /// All, in the order of [`index`](Self::index).
    pub const ALL: [Self; 5] = [
        Self::Flood,
        Self::SlowSender,
        Self::SlowReader,
        Self::Protocol,
        Self::Vanished,
    ];

    /// The stable name, as log and metrics use it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Flood => "flood",
            Self::SlowSender => "slow_sender",
            Self::SlowReader => "slow_reader",
            Self::Protocol => "protocol",
            Self::Vanished => "vanished",
        }
    }

    /// A small number for tables of counters.
    pub const fn index(self) -> usize {
        match self {
            Self::Flood => 0,
            Self::SlowSender => 1,
            Self::SlowReader => 2,
            Self::Protocol => 3,
            Self::Vanished => 4,
        }
    }

    /// With how many within a minute it is noticed. Health checks connect and
    /// vanish, clients may connect early and say nothing: that is not yet abuse.
    pub const fn threshold(self) -> u32 {
        match self {
            Self::Flood | Self::Vanished => 100,
            Self::SlowSender => 20,
            Self::SlowReader | Self::Protocol => 5,
        }
    }
}

impl fmt::Display for Abuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flood => "floods with connections",
            Self::SlowSender => "holds connections and sends nothing",
            Self::SlowReader => "does not take what it is sent",
            Self::Protocol => "breaks the protocol again and again",
            Self::Vanished => "connects and vanishes again and again",
        })
    }
}

/// The signs that one has given.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signs {
    counts: [u32; Abuse::ALL.len()],
    until: Option<Instant>,
    noticed: [Option<Instant>; Abuse::ALL.len()],
}

impl Signs {
    /// Counts one. Their number if that is to be told now.
    pub(super) fn count(&mut self, abuse: Abuse, now: Instant) -> Option<u32> {
        if self.until.is_none_or(|until| now >= until) {
            self.counts = [0; Abuse::ALL.len()];
            self.until = now.checked_add(SPAN);
        }
        let count = self.counts.get_mut(abuse.index())?;
        *count = count.saturating_add(1);
        if *count < abuse.threshold() {
            return None;
        }
        let number = *count;
        let quiet_until = self.noticed.get_mut(abuse.index())?;
        let first = quiet_until.is_none_or(|until| now >= until);
        *quiet_until = now.checked_add(SPAN);
        first.then_some(number)
    }

    /// Whether nothing is lost if they are forgotten.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        let over = |until: &Option<Instant>| until.is_none_or(|until| now >= until);
        over(&self.until) && self.noticed.iter().all(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_an_index_of_its_own() {
        for (place, abuse) in Abuse::ALL.iter().enumerate() {
            assert_eq!(abuse.index(), place);
        }
    }

    #[test]
    fn a_pattern_is_told_once_as_long_as_it_lasts() {
        let (mut signs, start) = (Signs::default(), Instant::now());
        let mut told = Vec::new();
        for tenth in 0..3_000_u64 {
            let now = start + Duration::from_millis(tenth * 100);
            told.extend(signs.count(Abuse::Protocol, now).map(|_| tenth));
        }
        assert_eq!(told, [4]);
        let later = start + Duration::from_secs(300) + SPAN;
        assert!((0..5).any(|_| signs.count(Abuse::Protocol, later).is_some()));
        assert!(!signs.is_forgettable(later));
        assert!(signs.is_forgettable(later + SPAN));
    }

    #[test]
    fn few_signs_are_not_a_pattern() {
        let (mut signs, start) = (Signs::default(), Instant::now());
        for minute in 0..10 {
            let now = start + SPAN * minute;
            assert!((0..99).all(|_| signs.count(Abuse::Vanished, now).is_none()));
        }
    }
}
