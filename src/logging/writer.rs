//! The writer: takes many lines from the queue, renders each once for every
//! edition in use, hands them to the sinks, and sleeps.
//!
//! It naps between batches, so that callers need not wake it; after 20 naps
//! without a line it parks, and does not wake until there is one. It never
//! panics and never waits for a caller.
//!
//! Invariant: losses are said in the log: of the queue as soon as there is room,
//! of a sink as soon as it writes again, all together at the end.

use super::edition::Edition;
use super::flush::{Flush, Progress};
use super::line::{Line, Origin};
use super::loss::Loss;
use super::message::Message;
use super::outlet::Outlet;
use super::ring::Position;
use super::shared::Shared;
use super::sink::complain_at_last;
use super::site::Site;
use super::{limited, line};
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Lines taken at once.
const BATCH: usize = 1024;
/// From so many lines in one batch the next is looked for soon.
const MANY: usize = 256;
const NAP: Duration = Duration::from_micros(500);
const SHORT_NAP: Duration = Duration::from_micros(100);
/// Naps without a line before the writer parks.
const EMPTY_NAPS: u32 = 20;
/// Losses of the queue are said this often while they go on.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);
/// See the module.
pub(super) struct Writer {
    outlets: Vec<Outlet>,
    editions: Vec<Edition>,
    /// Where a line is while it is taken.
    body: Vec<u8>,
    /// The flush on its way, and the number of the last that was answered.
    flush: Option<Flush>,
    answered: u64,
    /// Dropped by the queue, not said yet.
    dropped: Loss,
    dropped_since: Option<Instant>,
    dropped_said: Option<Instant>,
}

impl Writer {
    pub(super) fn new(outlets: Vec<Outlet>, editions: Vec<Edition>) -> Self {
        Self {
            outlets,
            editions,
            body: Vec::new(),
            flush: None,
            answered: 0,
            dropped: Loss::default(),
            dropped_since: None,
            dropped_said: None,
        }
    }

    /// Serves until told to stop, and gives itself back when what was queued until
    /// then is written. Others may go on logging meanwhile.
    pub(super) fn run(mut self: Box<Self>, shared: &Shared) -> Box<Self> {
        shared.be_writer();
        let mut stop_at: Option<Position> = None;
        let mut empty_naps = 0;
        loop {
            let asked = shared.flushes.asked();
            self.begin_flush(shared, asked);
            if shared.stop.load(Ordering::SeqCst) {
                stop_at.get_or_insert_with(|| shared.queue.end());
            }
            if shared.reopen.swap(false, Ordering::SeqCst) {
                self.reopen();
            }
            let taken = self.pass(shared);
            self.answer_flush(shared);
            let asked_for = || {
                shared.flushes.asked() > asked
                    || shared.stop.load(Ordering::SeqCst)
                    || shared.reopen.load(Ordering::SeqCst)
            };
            let hurries = stop_at.is_some() || self.owes_lines(asked);
            if stop_at.is_some_and(|at| shared.queue.is_taken(at)) {
                self.finish(shared, &mut || ());
                self.answer_flush(shared);
                return self;
            } else if taken > 0 && (taken == BATCH || hurries) {
                empty_naps = 0;
            } else if hurries {
                // A caller is at its line, and was interrupted.
                shared.queue.nap(SHORT_NAP, || false);
            } else if taken > 0 {
                empty_naps = 0;
                let nap = if taken < MANY { NAP } else { SHORT_NAP };
                shared.queue.nap(nap, asked_for);
            } else if empty_naps < EMPTY_NAPS {
                empty_naps += 1;
                shared.queue.nap(NAP, asked_for);
            } else if self.outlets.iter_mut().any(Outlet::has_news) {
                // Said by the next pass.
            } else if !shared.queue.is_empty() {
                // A caller was interrupted in the middle of its line, maybe for long.
                shared.queue.nap(SHORT_NAP, asked_for);
            } else if !limited::suppressing() || limited::summarise_suppressed() {
                shared.queue.park(self.until_retry(), asked_for);
            }
        }
    }

