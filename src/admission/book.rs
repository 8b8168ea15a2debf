//! What is counted: the accounts, what is due to be told, and the bounds in force.
//!
//! Not here: the lock around it, and tickets (the parent).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ledger::{Account, Key, Ledger};
use super::limits::Prospect;
use super::penalties::penalty_of;
use super::refusal::Fold;
use super::{
    Abuse, Exception, Limits, PassedOver, PenaltyStarted, Rate, Refusal, RefusalReason, Subject,
    Told,
};

/// What is counted, under one lock.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) limits: Arc<Limits>,
    pub(super) ledger: Ledger,
    pub(super) full: Fold,
    /// Whether a fold may hold something.
    pub(super) holds: bool,
    pub(super) penalties: u64,
    pub(super) abuse: [u64; Abuse::ALL.len()],
}

impl Book {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits: Arc::new(limits),
            ledger: Ledger::default(),
            full: Fold::default(),
            holds: false,
            penalties: 0,
            abuse: [0; Abuse::ALL.len()],
        }
    }

    pub(super) fn enter(
        &mut self,
        subject: &Subject,
        exception: Option<usize>,
        open: usize,
        now: Instant,
    ) -> Result<u32, Refusal> {
        let limits = Arc::clone(&self.limits);
        let excepted = exception.and_then(|number| limits.exceptions.get(number));
        let main = Key {
            who: subject.who,
            exception: 0,
        };
        if excepted.is_some()
            && let Some(refusal) = self
                .ledger
                .find(main)
                .and_then(|account| penalty_of(account, subject, now))
        {
            self.holds = true;
            return Err(refusal);
        }
        if open >= limits.max_connections {
            let reason = RefusalReason::ServerFull {
                limit: limits.max_connections,
            };
            self.holds = true;
            return Err(self.full.refuse(reason, now));
        }
        let key = key_of(subject, excepted);
        let full = || Refusal {
            reason: RefusalReason::ServerFull {
                limit: limits.max_connections,
            },
            told: Told::Now { passed_over: 0 },
        };
        let place = self.ledger.open(key, &limits, now).ok_or_else(full)?;
        let account = self.ledger.get(place).ok_or_else(full)?;
        let (connections, rate) = match excepted {
            Some(one) => (one.connections, one.rate),
            None => (limits.per_uid, limits.rate_per_uid),
        };
        let result = penalty_of(account, subject, now)
            .map_or_else(|| take(account, connections, rate, now), Err);
        self.holds |= result.is_err();
        self.ledger.settle(place, &limits, now);
        result.map(|()| place)
    }

    /// One more of a user may be examined while all of his that are, with what he has
    /// open, are within his share. Where exceptions may still hold for this one, what is left
    /// of those is added; but of the places beyond the share half stay for others, unless
    /// that were all: one is lent at least. A share of all places bounds nobody here.
    pub(super) fn examine(
        &mut self,
        subject: &Subject,
        prospect: &Prospect,
        now: Instant,
    ) -> Result<u32, Refusal> {
        let limits = Arc::clone(&self.limits);
        let number = |number: usize| limits.exceptions.get(number);
        let excepted = prospect.certain.and_then(number);
        // The bound of the whole server is kept where connections open: there one waits
        // for it, or is refused.
        let share = excepted
            .map_or(limits.per_uid, |one| one.connections)
            .filter(|share| *share < limits.max_connections);
        let possible = prospect.possible.iter().copied().filter_map(number);
        let left = possible
            .map(|one| self.left_of(subject, one))
            .fold(0, usize::saturating_add);
        let beyond = limits.max_connections.saturating_sub(share.unwrap_or(0));
        let lent = left.min((beyond / 2).max(1));
        let full = || Refusal {
            reason: RefusalReason::ServerFull {
                limit: limits.max_connections,
            },
            told: Told::Now { passed_over: 0 },
        };
        let key = key_of(subject, excepted);
        let place = self.ledger.open(key, &limits, now).ok_or_else(full)?;
        let account = self.ledger.get(place).ok_or_else(full)?;
        // After a reload more may be open than the share; that takes nothing from exceptions.
        let open = (account.open as usize).min(share.unwrap_or(usize::MAX));
        let taken = open.saturating_add(account.examined as usize);
        let result = share_left(account, taken, lent, share, now);
        if result.is_ok() {
            account.examined = account.examined.saturating_add(1);
        }
        self.holds |= result.is_err();
        self.ledger.settle(place, &limits, now);
        result.map(|()| place)
    }

    /// What an exception still leaves to a user.
    fn left_of(&mut self, subject: &Subject, exception: &Exception) -> usize {
        let Some(connections) = exception.connections else {
            return usize::MAX;
        };
        let taken = self
            .ledger
            .find(key_of(subject, Some(exception)))
            .map_or(0, |account| account.open.saturating_add(account.examined));
        connections.saturating_sub(taken as usize)
    }

    /// One at that place is examined no more.
    pub(super) fn end_examination(&mut self, place: u32, now: Instant) {
        if let Some(account) = self.ledger.get(place) {
            account.examined = account.examined.saturating_sub(1);
        }
        self.ledger.settle(place, &self.limits, now);
    }

    pub(super) fn change<T>(
        &mut self,
        subject: &Subject,
        limits: &Limits,
        now: Instant,
        change: impl FnOnce(&mut Account) -> Option<T>,
    ) -> Option<T> {
        let key = Key {
            who: subject.who,
            exception: 0,
        };
        let place = self.ledger.open(key, limits, now)?;
        let result = self.ledger.get(place).and_then(change);
        self.ledger.settle(place, limits, now);
        result
    }

    pub(super) fn begun(&mut self, length: Duration, subject: &Subject) -> PenaltyStarted {
        self.penalties = self.penalties.saturating_add(1);
        PenaltyStarted {
            length,
            process: subject.process.is_some(),
        }
    }

    pub(super) fn sweep(&mut self, now: Instant, all: bool) -> Vec<PassedOver> {
        if !std::mem::take(&mut self.holds) {
            return Vec::new();
        }
        let mut told = Vec::new();
        let mut holds = false;
        for account in self.ledger.accounts() {
            let who = Some(account.key.who);
            let mut add = |process, (reason, number)| {
                told.push(PassedOver {
                    who,
                    process,
                    reason,
                    number,
                });
            };
            if let Some(found) = account.fold.sweep(now, all) {
                add(None, found);
            }
            let own = (None, &mut account.strikes);
            let processes = account.processes.iter_mut().map(|(key, s)| (Some(*key), s));
            for (process, strikes) in processes.chain([own]) {
                if (all || strikes.left(now).is_none())
                    && let Some(found) = strikes.fold.sweep(now, true)
                {
                    add(process, found);
                }
                holds |= strikes.fold.holds();
            }
            holds |= account.fold.holds();
        }
        if let Some((reason, number)) = self.full.sweep(now, all) {
            told.push(PassedOver {
                who: None,
                process: None,
                reason,
                number,
            });
        }
        self.holds = holds || self.full.holds();
        told
    }
}

