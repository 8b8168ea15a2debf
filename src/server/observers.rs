//! Several observers as one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::journal::Observer;
use crate::admission::{Abuse, AbuseNoticed, PassedOver, PenaltyStarted, Refusal, Subject};
use crate::peer::Facts;
use crate::policy::Denial;
use crate::service::{CloseReason, Connection};

/// Tells each in turn. The first that can't record an admission ends the round:
/// so whoever may fail comes first.
impl Observer for Vec<Arc<dyn Observer>> {
    fn admitted(&self, connection: &Connection) -> io::Result<()> {
        self.iter().try_for_each(|one| one.admitted(connection))
    }

    fn denied(&self, id: u64, facts: &Facts, denial: &Denial) {
        self.iter().for_each(|one| one.denied(id, facts, denial));
    }

    fn refused(&self, id: u64, subject: &Subject, refusal: &Refusal) {
        self.iter()
            .for_each(|one| one.refused(id, subject, refusal));
    }

    fn passed_over(&self, passed: &PassedOver) {
        self.iter().for_each(|one| one.passed_over(passed));
    }

    fn penalty(&self, subject: &Subject, penalty: &PenaltyStarted) {
        self.iter().for_each(|one| one.penalty(subject, penalty));
    }

    fn abused(&self, subject: &Subject, abuse: Abuse, noticed: &AbuseNoticed) {
        self.iter()
            .for_each(|one| one.abused(subject, abuse, noticed));
    }

    fn closed(&self, connection: &Connection, reason: CloseReason, lasted: Duration) {
        self.iter()
            .for_each(|one| one.closed(connection, reason, lasted));
    }

    fn not_served(&self, id: u64, facts: &Facts, why: &io::Error) {
        self.iter().for_each(|one| one.not_served(id, facts, why));
    }
}