    /// Begins a flush, if one was asked for and none is on its way.
    fn begin_flush(&mut self, shared: &Shared, asked: u64) {
        if self.flush.is_none() && asked > self.answered {
            self.flush = Some(Flush {
                number: asked,
                end: shared.queue.end(),
                taken: false,
            });
        }
    }

    /// Whether a flush waits for lines that are still in the queue. One that waits
    /// for a sink is no reason to hurry: the sink says when it wants another try.
    const fn owes_lines(&self, asked: u64) -> bool {
        match &self.flush {
            Some(flush) => !flush.taken,
            None => asked > self.answered,
        }
    }

    /// Answers the flush on its way, when its lines are written, or can't be.
    fn answer_flush(&mut self, shared: &Shared) {
        let Some(flush) = &mut self.flush else {
            return;
        };
        let number = flush.number;
        if !flush.taken {
            if !shared.queue.is_taken(flush.end) {
                return;
            }
            flush.taken = true;
            self.outlets.iter_mut().for_each(Outlet::begin_flush);
        }
        let progress = self.flush_progress();
        if progress != Progress::Waits {
            self.flush = None;
            self.answered = number;
            shared.flushes.answer(number, progress == Progress::Written);
        }
    }

    /// How far all outlets are together.
    fn flush_progress(&mut self) -> Progress {
        let mut all = Progress::Written;
        for outlet in &mut self.outlets {
            match outlet.flush_progress() {
                Progress::Failed => return Progress::Failed,
                Progress::Waits => all = Progress::Waits,
                Progress::Written => {}
            }
        }
        all
    }

    /// How long to sleep when no line comes; `None` for as long as it takes.
    fn until_retry(&self) -> Option<Duration> {
        let now = Instant::now();
        let retries = self
            .outlets
            .iter()
            .filter_map(|outlet| outlet.sink.retry_at());
        let retry = retries
            .map(|at| at.saturating_duration_since(now).max(NAP))
            .min();
        let summary = limited::suppressing().then_some(Duration::from_millis(250));
        let loss = (self.dropped.lines() > 0).then_some(LOSS_INTERVAL);
        [retry, summary, loss].into_iter().flatten().min()
    }

    /// Writes all that is queued. Gives whether what was taken is written.
    pub(super) fn drain(&mut self, shared: &Shared) -> bool {
        while self.pass(shared) > 0 {}
        self.outlets.iter_mut().for_each(Outlet::begin_flush);
        self.flush_progress() == Progress::Written
    }

    /// Writes all that is queued, and waits for callers that are at their lines, but not for ever.
    fn drain_whole(&mut self, shared: &Shared, look: &mut dyn FnMut()) {
        loop {
            if self.pass(shared) > 0 {
                continue;
            }
            look();
            if shared.queue.is_empty() || Instant::now() >= shared.stop_by() {
                return;
            }
            std::thread::sleep(SHORT_NAP);
        }
    }

    /// One batch. Gives how many lines it had.
    fn pass(&mut self, shared: &Shared) -> usize {
        let base = shared.thresholds.base();
        self.editions.iter_mut().for_each(|e| e.set_base(base));
        let queue = &shared.queue;
        let mut body = std::mem::take(&mut self.body);
        let taken = queue.drain(BATCH, &mut body, |line| self.render(line));
        self.body = body;
        let now = Instant::now();
        self.take_dropped(shared, now, taken < BATCH);
        self.say_sink_losses(shared);
        self.deliver(shared, now);
        taken
    }

    /// Renders a line in each edition that it is for.
    fn render(&mut self, line: &Line<'_>) {
        for edition in &mut self.editions {
            edition.take(line);
        }
    }

