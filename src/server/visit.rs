//! One connection from accept to its end, however it is driven.
//!
//! First the peer is examined, then, where that is asked for, it proves that it is
//! the process that was examined; then the service's session runs. Between its
//! steps a visit only says what it waits for.
//!
//! Invariants: nothing is read from or written to the peer before the policy, the
//! limits and the observer have all agreed. A panic of the session or of the observer
//! ends this visit only.

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::attendance::Attendance;
use super::examination::{Admitted, Candidate, Verdict};
use super::journal;
use super::recheck::Recheck;
use super::serving::{Serving, earlier};
use super::shared::Shared;
use crate::admission::Abuse;
use crate::listener::Accepted;
use crate::service::{CloseReason, Interest, Next, Ready, Turn, Wait, Waker};

/// What a driver saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Signals {
    pub(super) ready: Ready,
    /// The authorised process has exited.
    pub(super) peer_exited: bool,
}

/// How it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// After a wait for what [`Visit::wait`] and its siblings say.
    Wait,
    /// At once, when others have had their turn.
    Again,
    /// Not at all.
    Over(CloseReason),
}

/// Hang-ups that were told and not asked for: those descriptors rest.
#[derive(Clone, Copy, Debug, Default)]
struct Hangups {
    client: bool,
    other: bool,
}

enum Stage {
    /// Not admitted yet; taken while it goes on.
    Candidate(Option<Box<Candidate>>),
    /// Admitted.
    Serving(Serving),
    /// Only while the stage changes, and for those that were turned away.
    Gone,
}

pub(super) struct Visit {
    shared: Arc<Shared>,
    stage: Stage,
    waker: Option<Waker>,
    /// Why there is no waker, although one is needed.
    no_waker: Option<io::Error>,
    wait: Wait,
    hangups: Hangups,
}

