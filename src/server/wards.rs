//! Connections that a reload left open under a rule that asks more of their process than
//! the one they were opened by: that it lives, or runs what it ran. Their sessions look
//! after neither, so the supervisor does.
//!
//! Not here: what a session looks after by itself (`visit`, `attendance`).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::recheck::Recheck;
use super::serving::{earlier, left_until};
use super::shared::Shared;
use crate::peer::Peer;
use crate::policy::Authorized;
use crate::service::{CloseReason, Connection};

/// How often one is looked at of whom an exit or an answer may come, unless
/// `recheck_interval` asks for more.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// How often the others are: what is held of those that are over is given back.
const LONGEST_BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// One of them, and what holds for it now.
pub(super) struct Ward {
    connection: Weak<Connection>,
    peer: Peer,
    authorized: Authorized,
    ends_with_peer: bool,
    recheck: Option<Recheck>,
    /// As of a [`Serving`](super::serving::Serving).
    left_until: Option<Instant>,
    /// When to look at it again.
    due: Instant,
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
        let now = Instant::now();
        let recheck = (authorized.watches_executable() && !is_watched).then(|| Recheck::new(now));
        (ends_with_peer || recheck.is_some()).then(|| Self {
            connection: Arc::downgrade(connection),
            peer,
            authorized,
            ends_with_peer,
            recheck,
            left_until: None,
            due: now,
        })
    }

    /// Whether it is to be looked at again.
    fn look(&mut self, shared: &Shared, now: Instant) -> bool {
        let Some(connection) = self.connection.upgrade() else {
            return false;
        };
        if now < self.due {
            return true;
        }
        if let Some(reason) = self.must_end(shared, &connection, now) {
            connection.end_by_force(reason);
            return false;
        }
        self.due = self.next_look(shared, now);
        true
    }

    fn must_end(
        &mut self,
        shared: &Shared,
        connection: &Connection,
        now: Instant,
    ) -> Option<CloseReason> {
        let (peer, authorized) = (&self.peer, &self.authorized);
        let recheck = self.recheck.as_mut();
        // First: what a program sent that was not admitted is not left to be served.
        let found = recheck.and_then(|recheck| {
            recheck.go_on_with(shared, connection.id(), peer, authorized, None, now)
        });
        let is_gone = found == Some(CloseReason::PeerExited);
        if found.is_some() && !is_gone {
            return found;
        }
        if self.left_until.is_none() {
            let has_exited = || self.ends_with_peer && peer.is_alive().is_err();
            if !is_gone && !has_exited() {
                return None;
            }
            if !connection.is_hung_up() {
                return Some(CloseReason::PeerExited);
            }
            // Nobody can add to what the process left behind: it is served, for a while.
            self.left_until = Some(left_until(connection, now));
        }
        self.recheck.take_if(|recheck| !recheck.is_asked());
        let is_over = self.left_until.is_some_and(|until| until <= now);
        is_over.then_some(CloseReason::PeerExited)
    }

    fn next_look(&self, shared: &Shared, now: Instant) -> Instant {
        let is_left = self.left_until.is_some();
        let recheck = self.recheck.as_ref();
        let is_asked = recheck.is_some_and(Recheck::is_asked);
        let pause = if is_asked || self.ends_with_peer && !is_left {
            shared.rules().between_rechecks().min(BETWEEN_LOOKS)
        } else {
            LONGEST_BETWEEN_LOOKS
        };
        let due = earlier(self.left_until, recheck.map(Recheck::due));
        let latest = now + pause;
        due.map_or(latest, |due| due.min(latest))
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
    pub(super) fn due(&self) -> Option<Instant> {
        self.all().iter().map(|ward| ward.due).min()
    }

    /// Looks at those whose time has come.
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

#[cfg(test)]
mod tests {
    use super::super::recheck::tests::{answer, asked};
    use super::super::tests::{Bench, connection_running, policy};
    use super::*;
    use crate::peer::Unreadable;
    use crate::server::Rules;

    /// Of a process whose executable is being asked for, and nothing else.
    fn wards(connection: &Arc<Connection>, recheck: Recheck, now: Instant) -> Wards {
        let ward = Ward {
            connection: Arc::downgrade(connection),
            peer: connection.peer().clone(),
            authorized: connection.authorized().clone(),
            ends_with_peer: false,
            recheck: Some(recheck),
            left_until: None,
            due: now,
        };
        Wards(Mutex::new(vec![ward]))
    }

    #[test]
    fn what_an_exited_process_left_is_served_for_half_close_timeout_at_most() {
        let bench = Bench::new();
        let (connection, far) = connection_running();
        let connection = Arc::new(connection);
        let (recheck, place) = asked();
        let now = Instant::now();
        let wards = wards(&connection, recheck, now);
        wards.look(&bench.shared, now);
        answer(&place, Unreadable::Gone);
        drop(far);
        // Its time has not come yet.
        wards.look(&bench.shared, now);
        assert!(wards.all().iter().all(|ward| ward.left_until.is_none()));
        let now = wards.due().unwrap();
        wards.look(&bench.shared, now);
        let end = now + connection.timeouts().half_close.unwrap();
        let mut looks = 0;
        while let Some(now) = wards.due() {
            assert!(now <= end, "{looks} looks");
            assert_eq!(connection.forced(), None);
            wards.look(&bench.shared, now);
            looks += 1;
        }
        assert_eq!(connection.forced(), Some(CloseReason::PeerExited));
        assert!(looks < 100, "{looks} looks");
    }

    #[test]
    fn what_is_over_is_held_no_longer() {
        let bench = Bench::new();
        let (connection, _far) = connection_running();
        let connection = Arc::new(connection);
        let now = Instant::now();
        let wards = wards(&connection, asked().0, now);
        wards.look(&bench.shared, now);
        drop(connection);
        wards.look(&bench.shared, now);
        assert_eq!(wards.due(), None);
    }

    #[test]
    fn no_interval_has_the_supervisor_spin() {
        let bench = Bench::new();
        let mut rules = Rules::new(policy("uid:self"));
        rules.recheck_interval = Duration::ZERO;
        bench.shared.set_rules(&Arc::new(rules));
        let (connection, _far) = connection_running();
        let connection = Arc::new(connection);
        let now = Instant::now();
        let wards = wards(&connection, asked().0, now);
        let pause = Duration::from_millis(10);
        wards.look(&bench.shared, now);
        assert_eq!(wards.due(), Some(now + pause));
        // Nor one whose process is as it was.
        let (recheck, place) = asked();
        answer(&place, Unreadable::Busy);
        wards.all()[0].recheck = Some(recheck);
        wards.look(&bench.shared, now + pause);
        assert_eq!(wards.due(), Some(now + pause * 2));
        wards.all()[0].recheck = None;
        wards.all()[0].ends_with_peer = true;
        wards.look(&bench.shared, now + pause * 2);
        assert_eq!(wards.due(), Some(now + pause * 3));
    }
}
