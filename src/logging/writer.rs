//! The writer: takes many lines from the queue, renders each once for every
//! layout in use, hands them to the sinks, and sleeps.
//!
//! It naps between batches, so that callers need not wake it; after 20 naps
//! without a line it parks, and does not wake until there is one. It never
//! panics and never waits for a caller.
//!
//! Invariants: every line has a number, one more than the line before; what
//! was dropped takes numbers too, so that a gap shows. Losses are said in the
//! log: of the queue as soon as there is room, of a sink as soon as it writes
//! again, all together at the end.

use super::layout::Renderer;
use super::layout::time::rfc3339;
use super::line::{Line, Origin};
use super::lines::{Gate, Lines};
use super::loss::{BySeverity, Loss};
use super::message::Message;
use super::ring::Position;
use super::shared::{Shared, SinkState};
use super::sink::{Sink, complain};
use super::site::Site;
use super::{limited, line};
use std::fmt;
use std::sync::Arc;
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
/// At the end, how long sinks that make no progress are waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A sink, and how its lines look.
pub(super) struct Outlet {
    sink: Box<dyn Sink>,
    state: Arc<SinkState>,
    /// Index into the writer's renderers.
    layout: usize,
    /// Its failure was said.
    announced: bool,
    /// Lines of which the loss was said.
    lost: u64,
}

/// See the module.
pub(super) struct Writer {
    outlets: Vec<Outlet>,
    renderers: Vec<(Renderer, Lines)>,
    gates: Vec<(usize, Gate)>,
    /// Where a line is while it is taken.
    body: Vec<u8>,
    number: u64,
    /// Dropped by the queue, not said yet.
    dropped: Loss,
    dropped_since: Option<Instant>,
    dropped_said: Option<Instant>,
}

impl Writer {
    pub(super) fn new(outlets: Vec<Outlet>, renderers: Vec<Renderer>) -> Self {
        Self {
            outlets,
            renderers: renderers
                .into_iter()
                .map(|r| (r, Lines::default()))
                .collect(),
            gates: Vec::new(),
            body: Vec::new(),
            number: 0,
            dropped: Loss::default(),
            dropped_since: None,
            dropped_said: None,
        }
    }

