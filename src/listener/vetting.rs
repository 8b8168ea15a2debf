//! What a listener that was bound for a policy has to judge with: the policy, the
//! files and processes that its rules name, and who reads `/proc`.
//!
//! Not here: the judging (`server`), and the walls that the checker's threads stay
//! outside of (`sandbox`).

use std::sync::{Mutex, PoisonError};

use super::error::BindError;
use crate::peer::{
    Checker, CheckerConfig, CheckerThread, FactKind, Inspector, Kernel, Needs, PidfdSource, Pins,
};
use crate::policy::Policy;
use crate::sandbox::{Capability, Plan, PrivilegedThread, Role};

/// The means to judge by one policy.
#[derive(Debug)]
pub(crate) struct Vetting {
    pub(crate) policy: Policy,
    pub(crate) inspector: Inspector,
    pub(crate) pidfd_source: PidfdSource,
    /// Of the checker, until somebody starts them.
    threads: Mutex<Vec<CheckerThread>>,
}

impl Vetting {
    /// Ties down what the rules name, before any wall stands.
    ///
    /// # Errors
    /// What can't be found out about peers here, or relied upon.
    pub(super) fn prepare(policy: &Policy) -> Result<Self, BindError> {
        let needs = policy.needs();
        let missing = Kernel::probe().shortcomings(needs, policy.needs_ptrace_capability());
        if !missing.is_empty() {
            return Err(BindError::PolicyOutOfReach { missing });
        }
        let pins = Pins::open(&policy.exe_paths(), &policy.pids(), None)
            .map_err(|errors| BindError::PolicyUnreliable { errors })?;
        let (checker, threads) = if needs.has_any(Needs::PROC) {
            let config = CheckerConfig {
                digest_threads: usize::from(needs.has(FactKind::Sha256)),
                ..CheckerConfig::default()
            };
            let (checker, threads) = Checker::new(config)
                .map_err(|error| BindError::system("read", std::path::Path::new("/proc"), error))?;
            (Some(checker), threads)
        } else {
            (None, Vec::new())
        };
        Ok(Self {
            policy: policy.clone(),
            inspector: Inspector::new(pins, checker),
            pidfd_source: PidfdSource::default(),
            threads: Mutex::new(threads),
        })
    }

    /// Has the sandbox start the checker, outside Landlock, with what it needs.
    pub(super) fn join(&self, plan: &mut Plan) {
        let ptrace = self
            .policy
            .needs_ptrace_capability()
            .then_some(Capability::SysPtrace);
        for thread in self.take_threads() {
            plan.privileged.push(PrivilegedThread {
                name: thread.name,
                role: Role::ProcessChecker,
                capabilities: ptrace.into_iter().collect(),
                outside_landlock: true,
                body: Box::new(move || thread.run()),
            });
        }
    }

    /// The threads that nobody has started yet.
    pub(crate) fn take_threads(&self) -> Vec<CheckerThread> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *threads)
    }
}
