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
    /// `None` once it is given back.
    pub(super) place: Option<u32>,
}

impl Examined {
    /// As its drop, for who holds the lock.
    pub(super) fn give_back(mut self, book: &mut Book, now: Instant) {
        if let Some(place) = self.place.take() {
            book.end_examination(place, now);
        }
    }
}

impl Drop for Examined {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.admission.book().end_examination(place, Instant::now());
        }
    }
}
