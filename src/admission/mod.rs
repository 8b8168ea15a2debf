//! Bounds what those who connect can take: connections, rates, and how often
//! they may be denied.
//!
//! A [`Subject`] says who is counted: a user, for denials and penalties one of
//! his processes where a rule tells them apart, or a host. Each admitted
//! connection holds a `Ticket`, whose drop gives it back.
//!
//! Invariants: memory is bounded. One account is about half a KiB, and at most
//! 3 KiB more with [`PROCESSES_PER_UID`] remembered processes; there are at most
//! [`Limits::remembered`] accounts without, and [`Limits::max_connections`] with
//! open connections: with the defaults 30 MiB in the worst case, 4 MiB where no
//! rule tells processes apart. One short lock, never held over a system call.
//! Nothing here asks a clock, except for the return of a ticket and for the pace of those
//! under a penalty.
//!
//! Not here: who may enter (`policy`), sockets, the bounds of time of one
//! connection (`service::Timeouts`), logging: every answer says whether it is to be.

#![forbid(unsafe_code)]

mod abuse;
mod ledger;
mod limits;
mod penalties;
mod refusal;
mod report;
mod strikes;
mod subject;
mod tempo;
mod ticket;

pub use abuse::Abuse;
pub use ledger::PROCESSES_PER_UID;
pub(crate) use limits::LONGEST_REST;
pub use limits::{DEFAULT_REMEMBERED, Exception, Limits, Offences, Rate};
pub use refusal::{Refusal, RefusalReason, Told};
pub use report::{AbuseNoticed, PassedOver, PenaltyStarted, Snapshot};
pub use subject::{ProcessKey, Subject, Who};
pub(crate) use ticket::Ticket;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ledger::{Account, Key, Ledger};
use penalties::{Penalties, penalty_of};
use refusal::Fold;
use tempo::Tempo;

use crate::policy::Facts;

/// The book of who has what open. Shared by all threads that accept.
#[derive(Debug)]
pub(crate) struct Admission {
    book: Mutex<Book>,
    /// Written under the lock only.
    open: AtomicUsize,
    penalties: Penalties,
    tempo: Tempo,
}

#[derive(Debug)]
struct Book {
    limits: Arc<Limits>,
    ledger: Ledger,
    full: Fold,
    /// Whether a fold may hold something.
    holds: bool,
    penalties: u64,
    abuse: [u64; Abuse::ALL.len()],
}

impl Admission {
    /// Nothing is open yet.
    pub(crate) fn new(limits: Limits) -> Self {
        let book = Book {
            limits: Arc::new(limits),
            ledger: Ledger::default(),
            full: Fold::default(),
            holds: false,
            penalties: 0,
            abuse: [0; Abuse::ALL.len()],
        };
        Self {
            book: Mutex::new(book),
            open: AtomicUsize::new(0),
            penalties: Penalties::default(),
            tempo: Tempo::default(),
        }
    }

