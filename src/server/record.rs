//! Writes every decision to the trail.
//!
//! An admission that can't be written is none: its error denies the connection.
//! Whatever else can't be written is said in the log, as nothing can be undone.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::journal::Observer;
use crate::admission::{PassedOver, PenaltyStarted, Refusal, Subject, Who};
use crate::peer::Facts;
use crate::policy::Denial;
use crate::service::{CloseReason, Connection};
use crate::trail::{Event, Peer, Trail};

/// The observer that keeps the trail.
#[derive(Debug)]
pub struct Recorder {
    trail: Arc<Trail>,
}

impl Recorder {
    /// Writes to this trail.
    pub fn new(trail: Arc<Trail>) -> Self {
        Self { trail }
    }

    fn record(&self, event: &Event<'_>) {
        if let Err(error) = self.trail.append(event) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            crate::limited!(
                error,
                "{error} ({}): {}",
                self.trail.path().display(),
                cause.unwrap_or_default()
            );
        }
    }
}

impl Observer for Recorder {
    fn admitted(&self, connection: &Connection) -> io::Result<()> {
        let authorized = connection.authorized();
        let event = Event::Admit {
            connection: connection.id(),
            peer: Peer::Facts(authorized.facts()),
            rule: &authorized.rule(),
        };
        self.trail.append(&event).map_err(io::Error::other)
    }

    fn denied(&self, id: u64, facts: &Facts, denial: &Denial) {
        let cause = denial
            .cause
            .map(|(kind, why)| format!("{}: {why}", kind.word()));
        self.record(&Event::Deny {
            connection: Some(id),
            peer: Peer::Facts(facts),
            rule: denial.rule.as_ref(),
            reason: denial.reason.code(),
            detail: cause.as_ref().map(|cause| cause as &dyn fmt::Display),
            others: 0,
        });
    }

    fn refused(&self, id: u64, subject: &Subject, refusal: &Refusal) {
        let Some(others) = refusal.report() else {
            return;
        };
        self.record(&Event::Deny {
            connection: Some(id),
            peer: Peer::Who(subject),
            rule: None,
            reason: refusal.code(),
            detail: Some(&refusal.reason),
            others,
        });
    }

    fn passed_over(&self, passed: &PassedOver) {
        self.record(&Event::Deny {
            connection: None,
            peer: Peer::Who(&Passed(passed)),
            rule: None,
            reason: passed.reason.code(),
            detail: None,
            others: passed.number.saturating_sub(1),
        });
    }

    fn penalty(&self, subject: &Subject, penalty: &PenaltyStarted) {
        self.record(&Event::Penalty {
            peer: Peer::Who(subject),
            length: penalty.length,
        });
    }

    fn closed(&self, connection: &Connection, reason: CloseReason, lasted: Duration) {
        let (received, sent) = connection.traffic();
        self.record(&Event::Close {
            connection: connection.id(),
            peer: Peer::Ids(connection.authorized().facts()),
            reason: reason.code(),
            received,
            sent,
            duration: lasted,
        });
    }

    fn not_served(&self, id: u64, facts: &Facts, why: &io::Error) {
        self.record(&Event::Deny {
            connection: Some(id),
            peer: Peer::Ids(facts),
            rule: None,
            reason: "not_served",
            detail: Some(why),
            others: 0,
        });
    }
}

/// Who was refused, as [`Subject`] shows it.
struct Passed<'a>(&'a PassedOver);

impl fmt::Display for Passed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.who {
            Some(who) => <Who as fmt::Display>::fmt(&who, f)?,
            None => f.write_str("anyone")?,
        }
        match self.0.process {
            Some(process) => write!(f, " pid={}", process.pid),
            None => Ok(()),
        }
    }
}