    fn deliver(&mut self, shared: &Shared, now: Instant) {
        let stops = shared.stop.load(Ordering::Relaxed);
        for outlet in &mut self.outlets {
            match self.editions.get(outlet.edition).map(Edition::lines) {
                Some(lines) if !lines.is_empty() => outlet.sink.write(lines, now),
                _ => outlet.sink.retry(now),
            }
            outlet.publish();
            if stops {
                let now = Instant::now();
                if outlet.was_tried(now) {
                    shared.put_stop_off(now);
                }
            }
        }
        self.editions.iter_mut().for_each(Edition::clear);
    }

    /// Says what the queue dropped: when there is room again, and at intervals
    /// while there is none.
    fn take_dropped(&mut self, shared: &Shared, now: Instant, room: bool) {
        if let Some(loss) = shared.queue.dropped.take() {
            for edition in &mut self.editions {
                edition.skip(&loss, &shared.thresholds);
            }
            self.dropped.merge(&loss);
            self.dropped_since.get_or_insert(now);
            shared.count_dropped(&loss);
        }
        let is_long_ago = |at: Instant| now.duration_since(at) >= LOSS_INTERVAL;
        let due = (room && self.dropped_said.is_none_or(is_long_ago))
            || self.dropped_since.is_some_and(is_long_ago);
        if due {
            self.say_dropped(shared, now);
        }
    }

    fn say_dropped(&mut self, shared: &Shared, now: Instant) {
        let loss = std::mem::take(&mut self.dropped);
        self.dropped_since = None;
        if loss.lines() > 0 {
            self.dropped_said = Some(now);
            self.say(shared, format_args!("lost {loss}: the log queue was full"));
        }
    }

    fn say_sink_losses(&mut self, shared: &Shared) {
        for index in 0..self.outlets.len() {
            while let Some(message) = self.outlets.get_mut(index).and_then(|o| o.news(shared)) {
                self.say(shared, format_args!("{message}"));
            }
        }
    }

    /// Puts a line of our own behind those of the batch.
    fn say(&mut self, shared: &Shared, message: fmt::Arguments<'_>) {
        fn say() {}
        static SITE: Site = crate::__log_site!(Warning, say);
        let mut text = Message::new(&shared.queue.pool);
        // Nothing that is said here has a Display that panics.
        let _ = text.format(message);
        let (severity, origin) = (SITE.severity(), Origin::Site(&SITE));
        self.render(&Line::new(
            severity,
            line::NO_SCOPE,
            None,
            origin,
            text.bytes(),
        ));
    }

    fn reopen(&mut self) {
        let now = Instant::now();
        for outlet in &mut self.outlets {
            outlet.sink.reopen(now);
        }
    }

    /// Waits for sinks that are behind, as long as one takes something now and then, and
    /// the stop need not hurry. Takes no more lines from the queue: whoever goes on
    /// logging would keep them behind. `look` may make it hurry.
    fn finish(&mut self, shared: &Shared, look: &mut dyn FnMut()) {
        for outlet in &mut self.outlets {
            outlet.sink.try_at_last();
        }
        while self.waiting() > 0 {
            look();
            self.say_sink_losses(shared);
            self.deliver(shared, Instant::now());
            let end = shared.stop_by();
            if Instant::now() >= end || !self.outlets.iter_mut().any(|o| o.has_hope(end)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn waiting(&mut self) -> usize {
        self.outlets.iter_mut().map(Outlet::waiting).sum()
    }

    /// Writes the last lines and says what was lost in all. No line comes any more
    /// but of callers that have a place in the queue. `look` is called while it waits.
    pub(super) fn close(&mut self, shared: &Shared, look: &mut dyn FnMut()) {
        self.drain_whole(shared, look);
        self.finish(shared, look);
        self.say_dropped(shared, Instant::now());
        self.deliver(shared, Instant::now());
        for outlet in &mut self.outlets {
            outlet.give_up(shared);
        }
        let lost = shared.lost();
        if lost.lines() > 0 {
            self.say(shared, format_args!("lost in all {lost}"));
            self.deliver(shared, Instant::now());
            complain_at_last(&format!("lost in all {lost}"));
        }
    }
}
