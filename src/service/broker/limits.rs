//! What a connection and a user may hold at most, and what users hold now.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::routes::Role;
use crate::frame::FrameLimit;
use crate::ids::Uid;

/// How many times the bound of one connection all connections of a user may
/// reach together, for what is counted (bytes have a bound of their own).
const CONNECTIONS_WORTH_PER_UID: usize = 64;

/// The broker's bounds. All hold at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest `length` accepted from a client.
    pub frame: FrameLimit,
    /// Bytes queued for one connection, beyond what its socket holds. A single
    /// frame is queued even if it is larger.
    pub pending_bytes: usize,
    /// Bytes queued for all connections of one uid.
    pub pending_bytes_per_uid: usize,
    /// Subscriptions of one connection, and registrations of one connection;
    /// 64 times that for a uid.
    pub subscriptions: usize,
    /// Requests of one connection that wait for their answer; 64 times that for a
    /// uid. One connection owes answers to at most twice as many, and to one uid to
    /// no more than it could still owe to others.
    pub requests: usize,
    /// From REQUEST to ERROR 4.
    pub request_timeout: Duration,
    /// How long a client may take for its proof, where it is asked for one.
    pub proof_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: FrameLimit::DEFAULT,
            pending_bytes: 8 << 20,
            pending_bytes_per_uid: 16 << 20,
            subscriptions: 256,
            requests: 1024,
            request_timeout: Duration::from_secs(30),
            proof_timeout: Duration::from_secs(5),
        }
    }
}

/// A bound that was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Quota {
    /// [`Limits::pending_bytes`].
    Pending(usize),
    /// [`Limits::pending_bytes_per_uid`].
    PendingPerUid(usize),
    /// [`Limits::subscriptions`].
    Subscriptions(usize),
    /// The same, of all connections of the uid.
    SubscriptionsPerUid(usize),
    /// [`Limits::subscriptions`], for registrations.
    Registrations(usize),
    /// The same, of all connections of the uid.
    RegistrationsPerUid(usize),
    /// [`Limits::requests`].
    Requests(usize),
    /// The same, of all connections of the uid.
    RequestsPerUid(usize),
    /// Nobody who serves the subject has room for another request.
    Responders,
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending(n) => write!(f, "broker_pending: {n} bytes for each connection"),
            Self::PendingPerUid(n) => write!(f, "broker_pending_per_uid: {n} bytes for each uid"),
            Self::Subscriptions(n) => {
                write!(
                    f,
                    "broker_subscriptions: {n} subscriptions for each connection"
                )
            }
            Self::SubscriptionsPerUid(n) => {
                write!(f, "broker_subscriptions: {n} subscriptions for each uid")
            }
            Self::Registrations(n) => {
                write!(
                    f,
                    "broker_subscriptions: {n} registrations for each connection"
                )
            }
            Self::RegistrationsPerUid(n) => {
                write!(f, "broker_subscriptions: {n} registrations for each uid")
            }
            Self::Requests(n) => {
                write!(f, "broker_requests: {n} open requests for each connection")
            }
            Self::RequestsPerUid(n) => {
                write!(f, "broker_requests: {n} open requests for each uid")
            }
            Self::Responders => f.write_str("broker_requests: every responder is at its bound"),
        }
    }
}

/// What one kind of thing a uid holds, over all its connections.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicUsize);

impl Counter {
    /// Adds `more` unless that would pass `limit`.
    pub(super) fn try_add(&self, more: usize, limit: usize) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                now.checked_add(more).filter(|sum| *sum <= limit)
            })
            .is_ok()
    }

    /// Adds without asking, for the one frame that a queue takes in any case.
    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, less: usize) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a uid holds.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) pending_bytes: Counter,
    pub(super) subscriptions: Counter,
    pub(super) registrations: Counter,
    pub(super) requests: Counter,
}

impl Account {
    /// Subscriptions or registrations.
    pub(super) fn entries(&self, role: Role) -> &Counter {
        match role {
            Role::Subscriber => &self.subscriptions,
            Role::Responder => &self.registrations,
        }
    }
}

/// One account for each uid that is connected. Peers without a uid share one.
#[derive(Debug, Default)]
pub(super) struct Accounts(Mutex<HashMap<Option<Uid>, Weak<Account>>>);

impl Accounts {
    pub(super) fn of(&self, uid: Option<Uid>) -> Arc<Account> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(&uid).and_then(Weak::upgrade) {
            return account;
        }
        accounts.retain(|_, account| account.strong_count() > 0);
        let account = Arc::new(Account::default());
        accounts.insert(uid, Arc::downgrade(&account));
        account
    }

    /// What all of them hold together.
    pub(super) fn totals(&self) -> [usize; 4] {
        let accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = accounts.values().filter_map(Weak::upgrade);
        all.fold(
            [0; 4],
            |[bytes, subscriptions, registrations, requests], one| {
                [
                    bytes.saturating_add(one.pending_bytes.get()),
                    subscriptions.saturating_add(one.subscriptions.get()),
                    registrations.saturating_add(one.registrations.get()),
                    requests.saturating_add(one.requests.get()),
                ]
            },
        )
    }
}

/// The bound of a uid for what one connection may hold `of_connection` times.
pub(super) fn per_uid(of_connection: usize) -> usize {
    of_connection.saturating_mul(CONNECTIONS_WORTH_PER_UID)
}

/// Why a frame was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    Quota(Quota),
    TooLarge,
    Gone,
    Denied,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_stops_at_its_limit() {
        let counter = Counter::default();
        assert!(counter.try_add(2, 3));
        assert!(!counter.try_add(2, 3));
        assert!(counter.try_add(1, 3));
        assert!(!counter.try_add(1, 3));
        counter.subtract(3);
        assert_eq!(counter.get(), 0);
        assert!(!counter.try_add(usize::MAX, 3));
    }

    #[test]
    fn a_uid_has_one_account_while_it_is_connected() {
        let accounts = Accounts::default();
        let one = accounts.of(Uid::from_raw(1));
        assert!(Arc::ptr_eq(&one, &accounts.of(Uid::from_raw(1))));
        assert!(!Arc::ptr_eq(&one, &accounts.of(None)));
        drop(one);
        accounts.of(Uid::from_raw(2));
        assert!(!accounts.0.lock().unwrap().contains_key(&Uid::from_raw(1)));
    }
}
