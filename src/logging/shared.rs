//! What callers, writer and controls share, and the way of a record into the
//! queue.
//!
//! Invariants: a call never waits for the writer, except at fatal and alert, or
//! where the queue is full and the overflow is `Block`; the writer's own calls
//! never wait; a process that was forked off, and one whose writer has ended,
//! write to stderr instead. No line stays in a queue whose writer has ended: a
//! caller looks, after its push, whether that was too late.

use super::flush::Flushes;
use super::line::{Line, NO_SCOPE, Origin};
use super::loss::Loss;
use super::message::Message;
use super::queue::{Full, Queue};
use super::sink::{Counters, stream};
use super::site::{Site, context_of};
use super::thresholds::Thresholds;
use super::writer::Writer;
use super::{Overflow, Severity, escape};
use crate::sys::fork;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a fatal or alert call waits for its line to be written, and the `log`
/// crate's flush for all lines.
pub(super) const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// How long a stop waits for callers that are at their lines and for sinks, from the
/// last moment on at which one of them took something; and again as long for a disk
/// that hangs.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(5);
/// The same from the moment on when it has to hurry, whatever sinks take.
pub(super) const HURRY_LIMIT: Duration = Duration::from_secs(1);

/// The writer's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Phase {
    /// Lines queue up; whoever must, writes them himself.
    Before = 0,
    Running = 1,
    /// Lines go to stderr.
    After = 2,
}