impl Visit {
    /// Takes a newcomer. `None` if it was turned away at once.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        accepted: Accepted,
        waker: io::Result<Option<Waker>>,
        now: Instant,
    ) -> Option<Self> {
        let greet = || Candidate::greet(shared, accepted, now);
        let candidate = net(None, "the observer of a refusal", greet)??;
        let wait = Wait::default();
        let stage = Stage::Candidate(Some(candidate));
        let shared = Arc::clone(shared);
        let (waker, no_waker) = match waker {
            Ok(waker) => (waker, None),
            Err(error) => (None, Some(error)),
        };
        Some(Self {
            shared,
            stage,
            waker,
            no_waker,
            wait,
            hangups: Hangups::default(),
        })
    }

    /// Goes on as far as possible without waiting, except that the session may
    /// block in a receive if it is allowed to.
    pub(super) fn step(
        &mut self,
        signals: Signals,
        may_block: bool,
        now: Instant,
        buffer: &mut [u8],
    ) -> Pace {
        let pace = match &mut self.stage {
            // From here, not from within: what an examination takes of the stack is
            // given back before the session takes its own.
            Stage::Candidate(_) => match self.step_examination(now) {
                Pace::Again => self.step_session(Signals::default(), false, now, buffer),
                other => other,
            },
            Stage::Serving(_) => self.step_session(signals, may_block, now, buffer),
            Stage::Gone => Pace::Over(CloseReason::Finished),
        };
        self.hangups.client =
            self.wait.client.is_none() && (self.hangups.client || signals.ready.client_hangup);
        self.hangups.other =
            self.wait.other.is_none() && (self.hangups.other || signals.ready.other_hangup);
        pace
    }

    /// As [`step_candidate`](Self::step_candidate), with a net: services and
    /// observers may be an embedder's, and may panic before a session stands.
    /// `Again` says that it is being served now.
    fn step_examination(&mut self, now: Instant) -> Pace {
        let Stage::Candidate(Some(candidate)) = &self.stage else {
            return Pace::Over(CloseReason::Finished);
        };
        let id = candidate.id();
        let examination = || self.step_candidate(now);
        let stepped = net(Some(id), "its examination", examination);
        stepped.unwrap_or_else(|| {
            if let Some(connection) = self.shared.registry.remove(id) {
                let closed = || {
                    self.shared
                        .closed(&connection, CloseReason::ServicePanicked);
                };
                let _ = net(Some(id), "the observer of its end", closed);
            }
            Pace::Over(CloseReason::ServicePanicked)
        })
    }

    fn step_candidate(&mut self, now: Instant) -> Pace {
        let candidate = match &mut self.stage {
            Stage::Candidate(candidate) => candidate.take(),
            Stage::Serving(_) | Stage::Gone => None,
        };
        let Some(candidate) = candidate else {
            return Pace::Over(CloseReason::Finished);
        };
        match candidate.go_on(&self.shared, self.waker.as_ref(), now) {
            Verdict::Wait(candidate, wait) => {
                self.wait = wait;
                self.stage = Stage::Candidate(Some(candidate));
                Pace::Wait
            }
            Verdict::TurnedAway => Pace::Over(CloseReason::Finished),
            Verdict::Admitted(admitted) => self.begin_session(admitted, now),
        }
    }

    /// Not inlined: see the steps of [`Candidate`].
    #[inline(never)]
    fn begin_session(&mut self, admitted: Admitted, now: Instant) -> Pace {
        let Admitted {
            connection,
            subject,
            ticket,
        } = admitted;
        if self.shared.protocol.runs_to_its_end() {
            Attendance::begin(&self.shared, &connection, now);
        }
        let protocol = &self.shared.protocol;
        // The examination did without; a service can't.
        let no_waker = self.no_waker.take().filter(|_| protocol.needs_waker());
        let opened = match no_waker {
            Some(error) => Err(error),
            None => protocol.open(&connection, self.waker.clone()),
        };
        let session = match opened {
            Ok(session) => session,
            Err(error) => {
                let facts = connection.authorized().facts();
                let observer = &*self.shared.observer;
                journal::not_served(observer, connection.id(), facts, &error);
                self.shared.registry.remove(connection.id());
                self.shared.closed(&connection, CloseReason::ServiceError);
                return Pace::Over(CloseReason::ServiceError);
            }
        };
        let recheck = connection
            .authorized()
            .watches_executable()
            .then(|| Box::new(Recheck::new(now)));
        self.stage = Stage::Serving(Serving {
            connection,
            session,
            subject,
            recheck,
            traffic: (0, 0),
            moved: now,
            left_until: None,
            heard: false,
            _ticket: ticket,
        });
        Pace::Again
    }

    fn step_session(
        &mut self,
        signals: Signals,
        may_block: bool,
        now: Instant,
        buffer: &mut [u8],
    ) -> Pace {
        let stopping = self.shared.phase.until();
        let deadline = self.deadline();
        let Stage::Serving(serving) = &mut self.stage else {
            return Pace::Over(CloseReason::Finished);
        };
        if let Some(reason) = serving.connection.forced() {
            return Pace::Over(reason);
        }
        // One that is never idle must end as well.
        if serving.lifetime_end().is_some_and(|end| end <= now) {
            return Pace::Over(CloseReason::MaxLifetime);
        }
        // Before the session hears more: it may be another program that speaks.
        let found = serving.found_out(&self.shared, self.waker.as_ref(), now);
        let is_gone = found == Some(CloseReason::PeerExited);
        if let Some(reason) = found.filter(|_| !is_gone) {
            return Pace::Over(reason);
        }
        let mut ready = signals.ready;
        // What the process had sent before it exited still counts: all of it, where nobody
        // else holds the other end. Who does may add to it, and gets this step.
        ready.client.read |= signals.peer_exited || is_gone;
        let exited = signals.peer_exited && serving.connection.ends_with_peer();
        let must_end = (exited || is_gone) && !serving.may_finish(now);
        let turn = &mut Turn {
            now,
            ready,
            may_block,
            buffer,
            stopping,
        };
        let id = Some(serving.connection.id());
        let step = || serving.session.step(&serving.connection, turn);
        let Some(next) = net(id, "the service", step) else {
            return Pace::Over(CloseReason::ServicePanicked);
        };
        // Looked at again: a forced end shows as an end of data to the session.
        if let Some(reason) = serving.connection.forced() {
            return Pace::Over(reason);
        }
        let traffic = serving.connection.traffic();
        if traffic != serving.traffic {
            serving.traffic = traffic;
            serving.moved = now;
        }
        let pace = match next {
            Next::Close(reason) => return Pace::Over(reason),
            _ if must_end => return Pace::Over(CloseReason::PeerExited),
            Next::Again => Pace::Again,
            Next::Wait(wait) => {
                self.wait = wait;
                Pace::Wait
            }
        };
        // Only if the deadline that was waited for is still the one that counts.
        let due = deadline.is_some_and(|deadline| deadline <= now);
        if due && let Some(reason) = self.overdue(now) {
            return Pace::Over(reason);
        }
        pace
    }

    /// Which bound of time is over, if one is. Starts a recheck that is due.
    fn overdue(&mut self, now: Instant) -> Option<CloseReason> {
        let Stage::Serving(serving) = &mut self.stage else {
            return None;
        };
        let over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if over(serving.lifetime_end()) {
            return Some(CloseReason::MaxLifetime);
        }
        if over(serving.first_byte_end()) {
            // A relay reads only once its upstream is there.
            serving.heard = serving.connection.has_unread();
            if !serving.heard {
                return Some(CloseReason::FirstByteTimeout);
            }
        }
        if over(serving.idle_end()) {
            return Some(CloseReason::IdleTimeout);
        }
        if over(serving.left_until) {
            return Some(CloseReason::PeerExited);
        }
        let recheck = serving.recheck.as_mut()?;
        let reason = recheck.go_on(&self.shared, &serving.connection, self.waker.as_ref(), now)?;
        let may_finish = reason == CloseReason::PeerExited && serving.may_finish(now);
        (!may_finish).then_some(reason)
    }

    /// What to wait for on the peer's descriptor and on the other.
    pub(super) fn wait(&self) -> Wait {
        self.wait
    }

    /// The interest in the peer's descriptor; `None` if it is not to be watched.
    pub(super) fn watch_client(&self) -> Option<Interest> {
        (!self.wait.client.is_none() || !self.hangups.client).then_some(self.wait.client)
    }

    /// The interest in the other descriptor; `None` if it is not to be watched.
    pub(super) fn watch_other(&self) -> Option<Interest> {
        (!self.wait.other.is_none() || !self.hangups.other).then_some(self.wait.other)
    }

    /// The peer's descriptor. `None` once it was turned away.
    pub(super) fn client(&self) -> Option<BorrowedFd<'_>> {
        match &self.stage {
            Stage::Candidate(candidate) => candidate.as_ref().map(|one| one.as_fd()),
            Stage::Serving(serving) => Some(serving.connection.as_fd()),
            Stage::Gone => None,
        }
    }

    /// The session's other descriptor and its number.
    pub(super) fn other(&self) -> Option<(BorrowedFd<'_>, u64)> {
        match &self.stage {
            Stage::Serving(serving) => serving.session.other(),
            Stage::Candidate(_) | Stage::Gone => None,
        }
    }

    /// The pidfd to watch, where the connection ends with the process.
    pub(super) fn peer_exit(&self) -> Option<BorrowedFd<'_>> {
        match &self.stage {
            Stage::Serving(serving) if serving.watches_exit() => serving.connection.peer().pidfd(),
            _ => None,
        }
    }

    /// The pidfd, watched or not.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.stage {
            Stage::Serving(serving) => serving.connection.peer().pidfd(),
            _ => None,
        }
    }

    /// When to step in any case.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let Stage::Serving(serving) = &self.stage else {
            return self.wait.until;
        };
        earlier(self.wait.until, serving.next_end())
    }

    /// Whether the session may block in a receive: it waits for nothing else.
    pub(super) fn may_block(&self) -> bool {
        let Stage::Serving(serving) = &self.stage else {
            return false;
        };
        let only_reads = Wait {
            client: Interest::READ,
            until: self.wait.until,
            ..Wait::default()
        };
        self.shared.protocol.can_block()
            && self.wait == only_reads
            && serving.session.may_block(&self.wait)
            && serving.next_end().is_none()
            && self.peer_exit().is_none()
    }

    /// The end, for a reason of the service or of the driver.
    pub(super) fn finish(mut self, reason: CloseReason) {
        let Stage::Serving(serving) = std::mem::replace(&mut self.stage, Stage::Gone) else {
            return;
        };
        let Serving {
            connection,
            session,
            subject,
            _ticket: ticket,
            ..
        } = serving;
        let id = connection.id();
        // The session first: it may hold what refers to the connection.
        let _ = net(Some(id), "the end of the service", || drop(session));
        self.shared.registry.remove(id);
        let closed = || self.shared.closed(&connection, reason);
        let _ = net(Some(id), "the observer of its end", closed);
        let abuse = abuse_of(reason, connection.traffic());
        let note = || self.shared.note_abuse(&subject, connection.peer(), abuse);
        let _ = net(Some(id), "the observer of abuse", note);
        // The socket is closed before its place is free, so that a client that
        // waits for the end finds the place.
        drop(connection);
        drop(ticket);
    }

    /// The end, because the driver could not go on.
    pub(super) fn fail(self, error: &io::Error) {
        crate::limited!(error, "a connection can't be driven: {error}");
        self.finish(CloseReason::ServiceError);
    }
}

