//! The socket of a client, with what waits on either side of it.
//!
//! Invariants: no call waits beyond its deadline; a failure on the way leaves no frame
//! torn; what the broker asks of every client (PING, CHALLENGE) is answered here.
//!
//! Not here: what the frames mean.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::error::ClientError;
use super::event::Event;
use super::inbox::{Awaited, Inbox};
use super::outbox::Outbox;
use crate::frame::{Decoder, ErrorCode, Frame, FrameError, FrameLimit, Greeting, Received, Side};

/// With so many bytes of answers owed to a broker that doesn't read, nothing more is
/// read from it.
const OWED_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    decoder: Decoder,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    /// What the broker accepts, once it has said so.
    accepted: Option<FrameLimit>,
}

impl Link {
    pub(super) fn new(socket: OwnedFd, accepts: FrameLimit) -> Self {
        Self {
            socket,
            decoder: Decoder::new(Side::Broker, accepts),
            inbox: Inbox::default(),
            outbox: Outbox::new(Greeting { accepts }.encode().to_vec()),
            accepted: None,
        }
    }

    /// Exchanges greetings.
    pub(super) fn greet(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        self.flush(deadline)?;
        while self.accepted.is_none() {
            self.receive(deadline)?;
        }
        Ok(())
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The largest frame that the broker accepts, in bytes.
    pub(super) fn accepted(&self) -> u32 {
        self.accepted.unwrap_or(FrameLimit::MIN).bytes()
    }

    /// Sends everything, and waits for the reply.
    pub(super) fn exchange(
        &mut self,
        awaited: Awaited,
        deadline: Option<Instant>,
    ) -> Result<Event, ClientError> {
        self.inbox.expect(awaited);
        let reply = self
            .flush(deadline)
            .and_then(|()| self.await_reply(deadline));
        if reply.is_err() {
            self.inbox.give_up();
        }
        reply
    }

    fn await_reply(&mut self, deadline: Option<Instant>) -> Result<Event, ClientError> {
        loop {
            // What came in before a failure counts.
            let received = self.receive(deadline);
            if let Some(reply) = self.inbox.take_reply() {
                return Ok(reply);
            }
            if let Some(text) = self.inbox.violation() {
                let (code, text) = (ErrorCode::Protocol, text.to_owned());
                return Err(ClientError::Refused { code, text });
            }
            received?;
        }
    }

    /// Reads once, waiting until the deadline for something to come, and answers the
    /// broker's own questions.
    pub(super) fn receive(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        if self.outbox.owed() > OWED_BYTES_MAX {
            self.flush(deadline)?;
        }
        self.read(deadline)?;
        self.send_urgent()
    }

    fn read(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        if self.inbox.is_full() {
            return Err(ClientError::InboxFull);
        }
        loop {
            match recv(&self.socket, self.decoder.space(), RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => return Err(ClientError::Closed),
                Ok((_, count)) => {
                    self.decoder.filled(count);
                    return self.sort_in();
                }
                Err(Errno::AGAIN) if self.outbox.is_urgent() => {
                    self.wait(PollFlags::IN | PollFlags::OUT, deadline)?;
                    self.send_urgent()?;
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                Err(Errno::INTR) => (),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    fn sort_in(&mut self) -> Result<(), ClientError> {
        let mut answers = Vec::new();
        for received in self.decoder.frames() {
            match received? {
                Received::Frame(Frame::Challenge { nonce }) => {
                    Frame::Proof { nonce }.encode(&mut answers);
                }
                Received::Frame(Frame::Ping { id, body }) => {
                    Frame::Pong { id, body }.encode(&mut answers);
                }
                Received::Frame(frame) => {
                    if let Some(event) = Event::of(&frame) {
                        self.inbox.push(event);
                    }
                }
                Received::Greeting(greeting) => self.accepted = Some(greeting.accepts),
                // It was told what is accepted here.
                Received::TooLarge(header) => {
                    return Err(FrameError::BodyLength(header.kind).into());
                }
            }
        }
        if !answers.is_empty() {
            self.outbox.answer(answers);
        }
        Ok(())
    }

    /// Without waiting: a broker that doesn't read must not hold up what it has sent.
    fn send_urgent(&mut self) -> Result<(), ClientError> {
        while self.outbox.is_urgent() && self.send_some()? {}
        Ok(())
    }

    /// Sends everything. What is left at a failure is sent by the next call.
    pub(super) fn flush(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        while !self.outbox.left().is_empty() {
            if !self.send_some()? {
                self.wait(PollFlags::OUT, deadline)?;
            }
        }
        Ok(())
    }

    /// Gives whether it is worth to go on at once.
    fn send_some(&mut self) -> Result<bool, ClientError> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match send(&self.socket, self.outbox.left(), flags) {
            Ok(count) => self.outbox.advance(count),
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => (),
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(self.closed()),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        Ok(true)
    }

    /// What the broker said before it closed, if it said why.
    fn closed(&mut self) -> ClientError {
        self.outbox.clear();
        // A past deadline: nothing is waited for, and nothing is sent.
        while self.read(Some(Instant::now())).is_ok() {}
        match self.inbox.last_words() {
            Some((code, text)) => ClientError::Refused { code, text },
            None => ClientError::Closed,
        }
    }

    fn wait(&self, events: PollFlags, deadline: Option<Instant>) -> Result<(), ClientError> {
        let mut fds = [PollFd::new(&self.socket, events)];
        let timeout = match deadline {
            None => None,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ClientError::Timeout);
                }
                Timespec::try_from(left.min(Duration::from_secs(3600))).ok()
            }
        };
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}
