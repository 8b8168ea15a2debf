//! One connection: to the first upstream that answers, then joined to it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SocketType;

use super::Common;
use super::connect::{self, Attempt};
use super::connector::{Answer, Refusal};
use super::flow::{Passing, Shape, Tools};
use super::introduction;
use super::joint::{End, Events, Joint, Outcome, Side};
use super::targets::Target;
use crate::service::{CloseReason, Connection, Interest, Next, Ready, Session, Turn, Wait, Waker};
use crate::sys::time::after;

/// The pauses between two tries while the backlog of a Unix upstream is full.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How long the connector may take where `connect_timeout` sets no bound.
const CONNECTOR_TIMEOUT: Duration = Duration::from_secs(60);

/// An upstream that is being tried.
struct Trial {
    target: Arc<Target>,
    /// By when it must have answered.
    until: Option<Instant>,
    /// How long to wait before the next attempt, if the backlog is full.
    pause: Duration,
}

/// How far the way to an upstream is.
enum Stage {
    /// The next one is to be tried.
    Choosing,
    /// The connector was asked.
    Asked { answer: Arc<Answer>, trial: Trial },
    /// TCP is shaking hands.
    Pending { socket: OwnedFd, trial: Trial },
    /// The backlog is full.
    Full { next: Instant, trial: Trial },
    /// There is one.
    Joined(Box<Joint>),
    /// It is over.
    Over,
}

pub(super) struct RelaySession {
    common: Arc<Common>,
    stage: Stage,
    /// Number of the socket that the stage holds; the same from the handshake on.
    number: u64,
    untried: std::vec::IntoIter<Arc<Target>>,
    ahead: Vec<u8>,
    waker: Option<Waker>,
    /// The client hung up while there was no joint to be told.
    client_gone: bool,
}

impl RelaySession {
    pub(super) fn open(
        common: Arc<Common>,
        connection: &Connection,
        waker: Option<Waker>,
    ) -> io::Result<Self> {
        let ahead = match common.proxy {
            true => introduction::header(connection, &common.socket).encode(),
            false => Vec::new(),
        };
        let untried = common.targets.in_order(connection.opened()).into_iter();
        Ok(Self {
            common,
            stage: Stage::Choosing,
            number: 0,
            untried,
            ahead,
            waker,
            client_gone: false,
        })
    }

    /// Looks at the stage, and gives the next one, or what to wait for.
    fn go_on(
        &mut self,
        stage: Stage,
        connection: &Connection,
        turn: &mut Turn<'_>,
    ) -> (Stage, Option<Next>) {
        match stage {
            Stage::Choosing => self.choose(connection, turn.now),
            Stage::Asked { answer, trial } => match answer.take() {
                Some(result) => self.answered(result, trial, connection, turn.now),
                None if trial.is_over(turn.now) => self.failed(&trial, Errno::TIMEDOUT, turn.now),
                None => {
                    let wait = wait_until(trial.until);
                    (Stage::Asked { answer, trial }, Some(wait))
                }
            },
            Stage::Full { next, trial } => {
                if trial.is_over(turn.now) {
                    self.failed(&trial, Errno::TIMEDOUT, turn.now)
                } else if turn.now < next {
                    let first = trial.until.map_or(next, |until| until.min(next));
                    let wait = wait_until(Some(first));
                    (Stage::Full { next, trial }, Some(wait))
                } else {
                    self.attempt(trial, connection, turn.now)
                }
            }
            Stage::Pending { socket, trial } => self.pending(socket, trial, connection, turn),
            Stage::Joined(joint) => self.relay(joint, connection, turn),
            Stage::Over => (Stage::Over, Some(Next::Close(CloseReason::ServiceError))),
        }
    }

    fn choose(&mut self, connection: &Connection, now: Instant) -> (Stage, Option<Next>) {
        let Some(target) = self.untried.next() else {
            return (Stage::Over, Some(Next::Close(CloseReason::UpstreamDown)));
        };
        let until = connection
            .timeouts()
            .connect
            .and_then(|bound| now.checked_add(bound));
        let trial = Trial {
            target,
            until,
            pause: FIRST_PAUSE,
        };
        self.attempt(trial, connection, now)
    }

