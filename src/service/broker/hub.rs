//! The broker itself: all connections, their routes, and the one order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::frame::{ErrorCode, Frame, FrameLimit};
use crate::peer::Facts;
use crate::service::Waker;

use super::limits::{Accounts, Limits, Quota};
use super::member::{Identity, Member};
use super::outbox::{Outbox, Sink};
use super::permit::Permits;
use super::port::Port;
use super::rights::Action;
use super::routes::{Entry, Role, Routes};

/// Passes messages and requests between the connections that join it. It knows
/// no sockets: each connection brings a [`Sink`].
///
/// Shared by all threads.
pub struct Broker {
    pub(super) routes: Routes,
    settings: Mutex<Settings>,
    /// Counts changes of the permits.
    pub(super) reloads: AtomicU64,
    accounts: Accounts,
    members: Mutex<HashMap<u64, Arc<Member>>>,
    sequence: AtomicU64,
    turns: AtomicU64,
    stopping: AtomicBool,
    stops_at: OnceLock<Instant>,
    /// Connections that have not joined yet.
    newcomers: Mutex<HashMap<u64, Waker>>,
}

struct Settings {
    limits: Limits,
    permits: Arc<Permits>,
}

/// What a broker counts, at about one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Frames that took a place in the broker's one order since it began: messages,
    /// requests and answers.
    pub sequenced: u64,
    /// Connections that have joined.
    pub members: usize,
    /// Bytes that wait for peers to take them.
    pub pending_bytes: usize,
    /// Subscriptions that are open.
    pub subscriptions: usize,
    /// Registrations that are open.
    pub registrations: usize,
    /// Requests that are open.
    pub requests: usize,
}

impl Broker {
    /// An empty broker.
    pub fn new(limits: Limits, permits: Permits) -> Arc<Self> {
        Arc::new(Self {
            routes: Routes::default(),
            settings: Mutex::new(Settings {
                limits,
                permits: Arc::new(permits),
            }),
            reloads: AtomicU64::new(0),
            accounts: Accounts::default(),
            members: Mutex::default(),
            sequence: AtomicU64::new(1),
            turns: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            stops_at: OnceLock::new(),
            newcomers: Mutex::default(),
        })
    }

    /// What it counts.
    pub fn stats(&self) -> Stats {
        let [pending_bytes, subscriptions, registrations, requests] = self.accounts.totals();
        Stats {
            sequenced: self.sequence.load(Ordering::Relaxed).saturating_sub(1),
            members: self.members().len(),
            pending_bytes,
            subscriptions,
            registrations,
            requests,
        }
    }

    /// The bounds for connections that join now.
    pub fn limits(&self) -> Limits {
        self.settings().limits
    }

    /// The facts that the permits in force ask for.
    pub fn needs(&self) -> crate::peer::Needs {
        self.settings().permits.needs()
    }

    /// Whether a peer would get rights only for what it runs, which it then has to prove.
    pub(super) fn rights_rest_on_executable(&self, facts: &Facts) -> bool {
        let permits = Arc::clone(&self.settings().permits);
        permits.rest_on_executable(facts)
    }

    /// Takes a connection in. `accepts` is what its greeting said. The connection
    /// leaves when the [`Port`] is dropped.
    pub fn join(
        self: &Arc<Self>,
        identity: Identity,
        facts: Facts,
        sink: Arc<dyn Sink>,
        accepts: FrameLimit,
    ) -> Port {
        let account = self.accounts.of(identity.uid);
        let outbox = Outbox::new(sink, Arc::clone(&account), self.limits(), accepts);
        // Under the lock of the members, so that a reload finds it or comes first.
        let mut members = self.members();
        let settings = self.settings();
        let rights = settings.permits.rights_of(&facts);
        let member = Member::new(identity, facts, account, outbox, rights);
        members.insert(identity.connection, Arc::clone(&member));
        Port::new(Arc::clone(self), member, settings.limits)
    }

    pub(super) fn leave(&self, member: &Member) {
        self.members().remove(&member.id());
    }

    /// Puts other bounds and permits in force: bounds for connections that join
    /// from now on, permits for all. Subscriptions and registrations that lost
    /// their right end with ERROR 2, and what waits for them is dropped; once this
    /// returns they get nothing that is not permitted. What a connection sent before,
    /// while it was permitted, still arrives.
    pub fn reload(&self, limits: Limits, permits: Permits) {
        let members = self.members();
        let permits = Arc::new(permits);
        *self.settings() = Settings {
            limits,
            permits: Arc::clone(&permits),
        };
        for member in members.values() {
            member.set_rights(permits.rights_of(&member.facts));
        }
        self.reloads.fetch_add(1, Ordering::Release);
        for member in members.values() {
            self.revoke(member);
        }
    }