/// Of what an end is a sign, if of anything.
fn abuse_of(reason: CloseReason, traffic: (u64, u64)) -> Option<Abuse> {
    match reason {
        CloseReason::FirstByteTimeout => Some(Abuse::SlowSender),
        CloseReason::WriteTimeout | CloseReason::QuotaExceeded => Some(Abuse::SlowReader),
        CloseReason::ProtocolError
        | CloseReason::DescriptorsRefused
        | CloseReason::MessageTooLarge
        | CloseReason::ProofFailed => Some(Abuse::Protocol),
        CloseReason::Finished | CloseReason::PeerReset if traffic == (0, 0) => {
            Some(Abuse::Vanished)
        }
        _ => None,
    }
}

/// Does what an embedder's code has a part in. `None` if that panicked: the connection
/// is lost, but the thread goes on to the next.
fn net<T>(id: Option<u64>, what: &str, work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|payload| {
            say_panicked(id, what, &*payload);
            // Its destructor might panic as well.
            std::mem::forget(payload);
        })
        .ok()
}

#[cold]
#[inline(never)]
fn say_panicked(id: Option<u64>, what: &str, payload: &(dyn Any + Send)) {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no message");
    match id {
        Some(id) => {
            crate::limited!(error, conn = id; "{what} panicked, the connection is closed: {text}");
        }
        None => {
            crate::limited!(error, "{what} panicked, the connection is closed: {text}");
        }
    }
}

#[cfg(test)]
#[path = "visit_tests.rs"]
mod tests;
