//! A connection from its greeting to its end: bytes from the socket into the
//! broker, and out again when there is room.
//!
//! Where the rule that admitted the peer names an executable, or a permit is the peer's
//! only for what it runs, the peer first proves that it is the process that was checked
//! ([`super::proving`]).
//!
//! Not here: timeouts of the connection as a whole, which the driver keeps.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::hub::Broker;
use super::member::Identity;
use super::outbox::Sink;
use super::permit::without_executable;
use super::port::{Ending, Port};
use super::proving::{Proved, Proving};
use crate::frame::{Decoder, ErrorCode, Frame, FrameError, Greeting, Received, Side, Stamp};
use crate::service::receiving::BOUND;
use crate::service::{CloseReason, Connection, Interest, Next, Session, Turn, Wait, Waker};
use crate::sys::time::after;

/// Reads that one step does at most, so that a busy connection leaves the thread
/// to others.
const READS_PER_STEP: usize = 8;

/// How long the last words of a connection may take where no `write_timeout` holds.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The session of one connection.
pub(super) struct BrokerSession {
    broker: Arc<Broker>,
    connection: Arc<Connection>,
    waker: Waker,
    decoder: Decoder,
    stage: Stage,
    executable: Executable,
    /// When a connection that is ending closes at the latest.
    closes: Option<Instant>,
    /// Waits for which it is told first, by the driver, before it blocks in a receive
    /// again: one that others have to call, or to whom nothing comes, is better off so.
    polls: u8,
}

/// Whether permits may look at what the peer runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Executable {
    /// It is proved, or nobody is asked for proofs.
    Counts,
    /// The process that speaks may be another than the one that was looked at.
    Unproved,
}

enum Stage {
    /// Greetings are exchanged; what of ours has not left yet.
    Greeting(Vec<u8>),
    Proving(Proving),
    Joined(Port),
    Over(CloseReason),
}

/// See [`BrokerSession::polls`].
const POLLS_AFTER_CALL: u8 = 16;

/// How the first receive of a read is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receive {
    Now,
    /// It may block; where it is `bounded`, not for long.
    Blocking {
        bounded: bool,
    },
}

/// What a read has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    Nothing,
    /// There may be more.
    Some,
    /// There was no more.
    All,
}

/// The way out, shared with the threads of publishers.
struct Socket {
    connection: Arc<Connection>,
    waker: Waker,
}

impl Sink for Socket {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [one] = slices {
            return self
                .connection
                .send(one)?
                .ok_or_else(|| io::ErrorKind::WouldBlock.into());
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut control = SendAncillaryBuffer::default();
        let sent = sendmsg(self.connection.as_fd(), slices, &mut control, flags)?;
        self.connection.count(0, sent);
        Ok(sent)
    }

    fn wake(&self) {
        self.waker.wake();
    }
}

impl BrokerSession {
    /// Begins with a connection that was admitted. `proof`: what the peer has to go
    /// through before it is served.
    pub(super) fn new(
        broker: Arc<Broker>,
        connection: Arc<Connection>,
        waker: Waker,
        proof: Option<Proving>,
        executable: Executable,
    ) -> Self {
        let accepts = broker.limits().frame;
        let stage = match proof {
            Some(proving) => Stage::Proving(proving),
            None => Stage::Greeting(Greeting { accepts }.encode().to_vec()),
        };
        let decoder = Decoder::new(Side::Client, accepts);
        broker.come(connection.id(), waker.clone());
        Self {
            broker,
            connection,
            waker,
            decoder,
            stage,
            executable,
            closes: None,
            polls: 0,
        }
    }

    fn go_on(&mut self, turn: &Turn<'_>) -> Next {
        let mut now = turn.now;
        if !turn.may_block {
            self.polls = self.polls.saturating_sub(1);
        }
        loop {
            if self.closes.is_some_and(|at| at <= now) {
                return Next::Close(self.reason());
            }
            if self.greeting_due().is_some_and(|due| due <= now) {
                return Next::Close(CloseReason::FirstByteTimeout);
            }
            if let Some(until) = turn.stopping.or_else(|| self.broker.stops_at()) {
                self.drain(until.saturating_duration_since(now));
            }
            self.write();
            if let Stage::Proving(_) = self.stage
                && let Some(wait) = self.prove(now)
            {
                return Next::Wait(wait);
            }
            let receive = match self.wait_in_receive(now).filter(|_| turn.may_block) {
                Some(wait) => Receive::Blocking {
                    bounded: wait.until.is_some(),
                },
                None => Receive::Now,
            };
            let came = self.read(receive, &mut now);
            // On the pool nobody else waits: to block in the next receive is cheaper
            // than to be told first that there is something.
            let goes_on = turn.may_block && came != Came::Nothing;
            if goes_on && self.wait_in_receive(now).is_some() {
                continue;
            }
            match self.wait(now) {
                Next::Wait(wait) if came == Came::Some && wait.client.read && !turn.may_block => {
                    return Next::Again;
                }
                next => return next,
            }
        }
    }