    /// Serves until told to stop, and gives itself back, with the queue empty.
    pub(super) fn run(mut self, shared: &Shared) -> Self {
        shared.be_writer();
        let mut owed: Option<(u64, Position)> = None;
        let (mut done, mut empty_naps) = (0, 0);
        loop {
            let asked = shared.flush_asked();
            if asked > done && owed.is_none() {
                owed = Some((asked, shared.queue.end()));
            }
            let stops = shared.stop.load(Ordering::SeqCst);
            if shared.reopen.swap(false, Ordering::SeqCst) {
                self.reopen();
            }
            let taken = self.pass(shared);
            if let Some((asked, end)) = owed
                && shared.queue.is_taken(end)
            {
                owed = None;
                done = asked;
                shared.set_flushed(asked);
            }
            let asked_for = || {
                shared.flush_asked() > done
                    || shared.stop.load(Ordering::SeqCst)
                    || shared.reopen.load(Ordering::SeqCst)
            };
            let hurries = owed.is_some() || stops;
            if stops && owed.is_none() && shared.queue.is_empty() {
                self.finish(shared);
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
            } else if !limited::suppressing() || limited::summarise_suppressed() {
                shared.queue.park(self.until_retry(), asked_for);
            }
        }
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

    /// Writes all that is queued.
    pub(super) fn drain(&mut self, shared: &Shared) {
        while self.pass(shared) > 0 {}
    }

    /// One batch. Gives how many lines it had.
    fn pass(&mut self, shared: &Shared) -> usize {
        self.set_gates(shared);
        let queue = &shared.queue;
        let mut body = std::mem::take(&mut self.body);
        let taken = queue.drain(BATCH, &mut body, |line| self.render(line));
        self.body = body;
        let now = Instant::now();
        self.take_dropped(shared, now, taken < BATCH);
        self.say_sink_losses(shared);
        self.deliver(now);
        taken
    }

    fn set_gates(&mut self, shared: &Shared) {
        let base = shared.base.load(Ordering::Relaxed);
        self.gates.clear();
        self.gates.extend(self.outlets.iter().map(|outlet| {
            let level = outlet.state.level.load(Ordering::Relaxed);
            let level = (level != line::NO_SCOPE).then_some(level);
            (outlet.layout, Gate { base, level })
        }));
    }

    /// Renders a line in each layout in which a sink takes it.
    fn render(&mut self, line: &Line<'_>) {
        self.number += 1;
        for (index, (renderer, lines)) in self.renderers.iter_mut().enumerate() {
            let wanted = self
                .gates
                .iter()
                .any(|(layout, gate)| *layout == index && gate.admits(line.severity, line.scope));
            if wanted {
                renderer.render(line, self.number, &mut lines.bytes);
                lines.end_line(line);
            }
        }
    }

    fn deliver(&mut self, now: Instant) {
        for (outlet, (layout, gate)) in self.outlets.iter_mut().zip(&self.gates) {
            match self.renderers.get(*layout) {
                Some((_, lines)) if !lines.is_empty() => outlet.sink.write(lines, *gate, now),
                _ => outlet.sink.retry(now),
            }
            outlet.publish();
        }
        for (_, lines) in &mut self.renderers {
            lines.clear();
        }
    }

    /// Says what the queue dropped: when there is room again, and at intervals
    /// while there is none.
    fn take_dropped(&mut self, shared: &Shared, now: Instant, room: bool) {
        if let Some(loss) = shared.queue.dropped.take() {
            self.number += loss.lines();
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
            self.say(
                shared,
                format_args!("lost {}: the log queue was full", Lost(&loss)),
            );
        }
    }

    fn say_sink_losses(&mut self, shared: &Shared) {
        for index in 0..self.outlets.len() {
            if let Some(message) = self.outlets.get_mut(index).and_then(|o| o.news(shared)) {
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

    /// Waits for sinks that are behind as long as one of them makes progress.
    fn finish(&mut self, shared: &Shared) {
        let mut progress = Instant::now();
        let mut waiting = self.waiting();
        while waiting > 0 && progress.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
            self.pass(shared);
            let now_waiting = self.waiting();
            if now_waiting != waiting {
                progress = Instant::now();
                waiting = now_waiting;
            }
        }
    }

    fn waiting(&mut self) -> usize {
        self.outlets
            .iter_mut()
            .map(|outlet| outlet.sink.backlog().len())
            .sum()
    }

    /// Writes the last lines and says what was lost in all. No line comes any more.
    pub(super) fn close(&mut self, shared: &Shared) {
        self.drain(shared);
        self.finish(shared);
        self.say_dropped(shared, Instant::now());
        self.deliver(Instant::now());
        for outlet in &mut self.outlets {
            outlet.sink.backlog().lose_all("the logger stopped");
            outlet.take_loss(shared);
        }
        let lost = shared.lost();
        if lost.lines() > 0 {
            self.say(shared, format_args!("lost in all {}", Lost(&lost)));
            self.deliver(Instant::now());
            complain(&format!("lost in all {}", Lost(&lost)));
        }
    }
}

impl Outlet {
    pub(super) fn new(sink: Box<dyn Sink>, state: Arc<SinkState>, layout: usize) -> Self {
        Self {
            sink,
            state,
            layout,
            announced: false,
            lost: 0,
        }
    }

    /// Stores what the sink counts.
    fn publish(&mut self) {
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

    /// Whether there is something to be said of the sink.
    fn has_news(&mut self) -> bool {
        let announced = self.announced;
        let backlog = self.sink.backlog();
        match backlog.failure() {
            Some(_) => !announced,
            None => backlog.is_empty() && backlog.loss().lines() > 0,
        }
    }

    /// What is to be said of the sink: that it fails, once; and what it lost,
    /// when it writes again.
    fn news(&mut self, shared: &Shared) -> Option<String> {
        if let Some(notice) = self.sink.take_notice() {
            return Some(notice);
        }
        let name = self.state.name.clone();
        let backlog = self.sink.backlog();
        if let Some(cause) = backlog.failure() {
            let message = format!("{name}: {cause}");
            return (!std::mem::replace(&mut self.announced, true)).then_some(message);
        }
        if !backlog.is_empty() {
            return None;
        }
        self.announced = false;
        let (loss, cause) = self.take_loss(shared)?;
        Some(format!("{name}: lost {}: {cause}", Lost(&loss)))
    }

    fn take_loss(&mut self, shared: &Shared) -> Option<(Loss, String)> {
        if self.sink.backlog().loss().lines() == 0 {
            return None;
        }
        let (loss, cause) = self.sink.backlog().take_loss();
        self.lost += loss.lines();
        self.publish();
        shared.count_lost(&loss);
        Some((loss, cause))
    }
}

/// `5 lines from T1 to T2 (error 2, info 3)`.
struct Lost<'a>(&'a Loss);

impl fmt::Display for Lost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lines();
        write!(f, "{lines} line{}", if lines == 1 { "" } else { "s" })?;
        if let Some((from, to)) = self.0.span() {
            write!(f, " from {} to {}", rfc3339(from), rfc3339(to))?;
        }
        write!(f, " ({})", BySeverity(self.0.by_severity()))
    }
}