/// Counts one more open connection and takes one token.
fn take(
    account: &mut Account,
    connections: Option<usize>,
    rate: Option<Rate>,
    now: Instant,
) -> Result<(), Refusal> {
    share_left(account, account.open as usize, 0, connections, now)?;
    if let Some(rate) = rate {
        let full_at = account.full_at.map_or(now, |full| full.max(now));
        let missing = full_at.saturating_duration_since(now);
        let room = rate.step().saturating_mul(rate.count().saturating_sub(1));
        if missing > room {
            let wait = missing.saturating_sub(room);
            return Err(account.fold.refuse(RefusalReason::UidRate { wait }, now));
        }
        account.full_at = full_at.checked_add(rate.step());
    }
    account.open = account.open.saturating_add(1);
    Ok(())
}

/// Whether one more may be added to so many, where others lend something to the share.
fn share_left(
    account: &mut Account,
    taken: usize,
    lent: usize,
    connections: Option<usize>,
    now: Instant,
) -> Result<(), Refusal> {
    match connections {
        Some(limit) if taken >= limit.saturating_add(lent) => Err(account
            .fold
            .refuse(RefusalReason::UidConnections { limit }, now)),
        _ => Ok(()),
    }
}

fn key_of(subject: &Subject, excepted: Option<&Exception>) -> Key {
    Key {
        who: subject.who,
        exception: excepted.map_or(0, |one| number_of(one.rule.text())),
    }
}

/// A number that stays the same over reloads. Rules are the administrator's own,
/// so nobody else can choose two to be equal.
fn number_of(rule: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    rule.hash(&mut hasher);
    hasher.finish().max(1)
}