    /// By when the peer's greeting must be whole. The broker's own counts as a first
    /// byte to the driver, so that it would wait for ever.
    fn greeting_due(&self) -> Option<Instant> {
        let bound = self.connection.timeouts().first_byte?;
        match self.stage {
            Stage::Greeting(_) => self.connection.admitted().checked_add(bound),
            _ => None,
        }
    }

    /// What is waited for, if a receive may block for it at this moment. Asked anew
    /// each time, as other threads write to the peer.
    fn wait_in_receive(&mut self, now: Instant) -> Option<Wait> {
        let Next::Wait(wait) = self.wait(now) else {
            return None;
        };
        let far = now.checked_add(BOUND);
        let is_far = |until: Instant| far.is_some_and(|far| until > far);
        let waits = wait.client == Interest::READ && wait.until.is_none_or(is_far);
        (waits && self.may_block(&wait)).then_some(wait)
    }

    /// Sends what waits for room.
    fn write(&mut self) {
        match &mut self.stage {
            Stage::Greeting(unsent) if !unsent.is_empty() => match self.connection.send(unsent) {
                Ok(sent) => drop(unsent.drain(..sent.unwrap_or(0))),
                Err(error) => self.stage = Stage::Over(self.connection.reason_for(&error)),
            },
            Stage::Joined(port) if port.needs_owner() => {
                let out = port.outgoing();
                if out.blocked || out.ending.is_some() {
                    port.writable();
                }
            }
            _ => (),
        }
    }

    /// Goes on with the proof; says what it waits for, if it isn't done.
    fn prove(&mut self, now: Instant) -> Option<Wait> {
        let Stage::Proving(proving) = &mut self.stage else {
            return None;
        };
        match proving.go_on(&self.connection, &self.waker, now) {
            Proved::Wait(wait) => return Some(wait),
            Proved::Yes(accepts) => {
                // What came up to here was read by the proof.
                self.decoder.greeted();
                self.join(accepts);
            }
            Proved::No(reason) => self.stage = Stage::Over(reason),
            Proved::Violation(error) => self.refuse(&error),
        }
        None
    }

    /// Reads and does what there is; the first receive may block. `now` goes on if
    /// it does.
    fn read(&mut self, receive: Receive, now: &mut Instant) -> Came {
        let mut came = Came::Nothing;
        for _ in 0..READS_PER_STEP {
            match &self.stage {
                Stage::Over(_) => return came,
                Stage::Joined(port) if port.is_ending() => return came,
                _ => (),
            }
            // A large buffer is given back before it waits.
            let is_first = came == Came::Nothing && !self.decoder.is_large();
            let space = self.decoder.space();
            let size = space.len();
            let received = match receive {
                Receive::Blocking { bounded } if is_first => {
                    let received = self.connection.wait_and_recv(space, bounded);
                    *now = Instant::now();
                    if matches!(received, Ok(None)) {
                        self.polls = POLLS_AFTER_CALL;
                    }
                    received
                }
                _ => self.connection.recv(space, false),
            };
            match received {
                Ok(None) => {
                    self.decoder.rest();
                    return came;
                }
                Ok(Some(0)) => {
                    self.stage = Stage::Over(CloseReason::Finished);
                    return came;
                }
                Ok(Some(count)) => {
                    self.decoder.filled(count);
                    self.frames(*now);
                    came = Came::Some;
                    if count < size {
                        return Came::All;
                    }
                }
                Err(error) => {
                    self.stage = Stage::Over(self.connection.reason_for(&error));
                    return came;
                }
            }
        }
        came
    }

