//! What the server looks after while an embedder's blocking service has the thread:
//! that the process still lives, and runs what it was admitted for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::recheck::Recheck;
use super::shared::Shared;
use crate::service::{CloseReason, Connection, Watch};

pub(super) struct Attendance {
    shared: Weak<Shared>,
    /// None once the process has exited.
    recheck: Mutex<Option<Recheck>>,
}

impl Attendance {
    /// Goes along with a connection whose service runs to its end.
    pub(super) fn begin(shared: &Arc<Shared>, connection: &Arc<Connection>, now: Instant) {
        let authorized = connection.authorized();
        let recheck = authorized.watches_executable().then(|| Recheck::new(now));
        connection.attend(Box::new(Self {
            shared: Arc::downgrade(shared),
            recheck: Mutex::new(recheck),
        }));
    }
}

impl Watch for Attendance {
    fn due(&self) -> Option<Instant> {
        let recheck = self.recheck();
        let recheck = recheck.as_ref()?;
        // Nobody wakes a service when the answer comes: it is looked for.
        Some(recheck.due().min(recheck.next_look()))
    }

    fn look(&self, connection: &Connection, now: Instant) -> Option<CloseReason> {
        let shared = self.shared.upgrade()?;
        let mut recheck = self.recheck();
        let reason = recheck.as_mut()?.go_on(&shared, connection, None, now)?;
        // What the process sent is left to read, where nobody else holds its end.
        if reason == CloseReason::PeerExited && connection.is_hung_up() {
            *recheck = None;
            return None;
        }
        Some(reason)
    }
}

impl Attendance {
    fn recheck(&self) -> MutexGuard<'_, Option<Recheck>> {
        self.recheck.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