thread_local! {
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

/// A sink's name, and what it counts.
#[derive(Debug)]
pub(super) struct SinkState {
    pub(super) name: String,
    pub(super) counters: Counters,
}

impl SinkState {
    /// Whether lines wait that the sink did not take yet.
    fn waits(&self) -> bool {
        self.counters.waiting.load(Ordering::Relaxed) > 0
    }
}

/// See the module.
pub(super) struct Shared {
    pub(super) queue: Queue,
    overflow: Overflow,
    pub(super) thresholds: Thresholds,
    phase: AtomicU8,
    pub(super) sinks: Vec<Arc<SinkState>>,
    /// By the queue, and by the queue and the sinks together.
    dropped: Mutex<Loss>,
    lost: Mutex<Loss>,
    pub(super) flushes: Flushes,
    pub(super) reopen: AtomicBool,
    pub(super) stop: AtomicBool,
    stop_by: Mutex<Option<StopBy>>,
    pub(super) taker: Mutex<Taker>,
}

/// When a stop waits no more.
#[derive(Clone, Copy)]
struct StopBy {
    at: Instant,
    /// Nothing puts it off.
    hurries: bool,
}

/// Who takes lines from the queue.
pub(super) enum Taker {
    /// Whoever holds the lock, with this writer.
    Parked(Box<Writer>),
    /// The writer's thread, and then its guard.
    Thread,
    /// The writer has ended: whoever holds the lock, for stderr.
    Ended,
}

impl Shared {
    pub(super) fn new(
        queue: Queue,
        overflow: Overflow,
        thresholds: Thresholds,
        sinks: Vec<Arc<SinkState>>,
        writer: Writer,
    ) -> Self {
        Self {
            queue,
            overflow,
            thresholds,
            phase: AtomicU8::new(Phase::Before as u8),
            sinks,
            dropped: Mutex::new(Loss::default()),
            lost: Mutex::new(Loss::default()),
            flushes: Flushes::default(),
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            stop_by: Mutex::new(None),
            taker: Mutex::new(Taker::Parked(Box::new(writer))),
        }
    }

    /// The writer, for its thread, if it has none yet.
    pub(super) fn take_writer(&self) -> Option<Box<Writer>> {
        let mut taker = self.taker();
        match std::mem::replace(&mut *taker, Taker::Thread) {
            Taker::Parked(writer) => Some(writer),
            other => {
                *taker = other;
                None
            }
        }
    }

    pub(super) fn taker(&self) -> MutexGuard<'_, Taker> {
        self.taker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sequentially consistent, as are the store of a phase and the place of a line
    /// in the queue: either a caller sees, after its push, that the writer has
    /// ended, or whoever ended it sees the line.
    #[inline]
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Before,
            1 => Phase::Running,
            _ => Phase::After,
        }
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
        self.flushes.wake_all();
    }

    /// Takes one record of the `log` crate.
    pub(super) fn accept(&self, record: &log::Record<'_>) {
        let context = context_of(record);
        let severity = context.map_or_else(|| record.level().into(), |c| c.site.severity());
        let scope = self.thresholds.scope_of(record.target());
        if !self.thresholds.within(scope).admits(severity) {
            return;
        }
        let origin = match context {
            Some(context) => Origin::Site(context.site),
            None => Origin::Named {
                file: record.file_static().unwrap_or_default(),
                line: record.line().unwrap_or_default(),
                module: record.module_path_static().unwrap_or_default(),
            },
        };
        let conn = context.and_then(|context| context.conn);
        self.log(severity, scope, conn, origin, *record.args());
    }

    /// Takes a line of our own.
    pub(super) fn note(&self, site: &'static Site, message: fmt::Arguments<'_>) {
        self.log(site.severity(), NO_SCOPE, None, Origin::Site(site), message);
    }

    #[inline]
    fn log(
        &self,
        severity: Severity,
        scope: u8,
        conn: Option<u64>,
        origin: Origin<'_>,
        arguments: fmt::Arguments<'_>,
    ) {
        let mut message = Message::new(&self.queue.pool);
        let formatted = message.format(arguments);
        self.submit(&Line::new(severity, scope, conn, origin, message.bytes()));
        drop(message);
        if let Err(panic) = formatted {
            resume_unwind(panic);
        }
    }

    #[inline]
    fn submit(&self, line: &Line<'_>) {
        if fork::forked() {
            return write_to_stderr(line);
        }
        self.submit_in(self.phase(), line);
    }

    /// Takes a line of a caller that saw this phase, maybe a while ago.
    #[inline]
    pub(super) fn submit_in(&self, phase: Phase, line: &Line<'_>) {
        let queued = match phase {
            Phase::Running => self.queue.push(line).is_ok() || self.overflow(line),
            Phase::Before => self.submit_before(line),
            Phase::After => return write_to_stderr(line),
        };
        if self.phase() == Phase::After {
            self.drain_late();
        }
        if line.severity <= Severity::Alert {
            self.see_written(line, queued);
        }
    }

    /// Waits until a fatal or alert line is written. One that is not is said where
    /// it can be said; if it has a place in the queue, it is written later as well.
    #[cold]
    fn see_written(&self, line: &Line<'_>, queued: bool) {
        let written = || self.flush(FLUSH_LIMIT) && !self.sinks.iter().all(|sink| sink.waits());
        if !queued || !(IS_WRITER.get() || written()) {
            write_to_stderr(line);
        }
    }

    /// Gives whether the line found room after all.
    #[cold]
    fn overflow(&self, line: &Line<'_>) -> bool {
        let urgent = line.severity <= Severity::Alert;
        let waits = (urgent || self.overflow == Overflow::Block) && !IS_WRITER.get();
        let begun = Instant::now();
        let goes_on = || {
            waits && self.phase() == Phase::Running && (!urgent || begun.elapsed() < FLUSH_LIMIT)
        };
        match self.queue.push_waiting(line, goes_on) {
            Ok(()) => return true,
            Err(Full) if self.phase() == Phase::After => {
                // An urgent one is seen to by the caller.
                if !urgent {
                    write_to_stderr(line);
                }
            }
            Err(Full) => self.queue.dropped.add(line.severity, line.micros),
        }
        false
    }

    /// Without a writer thread, whoever finds the queue full writes its lines.
    #[cold]
    fn submit_before(&self, line: &Line<'_>) -> bool {
        if self.queue.push(line).is_ok() {
            return true;
        }
        self.drain_here();
        let queued = self.queue.push(line).is_ok();
        if !queued {
            self.queue.dropped.add(line.severity, line.micros);
        }
        queued
    }

    /// Writes what is queued on this thread, if the writer has no thread of its
    /// own and nobody else is at it. Gives whether all of that is written.
    pub(super) fn drain_here(&self) -> bool {
        let end = self.queue.end();
        if let Ok(mut taker) = self.taker.try_lock()
            && let Taker::Parked(writer) = &mut *taker
        {
            let before = IS_WRITER.replace(true);
            let written = writer.drain(self);
            IS_WRITER.set(before);
            return written && self.queue.is_taken(end);
        }
        false
    }

    /// Writes to stderr what came into the queue when its writer had ended.
    #[cold]
    pub(super) fn drain_late(&self) {
        loop {
            // With the fence, either this caller gets the lock, or whoever has it
            // sees this caller's line when he looks again, below.
            fence(Ordering::SeqCst);
            let Ok(taker) = self.taker.try_lock() else {
                return;
            };
            if !matches!(*taker, Taker::Ended) {
                // The guard is not done, and looks when it is.
                return;
            }
            self.queue
                .drain(usize::MAX, &mut Vec::new(), write_to_stderr);
            drop(taker);
            fence(Ordering::SeqCst);
            if !self.queue.is_ready() {
                return;
            }
        }
    }

    /// When a stop waits no more, as of now. The first to ask begins its time.
    pub(super) fn stop_by(&self) -> Instant {
        self.change_stop_by(|_| ())
    }

    /// A sink took something at this moment: the stop goes on, unless it hurries.
    pub(super) fn put_stop_off(&self, now: Instant) {
        self.change_stop_by(|by| {
            if !by.hurries {
                by.at = by.at.max(now + STOP_LIMIT);
            }
        });
    }

    /// The stop has to hurry.
    pub(super) fn hurry(&self) {
        self.change_stop_by(|by| {
            by.at = by.at.min(Instant::now() + HURRY_LIMIT);
            by.hurries = true;
        });
    }

    fn change_stop_by(&self, change: impl FnOnce(&mut StopBy)) -> Instant {
        let mut by = self.stop_by.lock().unwrap_or_else(PoisonError::into_inner);
        let by = by.get_or_insert_with(|| StopBy {
            at: Instant::now() + STOP_LIMIT,
            hurries: false,
        });
        change(by);
        by.at
    }

    /// Counts lines that the queue dropped.
    pub(super) fn count_dropped(&self, loss: &Loss) {
        self.dropped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .merge(loss);
        self.count_lost(loss);
    }

    /// Counts lines that a sink lost.
    pub(super) fn count_lost(&self, loss: &Loss) {
        self.lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .merge(loss);
    }

    pub(super) fn dropped(&self) -> Loss {
        *self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lost(&self) -> Loss {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread is the writer.
    pub(super) fn be_writer(&self) {
        IS_WRITER.set(true);
        self.queue.be_writer();
    }

    /// See `Logger::flush`.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        if IS_WRITER.get() || fork::forked() {
            return false;
        }
        match self.phase() {
            Phase::Before => self.drain_here(),
            Phase::Running => {
                let number = self.flushes.ask();
                self.queue.wake();
                let goes_on = || self.phase() == Phase::Running;
                self.flushes.wait(number, limit, goes_on)
            }
            // Lines go to stderr at once.
            Phase::After => self.queue.is_empty(),
        }
    }
}

/// The last resort: one write, without a lock and without waiting.
#[cold]
fn write_to_stderr(line: &Line<'_>) {
    let mut text = String::with_capacity(line.message.len() + 64);
    text.push_str(line.severity.label());
    text.push(' ');
    escape::line(&String::from_utf8_lossy(line.message), &mut text);
    text.push('\n');
    stream::write_once(&io::stderr(), &text);
}