    /// Puts other bounds in force, for who comes from now on. What is open stays
    /// open and counted, penalties go on.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.book().limits = Arc::new(limits);
    }

    #[cfg(test)]
    pub(crate) fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.book().limits)
    }

    /// To be asked before anything is learnt about a peer but its credentials.
    ///
    /// # Errors
    /// The peer is under a penalty: it is to be closed unread.
    pub(crate) fn greet(&self, subject: &Subject, now: Instant) -> Result<(), Refusal> {
        if !self.penalties.may_hold(now) {
            return Ok(());
        }
        let mut book = self.book();
        let key = Key {
            who: subject.who,
            exception: 0,
        };
        let Some(account) = book.ledger.find(key) else {
            return Ok(());
        };
        let Some(refusal) = penalty_of(account, subject, now) else {
            return Ok(());
        };
        book.holds = true;
        if let Some(rate) = book.limits.penalty_rate {
            // Not the caller's time, which may be that of a whole batch.
            let step = rate.step().min(LONGEST_REST);
            self.tempo.turned_away(step, Instant::now());
        }
        Err(refusal)
    }

    /// Whether [`rest`](Self::rest) may have an answer.
    pub(crate) fn is_paced(&self) -> bool {
        self.tempo.is_set()
    }

    /// Until when nobody is to be accepted, as those under a penalty come faster than
    /// [`Limits::penalty_rate`].
    pub(crate) fn rest(&self) -> Option<Instant> {
        self.tempo.rest(Instant::now)
    }

    /// Admits a connection that the policy has admitted.
    ///
    /// # Errors
    /// Which bound is reached. It counts as a sign of a flood, see [`abused`](Self::abused).
    #[cfg(test)]
    pub(crate) fn enter(
        self: &Arc<Self>,
        subject: &Subject,
        now: Instant,
    ) -> Result<Ticket, Refusal> {
        self.enter_excepted(subject, None, now)
    }

    /// As [`enter`](Self::enter), under the bounds of [`Limits::exceptions`] with
    /// that number. An exception that is no more is none.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    #[cfg(test)]
    pub(crate) fn enter_excepted(
        self: &Arc<Self>,
        subject: &Subject,
        exception: Option<usize>,
        now: Instant,
    ) -> Result<Ticket, Refusal> {
        self.enter_in(&mut self.book(), subject, exception, now, false)
    }

    /// As [`enter`](Self::enter), under the first of [`Limits::exceptions`] that
    /// the facts meet. `waits` says that a server that is full is nothing to be told: the
    /// caller tries again.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub(crate) fn enter_known(
        self: &Arc<Self>,
        subject: &Subject,
        facts: &Facts,
        waits: bool,
        now: Instant,
    ) -> Result<Ticket, Refusal> {
        let mut book = self.book();
        if book.limits.exceptions.is_empty() {
            return self.enter_in(&mut book, subject, None, now, waits);
        }
        let limits = Arc::clone(&book.limits);
        // Rules are not gone through under the lock.
        drop(book);
        let exception = limits.exception_for(facts);
        self.enter_in(&mut self.book(), subject, exception, now, waits)
    }

    fn enter_in(
        self: &Arc<Self>,
        book: &mut Book,
        subject: &Subject,
        exception: Option<usize>,
        now: Instant,
        waits: bool,
    ) -> Result<Ticket, Refusal> {
        let open = self.open();
        if waits && open >= book.limits.max_connections {
            let limit = book.limits.max_connections;
            return Err(Refusal {
                reason: RefusalReason::ServerFull { limit },
                told: Told::Later,
            });
        }
        let place = book.enter(subject, exception, open, now)?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Ticket {
            admission: Arc::clone(self),
            place,
        })
    }

    /// Counts a denial by the policy. The penalty, if one begins with it.
    pub(crate) fn denied(&self, subject: &Subject, now: Instant) -> Option<PenaltyStarted> {
        let mut book = self.book();
        let limits = Arc::clone(&book.limits);
        if !limits.offences.denials {
            return None;
        }
        let length = book.change(subject, &limits, now, |account| {
            account
                .strikes_for(subject.process, now)?
                .strike(&limits, now)
        })?;
        self.penalties.begun(length, now);
        Some(book.begun(length, subject))
    }

    /// Counts a sign of abuse.
    pub(crate) fn abused(&self, subject: &Subject, abuse: Abuse, now: Instant) -> AbuseNoticed {
        let mut book = self.book();
        let limits = Arc::clone(&book.limits);
        if let Some(count) = book.abuse.get_mut(abuse.index()) {
            *count = count.saturating_add(1);
        }
        let mut pattern = None;
        let length = book.change(subject, &limits, now, |account| {
            pattern = account.signs.count(abuse, now);
            if !limits.offences.has(abuse) {
                return None;
            }
            account
                .strikes_for(subject.process, now)?
                .strike(&limits, now)
        });
        if let Some(length) = length {
            self.penalties.begun(length, now);
        }
        AbuseNoticed {
            pattern,
            penalty: length.map(|length| book.begun(length, subject)),
        }
    }

    /// Open connections.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether [`sweep`](Self::sweep) may have something to tell: then it is to
    /// be called within a second or so.
    pub(crate) fn has_passed_over(&self) -> bool {
        self.book().holds
    }

    /// The refusals that were passed over and are due to be told: a second after
    /// the last line, or when the penalty is over. `all`: those not yet due too,
    /// for the end of the server.
    pub(crate) fn sweep(&self, now: Instant, all: bool) -> Vec<PassedOver> {
        self.book().sweep(now, all)
    }

    /// The state, for a summary.
    pub(crate) fn snapshot(&self, now: Instant) -> Snapshot {
        let open = self.open();
        let mut book = self.book();
        let mut snapshot = Snapshot {
            open,
            max_connections: book.limits.max_connections,
            accounts: book.ledger.len(),
            penalties: book.penalties,
            abuse: book.abuse,
            ..Snapshot::default()
        };
        for account in book.ledger.accounts() {
            let processes = account.processes.iter().map(|(_, strikes)| strikes);
            let all = processes.chain([&account.strikes]);
            snapshot.under_penalty += all.filter(|strikes| strikes.left(now).is_some()).count();
            if account.open > 0 {
                snapshot.busiest.push((account.key.who, account.open));
            }
        }
        snapshot
            .busiest
            .sort_by_key(|(_, open)| std::cmp::Reverse(*open));
        snapshot.busiest.truncate(5);
        snapshot
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // No panic can leave a book half written: it only counts.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn enter(
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
        let key = excepted.map_or(main, |one| Key {
            exception: number_of(one.rule.text()),
            ..main
        });
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

    fn change<T>(
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

    fn begun(&mut self, length: Duration, subject: &Subject) -> PenaltyStarted {
        self.penalties = self.penalties.saturating_add(1);
        PenaltyStarted {
            length,
            process: subject.process.is_some(),
        }
    }

    fn sweep(&mut self, now: Instant, all: bool) -> Vec<PassedOver> {
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
    if let Some(limit) = connections
        && account.open as usize >= limit
    {
        return Err(account
            .fold
            .refuse(RefusalReason::UidConnections { limit }, now));
    }
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

/// A number that stays the same over reloads. Rules are the administrator's own,
/// so nobody else can choose two to be equal.
fn number_of(rule: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    rule.hash(&mut hasher);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests;
