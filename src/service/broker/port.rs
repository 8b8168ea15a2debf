//! One connection's own side of the broker: what its frames do.
//!
//! Frames come in batches, all that one read has brought. Consecutive messages of
//! one subject are encoded once and go to each subscriber in one write; what else
//! is appended is written when the batch ends, once for each connection.
//!
//! Not here: messages themselves ([`super::deliver`]), requests
//! ([`super::request`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::frame::{ErrorCode, Frame, FrameError, Header, Kind, Pattern};

use super::deliver::Recent;
use super::hub::{Broker, count_in};
use super::limits::{Limits, Quota};
use super::member::{Member, Open, Request};
use super::rights::Rights;
use super::routes::{Entry, Role, Route};
use super::run::Run;

/// A connection's place in a [`Broker`]. Dropping it leaves: subscriptions and
/// registrations end, requests that it was to answer end with ERROR 5.
///
/// Owned by one thread at a time.
pub struct Port {
    pub(super) broker: Arc<Broker>,
    pub(super) member: Arc<Member>,
    pub(super) limits: Limits,
    pub(super) rights: Arc<Rights>,
    /// The reload that `rights` are of.
    pub(super) reload: u64,
    pub(super) recent: Vec<Recent>,
    pub(super) run: Run,
    pub(super) numbers: super::request::Numbers,
    told_to_go: bool,
}

/// Why a connection is ending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The peer broke the protocol.
    Violation,
    /// What waits for it is beyond a bound.
    Quota,
    /// Its socket takes nothing any more.
    Broken,
}

/// What the connection's own thread has to do about its way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Wait for room in the socket, then call [`Port::writable`].
    pub blocked: bool,
    /// Nothing more is taken: close when [`Outgoing::empty`], or soon.
    pub ending: Option<Ending>,
    /// Nothing waits.
    pub empty: bool,
}

impl Port {
    pub(super) fn new(broker: Arc<Broker>, member: Arc<Member>, limits: Limits) -> Self {
        let reload = broker.reloads.load(Ordering::Acquire);
        let rights = member.rights();
        Self {
            broker,
            member,
            limits,
            rights,
            reload,
            recent: Vec::new(),
            run: Run::default(),
            numbers: super::request::Numbers::default(),
            told_to_go: false,
        }
    }