    fn frames(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Greeting(_)) {
            let first = self.decoder.frames().next();
            match first {
                Some(Ok(Received::Greeting(greeting))) => self.join(greeting.accepts),
                Some(Err(error)) => return self.refuse(&error),
                _ => return,
            }
        }
        let Stage::Joined(port) = &mut self.stage else {
            return;
        };
        let id = self.connection.id();
        let mut batch = port.batch(now);
        for received in self.decoder.frames() {
            match received {
                Ok(Received::Frame(frame)) => {
                    crate::wire!(conn = id; "{} of {} bytes", frame.kind(), frame.length());
                    if !batch.frame(&frame) {
                        break;
                    }
                }
                Ok(Received::TooLarge(header)) => batch.too_large(&header),
                Ok(Received::Greeting(_)) => (),
                Err(error) => {
                    crate::limited!(notice, conn = id; "the peer breaks the protocol: {error}");
                    batch.violation(&error);
                    break;
                }
            }
        }
    }

    fn join(&mut self, accepts: crate::frame::FrameLimit) {
        // A new socket takes the 16 bytes of a greeting at once; a peer that can't
        // hold them has itself to blame.
        if matches!(&self.stage, Stage::Greeting(unsent) if !unsent.is_empty()) {
            self.stage = Stage::Over(CloseReason::WriteTimeout);
            return;
        }
        let authorized = self.connection.authorized();
        let held = if self.connection.peer().pidfd().is_some() {
            Stamp::PIDFD_HELD
        } else {
            0
        };
        let checked = if authorized.exe_checked() {
            Stamp::EXE_CHECKED
        } else {
            0
        };
        let identity = Identity {
            connection: self.connection.id(),
            uid: authorized.uid(),
            gid: authorized.gid(),
            pid: authorized.pid(),
            flags: held | checked,
        };
        let socket = Socket {
            connection: Arc::clone(&self.connection),
            waker: self.waker.clone(),
        };
        let mut facts = authorized.facts().clone();
        if self.executable == Executable::Unproved {
            facts = without_executable(facts);
        }
        let port = self.broker.join(identity, facts, Arc::new(socket), accepts);
        self.broker.came(self.connection.id());
        self.stage = Stage::Joined(port);
    }

    /// Says what is wrong with the first bytes, and ends.
    fn refuse(&mut self, error: &FrameError) {
        let (mut bytes, text) = (Vec::new(), error.to_string());
        Frame::Error {
            id: 0,
            code: ErrorCode::Protocol,
            text: &text,
        }
        .encode(&mut bytes);
        // If there is no room, it is not said.
        let _ = self.connection.send(&bytes);
        self.stage = Stage::Over(CloseReason::ProtocolError);
    }

    /// Nothing new is taken from here on; what is open may still end.
    fn drain(&mut self, within: Duration) {
        match &mut self.stage {
            Stage::Joined(port) => port.go_away(within),
            Stage::Over(_) => (),
            Stage::Greeting(unsent) => {
                if unsent.is_empty() {
                    let millis = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
                    let mut bytes = Vec::new();
                    Frame::GoAway { millis }.encode(&mut bytes);
                    // If there is no room, it is not said.
                    let _ = self.connection.send(&bytes);
                }
                self.stage = Stage::Over(CloseReason::Stopping);
            }
            Stage::Proving(_) => self.stage = Stage::Over(CloseReason::Stopping),
        }
    }

    fn wait(&mut self, now: Instant) -> Next {
        let mut wait = Wait {
            client: Interest::READ,
            until: self.greeting_due(),
            ..Wait::default()
        };
        match &mut self.stage {
            Stage::Over(reason) => return Next::Close(*reason),
            Stage::Greeting(unsent) => wait.client.write = !unsent.is_empty(),
            Stage::Proving(_) => (),
            Stage::Joined(port) => {
                wait.until = port.tick(now);
                // In this order: what ends a request has queued its end by then.
                let may_close = port.may_close();
                if !may_close && !port.needs_owner() {
                    return Next::Wait(wait);
                }
                let out = port.outgoing();
                wait.client.write = out.blocked;
                if out.ending.is_some() || may_close {
                    if out.empty {
                        return Next::Close(self.reason());
                    }
                    let bound = self.connection.timeouts().write.unwrap_or(LAST_WORDS);
                    wait.client = Interest::WRITE;
                    let closes = self.closes.get_or_insert_with(|| after(now, bound));
                    wait.until = Some(*closes);
                }
            }
        }
        Next::Wait(wait)
    }

    fn reason(&self) -> CloseReason {
        match &self.stage {
            Stage::Over(reason) => *reason,
            Stage::Joined(port) => match port.outgoing().ending {
                Some(Ending::Violation) => CloseReason::ProtocolError,
                Some(Ending::Quota) => CloseReason::QuotaExceeded,
                Some(Ending::Broken) => CloseReason::PeerReset,
                None => CloseReason::Finished,
            },
            _ => CloseReason::Finished,
        }
    }
}

impl Drop for BrokerSession {
    fn drop(&mut self) {
        self.broker.came(self.connection.id());
    }
}

impl Session for BrokerSession {
    fn step(&mut self, _connection: &Connection, turn: &mut Turn<'_>) -> Next {
        self.go_on(turn)
    }

    /// One that subscribes is not blocked in a receive: on a Unix-domain socket every
    /// message that the peer takes would wake it, in vain.
    fn may_block(&self, _wait: &Wait) -> bool {
        let subscribes = matches!(&self.stage, Stage::Joined(port) if port.subscribes());
        self.polls == 0 && !subscribes
    }
}
