//! The bounded way from the callers to the writer, and the writer's sleep.
//!
//! A push to a writer that is awake or naps costs no system call; one that
//! found nothing for a while parks, and the first push then wakes it. An eighth
//! of the queue takes lines of severity 0 to 3 only.
//!
//! Invariants: lines come out in the order of their places in the ring, so
//! those of one thread in its own. A parked writer never misses a push: it says
//! that it parks, then looks once more; a caller reserves its place, then looks
//! whether the writer parks. Both steps of both are sequentially consistent.

use super::Severity;
use super::line::{Line, now_micros};
use super::loss::LossCounter;
use super::message::{self, Pool};
use super::ring::{Position, Ring, Share};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

const AWAKE: u8 = 0;
const NAPPING: u8 = 1;
const PARKED: u8 = 2;

/// How long a caller waits for room before it looks again by itself.
const ROOM_RECHECK: Duration = Duration::from_millis(5);

/// Words for each line: with its time and place, one of 230 bytes fits.
const WORDS_PER_LINE: usize = 32;

/// Words that the smallest queue has: the longest message fits into the share
/// of an ordinary line.
const WORDS_LEAST: usize = 2 * message::LONGEST / 8;

/// There is no room for the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// The ring, and who waits for it.
pub(super) struct Queue {
    ring: Ring,
    /// For severities 4 to 10, and for the rest.
    ordinary: Share,
    urgent: Share,
    pub(super) pool: Pool,
    /// Lines that found no room.
    pub(super) dropped: LossCounter,
    state: AtomicU8,
    writer: OnceLock<Thread>,
    waiters: AtomicUsize,
    room: Condvar,
    room_lock: Mutex<()>,
}

impl Queue {
    /// `lines` is the bound, from 2.
    pub(super) fn new(lines: usize) -> Self {
        let words = lines.saturating_mul(WORDS_PER_LINE).max(WORDS_LEAST);
        let ring = Ring::new(words);
        let urgent = Share {
            records: u32::try_from(lines).unwrap_or(u32::MAX),
            words: ring.capacity(),
        };
        let ordinary = Share {
            records: urgent.records - (urgent.records / 8).max(1),
            words: urgent.words - urgent.words / 8,
        };
        Self {
            ring,
            ordinary,
            urgent,
            pool: Pool::new(),
            dropped: LossCounter::new(),
            state: AtomicU8::new(AWAKE),
            writer: OnceLock::new(),
            waiters: AtomicUsize::new(0),
            room: Condvar::new(),
            room_lock: Mutex::new(()),
        }
    }

    /// Queues a line, if there is room.
    #[inline]
    pub(super) fn push(&self, line: &Line<'_>) -> Result<(), Full> {
        let share = self.share(line.severity);
        let pushed = line.pack(|tag, fields, texts| self.ring.append(share, tag, fields, texts));
        if !pushed || self.state.load(Ordering::SeqCst) == PARKED {
            self.wake();
        }
        if pushed { Ok(()) } else { Err(Full) }
    }

    #[inline]
    fn share(&self, severity: Severity) -> Share {
        if severity > Severity::Error {
            self.ordinary
        } else {
            self.urgent
        }
    }

    /// Queues a line, and waits until there is room, as long as `goes_on`.
    pub(super) fn push_waiting(
        &self,
        line: &Line<'_>,
        goes_on: impl Fn() -> bool,
    ) -> Result<(), Full> {
        while goes_on() {
            let guard = self
                .room_lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.waiters.fetch_add(1, Ordering::SeqCst);
            let pushed = self.push(line);
            if pushed.is_err() {
                drop(self.room.wait_timeout(guard, ROOM_RECHECK));
            }
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            if pushed.is_ok() {
                return Ok(());
            }
        }
        Err(Full)
    }

    /// Takes up to `most` lines, in order. Only who owns the writer calls this.
    pub(super) fn drain(
        &self,
        most: usize,
        body: &mut Vec<u8>,
        mut take: impl FnMut(&Line<'_>),
    ) -> usize {
        let taken = self
            .ring
            .take(most, body, |tag, body| match Line::unpack(tag, body) {
                Some(line) => take(&line),
                // None that we know of; were there one, it must not go unsaid.
                None => self.dropped.add(Line::severity_in(tag), now_micros()),
            });
        // Callers that wait come back to much room at once, not one by one.
        if taken > 0 && self.waiters.load(Ordering::SeqCst) > 0 && self.is_roomy() {
            drop(
                self.room_lock
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            self.room.notify_all();
        }
        taken
    }

    fn is_roomy(&self) -> bool {
        let (records, words) = self.ring.waiting();
        records <= self.urgent.records / 2 && words <= self.urgent.words / 2
    }

    /// Lines that wait.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.ring.waiting().0).unwrap_or(usize::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Whether the next line is there: one whose caller is at it is not.
    pub(super) fn is_ready(&self) -> bool {
        self.ring.is_ready()
    }

    /// The place behind all lines that were queued until now.
    pub(super) fn end(&self) -> Position {
        self.ring.reserved()
    }

    /// Whether all lines before this place were taken.
    pub(super) fn is_taken(&self, end: Position) -> bool {
        self.ring.is_taken(end)
    }

    /// The calling thread is the writer from now on.
    pub(super) fn be_writer(&self) {
        let _ = self.writer.set(thread::current());
    }

    /// Wakes the writer if it sleeps.
    #[cold]
    pub(super) fn wake(&self) {
        if self.state.swap(AWAKE, Ordering::SeqCst) != AWAKE
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }

    /// Sleeps for `length`, and is woken by `wake` only: pushes stay cheap.
    /// `unless` is asked after the sleep was announced.
    pub(super) fn nap(&self, length: Duration, unless: impl Fn() -> bool) {
        self.state.store(NAPPING, Ordering::SeqCst);
        if !unless() {
            thread::park_timeout(length);
        }
        self.state.store(AWAKE, Ordering::SeqCst);
    }

    /// Sleeps until a line comes, `wake` is called, or `length` is over.
    /// `unless` is asked after the sleep was announced.
    pub(super) fn park(&self, length: Option<Duration>, unless: impl Fn() -> bool) {
        self.state.store(PARKED, Ordering::SeqCst);
        if self.is_empty() && !unless() {
            match length {
                Some(length) => thread::park_timeout(length),
                None => thread::park(),
            }
        }
        self.state.store(AWAKE, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::words_of;
    use super::*;

    impl Queue {
        /// A push whose thread is interrupted when it has its place: gives what
        /// it does when it goes on.
        pub(in super::super) fn interrupted<'a>(&'a self, line: &Line<'a>) -> impl FnOnce() + 'a {
            let share = self.share(line.severity);
            line.pack(|tag, fields, texts| {
                let words = words_of(fields, texts).unwrap();
                let at = self.ring.reserve(share, words).unwrap();
                let (fields, texts) = (fields.to_vec(), texts.to_vec());
                move || self.ring.put(at, words, tag, &fields, &texts)
            })
        }
    }

    #[test]
    fn a_record_that_is_no_line_is_counted() {
        let queue = Queue::new(16);
        for tag in [u32::from_le_bytes([4, 0, 0, 0]), u32::MAX] {
            assert!(queue.ring.append(queue.urgent, tag, &[], &[]));
        }
        assert_eq!(queue.drain(9, &mut Vec::new(), |_| panic!("a line")), 2);
        let counts = queue.dropped.take().unwrap().by_severity();
        assert_eq!((counts[3], counts[4]), (1, 1));
    }
}
