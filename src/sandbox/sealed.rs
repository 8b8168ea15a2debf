//! The proof that the process, or the server's threads of it, stand behind their walls.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::attest::{Attestation, Entered, Expected};
use super::{Report, Role, SandboxError, Standing};

/// Proof that the process stands behind its walls. Cheap to clone, and may be
/// sent to every thread.
///
/// A listener that was given one accepts:
///
/// ```
/// use secure_socket::listener::{Accepted, Bound, Listener};
/// use secure_socket::sandbox::Sealed;
///
/// fn serve(bound: Listener<Bound>, proof: &Sealed) -> std::io::Result<Accepted> {
///     bound.seal(proof).accept()
/// }
/// ```
///
/// One that was not can't:
///
/// ```compile_fail,E0599
/// use secure_socket::listener::{Accepted, Bound, Listener};
///
/// fn serve(bound: Listener<Bound>) -> std::io::Result<Accepted> {
///     bound.accept()
/// }
/// ```
///
/// And nobody writes one down:
///
/// ```compile_fail,E0451
/// use secure_socket::sandbox::Sealed;
///
/// let _ = Sealed { walls: Default::default() };
/// ```
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
    /// Threads that stand in a role now. Locked while one enters: one at a time has its
    /// status open, and none is looked at half-way.
    pub(super) entered: Mutex<Vec<Entered>>,
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
    /// The threads that entered a role, and no others.
    #[cfg(feature = "sandbox")]
    Threads,
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
    /// The thread then asks the kernel whether it stands there, and so
    /// does [`attest`](Self::attest) as long as it lives.
    ///
    /// # Errors
    /// [`SandboxError::OtherRole`] in a thread that has entered another one;
    /// [`SandboxError::System`] if the kernel refuses, [`SandboxError::Exposed`] if it
    /// says that a wall is missing; the thread must then end.
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
        let expected = &self.walls.expected;
        let mut list = self.walls.entered();
        if let Scope::Threads = &self.walls.scope {
            super::enter::shed_of_thread(expected)?;
        }
        let status = super::attest::OwnStatus::open()?;
        let mut entered = Entered {
            tid: status.before.tid,
            role,
            filters: status.before.seccomp_filters,
        };
        if let Some(domains) = &self.walls.domains {
            domains.enter(role)?;
        }
        if let Some(action) = self.walls.filters {
            super::seccomp::install_role(role, action)?;
            entered.filters += super::seccomp::filters_of(role);
        }
        status.verify(expected, entered)?;
        list.push(entered);
        self.register(entered.tid);
        Ok(())
    }

    /// Has the calling thread attested as long as it lives.
    #[cfg(feature = "sandbox")]
    fn register(&self, tid: i32) {
        thread_local! {
            static REGISTERED: std::cell::RefCell<Option<Registered>> =
                const { std::cell::RefCell::new(None) };
        }
        let walls = Arc::downgrade(&self.walls);
        REGISTERED.set(Some(Registered { walls, tid }));
    }

    /// Reads how every thread stands now, and compares it with what was promised:
    /// every thread of the process, or, after
    /// [`enter_threads`](super::enter_threads), those that entered a role. One
    /// that entered a role must live behind that role's filters as well.
    ///
    /// # Errors
    /// [`SandboxError::Exposed`] names the first thread that doesn't stand
    /// behind its walls.
    pub fn attest(&self) -> Result<Attestation, SandboxError> {
        let entered = self.walls.entered();
        let mut attestation = match &self.walls.scope {
            #[cfg(feature = "sandbox")]
            Scope::Threads => {
                let tids: Vec<i32> = entered.iter().map(|one| one.tid).collect();
                Attestation::read_of(&tids)?
            }
            _ => Attestation::read()?,
        };
        attestation.verify(&self.walls.expected, &entered)?;
        Ok(attestation)
    }

    /// Which walls stand.
    pub fn report(&self) -> &Report {
        &self.walls.report
    }
}

impl Walls {
    fn entered(&self) -> MutexGuard<'_, Vec<Entered>> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
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
        walls.entered().retain(|one| one.tid != self.tid);
    }
}
