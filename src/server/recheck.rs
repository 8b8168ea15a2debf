//! Looks again at a process that was admitted by its executable: it may run
//! another one since (execve(2)), and nothing tells. Also judges open connections
//! again after a reload.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::rules::Rules;
use super::shared::Shared;
use crate::peer::{Fact, Facts, Needs, Peer, ProcessFacts};
use crate::policy::Denial;
use crate::service::{CloseReason, Connection, Waker};

/// How long an answer of the checker may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The repeated look at one process.
pub(super) struct Recheck {
    due: Instant,
    answer: Option<Arc<Mutex<Option<ProcessFacts>>>>,
}

impl Recheck {
    pub(super) fn new(first: Instant) -> Self {
        Self {
            due: first,
            answer: None,
        }
    }

    /// When to call [`go_on`](Self::go_on) at the latest.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether an answer has come.
    pub(super) fn has_answer(&self) -> bool {
        let answer = self.answer.as_ref();
        answer.is_some_and(|answer| {
            answer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some()
        })
    }

    /// Asks, or takes the answer. Gives why the connection must end, if so.
    pub(super) fn go_on(
        &mut self,
        shared: &Shared,
        connection: &Connection,
        waker: Option<&Waker>,
        now: Instant,
    ) -> Option<CloseReason> {
        let Some(answer) = self.answer.take() else {
            self.ask(shared, connection, waker, now);
            return None;
        };
        let process = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(process) = process else {
            if now < self.due {
                self.answer = Some(answer);
                return None;
            }
            // A checker that does not answer can't vouch for anybody.
            return Some(CloseReason::ExecutableChanged);
        };
        self.due = now + shared.rules().recheck_interval;
        let mut facts = Facts::of(Fact::Unasked);
        facts.absorb(process);
        match connection.authorized().still_holds(&facts) {
            Ok(()) => None,
            // A busy checker has seen nothing wrong; it is asked again.
            Err(crate::policy::DenialReason::CheckerBusy) => None,
            Err(reason) => {
                crate::notice!(
                    conn = connection.id();
                    "the process is no longer what was admitted {} reason={reason}",
                    connection.authorized().facts()
                );
                Some(match reason {
                    crate::policy::DenialReason::PeerGone => CloseReason::PeerExited,
                    _ => CloseReason::ExecutableChanged,
                })
            }
        }
    }

    fn ask(
        &mut self,
        shared: &Shared,
        connection: &Connection,
        waker: Option<&Waker>,
        now: Instant,
    ) {
        let answer: Arc<Mutex<Option<ProcessFacts>>> = Arc::default();
        let (place, waker) = (Arc::clone(&answer), waker.cloned());
        let on_done = move |facts| {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
            if let Some(waker) = waker {
                waker.wake();
            }
        };
        let exe = Needs::only(crate::peer::FactKind::Exe);
        self.due = now + PATIENCE;
        self.answer = Some(answer);
        shared
            .rules()
            .inspector
            .learn_later(connection.peer(), exe, Box::new(on_done));
    }
}

/// Whether other rules still admit an open connection. Reads what they ask for:
/// what a process runs, and which files paths lead to, may have changed.
pub(super) fn judge_again(rules: &Rules, connection: &Connection) -> Result<(), Denial> {
    let needs = rules.needs();
    let mut peer = connection.peer().clone();
    let is_local = peer.facts().address.is_none();
    if is_local && !needs.is_empty() {
        // The socket still answers as at connect, and holds the same process.
        peer = Peer::from_socket(connection.as_fd(), needs, rules.pidfd_source);
    }
    let mut facts = peer.facts().clone();
    loop {
        let asks = rules.policy.asks(&facts);
        if asks.is_empty() {
            break;
        }
        rules.inspector.learn(&peer, &mut facts, asks);
    }
    rules.policy.check(&facts).map(drop)
}
