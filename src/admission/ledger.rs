//! One account for each who has something open, or whose past matters.
//!
//! Invariants: accounts with nothing open are at most `remembered`; those with
//! something open are at most as many as connections. Room is made by forgetting
//! the one that was quiet the longest, and one under a penalty only if each of
//! the 32 quietest is: so strangers push out strangers, not penalties.

use std::collections::HashMap;
use std::time::Instant;

use super::abuse::Signs;
use super::limits::Limits;
use super::refusal::Fold;
use super::strikes::Strikes;
use super::subject::{ProcessKey, Who};

/// How many processes of one user are remembered, for their denials and
/// penalties. One more takes the place of the one whose penalty ends first.
pub const PROCESSES_PER_UID: usize = 16;

/// How many accounts are looked at to find the one to forget.
const CANDIDATES: usize = 32;

/// No slot.
const NONE: u32 = u32::MAX;

/// Who is counted together, and under which bounds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub(super) who: Who,
    /// 0 for the bounds that hold for all, else the exception's number.
    pub(super) exception: u64,
}

/// What is known about one.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) key: Key,
    pub(super) open: u32,
    /// Peers that are being examined for so long that it takes a place.
    pub(super) examined: u32,
    /// When the token bucket is full again (the generic cell rate algorithm).
    pub(super) full_at: Option<Instant>,
    pub(super) strikes: Strikes,
    pub(super) processes: Vec<(ProcessKey, Strikes)>,
    pub(super) signs: Signs,
    pub(super) fold: Fold,
    older: u32,
    newer: u32,
    listed: bool,
}

impl Account {
    fn new(key: Key) -> Self {
        Self {
            key,
            open: 0,
            examined: 0,
            full_at: None,
            strikes: Strikes::default(),
            processes: Vec::new(),
            signs: Signs::default(),
            fold: Fold::default(),
            older: NONE,
            newer: NONE,
            listed: false,
        }
    }

    /// The strikes that count for a process, or for the user as a whole.
    pub(super) fn strikes_of(&mut self, process: Option<ProcessKey>) -> Option<&mut Strikes> {
        let Some(key) = process else {
            return Some(&mut self.strikes);
        };
        self.processes
            .iter_mut()
            .find(|(other, _)| *other == key)
            .map(|(_, strikes)| strikes)
    }

    /// As [`strikes_of`](Self::strikes_of), and begins to remember the process.
    pub(super) fn strikes_for(
        &mut self,
        process: Option<ProcessKey>,
        now: Instant,
    ) -> Option<&mut Strikes> {
        let Some(key) = process else {
            return Some(&mut self.strikes);
        };
        if !self.processes.iter().any(|(other, _)| *other == key) {
            self.processes
                .retain(|(_, strikes)| !strikes.is_forgettable(now));
            if self.processes.len() >= PROCESSES_PER_UID {
                let first = self
                    .processes
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, (_, s))| s.ends());
                if let Some((place, _)) = first {
                    self.processes.swap_remove(place);
                }
            }
            self.processes.push((key, Strikes::default()));
        }
        self.strikes_of(process)
    }

    fn is_held(&self) -> bool {
        self.open > 0 || self.examined > 0
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        !self.is_held()
            && self.full_at.is_none_or(|full| now >= full)
            && self.strikes.is_forgettable(now)
            && self.signs.is_forgettable(now)
            && self.fold.is_forgettable(now)
            && self
                .processes
                .iter()
                .all(|(_, strikes)| strikes.is_forgettable(now))
    }

    fn is_under_penalty(&self, now: Instant) -> bool {
        self.strikes.left(now).is_some()
            || self
                .processes
                .iter()
                .any(|(_, strikes)| strikes.left(now).is_some())
    }
}

/// All accounts.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    places: HashMap<Key, u32>,
    slots: Vec<Account>,
    free: Vec<u32>,
    oldest: Option<u32>,
    newest: Option<u32>,
    idle: usize,
}

