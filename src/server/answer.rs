//! What the process checker is asked for, and what came of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::recheck::MARGIN;
use crate::peer::{Inspector, Needs, Peer, ProcessFacts, Unreadable};
use crate::service::{Wait, Waker};
use crate::sys;

/// How often an answer, or a place, is looked for that nobody will tell of.
pub(super) const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Where the checker puts what it read, and until when that is waited for.
pub(super) struct Answer {
    place: Arc<Mutex<Option<ProcessFacts>>>,
    needs: Needs,
    until: Instant,
}

impl Answer {
    /// Asks the checker, which wakes whoever waits.
    pub(super) fn ask(
        inspector: &Inspector,
        peer: &Peer,
        needs: Needs,
        waker: Option<&Waker>,
        now: Instant,
    ) -> Self {
        let patience = inspector.patience().saturating_add(MARGIN);
        let answer = Self {
            place: Arc::default(),
            needs,
            until: sys::time::after(now, patience),
        };
        let (place, waker) = (Arc::clone(&answer.place), waker.cloned());
        let on_done = move |facts| {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
            if let Some(waker) = waker {
                waker.wake();
            }
        };
        inspector.learn_later(peer, needs, Box::new(on_done));
        answer
    }

    /// What has come. A checker that does not answer in time at all is a busy one.
    pub(super) fn take(&self, now: Instant) -> Option<ProcessFacts> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let late = || ProcessFacts::all_unreadable(self.needs, Unreadable::Busy);
        place.take().or_else(|| (now >= self.until).then(late))
    }

    /// The checker wakes whoever waits for its answer. Without a waker, because there
    /// was no descriptor for one or because the rules asked for none a moment ago, it
    /// has to be looked for.
    pub(super) fn wait(&self, waker: Option<&Waker>, now: Instant) -> Wait {
        let look = waker.is_none().then(|| now + BETWEEN_LOOKS);
        Wait {
            until: Some(look.map_or(self.until, |look| look.min(self.until))),
            ..Wait::default()
        }
    }
}
