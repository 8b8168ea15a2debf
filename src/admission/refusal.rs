//! Why a connection is refused although, or before, the policy admits it.

use std::fmt;
use std::time::{Duration, Instant};

/// Why, and whether to say so.
///
/// A flood of refusals must not become a flood of lines: for each that is
/// refused, the first is told and then at most one a second, with the number of
/// those passed over in between ([`Told::Now`]). During a penalty none is told;
/// its end is, with the number. The rest comes out of
/// `Handle::sweep` of the server. Metrics count every one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Which bound.
    pub reason: RefusalReason,
    /// Whether this one is to be written to log and trail.
    pub told: Told,
}

/// Whether a refusal is written to log and trail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// Yes, together with so many earlier ones that were not.
    Now {
        /// Refused since the last that was told.
        passed_over: u64,
    },
    /// No: it is counted, and told later.
    Later,
}

/// Which bound was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RefusalReason {
    /// `max_connections` are open (`overload=refuse`).
    ServerFull {
        /// The bound.
        limit: usize,
    },
    /// The user has `max_connections_per_uid` open.
    UidConnections {
        /// The bound.
        limit: usize,
    },
    /// The user connects faster than `connection_rate_per_uid`.
    UidRate {
        /// When the next would be admitted.
        wait: Duration,
    },
    /// The user, or the process, is under a penalty.
    Penalty {
        /// How long yet.
        left: Duration,
        /// Whether the penalty is the process's.
        process: bool,
    },
}

impl RefusalReason {
    /// The stable names, in the order of [`index`](Self::index).
    pub const CODES: [&'static str; 4] = ["server_full", "uid_connections", "uid_rate", "penalty"];

    /// The stable name, as log, trail and metrics use it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::ServerFull { .. } => "server_full",
            Self::UidConnections { .. } => "uid_connections",
            Self::UidRate { .. } => "uid_rate",
            Self::Penalty { .. } => "penalty",
        }
    }

    /// A small number for tables of counters.
    pub const fn index(self) -> usize {
        match self {
            Self::ServerFull { .. } => 0,
            Self::UidConnections { .. } => 1,
            Self::UidRate { .. } => 2,
            Self::Penalty { .. } => 3,
        }
    }
}

impl Refusal {
    /// The stable name, as log, trail and metrics use it.
    pub const fn code(&self) -> &'static str {
        self.reason.code()
    }

    /// Whether it is nobody's own bound that was reached.
    pub(crate) const fn is_server_full(&self) -> bool {
        matches!(self.reason, RefusalReason::ServerFull { .. })
    }

    /// How many earlier refusals this one speaks for. `None` if it is not to be told.
    pub const fn report(&self) -> Option<u64> {
        match self.told {
            Told::Now { passed_over } => Some(passed_over),
            Told::Later => None,
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerFull { limit } => write!(f, "max_connections={limit} are open"),
            Self::UidConnections { limit } => {
                write!(f, "the user has max_connections_per_uid={limit} open")
            }
            Self::UidRate { wait } => write!(
                f,
                "the user connects faster than connection_rate_per_uid, the next is admitted in {} ms",
                wait.as_millis().saturating_add(1)
            ),
            Self::Penalty { left, process } => {
                let whose = if *process { "process" } else { "user" };
                write!(
                    f,
                    "the {whose} is under a penalty for {} s more",
                    left.as_secs().saturating_add(1)
                )
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)?;
        match self.report() {
            None | Some(0) => Ok(()),
            Some(number) => write!(f, "; {number} more since the last line"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Passes refusals over while they come too fast to tell each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fold {
    next: Option<Instant>,
    held: u64,
    last: Option<RefusalReason>,
}

impl Fold {
    const PAUSE: Duration = Duration::from_secs(1);

    /// Decides whether one more is told.
    pub(super) fn refuse(&mut self, reason: RefusalReason, now: Instant) -> Refusal {
        let quiet = matches!(reason, RefusalReason::Penalty { .. });
        self.last = Some(reason);
        if quiet || self.next.is_some_and(|next| now < next) {
            self.held = self.held.saturating_add(1);
            return Refusal {
                reason,
                told: Told::Later,
            };
        }
        self.next = now.checked_add(Self::PAUSE);
        Refusal {
            reason,
            told: Told::Now {
                passed_over: std::mem::take(&mut self.held),
            },
        }
    }

    /// What was passed over, if it is time to tell.
    pub(super) fn sweep(&mut self, now: Instant, all: bool) -> Option<(RefusalReason, u64)> {
        let reason = self.last?;
        if self.held == 0 || (!all && self.next.is_some_and(|next| now < next)) {
            return None;
        }
        self.next = now.checked_add(Self::PAUSE);
        Some((reason, std::mem::take(&mut self.held)))
    }

    /// Whether nothing is lost if it is forgotten.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        self.held == 0 && self.next.is_none_or(|next| now >= next)
    }

    /// Whether something waits to be told.
    pub(super) fn holds(&self) -> bool {
        self.held > 0
    }
}
