//! A connection to a broker.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, send,
    socket_with,
};

use crate::frame::{
    Decoder, ErrorCode, Frame, FrameError, FrameLimit, Greeting, Pattern, Received, Side, Stamp,
    Subject,
};

use super::error::ClientError;
use super::event::Event;
use super::identity::ServerIdentity;

/// Publications are sent when so many bytes have been collected.
const COLLECT_BYTES: usize = 64 << 10;

/// Connects to a Unix-domain socket, `/path` or `@name` for an abstract one, and
/// verifies who listens there.
///
/// # Errors
///
/// [`ClientError::Socket`] as connect(2), [`ClientError::Untrusted`],
/// [`ClientError::CannotVerify`].
pub fn connect(path: &Path, server: &ServerIdentity) -> Result<OwnedFd, ClientError> {
    let socket = connect_unverified(path)?;
    server.verify(socket.as_fd())?;
    Ok(socket)
}

fn connect_unverified(path: &Path) -> io::Result<OwnedFd> {
    let text = path.as_os_str().as_encoded_bytes();
    let address = match text.strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(path)?,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// What the broker does with a subscriber that doesn't keep up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenSlow {
    /// It closes the connection, and says why: [`Event::Error`] with `quota`.
    Disconnect,
    /// It drops the oldest messages, and says how many: [`Event::Gap`].
    DropOldest,
}

/// A connection to a broker. Calls wait for at most the timeout that was given.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    decoder: Decoder,
    inbox: VecDeque<Event>,
    collected: Vec<u8>,
    last_id: u64,
    accepted: FrameLimit,
    is_greeted: bool,
    timeout: Duration,
}

impl Client {
    /// Connects, verifies the server, and exchanges greetings.
    ///
    /// # Errors
    ///
    /// As [`connect`], and as every call here: [`ClientError::Closed`] (which is
    /// how a server turns somebody away), [`ClientError::Timeout`],
    /// [`ClientError::Protocol`].
    pub fn connect(
        path: &Path,
        server: &ServerIdentity,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        Self::over(connect(path, server)?, FrameLimit::MAX, timeout)
    }

    /// Begins on a connected socket whose other end the caller has verified.
    ///
    /// # Errors
    ///
    /// As for every call here.
    pub fn over(
        socket: OwnedFd,
        accepts: FrameLimit,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let mut client = Self {
            socket,
            decoder: Decoder::new(Side::Broker, accepts),
            inbox: VecDeque::new(),
            collected: Greeting { accepts }.encode().to_vec(),
            last_id: 0,
            accepted: FrameLimit::MIN,
            is_greeted: false,
            timeout,
        };
        let deadline = Instant::now() + timeout;
        client.flush_by(deadline)?;
        while !client.is_greeted {
            client.receive(Some(deadline))?;
        }
        Ok(client)
    }

    /// Publishes, and returns when the kernel has taken it. That it was refused
    /// shows as an [`Event::Error`] with id 0.
    ///
    /// # Errors
    ///
    /// [`ClientError::Subject`], [`ClientError::TooLarge`], and as above.
    pub fn publish(&mut self, subject: &str, body: &[u8]) -> Result<(), ClientError> {
        self.publish_later(subject, body)?;
        self.flush()
    }