    fn revoke(&self, member: &Member) {
        let rights = member.rights();
        // Under this lock: who has asked for the rights before they changed has opened
        // or delivered by now, and who comes later asks again.
        let mut out = member.outbox.lock();
        let lost = member.open().take_denied(&rights);
        for (role, entry) in lost {
            entry.end();
            self.routes.remove(role, &entry);
            member.account.entries(role).subtract(1);
            if role == Role::Subscriber {
                out.revoke(entry.id);
            }
            let text = "a reload took this right away";
            out.control(&Frame::Error {
                id: entry.id,
                code: ErrorCode::Denied,
                text,
            });
            out.hand_over();
        }
        // Of subscriptions that are over, and so are no more to be found above, as well.
        out.revoke_messages(|subject| rights.allow_subject(Action::Subscribe, subject));
        let taken = out.revoke_requests(|subject| rights.allow_subject(Action::Serve, subject));
        drop(out);
        for number in taken {
            let request = member.open().owed.remove(number);
            if let Some(request) = request.filter(|request| request.end()) {
                request.refuse(
                    ErrorCode::Denied,
                    "a reload took the responder's right away",
                );
                if self.is_stopping() {
                    // Either may have waited for just that.
                    request.requester.outbox.lock().wake();
                    member.outbox.lock().wake();
                }
            }
        }
    }

    /// From here on nothing new is accepted: ERROR 9. The connections' own threads are
    /// woken, to tell their peers ([`Port::go_away`]) that all is over at `until`.
    pub fn stop(&self, until: Instant) {
        let _ = self.stops_at.set(until);
        self.stopping.store(true, Ordering::Release);
        for waker in self.newcomers().values() {
            waker.wake();
        }
        for member in self.members().values() {
            member.outbox.lock().wake();
        }
    }

    /// When all is over, once the broker stops.
    pub(super) fn stops_at(&self) -> Option<Instant> {
        self.stops_at.get().copied()
    }

    /// A connection that exchanges greetings.
    pub(super) fn come(&self, connection: u64, waker: Waker) {
        self.newcomers().insert(connection, waker);
    }

    /// It has joined, or has gone.
    pub(super) fn came(&self, connection: u64) {
        self.newcomers().remove(&connection);
    }

    /// Whether [`Broker::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// How many connections have joined.
    pub fn connections(&self) -> usize {
        self.members().len()
    }

    /// The next `count` places in the one order; returns the first.
    pub(super) fn places(&self, count: usize) -> u64 {
        self.sequence
            .fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed)
    }

    /// Picks who is next to serve: the one whose turn is longest ago.
    pub(super) fn next_in_turn<'r>(&self, responders: &'r [Arc<Entry>]) -> Option<&'r Arc<Entry>> {
        loop {
            let (entry, seen) = responders
                .iter()
                .filter(|entry| entry.is_alive())
                .map(|entry| (entry, entry.turn()))
                .min_by_key(|(_, seen)| *seen)?;
            if entry.take_turn(seen, self.turns.fetch_add(1, Ordering::Relaxed)) {
                return Some(entry);
            }
        }
    }

    /// All who serve, in that order; for when the first one can't.
    pub(super) fn all_in_turn<'r>(
        &self,
        responders: &'r [Arc<Entry>],
    ) -> impl Iterator<Item = &'r Arc<Entry>> {
        let mut all: Vec<_> = responders.iter().collect();
        // Each is read once: other threads take turns meanwhile.
        all.sort_by_cached_key(|entry| entry.turn());
        all.into_iter().inspect(|entry| {
            // Another may have been quicker, and then it has had its turn as well.
            entry.take_turn(entry.turn(), self.turns.fetch_add(1, Ordering::Relaxed));
        })
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newcomers(&self) -> MutexGuard<'_, HashMap<u64, Waker>> {
        self.newcomers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> MutexGuard<'_, HashMap<u64, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one more, or names the quota.
pub(super) fn count_in(
    counter: &super::limits::Counter,
    held: usize,
    limit: usize,
    of_connection: fn(usize) -> Quota,
    of_uid: fn(usize) -> Quota,
) -> Result<(), Quota> {
    if held >= limit {
        return Err(of_connection(limit));
    }
    let limit = super::limits::per_uid(limit);
    if counter.try_add(1, limit) {
        Ok(())
    } else {
        Err(of_uid(limit))
    }
}
