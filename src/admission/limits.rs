//! What a server allows each of those who connect.

use std::time::Duration;

use super::abuse::Abuse;
use crate::policy::{Facts, Needs, Rule};

/// How many that have nothing open are remembered, for their rates, denials and
/// penalties. Those with open connections come on top, at most one for each
/// connection.
pub const DEFAULT_REMEMBERED: usize = 8_192;

/// The longest time between two who are turned away under a penalty: others wait behind
/// them.
pub(crate) const LONGEST_REST: Duration = Duration::from_millis(10);

/// So many in so much time: a token bucket that holds `count` at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    count: u32,
    per: Duration,
}

impl Rate {
    /// `None` if either is zero, or if `per` is longer than a day or shorter
    /// than a nanosecond for each of `count`.
    pub fn new(count: u32, per: Duration) -> Option<Self> {
        let rate = Self { count, per };
        let possible = count > 0 && per <= Duration::from_secs(86_400) && !rate.step().is_zero();
        possible.then_some(rate)
    }

    /// How many may come at once.
    pub fn count(self) -> u32 {
        self.count
    }

    /// In how much time the bucket fills up again.
    pub fn per(self) -> Duration {
        self.per
    }

    /// The time between two at an even pace.
    pub(super) fn step(self) -> Duration {
        self.per.checked_div(self.count).unwrap_or(Duration::ZERO)
    }
}

/// The bounds that hold for all. See `limit=` for exceptions.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections altogether, 1 or more.
    pub max_connections: usize,
    /// Open connections of one user. `None`: no bound of its own.
    pub per_uid: Option<usize>,
    /// New connections of one user.
    pub rate_per_uid: Option<Rate>,
    /// A penalty begins with this many offences within [`penalty`](Self::penalty),
    /// of the kinds in [`offences`](Self::offences) together. 0: never.
    pub denials_before_penalty: u32,
    /// What counts towards a penalty.
    pub offences: Offences,
    /// How long the first penalty is; 0: none ever begins. Each further one is
    /// twice as long; for each length of the last one that passes in peace after its
    /// end, one doubling is forgotten.
    pub penalty: Duration,
    /// Where that doubling ends, unless [`penalty`](Self::penalty) is longer still.
    pub penalty_max: Duration,
    /// How many of those under a penalty are turned away in a time, but never fewer than
    /// 100 a second: who comes faster waits in the backlog, and takes less of the
    /// processors. `None`: as many as come.
    pub penalty_rate: Option<Rate>,
    /// How many without open connections are remembered.
    pub remembered: usize,
    /// Bounds of their own for some. The first whose rule matches is taken.
    pub exceptions: Vec<Exception>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 200,
            per_uid: None,
            rate_per_uid: None,
            denials_before_penalty: 5,
            offences: Offences::default(),
            penalty: Duration::from_secs(60),
            penalty_max: Duration::from_secs(60 * 60),
            penalty_rate: None,
            remembered: DEFAULT_REMEMBERED,
            exceptions: Vec::new(),
        }
    }
}

impl Limits {
    /// The number of the exception that holds for a peer, if one does.
    pub fn exception_for(&self, facts: &Facts) -> Option<usize> {
        self.exceptions
            .iter()
            .position(|exception| exception.rule.holds(facts))
    }

    /// What is known about a peer's exceptions before all of its facts are.
    pub(super) fn prospect(&self, facts: &Facts) -> Prospect {
        let certain = self.exception_for(facts);
        // Those after it are never reached.
        let before = certain.unwrap_or(self.exceptions.len());
        let may_hold = |exception: &Exception| exception.rule.may_hold(facts);
        let possible = (0..before)
            .zip(&self.exceptions)
            .filter_map(|(number, exception)| may_hold(exception).then_some(number))
            .collect();
        Prospect { certain, possible }
    }

    /// What has to be known of a peer to tell which exception holds.
    pub fn needs(&self) -> Needs {
        self.exceptions
            .iter()
            .fold(Needs::NONE, |needs, exception| {
                needs.and(exception.rule.needs())
            })
    }
}

/// Which of [`Limits::exceptions`] come into question for a peer.
#[derive(Debug, Default)]
pub(super) struct Prospect {
    /// That which holds, unless one of the others turns out to.
    pub(super) certain: Option<usize>,
    /// Those that hold if what is still to be learnt turns out so.
    pub(super) possible: Vec<usize>,
}

/// What counts towards a penalty (`penalty_for`). Everything is counted and
/// logged, whether it is here or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offences {
    /// Denials by the policy.
    pub denials: bool,
    /// Each kind of [`Abuse`], by [`Abuse::index`].
    abuse: [bool; Abuse::ALL.len()],
}

impl Offences {
    /// Nothing.
    pub const NONE: Self = Self {
        denials: false,
        abuse: [false; Abuse::ALL.len()],
    };

    /// Adds a kind of abuse.
    #[must_use]
    pub fn with(mut self, abuse: Abuse) -> Self {
        if let Some(counts) = self.abuse.get_mut(abuse.index()) {
            *counts = true;
        }
        self
    }

    /// Adds denials.
    #[must_use]
    pub fn with_denials(self) -> Self {
        Self {
            denials: true,
            ..self
        }
    }

    /// Whether a kind of abuse is in it.
    pub fn has(self, abuse: Abuse) -> bool {
        self.abuse.get(abuse.index()).copied().unwrap_or(false)
    }
}

impl Default for Offences {
    /// Denials, and breaches of the protocol.
    fn default() -> Self {
        Self::NONE.with_denials().with(Abuse::Protocol)
    }
}

/// Bounds of their own for the peers that a rule matches (`limit=`).
///
/// Their connections are counted apart from the user's others, so that a busy
/// program and the rest of its user's don't use up each other's share. Penalties
/// are not excepted.
///
/// As long as only the process checker can tell whether one holds for a peer, that peer
/// may be examined although its user's share is used up, as far as the exception leaves
/// room, and in at most half of the places beyond the share (but one at least).
#[derive(Clone, Debug)]
pub struct Exception {
    /// For whom. What can't be read of a peer does not make it hold.
    pub rule: Rule,
    /// Open connections of one user. `None`: no bound but `max_connections`.
    pub connections: Option<usize>,
    /// New connections of one user. `None`: no bound.
    pub rate: Option<Rate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_never_zero_nor_endless() {
        let second = Duration::from_secs(1);
        assert!(Rate::new(0, second).is_none());
        assert!(Rate::new(1, Duration::ZERO).is_none());
        assert!(Rate::new(1, Duration::from_secs(86_401)).is_none());
        assert!(Rate::new(2, Duration::from_nanos(1)).is_none());
        assert_eq!(
            Rate::new(50, second).map(Rate::step),
            Some(Duration::from_millis(20))
        );
    }
}
