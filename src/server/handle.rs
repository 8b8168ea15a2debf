//! Stops a running server, changes it, and tells its state; from any thread.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::rules::Rules;
use super::shared::Shared;
use super::{fit_limits, pool_bound, recheck};
use crate::admission::{self, Limits};
use crate::service::{CloseReason, Connection};
use crate::sys;

/// Refers to a server; does nothing once that is gone. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Weak<Shared>,
}

/// The state of a server at about one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Connections that were accepted since the start.
    pub accepted: u64,
    /// Threads that serve.
    pub threads: usize,
    /// Those of them that wait for a newcomer (`threads=multi`).
    pub idle: usize,
    /// Whether newcomers wait in the backlog.
    pub waiting: bool,
    /// Who has what open.
    pub admission: admission::Snapshot,
}

/// Whether acceptors do what they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pulse {
    /// Connections accepted, and attempts that failed, since the start.
    pub turns: u64,
    /// Somebody waits in the backlog, and there is room.
    pub must_move: bool,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let admission = &self.admission;
        write!(
            f,
            "accepted={} open={} max_connections={} threads={} idle={} waiting={} \
             accounts={} under_penalty={} penalties={}",
            self.accepted,
            admission.open,
            admission.max_connections,
            self.threads,
            self.idle,
            if self.waiting { "yes" } else { "no" },
            admission.accounts,
            admission.under_penalty,
            admission.penalties
        )?;
        for (who, open) in &admission.busiest {
            write!(f, " [{who} open={open}]")?;
        }
        Ok(())
    }
}

impl Handle {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::downgrade(shared),
        }
    }

    /// Takes no newcomers from now on, lets open connections finish, and closes
    /// those that are left after `grace`; `Duration::MAX` waits for all of them.
    pub fn stop(&self, grace: Duration) {
        if let Some(shared) = self.shared.upgrade() {
            let until = sys::time::after(Instant::now(), grace);
            shared.phase.drain(until);
            shared.supervisor.ring();
            shared.ring_loops();
        }
    }

    /// Closes everything at once.
    pub fn stop_now(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.phase.drain(Instant::now());
            shared.phase.force();
            shared.supervisor.ring();
            shared.ring_loops();
        }
    }

    /// Who may enter now. `None` once the server has ended.
    pub fn rules(&self) -> Option<Arc<Rules>> {
        self.shared.upgrade().map(|shared| shared.rules())
    }

    /// Puts other rules and limits in force: for newcomers at once, and for those
    /// who are here, who are judged again and closed if they are no longer
    /// admitted. Who stays by a rule that names a process is from now on closed when that
    /// exits or runs another program, as newcomers are. Gives how many were closed.
    ///
    /// Blocks while facts are read that the old rules had not asked for, for all
    /// connections at once: little longer than the process checker's bound for one.
    pub fn reload(&self, rules: Rules, limits: Limits) -> usize {
        self.reload_then(rules, limits, || ())
    }

    /// As [`reload`](Self::reload); `in_force` is called once newcomers are judged by the
    /// new rules, before those who are here are.
    pub(crate) fn reload_then(
        &self,
        rules: Rules,
        mut limits: Limits,
        in_force: impl FnOnce(),
    ) -> usize {
        let Some(shared) = self.shared.upgrade() else {
            return 0;
        };
        fit_limits(&mut limits, shared.threads, shared.overload);
        shared
            .max_connections
            .store(limits.max_connections, Ordering::SeqCst);
        shared
            .pool
            .set_bound(pool_bound(limits.max_connections, shared.overload));
        shared.admission.set_limits(limits);
        let rules = Arc::new(rules);
        shared.set_rules(&rules);
        in_force();
        let (denied, wards) = recheck::judge_again(&rules, shared.registry.snapshot());
        shared.wards.replace(wards);
        for (connection, denial) in &denied {
            crate::notice!(
                conn = connection.id();
                "no longer admitted {} {denial}", connection.authorized().facts()
            );
            connection.end_by_force(CloseReason::NoLongerAdmitted);
        }
        shared.protocol.reloaded();
        shared.ring_loops();
        shared.supervisor.ring();
        denied.len()
    }

    /// The connections that are open.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.shared
            .upgrade()
            .map(|shared| shared.registry.snapshot())
            .unwrap_or_default()
    }

    /// The state at about this moment.
    pub fn state(&self) -> State {
        let Some(shared) = self.shared.upgrade() else {
            return State::default();
        };
        State {
            accepted: shared.accepted.load(Ordering::Relaxed),
            threads: shared.pool.total.load(Ordering::Relaxed),
            idle: shared.pool.idle.load(Ordering::Relaxed),
            waiting: shared.has_newcomers(),
            admission: shared.admission.snapshot(Instant::now()),
        }
    }

    /// Whether acceptors move; to be compared with an earlier answer.
    pub fn pulse(&self) -> Pulse {
        let Some(shared) = self.shared.upgrade() else {
            return Pulse::default();
        };
        let accepted = shared.accepted.load(Ordering::Relaxed);
        Pulse {
            turns: accepted.saturating_add(shared.exhaustion.failures()),
            must_move: shared.phase.is_running() && !shared.is_full() && shared.has_newcomers(),
        }
    }

    /// Tells of refusals that were passed over; to be called about once a second
    /// by whoever oversees the server. `all`: those not yet due as well.
    pub fn sweep(&self, all: bool) {
        if let Some(shared) = self.shared.upgrade() {
            shared.sweep(all);
        }
    }

    /// Whether [`sweep`](Self::sweep) has something to do soon.
    pub fn needs_sweep(&self) -> bool {
        self.shared
            .upgrade()
            .is_some_and(|shared| shared.admission.has_passed_over())
    }
}
