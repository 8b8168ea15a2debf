//! Says what was decided: to the log, and to an observer (trail, metrics).

use std::fmt;
use std::io;
use std::time::Duration;

use crate::admission::{Abuse, AbuseNoticed, PassedOver, PenaltyStarted, Refusal, Subject};
use crate::peer::{Facts, ProcessFacts};
use crate::policy::Denial;
use crate::service::{CloseReason, Connection};

/// Watches all decisions, from the threads that make them. Must not block for long.
pub trait Observer: Send + Sync {
    /// A peer was admitted; it is served only after this returned.
    ///
    /// # Errors
    /// Any error denies the connection: a decision that can't be recorded is none.
    fn admitted(&self, _connection: &Connection) -> io::Result<()> {
        Ok(())
    }

    /// A peer was denied by the policy, or for lack of a proof.
    fn denied(&self, _id: u64, _facts: &Facts, _denial: &Denial) {}

    /// A peer was refused by a limit. Called for each, told or not.
    fn refused(&self, _id: u64, _subject: &Subject, _refusal: &Refusal) {}

    /// Earlier refusals that were passed over.
    fn passed_over(&self, _passed: &PassedOver) {}

    /// A penalty began.
    fn penalty(&self, _subject: &Subject, _penalty: &PenaltyStarted) {}

    /// A sign of abuse was counted.
    fn abused(&self, _subject: &Subject, _abuse: Abuse, _noticed: &AbuseNoticed) {}

    /// A connection that had been admitted is over.
    fn closed(&self, _connection: &Connection, _reason: CloseReason, _lasted: Duration) {}

    /// A connection could not be served although it was admitted.
    fn not_served(&self, _id: u64, _facts: &Facts, _why: &io::Error) {}
}

impl Observer for () {}

/// Seconds with milliseconds, as durations stand in lines.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0.as_secs(), self.0.subsec_millis())
    }
}

pub(super) fn admitted(observer: &dyn Observer, connection: &Connection) -> io::Result<()> {
    observer.admitted(connection)?;
    let authorized = connection.authorized();
    crate::info!(
        conn = connection.id();
        "peer admitted {} rule={}{}", authorized.facts(), authorized.rule_number(),
        if authorized.is_forgeable() { " (forgeable)" } else { "" }
    );
    Ok(())
}

pub(super) fn denied(observer: &dyn Observer, id: u64, facts: &Facts, denial: &Denial) {
    observer.denied(id, facts, denial);
    crate::limited!(notice, conn = id; "peer denied {facts} {denial}");
}

pub(super) fn unrecorded(observer: &dyn Observer, id: u64, facts: &Facts, error: &io::Error) {
    observer.not_served(id, facts, error);
    crate::limited!(
        error, conn = id;
        "peer denied {facts} reason=not_recorded: {error}; see that the trail can be written"
    );
}

pub(super) fn not_served(observer: &dyn Observer, id: u64, facts: &Facts, error: &io::Error) {
    observer.not_served(id, facts, error);
    crate::limited!(error, conn = id; "peer not served {facts} reason=system: {error}");
}

pub(super) fn refused(observer: &dyn Observer, id: u64, subject: &Subject, refusal: &Refusal) {
    observer.refused(id, subject, refusal);
    if refusal.report().is_some() {
        crate::notice!(conn = id; "peer refused {subject} reason={}: {refusal}", refusal.code());
    }
}

pub(super) fn passed_over(observer: &dyn Observer, passed: &PassedOver) {
    observer.passed_over(passed);
    let number = passed.number;
    let reason = passed.reason.code();
    match (passed.who, passed.process) {
        (Some(who), Some(process)) => crate::notice!(
            "{number} more connections of {who} pid={} were refused, reason={reason}",
            process.pid
        ),
        (Some(who), None) => {
            crate::notice!("{number} more connections of {who} were refused, reason={reason}");
        }
        (None, _) => crate::notice!("{number} more connections were refused, reason={reason}"),
    }
}

pub(super) fn penalty(observer: &dyn Observer, subject: &Subject, penalty: &PenaltyStarted) {
    observer.penalty(subject, penalty);
    crate::warning!("penalty for {subject}: {penalty}");
}

pub(super) fn closed(
    observer: &dyn Observer,
    connection: &Connection,
    reason: CloseReason,
    lasted: Duration,
) {
    observer.closed(connection, reason, lasted);
    let (received, sent) = connection.traffic();
    crate::info!(
        conn = connection.id();
        "connection closed reason={reason} received={received} sent={sent} lasted={}",
        Seconds(lasted)
    );
}

pub(super) fn abuse(
    observer: &dyn Observer,
    subject: &Subject,
    abuse: Abuse,
    noticed: &AbuseNoticed,
) {
    observer.abused(subject, abuse, noticed);
    if let Some(started) = &noticed.penalty {
        penalty(observer, subject, started);
    }
}

/// A pattern of abuse, once as long as it lasts: who, and what was read of the
/// process, if anything was.
pub(super) fn pattern(facts: &Facts, process: Option<&ProcessFacts>, abuse: Abuse, count: u32) {
    let exe = process.and_then(|process| process.exe.known());
    let shown = exe.map_or_else(String::new, |exe| format!(" exe={}", exe.path.display()));
    crate::warning!(
        "{facts} {abuse}: {count} times within a minute, pattern={}{shown}",
        abuse.code()
    );
}
