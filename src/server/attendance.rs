//! What the server looks after while an embedder's blocking service has the thread:
//! that the process still lives, and runs what it was admitted for.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use super::recheck::Recheck;
use super::shared::Shared;
use crate::service::{CloseReason, Connection, Watch};

pub(super) struct Attendance {
    shared: Weak<Shared>,
    recheck: Option<Mutex<Recheck>>,
}

impl Attendance {
    /// Goes along with a connection whose service runs to its end.
    pub(super) fn begin(shared: &Arc<Shared>, connection: &Arc<Connection>, now: Instant) {
        let authorized = connection.authorized();
        let recheck = authorized
            .watches_executable()
            .then(|| Mutex::new(Recheck::new(now)));
        connection.attend(Box::new(Self {
            shared: Arc::downgrade(shared),
            recheck,
        }));
    }
}

impl Watch for Attendance {
    fn due(&self) -> Option<Instant> {
        let recheck = self.recheck.as_ref()?;
        let recheck = recheck.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody wakes a service when the answer comes: it is looked for.
        Some(recheck.due().min(recheck.next_look()))
    }

    fn look(&self, connection: &Connection, now: Instant) -> Option<CloseReason> {
        let shared = self.shared.upgrade()?;
        let mut recheck = self
            .recheck
            .as_ref()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        recheck.go_on(&shared, connection, None, now)
    }
}
