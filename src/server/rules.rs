//! What a reload can replace: who may enter, and the bounds of time.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::Uid;
use crate::listener::{Listener, Sealed};
use crate::peer::{Inspector, Needs, PidfdSource, Pins};
use crate::policy::{Authorized, Policy};
use crate::service::Timeouts;

/// When a choice is made by the rule that admitted a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// As the rule and the service suggest.
    #[default]
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// No process is looked at more often than this: it would take a whole processor.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// Who may enter, under which bounds of time. A reload replaces it as a whole.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Who may enter.
    pub policy: Policy,
    /// How facts about peers are learnt, and what the policy's paths and pids
    /// are tied to.
    pub inspector: Inspector,
    /// How processes are held.
    pub pidfd_source: PidfdSource,
    /// Bounds of time for each connection accepted from now on.
    pub timeouts: Arc<Timeouts>,
    /// Whether a connection ends when the authorised process exits; by default
    /// where the rule names a process.
    pub session_ends_with_peer: Choice,
    /// Whether a peer has to prove by 16 bytes that it is the process that was
    /// checked, before it is served. `Auto` leaves that to the service.
    pub process_proof: Choice,
    /// How long the proof may take.
    pub proof_timeout: Duration,
    /// How often the executable of a process is looked at again, where the rule
    /// that admitted it names one. Less than 10 ms counts as 10 ms.
    pub recheck_interval: Duration,
    /// What the exceptions of the limits ask for
    /// ([`Limits::needs`](crate::admission::Limits::needs)), of which facts of the socket
    /// are learnt. For those below `/proc`, and where they name a process or a path, the
    /// policy has to learn for them as well
    /// ([`Policy::also_learning_for`](crate::policy::Policy::also_learning_for)).
    pub limits_need: Needs,
}

impl Rules {
    /// With default bounds, and without a process checker.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            inspector: Inspector::new(Pins::default(), None),
            pidfd_source: PidfdSource::default(),
            timeouts: Arc::new(Timeouts::default()),
            session_ends_with_peer: Choice::Auto,
            process_proof: Choice::Auto,
            proof_timeout: Duration::from_secs(5),
            recheck_interval: Duration::from_secs(1),
            limits_need: Needs::NONE,
        }
    }

    /// For the policy that a listener was bound for; the own user alone, if for none.
    pub fn of(listener: &Listener<Sealed>) -> Self {
        let Some(vetting) = listener.vetting() else {
            let own_user = rustix::process::geteuid().as_raw();
            let own_user = Uid::from_raw(own_user).unwrap_or(Uid::OVERFLOW);
            return Self::new(Policy::new(Vec::new(), Vec::new(), own_user));
        };
        Self {
            inspector: vetting.inspector.clone(),
            pidfd_source: vetting.pidfd_source,
            ..Self::new(vetting.policy.clone())
        }
    }

    /// What is to be learnt about every peer.
    pub(super) fn needs(&self) -> Needs {
        let ends = self.session_ends_with_peer == Choice::Yes;
        let held = Needs::only(crate::peer::FactKind::Process);
        // Facts below /proc are learnt for the policy only.
        let own = self
            .policy
            .needs()
            .and(self.limits_need.within(Needs::SOCKET));
        if ends || self.process_proof == Choice::Yes {
            own.and(held)
        } else {
            own
        }
    }

    /// How long to wait between two looks at a process.
    pub(super) fn between_rechecks(&self) -> Duration {
        self.recheck_interval.max(SHORTEST_INTERVAL)
    }

    /// Whether this connection ends with the process that opened it.
    pub(super) fn ends_with_peer(&self, authorized: &Authorized) -> bool {
        match self.session_ends_with_peer {
            Choice::Auto => authorized.names_process(),
            Choice::Yes => true,
            Choice::No => false,
        }
    }
}