impl Ledger {
    /// The account, if there is one.
    pub(super) fn find(&mut self, key: Key) -> Option<&mut Account> {
        let place = *self.places.get(&key)?;
        self.get(place)
    }

    /// The account at a place that was given out while it had something open.
    pub(super) fn get(&mut self, place: u32) -> Option<&mut Account> {
        self.slots.get_mut(place as usize)
    }

    /// The account, made if there is none. `None` if there are 2^32 of them.
    ///
    /// The caller ends with [`settle`](Self::settle).
    pub(super) fn open(&mut self, key: Key, limits: &Limits, now: Instant) -> Option<u32> {
        if let Some(place) = self.places.get(&key) {
            let place = *place;
            self.unlist(place);
            return Some(place);
        }
        if self.idle >= limits.remembered {
            self.forget_one(now);
        }
        let place = match self.free.pop() {
            Some(place) => {
                *self.get(place)? = Account::new(key);
                place
            }
            None => {
                let place = u32::try_from(self.slots.len())
                    .ok()
                    .filter(|place| *place != NONE)?;
                self.slots.push(Account::new(key));
                place
            }
        };
        self.places.insert(key, place);
        Some(place)
    }

    /// Puts an account where it belongs after something changed in it.
    pub(super) fn settle(&mut self, place: u32, limits: &Limits, now: Instant) {
        self.unlist(place);
        let Some(account) = self.get(place) else {
            return;
        };
        if account.is_held() {
            return;
        }
        if account.is_forgettable(now) || limits.remembered == 0 {
            return self.remove(place);
        }
        while self.idle >= limits.remembered {
            self.forget_one(now);
        }
        self.list(place);
    }

    /// How many accounts there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// All accounts that are in use.
    pub(super) fn accounts(&mut self) -> impl Iterator<Item = &mut Account> {
        let places = &self.places;
        let used = |(place, account): &(usize, &mut Account)| {
            places
                .get(&account.key)
                .is_some_and(|known| *known as usize == *place)
        };
        self.slots
            .iter_mut()
            .enumerate()
            .filter(used)
            .map(|(_, account)| account)
    }

    fn forget_one(&mut self, now: Instant) {
        let mut first_to_end: Option<(Option<Instant>, u32)> = None;
        let mut next = self.oldest;
        for _ in 0..CANDIDATES {
            let Some(place) = next else { break };
            let Some(account) = self.slots.get(place as usize) else {
                break;
            };
            if !account.is_under_penalty(now) {
                first_to_end = Some((None, place));
                break;
            }
            let ends = account.processes.iter().map(|(_, strikes)| strikes.ends());
            let ends = ends.chain([account.strikes.ends()]).max().flatten();
            if first_to_end.is_none_or(|(first, _)| ends < first) {
                first_to_end = Some((ends, place));
            }
            next = Some(account.newer).filter(|place| *place != NONE);
        }
        if let Some((_, place)) = first_to_end {
            self.unlist(place);
            self.remove(place);
        } else {
            self.idle = 0;
        }
    }

    fn remove(&mut self, place: u32) {
        let Some(account) = self.slots.get_mut(place as usize) else {
            return;
        };
        account.processes = Vec::new();
        let key = account.key;
        self.places.remove(&key);
        self.free.push(place);
    }

    /// Appends to the list of those with nothing open.
    fn list(&mut self, place: u32) {
        let newest = self.newest.replace(place);
        if let Some(before) = newest.and_then(|newest| self.get(newest)) {
            before.newer = place;
        }
        if self.oldest.is_none() {
            self.oldest = Some(place);
        }
        let Some(account) = self.get(place) else {
            return;
        };
        (account.older, account.newer) = (newest.unwrap_or(NONE), NONE);
        account.listed = true;
        self.idle = self.idle.saturating_add(1);
    }