    fn attempt(
        &mut self,
        trial: Trial,
        connection: &Connection,
        now: Instant,
    ) -> (Stage, Option<Next>) {
        let kind = match connection.is_packets() {
            true => SocketType::SEQPACKET,
            false => SocketType::STREAM,
        };
        let Some(connector) = &self.common.connector else {
            let result = connect::start(&trial.target.address, kind);
            return self.attempted(result, trial, connection, now);
        };
        let Some(waker) = self.waker.clone() else {
            crate::limited!(
                error, conn = connection.id();
                "nothing wakes this session when the connector has answered: \
                 the peer can't be passed on as itself"
            );
            return (Stage::Over, Some(Next::Close(CloseReason::ServiceError)));
        };
        let Some(identity) = introduction::identity(connection) else {
            crate::limited!(
                error, conn = connection.id();
                "the kernel does not tell uid, gid and groups of the peer: \
                 it can't be passed on as itself"
            );
            return (Stage::Over, Some(Next::Close(CloseReason::ServiceError)));
        };
        match connector.ask(identity, Arc::clone(&trial.target), kind, waker) {
            Ok(answer) => {
                let until = trial.until.or_else(|| now.checked_add(CONNECTOR_TIMEOUT));
                let trial = Trial { until, ..trial };
                (Stage::Asked { answer, trial }, None)
            }
            Err(Errno::AGAIN) => trial.wait_for_room(now),
            Err(error) => {
                crate::limited!(error, conn = connection.id(); "no connector: {error}");
                (Stage::Over, Some(Next::Close(CloseReason::ServiceError)))
            }
        }
    }

    /// What the connector answered.
    fn answered(
        &mut self,
        result: Result<Attempt, Refusal>,
        trial: Trial,
        connection: &Connection,
        now: Instant,
    ) -> (Stage, Option<Next>) {
        match result {
            Ok(attempt) => self.attempted(Ok(attempt), trial, connection, now),
            // The upstream's door is shut for this peer; it is not down for others.
            Err(Refusal::Connect(error @ (Errno::ACCESS | Errno::PERM))) => {
                crate::limited!(
                    warning, conn = connection.id();
                    "upstream {} can't be reached as the peer: {error}", trial.target
                );
                (Stage::Choosing, None)
            }
            Err(Refusal::Connect(error)) => self.attempted(Err(error), trial, connection, now),
            Err(Refusal::Identity(error)) => {
                crate::limited!(
                    error, conn = connection.id();
                    "the peer can't be passed on as itself: {error}"
                );
                (Stage::Over, Some(Next::Close(CloseReason::ServiceError)))
            }
        }
    }

    /// What became of an attempt.
    fn attempted(
        &mut self,
        result: Result<Attempt, Errno>,
        trial: Trial,
        connection: &Connection,
        now: Instant,
    ) -> (Stage, Option<Next>) {
        match result {
            Ok(Attempt::Done(socket)) => {
                self.number = self.number.wrapping_add(1);
                self.join(socket, &trial.target, connection)
            }
            Ok(Attempt::Pending(socket)) => {
                self.number = self.number.wrapping_add(1);
                let wait = wait_until(trial.until).with_other(Interest::WRITE);
                (Stage::Pending { socket, trial }, Some(wait))
            }
            Err(Errno::AGAIN) => trial.wait_for_room(now),
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                crate::limited!(
                    error, conn = connection.id();
                    "no socket for a connection to {}: {error}", trial.target
                );
                (Stage::Over, Some(Next::Close(CloseReason::ServiceError)))
            }
            Err(error) => self.failed(&trial, error, now),
        }
    }

    fn pending(
        &mut self,
        socket: OwnedFd,
        trial: Trial,
        connection: &Connection,
        turn: &Turn<'_>,
    ) -> (Stage, Option<Next>) {
        if turn.ready.other.write {
            return match connect::outcome(&socket) {
                Ok(()) => self.join(socket, &trial.target, connection),
                Err(error) => self.failed(&trial, error, turn.now),
            };
        }
        if trial.is_over(turn.now) {
            return self.failed(&trial, Errno::TIMEDOUT, turn.now);
        }
        let wait = wait_until(trial.until).with_other(Interest::WRITE);
        (Stage::Pending { socket, trial }, Some(wait))
    }

    /// On to the next one. One line says that a target went down, however many
    /// connections found it so.
    fn failed(&self, trial: &Trial, error: Errno, now: Instant) -> (Stage, Option<Next>) {
        let target = &trial.target;
        if self.common.targets.failed(target, now) {
            crate::error!("upstream {target} is down: {error}");
        }
        (Stage::Choosing, None)
    }

    fn join(
        &mut self,
        socket: OwnedFd,
        target: &Target,
        connection: &Connection,
    ) -> (Stage, Option<Next>) {
        if let Some(failures) = self.common.targets.succeeded(target) {
            crate::notice!("upstream {target} is up again after {failures} failed connections");
        }
        let timeouts = connection.timeouts();
        let passing = match self.common.descriptors {
            0 => Passing::Ignored,
            bound => Passing::Forwarded(bound),
        };
        let down = Shape {
            packets: connection.is_packets(),
            descriptors: passing,
            write_timeout: timeouts.write,
        };
        let watches = connection.watches_descriptors() && passing == Passing::Ignored;
        let up = Shape {
            descriptors: if watches { Passing::Refused } else { passing },
            ..down
        };
        let ahead = std::mem::take(&mut self.ahead);
        let half_close = timeouts.half_close;
        let joint = Joint::new(socket, (up, down), half_close, ahead);
        (Stage::Joined(Box::new(joint)), None)
    }

    fn relay(
        &mut self,
        mut joint: Box<Joint>,
        connection: &Connection,
        turn: &mut Turn<'_>,
    ) -> (Stage, Option<Next>) {
        let events = (
            Events {
                read: turn.ready.client.read,
                write: turn.ready.client.write,
                hangup: turn.ready.client_hangup || std::mem::take(&mut self.client_gone),
            },
            Events {
                read: turn.ready.other.read,
                write: turn.ready.other.write,
                hangup: turn.ready.other_hangup,
            },
        );
        let mut tools = Tools {
            scratch: turn.buffer,
            pipes: &self.common.pipes,
            now: turn.now,
            // The reason is set before the socket is shut down, so that a forced
            // end is never passed on as the peer's own.
            cut: &|| connection.forced().is_some(),
        };
        let outcome = joint.step(connection.as_fd(), events, &mut tools);
        let (received, sent) = joint.tally();
        connection.count(received, sent);
        // What was reported is used up, whatever comes next in this turn.
        turn.ready = Ready::default();
        match outcome {
            Outcome::More => (Stage::Joined(joint), Some(Next::Again)),
            Outcome::Wait {
                client,
                upstream,
                until,
            } => {
                let interest = |events: Events| Interest {
                    read: events.read,
                    write: events.write,
                };
                let wait = Wait {
                    client: interest(client),
                    other: interest(upstream),
                    until,
                };
                (Stage::Joined(joint), Some(Next::Wait(wait)))
            }
            Outcome::Over(end) => (Stage::Over, Some(Next::Close(reason(end, connection)))),
        }
    }
}

