//! Connections that a reload left open under a rule that asks more of their process than
//! the one they were opened by: that it lives, or runs what it ran. Their sessions look
//! after neither, so the supervisor does.
//!
//! Not here: what a session looks after by itself (`visit`, `attendance`).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::recheck::Recheck;
use super::shared::Shared;
use crate::peer::Peer;
use crate::policy::Authorized;
use crate::service::{CloseReason, Connection};

/// How often each is looked at, unless `recheck_interval` asks for more.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// One of them, and what holds for it now.
pub(super) struct Ward {
    connection: Weak<Connection>,
    peer: Peer,
    authorized: Authorized,
    ends_with_peer: bool,
    recheck: Option<Recheck>,
}

impl Ward {
    /// `None` if the connection looks after all that this verdict asks for.
    pub(super) fn of(
        connection: &Arc<Connection>,
        peer: Peer,
        authorized: Authorized,
        ends_with_peer: bool,
    ) -> Option<Self> {
        let ends_with_peer =
            ends_with_peer && peer.pidfd().is_some() && !connection.ends_with_peer();
        let is_watched = connection.authorized().watches_executable();
        let recheck =
            (authorized.watches_executable() && !is_watched).then(|| Recheck::new(Instant::now()));
        (ends_with_peer || recheck.is_some()).then(|| Self {
            connection: Arc::downgrade(connection),
            peer,
            authorized,
            ends_with_peer,
            recheck,
        })
    }

    /// Whether it is to be looked at again.
    fn look(&mut self, shared: &Shared, now: Instant) -> bool {
        let Some(connection) = self.connection.upgrade() else {
            return false;
        };
        let Some(reason) = self.must_end(shared, connection.id(), now) else {
            return true;
        };
        // What a process left behind that nobody can add to is served to its end.
        if reason != CloseReason::PeerExited || !connection.is_hung_up() {
            connection.end_by_force(reason);
        }
        false
    }

    fn must_end(&mut self, shared: &Shared, id: u64, now: Instant) -> Option<CloseReason> {
        if self.ends_with_peer && self.peer.is_alive().is_err() {
            return Some(CloseReason::PeerExited);
        }
        let recheck = self.recheck.as_mut()?;
        recheck.go_on_with(shared, id, &self.peer, &self.authorized, None, now)
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Wards(Mutex<Vec<Ward>>);

impl Wards {
    /// Another reload has judged all that are open.
    pub(super) fn replace(&self, wards: Vec<Ward>) {
        *self.all() = wards;
    }

    /// When to look at the latest.
    pub(super) fn due(&self, shared: &Shared) -> Option<Instant> {
        let pause = || shared.rules().recheck_interval.min(BETWEEN_LOOKS);
        (!self.all().is_empty()).then(|| Instant::now() + pause())
    }

    pub(super) fn look(&self, shared: &Shared, now: Instant) {
        self.all().retain_mut(|ward| ward.look(shared, now));
    }

    fn all(&self) -> MutexGuard<'_, Vec<Ward>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Wards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wards").finish_non_exhaustive()
    }
}