    /// Begins a batch.
    pub fn batch(&mut self, now: Instant) -> Batch<'_> {
        Batch {
            port: self,
            route: None,
            acknowledge: Vec::new(),
            touched: Vec::new(),
            now,
        }
    }

    /// The socket has room again.
    pub fn writable(&mut self) {
        self.member.outbox.lock().writable();
    }

    /// Whether [`outgoing`](Self::outgoing) has anything to say but whether it is empty.
    /// Needs no lock, which whoever writes to this connection holds meanwhile.
    pub(super) fn needs_owner(&self) -> bool {
        self.member.outbox.needs_owner()
    }

    /// Whether nothing more is taken.
    pub(super) fn is_ending(&self) -> bool {
        self.needs_owner() && self.outgoing().ending.is_some()
    }

    /// What to wait for.
    pub fn outgoing(&self) -> Outgoing {
        let out = self.member.outbox.lock();
        Outgoing {
            blocked: out.is_blocked(),
            ending: out.ending(),
            empty: out.is_empty(),
        }
    }

    /// Says that the connection will be closed within `within`. From here on it
    /// may finish what is open, nothing else.
    pub fn go_away(&mut self, within: Duration) {
        if !std::mem::replace(&mut self.told_to_go, true) {
            let millis = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
            let mut out = self.member.outbox.lock();
            out.control(&Frame::GoAway { millis });
            out.push_out();
        }
    }

    /// Whether it has been told to go, and has nothing open any more.
    pub fn may_close(&self) -> bool {
        self.told_to_go && self.is_idle()
    }

    /// Whether no request is open, in either direction.
    pub fn is_idle(&self) -> bool {
        let open = self.member.open();
        open.asked.is_empty() && open.owed.is_empty()
    }

    /// Whether it has subscriptions.
    pub(super) fn subscribes(&self) -> bool {
        !self.member.open().subscriptions.is_empty()
    }

    /// Ends requests whose time has passed; returns when the next one's will have.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let mut open = self.member.open();
            while open
                .deadlines
                .front()
                .is_some_and(|request| request.has_ended())
            {
                open.deadlines.pop_front();
            }
            let next = open.deadlines.front()?.deadline;
            if next > now {
                return Some(next);
            }
            let request = open.deadlines.pop_front()?;
            drop(open);
            if request.end() {
                request.settle();
                self.forgive(&request);
                let text = "nobody answered in time";
                let id = request.id;
                let mut out = self.member.outbox.lock();
                out.control(&Frame::Error {
                    id,
                    code: ErrorCode::Timeout,
                    text,
                });
                out.push_out();
            }
        }
    }

    /// The responder needn't answer any more; it may have waited for just that.
    fn forgive(&self, request: &Request) {
        request.forgive();
        if self.broker.is_stopping() {
            request.responder.outbox.lock().wake();
        }
    }

    fn leave(&mut self) {
        // First: a reload that doesn't find it any more relies on it that nothing comes.
        self.member.outbox.lock().close();
        self.broker.leave(&self.member);
        let open = std::mem::replace(
            &mut *self.member.open(),
            Open {
                closed: true,
                ..Open::default()
            },
        );
        let account = &self.member.account;
        for entry in open.subscriptions.values() {
            entry.end();
            self.broker.routes.remove(Role::Subscriber, entry);
            account.subscriptions.subtract(1);
        }
        for entry in open.registrations.values() {
            entry.end();
            self.broker.routes.remove(Role::Responder, entry);
            account.registrations.subtract(1);
        }
        for request in open.asked.values() {
            account.requests.subtract(1);
            if request.end() {
                self.forgive(request);
            }
        }
        for request in open.owed.requests().filter(|request| request.end()) {
            request.refuse(ErrorCode::Gone, "the responder has gone");
            if self.broker.is_stopping() {
                request.requester.outbox.lock().wake();
            }
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The frames of one read. Dropping it delivers what is left.
pub struct Batch<'p> {
    pub(super) port: &'p mut Port,
    /// Where the messages of the run go.
    pub(super) route: Option<Arc<Route>>,
    /// Publications of the run that want OK.
    pub(super) acknowledge: Vec<u64>,
    /// Outboxes that this batch is to flush.
    pub(super) touched: Vec<Arc<Member>>,
    pub(super) now: Instant,
}

impl Batch<'_> {
    /// Does what a frame asks for. False when the connection is to end.
    pub fn frame(&mut self, frame: &Frame<'_>) -> bool {
        // What came before is done before.
        if !matches!(frame, Frame::Publish { .. }) {
            self.deliver_run(false);
        }
        match *frame {
            Frame::Publish { id, subject, body } => self.publish(id, subject, body),
            Frame::Request { id, subject, body } => self.request(id, subject, body),
            Frame::Reply { id, body } => self.reply(id, body),
            Frame::Subscribe {
                id,
                pattern,
                drop_oldest,
            } => {
                self.open(Role::Subscriber, id, pattern, drop_oldest);
            }
            Frame::Serve { id, pattern } => self.open(Role::Responder, id, pattern, false),
            Frame::Unsubscribe { id } => self.close(Role::Subscriber, id),
            Frame::Unserve { id } => self.close(Role::Responder, id),
            Frame::Ping { id, body } => self.answer(&Frame::Pong { id, body }),
            Frame::Pong { .. } => (),
            // PROOF was due before; the others only the broker sends.
            _ => {
                self.violation(&FrameError::WrongSide(frame.kind()));
                return false;
            }
        }
        true
    }

    /// Refuses a frame beyond the limit.
    pub fn too_large(&mut self, header: &Header) {
        self.deliver_run(false);
        let text = format!("expected at most {} bytes", self.port.limits.frame.bytes());
        // Its id is not what OK or ERROR of these would carry.
        let id = if header.kind == Kind::Pong {
            0
        } else {
            header.id
        };
        self.refuse(id, ErrorCode::TooLarge, &text);
    }

    /// Says that the peer breaks the format, and ends the connection.
    pub fn violation(&mut self, error: &FrameError) {
        self.deliver_run(false);
        let mut out = self.port.member.outbox.lock();
        out.push_out();
        out.end(ErrorCode::Protocol, &error.to_string());
        out.push_out();
    }

    /// Opens a subscription or a registration, or says why not.
    fn open(&mut self, role: Role, id: u64, pattern: Pattern<'_>, drop_oldest: bool) {
        let member = Arc::clone(&self.port.member);
        // Held to the end: OK comes before the first message, and a reload, which takes
        // this lock to look for what it ends, finds all of it or comes first.
        let mut out = member.outbox.lock();
        match self.enter(role, id, pattern) {
            Ok(entry) => {
                out.subscribed(id, drop_oldest);
                self.port.broker.routes.insert(role, &entry);
                out.control(&Frame::Ok { id });
            }
            Err((code, text)) => {
                let text = &text;
                out.control(&Frame::Error { id, code, text });
            }
        }
        self.touch(&member, &mut out);
    }

    /// Counts one more in, if it may be opened.
    fn enter(
        &mut self,
        role: Role,
        id: u64,
        pattern: Pattern<'_>,
    ) -> Result<Arc<Entry>, (ErrorCode, String)> {
        self.may_open(role, pattern)?;
        let member = &self.port.member;
        let limit = self.port.limits.subscriptions;
        let mut open = member.open();
        let entries = open.entries(role);
        if entries.contains_key(&id) {
            return Err((ErrorCode::DuplicateId, String::from("this id is in use")));
        }
        let [of_connection, of_uid]: [fn(usize) -> Quota; 2] = match role {
            Role::Subscriber => [Quota::Subscriptions, Quota::SubscriptionsPerUid],
            Role::Responder => [Quota::Registrations, Quota::RegistrationsPerUid],
        };
        let counter = member.account.entries(role);
        count_in(counter, entries.len(), limit, of_connection, of_uid)
            .map_err(|quota| (ErrorCode::Quota, quota.to_string()))?;
        let entry = Entry::new(Arc::clone(member), id, pattern);
        entries.insert(id, Arc::clone(&entry));
        Ok(entry)
    }

    /// Whether something new of this kind is taken, by the rights in force.
    fn may_open(&mut self, role: Role, pattern: Pattern<'_>) -> Result<(), (ErrorCode, String)> {
        if self.is_stopping() {
            let text = String::from("the broker is about to stop");
            return Err((ErrorCode::Stopping, text));
        }
        let action = role.action();
        self.port.refresh_rights();
        if self.port.rights.allow_pattern(action, pattern) {
            return Ok(());
        }
        let text = format!("no permit to {} {pattern}", action.name());
        Err((ErrorCode::Denied, text))
    }

    /// Ends a subscription or a registration, or says that there is none.
    fn close(&mut self, role: Role, id: u64) {
        let member = Arc::clone(&self.port.member);
        // Held to the end: a reload, which takes this lock to look for what it ends, finds
        // it, or finds that nothing can be delivered to it any more. And who still holds
        // the old route asks whether it is alive, under this lock.
        let mut out = member.outbox.lock();
        let entry = member.open().entries(role).remove(&id);
        if let Some(entry) = entry {
            entry.end();
            member.account.entries(role).subtract(1);
            self.port.broker.routes.remove(role, &entry);
            if role == Role::Subscriber {
                out.unsubscribed(id);
            }
            out.control(&Frame::Ok { id });
        } else {
            let (code, text) = (ErrorCode::Gone, role.missing());
            out.control(&Frame::Error { id, code, text });
        }
        self.touch(&member, &mut out);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.port.told_to_go || self.port.broker.is_stopping()
    }

    pub(super) fn refuse(&mut self, id: u64, code: ErrorCode, text: &str) {
        self.answer(&Frame::Error { id, code, text });
    }

    /// Appends a frame for the client itself.
    pub(super) fn answer(&mut self, frame: &Frame<'_>) {
        let member = Arc::clone(&self.port.member);
        let mut out = member.outbox.lock();
        out.control(frame);
        self.touch(&member, &mut out);
    }

    /// Notes that something was appended to `out`, to be written at the end.
    pub(super) fn touch(&mut self, member: &Arc<Member>, out: &mut super::outbox::Out) {
        if out.cork() {
            self.touched.push(Arc::clone(member));
        }
    }

    fn finish(&mut self) {
        self.deliver_run(true);
        for member in self.touched.drain(..) {
            member.outbox.lock().uncork();
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}