    fn unlist(&mut self, place: u32) {
        let Some(account) = self.get(place).filter(|account| account.listed) else {
            return;
        };
        account.listed = false;
        let (older, newer) = (account.older, account.newer);
        match self.get(older) {
            Some(before) => before.newer = newer,
            None => self.oldest = Some(newer).filter(|place| *place != NONE),
        }
        match self.get(newer) {
            Some(after) => after.older = older,
            None => self.newest = Some(older).filter(|place| *place != NONE),
        }
        self.idle = self.idle.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uid;
    use std::time::Duration;

    fn key(uid: u32) -> Key {
        Key {
            who: Who::User(Uid::from_raw(uid).unwrap()),
            exception: 0,
        }
    }

    fn limits() -> Limits {
        Limits {
            remembered: 100,
            denials_before_penalty: 2,
            ..Limits::default()
        }
    }

    fn deny(ledger: &mut Ledger, uid: u32, times: usize, now: Instant) {
        let limits = limits();
        let place = ledger.open(key(uid), &limits, now).unwrap();
        for _ in 0..times {
            let _ = ledger.get(place).unwrap().strikes.strike(&limits, now);
        }
        ledger.settle(place, &limits, now);
    }

    #[test]
    fn what_is_worthless_is_forgotten_at_once() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let place = ledger.open(key(1), &limits(), now).unwrap();
        ledger.get(place).unwrap().open = 1;
        ledger.settle(place, &limits(), now);
        assert_eq!(ledger.len(), 1);
        ledger.get(place).unwrap().open = 0;
        ledger.settle(place, &limits(), now);
        assert_eq!((ledger.len(), ledger.idle, ledger.free.len()), (0, 0, 1));
    }

    #[test]
    fn a_million_strangers_take_a_bounded_number_of_accounts() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        deny(&mut ledger, 7, 2, now);
        for uid in 1_000..1_001_000 {
            deny(&mut ledger, uid, 1, now);
        }
        assert_eq!((ledger.len(), ledger.idle), (100, 100));
        assert!(ledger.slots.len() <= 102, "{}", ledger.slots.len());
        assert!(
            ledger.find(key(7)).unwrap().strikes.left(now).is_some(),
            "penalty pushed out"
        );
    }

    #[test]
    fn among_penalties_the_first_to_end_makes_room() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        for uid in 0..100 {
            deny(
                &mut ledger,
                uid,
                2,
                start + Duration::from_millis(u64::from(uid)),
            );
        }
        deny(&mut ledger, 500, 2, start + Duration::from_secs(1));
        assert_eq!(ledger.len(), 100);
        assert!(ledger.find(key(0)).is_none());
        assert!(ledger.find(key(1)).is_some());
        assert!(ledger.find(key(500)).is_some());
    }

    #[test]
    fn the_list_survives_any_order() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let mut state = 88_172_645_463_325_252_u64;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let uid = u32::try_from((state >> 20) % 300).unwrap();
            if state.is_multiple_of(3) {
                deny(&mut ledger, uid, 1, now);
            } else if let Some(place) = ledger.open(key(uid), &limits(), now) {
                ledger.get(place).unwrap().open = u32::from(state.is_multiple_of(2));
                ledger.settle(place, &limits(), now);
            }
            let listed = ledger.slots.iter().filter(|account| account.listed).count();
            assert_eq!(listed, ledger.idle);
        }
        let mut seen = 0;
        let mut next = ledger.oldest;
        while let Some(place) = next {
            seen += 1;
            next = Some(ledger.slots[place as usize].newer).filter(|place| *place != NONE);
        }
        assert_eq!(seen, ledger.idle);
        assert!(ledger.idle <= 100);
    }

    #[test]
    fn processes_of_one_user_are_bounded() {
        let now = Instant::now();
        let mut account = Account::new(key(1));
        for number in 1..1_000 {
            let pid = crate::ids::Pid::from_raw(number).unwrap();
            let process = Some(ProcessKey { pid, identity: 0 });
            let strikes = account.strikes_for(process, now).unwrap();
            let _ = strikes.strike(&limits(), now);
        }
        assert_eq!(account.processes.len(), PROCESSES_PER_UID);
    }
}
