//! Who gets the messages and the requests of a subject.
//!
//! Subjects are spread over shards by their first token, each behind a lock of
//! its own; a pattern that starts with a wildcard is in every shard. So a message
//! takes no lock that one of an unrelated subject takes, but for the few subjects
//! that fall into the same shard, which read side by side.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::frame::{Pattern, Subject};

use super::member::Member;
use super::rights::Action;
use super::tree::Tree;

const SHARDS: usize = 16;

/// Most targets that the ready routes of one shard hold together.
const CACHED_TARGETS: usize = 64 << 10;

/// A subscription or a registration of one connection.
pub(super) struct Entry {
    pub(super) member: Arc<Member>,
    pub(super) id: u64,
    pub(super) pattern: Box<str>,
    alive: AtomicBool,
    /// When it last had its turn among those that serve a subject.
    turn: AtomicU64,
}

impl Entry {
    /// `pattern` is one, as text.
    pub(super) fn new(member: Arc<Member>, id: u64, pattern: Pattern<'_>) -> Arc<Self> {
        Arc::new(Self {
            member,
            id,
            pattern: pattern.as_str().into(),
            alive: AtomicBool::new(true),
            turn: AtomicU64::new(0),
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// From here on nobody delivers to it. To be sure that nobody still does,
    /// take the lock of its outbox afterwards.
    pub(super) fn end(&self) {
        self.alive.store(false, Ordering::Release);
    }

    /// Takes the turn that was read as `seen`, unless another has.
    pub(super) fn take_turn(&self, seen: u64, now: u64) -> bool {
        self.turn
            .compare_exchange(seen, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    pub(super) fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }
}

/// Where a subject leads, while nobody subscribes or leaves.
pub(super) struct Route {
    pub(super) subject: Box<str>,
    /// Subscriptions, by connection: those of one lie side by side.
    pub(super) targets: Box<[Arc<Entry>]>,
    pub(super) responders: Box<[Arc<Entry>]>,
    shard: usize,
    generation: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Subscriber,
    Responder,
}

impl Role {
    /// What it takes a permit for.
    pub(super) fn action(self) -> Action {
        match self {
            Self::Subscriber => Action::Subscribe,
            Self::Responder => Action::Serve,
        }
    }

    /// What a client is told that has none with this id.
    pub(super) fn missing(self) -> &'static str {
        match self {
            Self::Subscriber => "no such subscription",
            Self::Responder => "no such registration",
        }
    }
}

pub(super) struct Routes {
    shards: Box<[Shard]>,
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    generation: AtomicU64,
    plan: RwLock<Plan>,
}

#[derive(Default)]
struct Plan {
    subscribers: Tree<Arc<Entry>>,
    responders: Tree<Arc<Entry>>,
    ready: HashMap<Box<str>, Arc<Route>>,
    ready_targets: usize,
}

impl Plan {
    fn tree(&mut self, role: Role) -> &mut Tree<Arc<Entry>> {
        match role {
            Role::Subscriber => &mut self.subscribers,
            Role::Responder => &mut self.responders,
        }
    }

    fn forget(&mut self) {
        self.ready.clear();
        self.ready_targets = 0;
    }
}

impl Default for Routes {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self {
            shards,
            hasher: RandomState::new(),
        }
    }
}

impl Routes {
    pub(super) fn insert(&self, role: Role, entry: &Arc<Entry>) {
        self.change(entry, |plan, pattern| {
            plan.tree(role).insert(pattern, Arc::clone(entry))
        });
    }

    pub(super) fn remove(&self, role: Role, entry: &Arc<Entry>) {
        self.change(entry, |plan, pattern| {
            plan.tree(role)
                .remove(pattern, |other| Arc::ptr_eq(other, entry));
        });
    }

    fn change(&self, entry: &Entry, change: impl Fn(&mut Plan, Pattern<'_>)) {
        let Some(pattern) = Pattern::new(entry.pattern.as_bytes()) else {
            return;
        };
        let first = pattern.tokens().next().unwrap_or_default();
        let only = (!matches!(first, "*" | ">")).then(|| self.shard_of(first));
        for (number, shard) in self.shards.iter().enumerate() {
            if only.is_none_or(|only| only == number) {
                let mut plan = shard.plan.write().unwrap_or_else(PoisonError::into_inner);
                change(&mut plan, pattern);
                plan.forget();
                shard.generation.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// Whether nobody has subscribed or left since the route was found.
    pub(super) fn is_fresh(&self, route: &Route) -> bool {
        let shard = self.shards.get(route.shard);
        shard.is_some_and(|shard| shard.generation.load(Ordering::Acquire) == route.generation)
    }

    pub(super) fn find(&self, subject: Subject<'_>) -> Arc<Route> {
        let number = self.shard_of(subject.tokens().next().unwrap_or_default());
        let Some(shard) = self.shards.get(number) else {
            return Arc::new(Route::nowhere(subject));
        };
        let route = {
            let plan = shard.plan.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(route) = plan.ready.get(subject.as_str()) {
                return Arc::clone(route);
            }
            let generation = shard.generation.load(Ordering::Acquire);
            Arc::new(Route::plan(&plan, subject, number, generation))
        };
        shard.keep(&route);
        route
    }

    fn shard_of(&self, token: &str) -> usize {
        let shards = u64::try_from(SHARDS).unwrap_or(1);
        let shard = self.hasher.hash_one(token).checked_rem(shards);
        shard.map_or(0, |shard| usize::try_from(shard).unwrap_or(0))
    }
}

impl Shard {
    fn keep(&self, route: &Arc<Route>) {
        let mut plan = self.plan.write().unwrap_or_else(PoisonError::into_inner);
        if self.generation.load(Ordering::Acquire) != route.generation {
            return;
        }
        // A subject without targets costs memory as well.
        let receivers = route.targets.len().saturating_add(route.responders.len());
        let weight = receivers.saturating_add(1);
        if plan.ready_targets.saturating_add(weight) > CACHED_TARGETS {
            plan.forget();
        }
        plan.ready_targets = plan.ready_targets.saturating_add(weight);
        plan.ready.insert(route.subject.clone(), Arc::clone(route));
    }
}

impl Route {
    fn plan(plan: &Plan, subject: Subject<'_>, shard: usize, generation: u64) -> Self {
        let mut targets = Vec::new();
        plan.subscribers.find(subject, &mut targets);
        // By connection: locks are taken in this order, and each once.
        targets.sort_by_key(|entry| (entry.member.id(), entry.id));
        let mut responders = Vec::new();
        plan.responders.find(subject, &mut responders);
        Self {
            subject: subject.as_str().into(),
            targets: targets.into(),
            responders: responders.into(),
            shard,
            generation,
        }
    }

    fn nowhere(subject: Subject<'_>) -> Self {
        let none = || Vec::new().into_boxed_slice();
        let subject = subject.as_str().into();
        Self {
            subject,
            targets: none(),
            responders: none(),
            shard: usize::MAX,
            generation: 0,
        }
    }
}
