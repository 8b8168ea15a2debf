//! One connection as the others see it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::frame::{ErrorCode, Frame, Pattern, Stamp};
use crate::ids::{Gid, Pid, Uid};
use crate::peer::Facts;

use super::limits::Account;
use super::outbox::Outbox;
use super::rights::Rights;
use super::routes::{Entry, Role};

/// Who a connection is, as its stamps will say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Number of the connection; never used twice in one broker.
    pub connection: u64,
    /// Effective user at connect.
    pub uid: Option<Uid>,
    /// Primary group at connect.
    pub gid: Option<Gid>,
    /// Process at connect.
    pub pid: Option<Pid>,
    /// [`Stamp::PIDFD_HELD`], [`Stamp::EXE_CHECKED`].
    pub flags: u32,
}

pub(super) struct Member {
    pub(super) identity: Identity,
    pub(super) facts: Facts,
    pub(super) account: Arc<Account>,
    pub(super) outbox: Outbox,
    rights: Mutex<Arc<Rights>>,
    open: Mutex<Open>,
}

/// What a connection has open. Its lock is taken after that of an outbox, never
/// before, and never together with that of another connection.
#[derive(Default)]
pub(super) struct Open {
    /// It has left; nothing may be added.
    pub(super) closed: bool,
    pub(super) subscriptions: HashMap<u64, Arc<Entry>>,
    pub(super) registrations: HashMap<u64, Arc<Entry>>,
    /// Requests that it waits for, by its own ids.
    pub(super) asked: HashMap<u64, Arc<Request>>,
    /// The same, the oldest first, and some that have ended.
    pub(super) deadlines: VecDeque<Arc<Request>>,
    /// Requests that it is to answer.
    pub(super) owed: Owed,
}

impl Open {
    /// Subscriptions or registrations, by the client's ids.
    pub(super) fn entries(&mut self, role: Role) -> &mut HashMap<u64, Arc<Entry>> {
        match role {
            Role::Subscriber => &mut self.subscriptions,
            Role::Responder => &mut self.registrations,
        }
    }

    /// Takes out what these rights don't cover.
    pub(super) fn take_denied(&mut self, rights: &Rights) -> Vec<(Role, Arc<Entry>)> {
        let mut taken = Vec::new();
        for role in [Role::Subscriber, Role::Responder] {
            let denied = |_: &u64, entry: &mut Arc<Entry>| {
                let pattern = Pattern::new(entry.pattern.as_bytes());
                !pattern.is_some_and(|pattern| rights.allow_pattern(role.action(), pattern))
            };
            let entries = self.entries(role).extract_if(denied);
            taken.extend(entries.map(|(_, entry)| (role, entry)));
        }
        taken
    }

    /// Forgets a request that went to nobody. It was the last one asked.
    pub(super) fn give_up(&mut self, request: &Arc<Request>) {
        self.asked.remove(&request.id);
        let last = self.deadlines.back();
        if last.is_some_and(|last| Arc::ptr_eq(last, request)) {
            self.deadlines.pop_back();
        }
    }
}

/// Requests that a connection is to answer, by the broker's ids, and how many are
/// whose.
#[derive(Default)]
pub(super) struct Owed {
    requests: HashMap<u64, Arc<Request>>,
    by_uid: Vec<(Option<Uid>, usize)>,
}

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = &Arc<Request>> {
        self.requests.values()
    }

    /// Whether it may owe one more to `uid`, which may have `most` alone. There are
    /// twice as many places, and nobody holds more of them than are free: so whoever
    /// takes all that it can leaves some to each that comes after it.
    pub(super) fn has_room(&self, uid: Option<Uid>, most: usize) -> bool {
        let free = most.saturating_mul(2).saturating_sub(self.requests.len());
        let held = self.by_uid.iter().find(|(of, _)| *of == uid);
        held.map_or(0, |(_, held)| *held) < free
    }

    /// False if there is one of that number already.
    pub(super) fn insert(&mut self, request: &Arc<Request>) -> bool {
        if self.requests.contains_key(&request.number) {
            return false;
        }
        self.requests.insert(request.number, Arc::clone(request));
        let uid = request.requester.identity.uid;
        match self.by_uid.iter_mut().find(|(of, _)| *of == uid) {
            Some((_, held)) => *held = held.saturating_add(1),
            None => self.by_uid.push((uid, 1)),
        }
        true
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Arc<Request>> {
        let request = self.requests.remove(&number)?;
        let uid = request.requester.identity.uid;
        if let Some(place) = self.by_uid.iter().position(|(of, _)| *of == uid)
            && let Some((_, held)) = self.by_uid.get_mut(place)
        {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.by_uid.swap_remove(place);
            }
        }
        Some(request)
    }
}

/// One request on its way. Whoever ends it first, ends it.
pub(super) struct Request {
    pub(super) requester: Arc<Member>,
    /// The requester's id.
    pub(super) id: u64,
    pub(super) responder: Arc<Member>,
    /// The broker's id.
    pub(super) number: u64,
    pub(super) deadline: Instant,
    ended: AtomicBool,
}

impl Request {
    pub(super) fn new(
        requester: &Arc<Member>,
        id: u64,
        responder: &Arc<Member>,
        number: u64,
        deadline: Instant,
    ) -> Arc<Self> {
        Arc::new(Self {
            requester: Arc::clone(requester),
            id,
            responder: Arc::clone(responder),
            number,
            deadline,
            ended: AtomicBool::new(false),
        })
    }

    /// True for exactly one caller: the one that tells the requester.
    pub(super) fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The requester doesn't wait for it any more; its id is free again.
    pub(super) fn settle(self: &Arc<Self>) {
        let mut open = self.requester.open();
        if open
            .asked
            .get(&self.id)
            .is_some_and(|other| Arc::ptr_eq(other, self))
        {
            open.asked.remove(&self.id);
            self.requester.account.requests.subtract(1);
        }
        // Few of those that have ended stay behind.
        if open.deadlines.len() > open.asked.len().saturating_mul(2).saturating_add(16) {
            open.deadlines.retain(|request| !request.has_ended());
        }
    }

    /// Tells the requester that there will be no answer. For the one who has ended it.
    pub(super) fn refuse(self: &Arc<Self>, code: ErrorCode, text: &str) {
        let mut out = self.requester.outbox.lock();
        self.settle();
        let id = self.id;
        out.control(&Frame::Error { id, code, text });
        out.push_out();
    }

    /// The responder doesn't owe it any more.
    pub(super) fn forgive(&self) {
        self.responder.open().owed.remove(self.number);
    }
}

impl Member {
    pub(super) fn new(
        identity: Identity,
        facts: Facts,
        account: Arc<Account>,
        outbox: Outbox,
        rights: Rights,
    ) -> Arc<Self> {
        Arc::new(Self {
            identity,
            facts,
            account,
            outbox,
            rights: Mutex::new(Arc::new(rights)),
            open: Mutex::default(),
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.identity.connection
    }

    pub(super) fn stamp(&self, sequence: u64) -> Stamp {
        let Identity {
            connection,
            uid,
            gid,
            pid,
            flags,
        } = self.identity;
        Stamp {
            connection,
            sequence,
            uid,
            gid,
            pid,
            flags,
        }
    }

    pub(super) fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rights(&self) -> Arc<Rights> {
        Arc::clone(&self.rights.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_rights(&self, rights: Rights) {
        *self.rights.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rights);
    }
}
