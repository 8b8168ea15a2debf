//! The proof that the process stands behind its walls.

use std::sync::Arc;

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
    #[cfg(feature = "sandbox")]
    pub(super) domains: Option<Arc<super::landlock::Domains>>,
    #[cfg(feature = "sandbox")]
    pub(super) filters: Option<super::SeccompAction>,
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

    /// Tightens the calling thread to what its role needs. To be called first
    /// thing in every thread; there is no way back, and a second call only takes
    /// more away.
    ///
    /// # Errors
    /// [`SandboxError::System`] if the kernel refuses; the thread must then end.
    pub fn enter_role(&self, role: Role) -> Result<(), SandboxError> {
        // Without the feature there is no way to a sealed process, and so
        // nothing that a role could add.
        #[cfg(not(feature = "sandbox"))]
        let _ = role;
        #[cfg(feature = "sandbox")]
        if role != Role::Supervisor {
            if let Some(domains) = &self.walls.domains {
                domains.enter(role)?;
            }
            if let Some(action) = self.walls.filters {
                super::seccomp::install_role(role, action)?;
            }
        }
        Ok(())
    }

    /// Reads how every thread stands now, and compares it with what was promised.
    ///
    /// # Errors
    /// [`SandboxError::Exposed`] names the first thread that doesn't stand
    /// behind its walls.
    pub fn attest(&self) -> Result<Attestation, SandboxError> {
        let attestation = Attestation::read()?;
        attestation.verify(&self.walls.expected)?;
        Ok(attestation)
    }

    /// Which walls stand.
    pub fn report(&self) -> &Report {
        &self.walls.report
    }
}
