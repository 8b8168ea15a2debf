//! What the book tells those who write it down: penalties that began, patterns of abuse,
//! refusals that were passed over, and its state.

use std::fmt;
use std::time::Duration;

use super::{Abuse, ProcessKey, RefusalReason, Who};

/// A penalty that has just begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PenaltyStarted {
    /// How long it is.
    pub length: Duration,
    /// Whether it holds for the process alone.
    pub process: bool,
}

impl fmt::Display for PenaltyStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.process { "process" } else { "user" };
        write!(
            f,
            "the {whose} is refused unread for {} s",
            self.length.as_secs_f64()
        )
    }
}

/// What counting a sign of abuse led to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AbuseNoticed {
    /// With how many within a minute it became a pattern, if it just did: to be logged.
    pub pattern: Option<u32>,
    /// The penalty that began with it.
    pub penalty: Option<PenaltyStarted>,
}

/// Refusals that were passed over, to be told now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassedOver {
    /// Who was refused. `None`: anyone, for a full server.
    pub who: Option<Who>,
    /// The process, if the refusals were its alone.
    pub process: Option<ProcessKey>,
    /// The last reason.
    pub reason: RefusalReason,
    /// How often.
    pub number: u64,
}

/// The state, for a summary.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Open connections.
    pub open: usize,
    /// The bound on them.
    pub max_connections: usize,
    /// Accounts, with open connections or without.
    pub accounts: usize,
    /// Users, hosts and processes that are under a penalty now.
    pub under_penalty: usize,
    /// Penalties since the start.
    pub penalties: u64,
    /// Signs of abuse since the start, by [`Abuse::index`].
    pub abuse: [u64; Abuse::ALL.len()],
    /// Those with most open connections, at most five, most first.
    pub busiest: Vec<(Who, u32)>,
}
