//! The proof that the process, or the server's threads of it, stand behind their walls.

use std::cell::Cell;
use std::sync::Arc;
#[cfg(feature = "sandbox")]
use std::sync::{Mutex, PoisonError};

use super::attest::{Attestation, Expected};
use super::{Report, Role, SandboxError, Standing};

/// Proof that the process stands behind its walls. Cheap to clone, and may be
/// sent to every thread.
#[derive(Clone, Debug)]
pub struct Sealed {
    walls: Arc<Walls>,
}

/// What was put up.
#[derive(Debug, Default)]
pub(super) struct Walls {
    pub(super) report: Report,
    pub(super) expected: Expected,
    pub(super) scope: Scope,
    #[cfg(feature = "sandbox")]
    pub(super) domains: Option<Arc<super::landlock::Domains>>,
    #[cfg(feature = "sandbox")]
    pub(super) filters: Option<super::SeccompAction>,
}

/// Whom the walls are for.
#[derive(Debug, Default)]
pub(super) enum Scope {
    /// Nobody: a process that is unconfined, by name.
    #[default]
    Nobody,
    /// The whole process: every thread was born behind them.
    #[cfg(feature = "sandbox")]
    Process,
    /// The threads that entered a role, by their ids, and no others.
    #[cfg(feature = "sandbox")]
    Threads(Mutex<Vec<i32>>),
}

thread_local! {
    /// The role that this thread has entered, which it can't leave.
    static ENTERED: Cell<Option<Role>> = const { Cell::new(None) };
}

impl Sealed {
    pub(super) fn new(walls: Walls) -> Self {
        Self {
            walls: Arc::new(walls),
        }
    }

    /// A process without walls, for embedders that build their own and for tests.
    pub fn dangerously_unconfined() -> Self {
        let mut walls = Walls::default();
        walls
            .report
            .add("sandbox", Standing::Off, "dangerously_unconfined");
        Self::new(walls)
    }

    /// Whether there are walls at all: not after
    /// [`dangerously_unconfined`](Self::dangerously_unconfined).
    pub fn is_confined(&self) -> bool {
        !matches!(self.walls.scope, Scope::Nobody)
    }

    /// Tightens the calling thread to what its role needs. To be called first
    /// thing in every thread; there is no way back. The server's own threads do it
    /// by themselves. Again with the same role it does nothing, and so it does for
    /// [`Role::Supervisor`].
    ///
    /// # Errors
    /// [`SandboxError::OtherRole`] in a thread that has entered another one;
    /// [`SandboxError::System`] if the kernel refuses; the thread must then end.
    pub fn enter_role(&self, role: Role) -> Result<(), SandboxError> {
        if role == Role::Supervisor || !self.is_confined() {
            return Ok(());
        }
        match ENTERED.get() {
            None => {}
            Some(entered) if entered == role => return Ok(()),
            Some(entered) => {
                return Err(SandboxError::OtherRole {
                    entered,
                    wanted: role,
                });
            }
        }
        #[cfg(feature = "sandbox")]
        self.put_up(role)?;
        ENTERED.set(Some(role));
        Ok(())
    }

    #[cfg(feature = "sandbox")]
    fn put_up(&self, role: Role) -> Result<(), SandboxError> {
        if let Scope::Threads(_) = &self.walls.scope {
            super::enter::shed_of_thread(&self.walls.expected)?;
            self.register();
        }
        if let Some(domains) = &self.walls.domains {
            domains.enter(role)?;
        }
        if let Some(action) = self.walls.filters {
            super::seccomp::install_role(role, action)?;
        }
        Ok(())
    }

    /// Has the calling thread attested as long as it lives.
    #[cfg(feature = "sandbox")]
    fn register(&self) {
        thread_local! {
            static REGISTERED: std::cell::RefCell<Option<Registered>> =
                const { std::cell::RefCell::new(None) };
        }
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        if let Scope::Threads(tids) = &self.walls.scope {
            tids.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(tid);
        }
        let walls = Arc::downgrade(&self.walls);
        REGISTERED.set(Some(Registered { walls, tid }));
    }

    /// Reads how every thread stands now, and compares it with what was promised:
    /// every thread of the process, or, after
    /// [`enter_threads`](super::enter_threads), those that entered a role.
    ///
    /// # Errors
    /// [`SandboxError::Exposed`] names the first thread that doesn't stand
    /// behind its walls.
    pub fn attest(&self) -> Result<Attestation, SandboxError> {
        let attestation = match &self.walls.scope {
            #[cfg(feature = "sandbox")]
            Scope::Threads(tids) => {
                let tids = tids.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Attestation::read_of(&tids)?
            }
            _ => Attestation::read()?,
        };
        attestation.verify(&self.walls.expected)?;
        Ok(attestation)
    }

    /// Which walls stand.
    pub fn report(&self) -> &Report {
        &self.walls.report
    }
}

/// Takes a thread out of the list as it ends, before its id can be another's.
#[cfg(feature = "sandbox")]
struct Registered {
    walls: std::sync::Weak<Walls>,
    tid: i32,
}

#[cfg(feature = "sandbox")]
impl Drop for Registered {
    fn drop(&mut self) {
        let Some(walls) = self.walls.upgrade() else {
            return;
        };
        if let Scope::Threads(tids) = &walls.scope {
            let mut tids = tids.lock().unwrap_or_else(PoisonError::into_inner);
            tids.retain(|tid| *tid != self.tid);
        }
    }
}
