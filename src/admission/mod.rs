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
//! open connections, besides those of peers under examination: with the defaults 30 MiB in the worst case, 4 MiB where no
//! rule tells processes apart. One short lock, never held over a system call.
//! Nothing here asks a clock, except for the return of a ticket and for the pace of those
//! under a penalty.
//!
//! Not here: who may enter (`policy`), sockets, the bounds of time of one
//! connection (`service::Timeouts`), logging: every answer says whether it is to be.

#![forbid(unsafe_code)]

mod abuse;
mod book;
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
pub(crate) use ticket::{Examined, Ticket};

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use book::Book;
use ledger::Key;
use penalties::{Penalties, penalty_of};
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

impl Admission {
    /// Nothing is open yet.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            book: Mutex::new(Book::new(limits)),
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
        self.enter_in(&mut self.book(), subject, exception, &mut None, false, now)
    }

    /// As [`enter`](Self::enter), under the first of [`Limits::exceptions`] that
    /// the facts meet. `waits` says that a server that is full is nothing to be told: the
    /// caller tries again. Who enters is `examined` no more, and is never counted twice.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub(crate) fn enter_known(
        self: &Arc<Self>,
        subject: &Subject,
        facts: &Facts,
        examined: &mut Option<Examined>,
        waits: bool,
        now: Instant,
    ) -> Result<Ticket, Refusal> {
        let mut book = self.book();
        if book.limits.exceptions.is_empty() {
            return self.enter_in(&mut book, subject, None, examined, waits, now);
        }
        let limits = Arc::clone(&book.limits);
        // Rules are not gone through under the lock.
        drop(book);
        let exception = limits.exception_for(facts);
        let mut book = self.book();
        self.enter_in(&mut book, subject, exception, examined, waits, now)
    }

    /// A peer takes more than a moment to be judged, and a place meanwhile: it counts
    /// for the share of its user, together with what that has open. Where an exception may
    /// still hold for it, what that leaves counts as well, see [`Book::examine`].
    /// `waits` as in [`enter_known`](Self::enter_known).
    ///
    /// # Errors
    /// The share is used up. It counts as a sign of a flood, as in [`enter`](Self::enter).
    pub(crate) fn examine(
        self: &Arc<Self>,
        subject: &Subject,
        facts: &Facts,
        waits: bool,
        now: Instant,
    ) -> Result<Examined, Refusal> {
        let limits = Arc::clone(&self.book().limits);
        // Rules are not gone through under the lock.
        let prospect = limits.prospect(facts);
        let mut book = self.book();
        self.wait_if_full(&book, waits)?;
        let place = Some(book.examine(subject, &prospect, now)?);
        Ok(Examined {
            admission: Arc::clone(self),
            place,
        })
    }

    fn enter_in(
        self: &Arc<Self>,
        book: &mut Book,
        subject: &Subject,
        exception: Option<usize>,
        examined: &mut Option<Examined>,
        waits: bool,
        now: Instant,
    ) -> Result<Ticket, Refusal> {
        self.wait_if_full(book, waits)?;
        let place = book.enter(subject, exception, self.open(), now)?;
        if let Some(examined) = examined.take() {
            examined.give_back(book, now);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Ticket {
            admission: Arc::clone(self),
            place,
        })
    }

    fn wait_if_full(&self, book: &Book, waits: bool) -> Result<(), Refusal> {
        let limit = book.limits.max_connections;
        if waits && self.open() >= limit {
            return Err(Refusal {
                reason: RefusalReason::ServerFull { limit },
                told: Told::Later,
            });
        }
        Ok(())
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

#[cfg(test)]
mod tests;