    /// Collects a publication, and sends 64 KiB of them at once. Call
    /// [`Client::flush`] after the last.
    ///
    /// # Errors
    ///
    /// As [`Client::publish`].
    pub fn publish_later(&mut self, subject: &str, body: &[u8]) -> Result<(), ClientError> {
        let frame = Frame::Publish {
            id: 0,
            subject: parse_subject(subject)?,
            body,
        };
        self.collect(&frame)?;
        if self.collected.len() >= COLLECT_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Publishes, and waits until the broker has passed it on.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`], and as [`Client::publish`].
    pub fn publish_confirmed(&mut self, subject: &str, body: &[u8]) -> Result<(), ClientError> {
        let id = self.new_id();
        self.collect(&Frame::Publish {
            id,
            subject: parse_subject(subject)?,
            body,
        })?;
        self.done(id)
    }

    /// Subscribes; returns the id that messages will carry.
    ///
    /// # Errors
    ///
    /// As [`Client::publish_confirmed`].
    pub fn subscribe(&mut self, pattern: &str, when_slow: WhenSlow) -> Result<u64, ClientError> {
        let id = self.new_id();
        self.collect(&Frame::Subscribe {
            id,
            pattern: parse_pattern(pattern)?,
            drop_oldest: when_slow == WhenSlow::DropOldest,
        })?;
        self.done(id).map(|()| id)
    }

    /// Ends a subscription.
    ///
    /// # Errors
    ///
    /// As [`Client::publish_confirmed`].
    pub fn unsubscribe(&mut self, id: u64) -> Result<(), ClientError> {
        self.collect(&Frame::Unsubscribe { id })?;
        self.done(id)
    }

    /// Offers to answer requests; returns the id of the registration.
    ///
    /// # Errors
    ///
    /// As [`Client::publish_confirmed`].
    pub fn serve(&mut self, pattern: &str) -> Result<u64, ClientError> {
        let id = self.new_id();
        self.collect(&Frame::Serve {
            id,
            pattern: parse_pattern(pattern)?,
        })?;
        self.done(id).map(|()| id)
    }

    /// Ends a registration.
    ///
    /// # Errors
    ///
    /// As [`Client::publish_confirmed`].
    pub fn unserve(&mut self, id: u64) -> Result<(), ClientError> {
        self.collect(&Frame::Unserve { id })?;
        self.done(id)
    }

    /// Asks, and waits for the answer: who gave it, and what it is.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with `no responder`, `timeout` or `gone`, and as
    /// above.
    pub fn request(&mut self, subject: &str, body: &[u8]) -> Result<(Stamp, Vec<u8>), ClientError> {
        let wanted = self.ask(subject, body)?;
        let deadline = Instant::now() + self.timeout;
        let ends = |event: &Event| match event {
            Event::Answer { id, .. } | Event::Error { id, .. } => *id == wanted,
            _ => false,
        };
        match self.wait_for(deadline, ends)? {
            Event::Answer { stamp, body, .. } => Ok((stamp, body)),
            Event::Error { code, text, .. } => Err(ClientError::Refused { code, text }),
            _ => Err(ClientError::Timeout),
        }
    }

    /// Asks, without waiting; the end comes as an event with this id.
    ///
    /// # Errors
    ///
    /// As [`Client::publish`].
    pub fn ask(&mut self, subject: &str, body: &[u8]) -> Result<u64, ClientError> {
        let id = self.new_id();
        self.collect(&Frame::Request {
            id,
            subject: parse_subject(subject)?,
            body,
        })?;
        self.flush().map(|()| id)
    }

    /// Answers an [`Event::Deliver`].
    ///
    /// # Errors
    ///
    /// As [`Client::publish`].
    pub fn reply(&mut self, id: u64, body: &[u8]) -> Result<(), ClientError> {
        self.collect(&Frame::Reply { id, body })?;
        self.flush()
    }

    /// The next thing that came in. `Ok(None)` when the deadline has passed; without
    /// one it waits for ever.
    ///
    /// # Errors
    ///
    /// [`ClientError::Closed`], [`ClientError::Protocol`], [`ClientError::Socket`].
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(event) = self.inbox.pop_front() {
                return Ok(Some(event));
            }
            match self.receive(deadline) {
                Ok(()) => (),
                Err(ClientError::Timeout) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// What has come in and is at hand, without waiting or reading.
    pub fn try_next(&mut self) -> Option<Event> {
        self.inbox.pop_front()
    }

    /// Sends what was collected.
    ///
    /// # Errors
    ///
    /// [`ClientError::Timeout`], [`ClientError::Closed`], [`ClientError::Socket`].
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.flush_by(Instant::now() + self.timeout)
    }

    /// Waits until the broker has done everything that was sent so far. Refusals of
    /// it are in the inbox then.
    ///
    /// # Errors
    ///
    /// As [`Client::flush`].
    pub fn sync(&mut self) -> Result<(), ClientError> {
        let id = self.new_id();
        self.collect(&Frame::Ping { id, body: &[] })?;
        self.done(id)
    }

    /// The descriptor, to wait on it together with others. What is in the inbox
    /// already doesn't show there: call [`Client::next`] with a past deadline
    /// until it gives `None`.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn collect(&mut self, frame: &Frame<'_>) -> Result<(), ClientError> {
        let (length, accepted) = (frame.length(), self.accepted.bytes());
        if u32::try_from(length).is_ok_and(|length| length <= accepted) {
            frame.encode(&mut self.collected);
            Ok(())
        } else {
            Err(ClientError::TooLarge { length, accepted })
        }
    }

    fn done(&mut self, wanted: u64) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.timeout;
        self.flush_by(deadline)?;
        let ends = |event: &Event| match event {
            Event::Done { id } | Event::Error { id, .. } => *id == wanted,
            _ => false,
        };
        match self.wait_for(deadline, ends)? {
            Event::Error { code, text, .. } => Err(ClientError::Refused { code, text }),
            _ => Ok(()),
        }
    }

    fn wait_for(
        &mut self,
        deadline: Instant,
        is: impl Fn(&Event) -> bool,
    ) -> Result<Event, ClientError> {
        let mut seen = 0;
        loop {
            while let Some(event) = self.inbox.get(seen) {
                if is(event) {
                    return self.inbox.remove(seen).ok_or(ClientError::Closed);
                }
                if let Event::Error {
                    id: 0,
                    code: code @ ErrorCode::Protocol,
                    text,
                } = event
                {
                    let text = text.clone();
                    return Err(ClientError::Refused { code: *code, text });
                }
                seen += 1;
            }
            self.receive(Some(deadline))?;
        }
    }

    /// Reads once, waiting until the deadline for something to come.
    fn receive(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        loop {
            match recv(&self.socket, self.decoder.space(), RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => return Err(ClientError::Closed),
                Ok((_, count)) => {
                    self.decoder.filled(count);
                    return self.sort_in();
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
                Received::Frame(frame) => self.inbox.extend(Event::of(&frame)),
                Received::Greeting(greeting) => {
                    self.accepted = greeting.accepts;
                    self.is_greeted = true;
                }
                // It was told what is accepted here.
                Received::TooLarge(header) => {
                    return Err(FrameError::BodyLength(header.kind).into());
                }
            }
        }
        if answers.is_empty() {
            return Ok(());
        }
        // A proof goes before everything else.
        answers.append(&mut self.collected);
        self.collected = answers;
        self.flush()
    }

    fn flush_by(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let mut sent = 0;
        while let Some(left) = self.collected.get(sent..).filter(|left| !left.is_empty()) {
            match send(
                &self.socket,
                left,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(count) => sent += count,
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, Some(deadline))?,
                Err(Errno::INTR) => (),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(self.closed()),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        self.collected.clear();
        Ok(())
    }

    /// What the broker said before it closed, if it said why.
    fn closed(&mut self) -> ClientError {
        self.collected.clear();
        while self.receive(Some(Instant::now())).is_ok() {}
        let said = self.inbox.iter().rev().find_map(|event| match event {
            Event::Error { id: 0, code, text } => Some((*code, text.clone())),
            _ => None,
        });
        said.map_or(ClientError::Closed, |(code, text)| ClientError::Refused {
            code,
            text,
        })
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

fn parse_subject(text: &str) -> Result<Subject<'_>, ClientError> {
    Subject::new(text.as_bytes()).ok_or_else(|| ClientError::Subject(text.to_owned()))
}

fn parse_pattern(text: &str) -> Result<Pattern<'_>, ClientError> {
    Pattern::new(text.as_bytes()).ok_or_else(|| ClientError::Subject(text.to_owned()))
}
