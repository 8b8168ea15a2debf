//! Says what was decided: to the log, and to an observer (trail, metrics).

use std::io;
use std::time::Duration;

use crate::admission::{Abuse, AbuseNoticed, PassedOver, PenaltyStarted, Refusal, Subject};
use crate::peer::{Facts, ProcessFacts};
use crate::policy::{Authorized, Denial};
use crate::service::{CloseReason, Connection};
use crate::text::ShortText;

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

/// Bytes of the longest line below: one that every connection writes twice.
const LINE: usize = 160;

pub(super) fn admitted(observer: &dyn Observer, connection: &Connection) -> io::Result<()> {
    observer.admitted(connection)?;
    let mut line = ShortText::new();
    write_admitted(&mut line, connection.authorized());
    crate::info!(conn = connection.id(); "{line}");
    Ok(())
}

fn write_admitted(line: &mut ShortText<LINE>, authorized: &Authorized) {
    line.push("peer admitted ").push_shown(authorized.facts());
    line.push(" rule=")
        .push_number(authorized.rule_number().into(), 1);
    if authorized.is_forgeable() {
        line.push(" (forgeable)");
    }
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
    let mut line = ShortText::new();
    write_closed(&mut line, connection.traffic(), reason, lasted);
    crate::info!(conn = connection.id(); "{line}");
}

fn write_closed(
    line: &mut ShortText<LINE>,
    traffic: (u64, u64),
    reason: CloseReason,
    lasted: Duration,
) {
    line.push("connection closed reason=").push(reason.code());
    line.push(" received=").push_number(traffic.0, 1);
    line.push(" sent=").push_number(traffic.1, 1);
    line.push(" lasted=").push_number(lasted.as_secs(), 1);
    line.push(".").push_number(lasted.subsec_millis().into(), 3);
    line.push("s");
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
    // The path is one that the peer may have chosen, device and inode are not.
    let shown = exe.map_or_else(String::new, |exe| {
        let (path, file) = (exe.path.display(), exe.file);
        format!(
            " exe={path} exe_device={} exe_inode={}",
            file.device, file.inode
        )
    });
    crate::warning!(
        "{facts} {abuse}: {count} times within a minute, pattern={}{shown}",
        abuse.code()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Facts, Policy};

    fn text_of(write: impl FnOnce(&mut ShortText<LINE>)) -> String {
        let mut line = ShortText::new();
        write(&mut line);
        line.as_str().to_owned()
    }

    #[test]
    fn the_lines_of_every_connection_have_room() {
        let longest = CloseReason::ALL.into_iter().map(|reason| {
            let most = u64::MAX;
            text_of(|line| write_closed(line, (most, most), reason, Duration::MAX)).len()
        });
        assert!(longest.max().unwrap() < LINE);
        let lasted = Duration::from_micros(61_002_900);
        let closed = text_of(|line| write_closed(line, (7, 0), CloseReason::Finished, lasted));
        let expect = "connection closed reason=finished received=7 sent=0 lasted=61.002s";
        assert_eq!(closed, expect);
    }

    #[test]
    fn an_admission_names_the_peer_and_the_rule() {
        let own = crate::ids::Uid::from_raw(4_294_967_294).unwrap();
        let maps = crate::peer::IdMaps::FULL;
        let peer = crate::peer::Credentials::from_raw(i32::MAX, own.as_raw(), u32::MAX, maps);
        let facts = Facts::of(crate::peer::Fact::Known(peer));
        let admitted = Policy::new(Vec::new(), Vec::new(), own)
            .check(&facts)
            .unwrap();
        assert_eq!(
            text_of(|line| write_admitted(line, &admitted)),
            "peer admitted uid=4294967294 gid=4294967295(unmapped) pid=2147483647 rule=1"
        );
    }
}
