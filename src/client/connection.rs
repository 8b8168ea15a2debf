//! A connection to a broker.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::frame::{Frame, FrameLimit, Pattern, Stamp, Subject};

use super::connect::connect_within;
use super::error::ClientError;
use super::event::Event;
use super::identity::ServerIdentity;
use super::inbox::Awaited;
use super::link::Link;

/// Publications are sent when so many bytes have been collected.
const COLLECT_BYTES: usize = 64 << 10;

/// What the broker does with a subscriber that doesn't keep up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenSlow {
    /// It closes the connection, and says why: [`Event::Error`] with `quota`.
    Disconnect,
    /// It drops the oldest messages, and says how many: [`Event::Gap`].
    DropOldest,
}

/// A connection to a broker, for one thread at a time.
///
/// Calls wait for at most the timeout that was given (once more where an earlier one
/// has left much unsent), except [`Client::next`], which has a deadline of its own.
/// After [`ClientError::Timeout`] what was asked for may still happen: what was not sent
/// in time goes on with the next call. So repeat a publication only where twice does no
/// harm. Late replies are dropped; the messages of a subscription that was made too
/// late are not.
///
/// What comes in while a call waits is kept for [`Client::next`]: up to 64 MiB, beyond
/// which calls that wait fail with [`ClientError::InboxFull`], and of the refusals of
/// publications the last 1024 ([`Client::refusals_dropped`]).
#[derive(Debug)]
pub struct Client {
    link: Link,
    last_id: u64,
    timeout: Duration,
}

impl Client {
    /// Connects, verifies the server, and exchanges greetings, all within the timeout.
    ///
    /// # Errors
    ///
    /// As [`connect`](super::connect), and as every call here: [`ClientError::Closed`]
    /// (which is how a server turns somebody away), [`ClientError::Timeout`],
    /// [`ClientError::Protocol`].
    pub fn connect(
        path: &Path,
        server: &ServerIdentity,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let deadline = Instant::now().checked_add(timeout);
        let socket = connect_within(path, server, Some(timeout))?;
        Self::begin(socket, FrameLimit::MAX, timeout, deadline)
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
        let deadline = Instant::now().checked_add(timeout);
        Self::begin(socket, accepts, timeout, deadline)
    }

    fn begin(
        socket: OwnedFd,
        accepts: FrameLimit,
        timeout: Duration,
        deadline: Option<Instant>,
    ) -> Result<Self, ClientError> {
        let mut link = Link::new(socket, accepts);
        link.greet(deadline)?;
        Ok(Self {
            link,
            last_id: 0,
            timeout,
        })
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
        if self.link.outbox.left().len() >= COLLECT_BYTES {
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
        let id = self.collect_request(subject, body)?;
        match self.exchange(Awaited::Answer(id))? {
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
        let id = self.collect_request(subject, body)?;
        match self.flush() {
            Ok(()) => Ok(id),
            Err(error) => {
                self.link.inbox.ignore(id);
                Err(error)
            }
        }
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
        if let Some(event) = self.link.inbox.pop() {
            return Ok(Some(event));
        }
        loop {
            let received = self.link.receive(deadline);
            // What came in before a failure is told first.
            if let Some(event) = self.link.inbox.pop() {
                return Ok(Some(event));
            }
            match received {
                Ok(()) => (),
                Err(ClientError::Timeout) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// What has come in and is at hand, without waiting or reading.
    pub fn try_next(&mut self) -> Option<Event> {
        self.link.inbox.pop()
    }

    /// How many refusals of publications were dropped because nobody took them: of
    /// these [`Event::Error`] with id 0 the last 1024 are kept.
    pub fn refusals_dropped(&self) -> u64 {
        self.link.inbox.refusals_dropped()
    }

    /// Sends what was collected.
    ///
    /// # Errors
    ///
    /// [`ClientError::Timeout`], [`ClientError::Closed`], [`ClientError::Socket`].
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.link.flush(self.deadline())
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
        self.link.as_fd()
    }

    /// The longest body that the broker takes as a reply, in bytes.
    #[cfg(feature = "daemon")]
    pub(super) fn longest_reply(&self) -> usize {
        usize::try_from(self.link.accepted()).unwrap_or(usize::MAX)
    }

    /// `None`, which is never, where the timeout is beyond what a clock can say.
    fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.timeout)
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn collect(&mut self, frame: &Frame<'_>) -> Result<(), ClientError> {
        let (length, accepted) = (frame.length(), self.link.accepted());
        if u32::try_from(length).is_ok_and(|length| length <= accepted) {
            // So many are left only by a flush that failed: first they must go.
            if self.link.outbox.left().len() >= COLLECT_BYTES {
                self.flush()?;
            }
            self.link.outbox.push(frame);
            Ok(())
        } else {
            Err(ClientError::TooLarge { length, accepted })
        }
    }

    fn collect_request(&mut self, subject: &str, body: &[u8]) -> Result<u64, ClientError> {
        let id = self.new_id();
        self.collect(&Frame::Request {
            id,
            subject: parse_subject(subject)?,
            body,
        })?;
        Ok(id)
    }

    fn exchange(&mut self, awaited: Awaited) -> Result<Event, ClientError> {
        let deadline = self.deadline();
        self.link.exchange(awaited, deadline)
    }

    fn done(&mut self, id: u64) -> Result<(), ClientError> {
        match self.exchange(Awaited::Done(id))? {
            Event::Error { code, text, .. } => Err(ClientError::Refused { code, text }),
            _ => Ok(()),
        }
    }
}

fn parse_subject(text: &str) -> Result<Subject<'_>, ClientError> {
    Subject::new(text.as_bytes()).ok_or_else(|| ClientError::Subject(text.to_owned()))
}

fn parse_pattern(text: &str) -> Result<Pattern<'_>, ClientError> {
    Pattern::new(text.as_bytes()).ok_or_else(|| ClientError::Subject(text.to_owned()))
}