impl Session for RelaySession {
    fn step(&mut self, connection: &Connection, turn: &mut Turn<'_>) -> Next {
        let is_joined = matches!(self.stage, Stage::Joined(_));
        self.client_gone |= turn.ready.client_hangup && !is_joined;
        loop {
            let stage = std::mem::replace(&mut self.stage, Stage::Over);
            let (stage, next) = self.go_on(stage, connection, turn);
            self.stage = stage;
            if let Some(next) = next {
                return next;
            }
        }
    }

    fn other(&self) -> Option<(BorrowedFd<'_>, u64)> {
        match &self.stage {
            Stage::Pending { socket, .. } => Some((socket.as_fd(), self.number)),
            Stage::Joined(joint) => Some((joint.upstream(), self.number)),
            _ => None,
        }
    }
}

impl Trial {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// Longer each time, as long as the backlog stays full.
    fn wait_for_room(mut self, now: Instant) -> (Stage, Option<Next>) {
        let next = after(now, self.pause);
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        (Stage::Full { next, trial: self }, None)
    }
}

impl Next {
    /// The same wait, also for the other descriptor.
    fn with_other(self, other: Interest) -> Self {
        match self {
            Self::Wait(wait) => Self::Wait(Wait { other, ..wait }),
            next => next,
        }
    }
}

fn wait_until(until: Option<Instant>) -> Next {
    Next::Wait(Wait {
        until,
        ..Wait::default()
    })
}

fn reason(end: End, connection: &Connection) -> CloseReason {
    match end {
        End::Finished => CloseReason::Finished,
        End::Reset(Side::Client) | End::Vanished => CloseReason::PeerReset,
        End::Reset(Side::Upstream) => CloseReason::UpstreamReset,
        End::Stalled(Side::Client) => CloseReason::WriteTimeout,
        // Not the peer's fault.
        End::Stalled(Side::Upstream) => CloseReason::UpstreamDown,
        End::HalfClosed => CloseReason::HalfCloseTimeout,
        End::TooLarge(Side::Client) => CloseReason::MessageTooLarge,
        // Not the peer's fault either.
        End::TooLarge(Side::Upstream) => {
            crate::limited!(
                warning, conn = connection.id();
                "the upstream sent a message that is too large to be passed on"
            );
            CloseReason::ServiceError
        }
        End::Descriptors(Side::Client) => CloseReason::DescriptorsRefused,
        End::Descriptors(Side::Upstream) => {
            crate::limited!(
                warning, conn = connection.id();
                "the upstream sent more descriptors with a message than relay_descriptors allows"
            );
            CloseReason::ServiceError
        }
        End::Cut => connection.forced().unwrap_or(CloseReason::ServiceError),
        End::System(error) => {
            crate::limited!(error, conn = connection.id(); "can't relay: {error}");
            CloseReason::ServiceError
        }
    }
}
