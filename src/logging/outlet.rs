//! A sink as the writer sees it: which edition it gets, what it counts for
//! others, and what is to be said of it in the log.

use super::flush::Progress;
use super::loss::Loss;
use super::shared::{STOP_LIMIT, Shared, SinkState};
use super::sink::Sink;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// See the module.
pub(super) struct Outlet {
    pub(super) sink: Box<dyn Sink>,
    state: Arc<SinkState>,
    /// Index into the writer's editions.
    pub(super) edition: usize,
    /// Its failure was said.
    announced: bool,
    /// Lines of which the loss was said.
    lost: u64,
    /// The end of the lines that a flush waits for.
    flush_end: u64,
    /// In a stop, after the first try.
    patience: Option<Patience>,
}

/// How long a stop waits for a sink.
struct Patience {
    /// When the sink was last tried, and what it had taken by then.
    tried: Instant,
    taken: u64,
    /// When it last took something, or the stop began.
    since: Instant,
}

impl Outlet {
    pub(super) fn new(sink: Box<dyn Sink>, state: Arc<SinkState>, edition: usize) -> Self {
        Self {
            sink,
            state,
            edition,
            announced: false,
            lost: 0,
            flush_end: 0,
            patience: None,
        }
    }

    /// A flush waits for all that is here now.
    pub(super) fn begin_flush(&mut self) {
        self.flush_end = self.sink.backlog().end();
    }

    /// How far that flush is. A sink on another machine is not waited for.
    pub(super) fn flush_progress(&mut self) -> Progress {
        if !self.sink.is_local() {
            return Progress::Written;
        }
        let end = self.flush_end;
        let backlog = self.sink.backlog();
        if backlog.failure().is_some() {
            Progress::Failed
        } else if backlog.is_past(end) {
            Progress::Written
        } else {
            Progress::Waits
        }
    }

    /// Stores what the sink counts.
    pub(super) fn publish(&mut self) {
        let counters = &self.state.counters;
        let backlog = self.sink.backlog();
        counters
            .written
            .fetch_add(backlog.take_written(), Ordering::Relaxed);
        let waiting = u64::try_from(backlog.len()).unwrap_or(u64::MAX);
        counters.waiting.store(waiting, Ordering::Relaxed);
        let lost = self.lost + backlog.loss().lines();
        counters.lost.store(lost, Ordering::Relaxed);
    }

    /// Lines that wait.
    pub(super) fn waiting(&mut self) -> usize {
        self.sink.backlog().len()
    }

    /// Whether there is something to be said of the sink.
    pub(super) fn has_news(&mut self) -> bool {
        let announced = self.announced;
        let backlog = self.sink.backlog();
        match backlog.failure() {
            Some(_) => !announced,
            None => backlog.is_empty() && backlog.loss().lines() > 0,
        }
    }

    /// What is to be said of the sink: that it fails, once; and what it lost,
    /// when it writes again.
    pub(super) fn news(&mut self, shared: &Shared) -> Option<String> {
        if let Some(notice) = self.sink.take_notice() {
            return Some(notice);
        }
        let backlog = self.sink.backlog();
        if let Some(cause) = backlog.failure() {
            if std::mem::replace(&mut self.announced, true) {
                return None;
            }
            return Some(format!("{}: {cause}", self.state.name));
        }
        if !backlog.is_empty() {
            return None;
        }
        self.announced = false;
        let (loss, cause) = self.take_loss(shared)?;
        Some(format!("{}: lost {loss}: {cause}", self.state.name))
    }

    /// Notes a try in a stop. Gives whether the sink took something since the last.
    pub(super) fn was_tried(&mut self, now: Instant) -> bool {
        let taken = self.sink.backlog().taken();
        let patience = self.patience.get_or_insert(Patience {
            tried: now,
            taken,
            since: now,
        });
        let took = taken != patience.taken;
        (patience.tried, patience.taken) = (now, taken);
        if took {
            patience.since = now;
        }
        took
    }

    /// Whether a stop waits for it: it takes something now and then, and tries again
    /// before it would be given up.
    pub(super) fn has_hope(&mut self, stop_by: Instant) -> bool {
        let Some(patience) = &self.patience else {
            return self.waiting() > 0;
        };
        let until = patience.since + STOP_LIMIT;
        // Others may have held up the writer since it was tried.
        let is_patient = patience.tried < until;
        let retry_at = self.sink.retry_at();
        is_patient && self.waiting() > 0 && retry_at.is_none_or(|at| at < until.min(stop_by))
    }

    /// Gives up what waits, for the end; but a line that is partly written may yet be
    /// ended, so that the last words of all do not begin in it.
    pub(super) fn give_up(&mut self, shared: &Shared) {
        self.sink.backlog().lose_but_torn("the logger stopped");
        self.take_loss(shared);
    }

    fn take_loss(&mut self, shared: &Shared) -> Option<(Loss, String)> {
        let backlog = self.sink.backlog();
        if backlog.loss().lines() == 0 {
            return None;
        }
        let (loss, cause) = backlog.take_loss();
        self.lost += loss.lines();
        self.publish();
        shared.count_lost(&loss);
        Some((loss, cause))
    }
}
