//! The place that an admitted connection holds, and that of a peer under examination.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Admission, Book};

/// One admitted connection; its drop gives the place back.
#[derive(Debug)]
#[must_use = "the place is given back when the ticket is dropped"]
pub(crate) struct Ticket {
    pub(super) admission: Arc<Admission>,
    pub(super) place: u32,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut book = self.admission.book();
        let Book { limits, ledger, .. } = &mut *book;
        if let Some(account) = ledger.get(self.place) {
            account.open = account.open.saturating_sub(1);
        }
        ledger.settle(self.place, limits, now);
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One peer under examination; its drop gives the share of its user back.
#[derive(Debug)]
#[must_use = "the share is given back when this is dropped"]
pub(crate) struct Examined {
    pub(super) admission: Arc<Admission>,
    pub(super) place: u32,
}

impl Drop for Examined {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut book = self.admission.book();
        let Book { limits, ledger, .. } = &mut *book;
        if let Some(account) = ledger.get(self.place) {
            account.examined = account.examined.saturating_sub(1);
        }
        ledger.settle(self.place, limits, now);
    }
}
