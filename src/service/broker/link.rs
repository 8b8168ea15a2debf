//! A connection from its greeting to its end: bytes from the socket into the
//! broker, and out again when there is room.
//!
//! It never waits. Told that the socket is ready, it does what can be done, and says
//! what it waits for next.
//!
//! The descriptor is shared with the publishers' threads, which write to it as well
//! ([`super::outbox`]); it closes when the last of them lets go, right after the
//! connection has left.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

use crate::frame::{Decoder, ErrorCode, Frame, FrameError, FrameLimit, Greeting, Received, Side};
use crate::peer::Facts;

use super::hub::Broker;
use super::member::Identity;
use super::outbox::Sink;
use super::port::Port;

/// Reads that one call does at most, so that a busy connection leaves the thread
/// to others.
const READS_AT_ONCE: usize = 8;

/// Wakes a connection's own thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What a [`Link`] waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// For something to read.
    pub read: bool,
    /// For room to write.
    pub write: bool,
    /// For this moment.
    pub until: Option<Instant>,
}

/// What became of a [`Link`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It goes on.
    Wait(Waiting),
    /// It is over; close the socket.
    Done,
}

/// One connection.
pub struct Link {
    socket: Arc<OwnedFd>,
    broker: Arc<Broker>,
    identity: Identity,
    facts: Option<Facts>,
    decoder: Decoder,
    wake: Wake,
    stage: Stage,
    /// How long what is left is written when the connection ends.
    write_timeout: Duration,
    /// When it closes at the latest.
    closes: Option<Instant>,
}

enum Stage {
    /// Greetings are exchanged; what of ours is not sent yet.
    Greeting(Vec<u8>),
    Joined(Port),
    Over,
}

struct Socket {
    socket: Arc<OwnedFd>,
    wake: Wake,
}

impl Sink for Socket {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = match slices {
            [one] => send(&self.socket, one, flags)?,
            many => sendmsg(
                &self.socket,
                many,
                &mut SendAncillaryBuffer::default(),
                flags,
            )?,
        };
        Ok(sent)
    }

    fn wake(&self) {
        (self.wake)();
    }
}

impl Link {
    /// Begins with a socket whose peer was admitted. `wake` makes its driver call
    /// [`Link::step`]; it is called from any thread.
    pub fn new(
        broker: Arc<Broker>,
        socket: Arc<OwnedFd>,
        identity: Identity,
        facts: Facts,
        wake: Wake,
        write_timeout: Duration,
    ) -> Self {
        let accepts = broker.limits().frame;
        Self {
            decoder: Decoder::new(Side::Client, accepts),
            stage: Stage::Greeting(Greeting { accepts }.encode().to_vec()),
            facts: Some(facts),
            closes: None,
            socket,
            broker,
            identity,
            wake,
            write_timeout,
        }
    }

    /// Does all that can be done now, without waiting.
    pub fn step(&mut self, now: Instant) -> Step {
        if self.closes.is_some_and(|at| at <= now) {
            self.stage = Stage::Over;
        }
        if let Stage::Greeting(unsent) = &mut self.stage {
            match send_some(&self.socket, unsent) {
                Ok(sent) => drop(unsent.drain(..sent)),
                Err(_) => self.stage = Stage::Over,
            }
        }
        if let Stage::Joined(port) = &mut self.stage {
            let out = port.outgoing();
            if out.blocked || out.ending {
                port.writable();
            }
        }
        self.read(now);
        self.waiting(now)
    }

    /// Nothing new is taken from here on; what is open may still end. The driver
    /// closes the connection when `within` has passed.
    pub fn drain(&mut self, within: Duration) {
        match &mut self.stage {
            Stage::Joined(port) => port.go_away(within),
            _ => self.stage = Stage::Over,
        }
    }

    fn read(&mut self, now: Instant) {
        for _ in 0..READS_AT_ONCE {
            if matches!(&self.stage, Stage::Joined(port) if port.outgoing().ending) {
                return;
            }
            let space = self.decoder.space();
            let size = space.len();
            match recv(&self.socket, space, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.stage = Stage::Over,
                Ok((_, count)) => {
                    self.decoder.filled(count);
                    self.frames(now);
                    if count < size {
                        return;
                    }
                }
                Err(Errno::AGAIN) => return self.decoder.rest(),
                Err(Errno::INTR) => (),
                Err(_) => self.stage = Stage::Over,
            }
            if matches!(self.stage, Stage::Over) {
                return;
            }
        }
    }

    fn frames(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Greeting(_)) {
            let first = self.decoder.frames().next();
            match first {
                Some(Ok(Received::Greeting(greeting))) => self.join(greeting.accepts),
                Some(Err(error)) => return self.refuse_greeting(&error),
                _ => return,
            }
        }
        let Stage::Joined(port) = &mut self.stage else {
            return;
        };
        let mut batch = port.batch(now);
        for received in self.decoder.frames() {
            match received {
                Ok(Received::Frame(frame)) => {
                    if !batch.frame(&frame) {
                        break;
                    }
                }
                Ok(Received::TooLarge(header)) => batch.too_large(&header),
                Ok(Received::Greeting(_)) => (),
                Err(error) => {
                    batch.violation(&error);
                    break;
                }
            }
        }
    }

    fn join(&mut self, accepts: FrameLimit) {
        let Some(facts) = self.facts.take() else {
            return;
        };
        // Bytes of our greeting that the socket has not taken yet: it takes 16 when
        // it is new, so a peer that shrank its buffers that far has itself to blame.
        if matches!(&self.stage, Stage::Greeting(unsent) if !unsent.is_empty()) {
            self.stage = Stage::Over;
            return;
        }
        let socket = Socket {
            socket: Arc::clone(&self.socket),
            wake: Arc::clone(&self.wake),
        };
        let port = self
            .broker
            .join(self.identity, facts, Arc::new(socket), accepts);
        self.stage = Stage::Joined(port);
    }

    fn refuse_greeting(&mut self, error: &FrameError) {
        let mut bytes = Vec::new();
        let text = error.to_string();
        Frame::Error {
            id: 0,
            code: ErrorCode::Protocol,
            text: &text,
        }
        .encode(&mut bytes);
        let _ = send_some(&self.socket, &bytes);
        self.stage = Stage::Over;
    }

    fn waiting(&mut self, now: Instant) -> Step {
        let read_on = |until, write| {
            Step::Wait(Waiting {
                read: true,
                write,
                until,
            })
        };
        match &mut self.stage {
            Stage::Over => Step::Done,
            Stage::Greeting(unsent) => read_on(self.closes, !unsent.is_empty()),
            Stage::Joined(port) => {
                let next = port.tick(now);
                let out = port.outgoing();
                let leaves = self.broker.is_stopping() && port.is_idle();
                if out.ending || leaves {
                    if out.empty {
                        self.stage = Stage::Over;
                        return Step::Done;
                    }
                    let until = *self.closes.get_or_insert(now + self.write_timeout);
                    let waiting = Waiting {
                        read: false,
                        write: true,
                        until: Some(until),
                    };
                    return Step::Wait(waiting);
                }
                read_on(next, out.blocked)
            }
        }
    }
}

/// As much as there is room for.
fn send_some(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match send(
        socket.as_fd(),
        bytes,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    ) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        other => other,
    }
}
