//! A connection that is served: its session, and the bounds of time that hold for it.
//!
//! Not here: who looks at them, and what a step does (`visit`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::recheck::Recheck;
use super::shared::Shared;
use crate::admission::{Subject, Ticket};
use crate::service::{CloseReason, Connection, Session, Waker};
use crate::sys;

/// How long what a process left behind may take where `half_close_timeout` sets no bound.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

pub(super) struct Serving {
    pub(super) connection: Arc<Connection>,
    pub(super) session: Box<dyn Session>,
    pub(super) subject: Subject,
    pub(super) recheck: Option<Box<Recheck>>,
    pub(super) traffic: (u64, u64),
    pub(super) moved: Instant,
    /// The peer has spoken, though the session has not listened yet.
    pub(super) heard: bool,
    /// The process has exited and nobody holds its end: by when what it sent must have
    /// been dealt with.
    pub(super) left_until: Option<Instant>,
    pub(super) _ticket: Ticket,
}

impl Serving {
    /// Whether it still ends with the process, so that the exit is to be told.
    pub(super) fn watches_exit(&self) -> bool {
        self.connection.ends_with_peer() && self.left_until.is_none()
    }

    /// The process has exited: whether the session may deal with what it sent. Not if
    /// somebody else holds the other end, whose data can't be told from that.
    /// Descriptors are closed before the exit is told (`do_exit` in the kernel).
    pub(super) fn may_finish(&mut self, now: Instant) -> bool {
        if self.left_until.is_none() {
            if !self.connection.is_hung_up() {
                return false;
            }
            self.left_until = Some(left_until(&self.connection, now));
        }
        // There is no process to look at any more; what was asked before may still tell.
        self.recheck.take_if(|recheck| !recheck.is_asked());
        true
    }

    /// What the look at the process has told that was awaited: why to end, if so.
    pub(super) fn found_out(
        &mut self,
        shared: &Shared,
        waker: Option<&Waker>,
        now: Instant,
    ) -> Option<CloseReason> {
        let recheck = self.recheck.as_mut().filter(|one| one.has_answer())?;
        recheck.go_on(shared, &self.connection, waker, now)
    }

    /// The first of the driver's own bounds of time.
    pub(super) fn next_end(&self) -> Option<Instant> {
        // Asked several times for each round trip: with the defaults there is none.
        let ends = earlier(self.lifetime_end(), self.first_byte_end());
        let ends = earlier(ends, self.idle_end());
        let ends = earlier(ends, self.left_until);
        earlier(ends, self.recheck.as_deref().map(Recheck::due))
    }

    pub(super) fn lifetime_end(&self) -> Option<Instant> {
        self.connection
            .timeouts()
            .max_lifetime
            .map(|bound| sys::time::after(self.connection.opened(), bound))
    }

    pub(super) fn first_byte_end(&self) -> Option<Instant> {
        let bound = self
            .connection
            .timeouts()
            .first_byte
            .filter(|_| self.traffic == (0, 0) && !self.heard)?;
        Some(sys::time::after(self.connection.admitted(), bound))
    }

    pub(super) fn idle_end(&self) -> Option<Instant> {
        self.connection
            .timeouts()
            .idle
            .map(|bound| sys::time::after(self.moved, bound))
    }
}

/// By when what a process left behind must have been dealt with.
pub(super) fn left_until(connection: &Connection, now: Instant) -> Instant {
    let bound = connection.timeouts().half_close;
    sys::time::after(now, bound.unwrap_or(LEFT_BEHIND))
}

pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
