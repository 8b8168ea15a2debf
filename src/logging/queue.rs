//! The bounded way from the callers to the writer, and the writer's sleep.
//!
//! A push to a writer that is awake or naps costs no system call; one that
//! found nothing for a while parks, and the first push then wakes it. A second,
//! small queue takes lines of severity 0 to 3 when the first is full.
//!
//! Invariants: the lines of one thread come out in their order, through both
//! queues: while the reserve holds a line, nothing enters the first queue, and
//! the writer empties the first before the reserve. A parked writer never
//! misses a push: it says that it parks, then looks once more; a caller pushes,
//! then looks whether it parks. Both steps of both are sequentially consistent.

use super::Severity;
use super::line::{Line, Pool};
use super::loss::LossCounter;
use crossbeam::queue::ArrayQueue;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

const AWAKE: u8 = 0;
const NAPPING: u8 = 1;
const PARKED: u8 = 2;

/// How long a caller waits for room before it looks again by itself.
const ROOM_RECHECK: Duration = Duration::from_millis(5);

/// Both queues, and who waits for them.
pub(super) struct Queue {
    ordinary: ArrayQueue<Line>,
    reserve: ArrayQueue<Line>,
    /// While set, new lines go to the reserve or wait.
    reserved: AtomicBool,
    pub(super) pool: Pool,
    /// Bytes on the heap of the lines that are queued, and their bound.
    heap_bytes: AtomicUsize,
    heap_bound: usize,
    /// Lines that found no room.
    pub(super) dropped: LossCounter,
    state: AtomicU8,
    writer: OnceLock<Thread>,
    waiters: AtomicUsize,
    room: Condvar,
    room_lock: Mutex<()>,
}

impl Queue {
    /// `lines` are the bound of both queues together, from 2.
    pub(super) fn new(lines: usize) -> Self {
        let reserve = (lines / 8).max(1);
        Self {
            ordinary: ArrayQueue::new(lines.saturating_sub(reserve).max(1)),
            reserve: ArrayQueue::new(reserve),
            reserved: AtomicBool::new(false),
            pool: Pool::new(),
            heap_bytes: AtomicUsize::new(0),
            heap_bound: lines.saturating_mul(512).max(1 << 20),
            dropped: LossCounter::new(),
            state: AtomicU8::new(AWAKE),
            writer: OnceLock::new(),
            waiters: AtomicUsize::new(0),
            room: Condvar::new(),
            room_lock: Mutex::new(()),
        }
    }

    /// Queues a line, or gives it back if there is no room.
    #[inline]
    pub(super) fn push(&self, line: Line) -> Result<(), Box<Line>> {
        let heap_bytes = line.heap_bytes();
        if heap_bytes > 0 && !self.reserve_heap(heap_bytes) {
            return Err(Box::new(line));
        }
        let pushed = if self.reserved.load(Ordering::Relaxed) {
            self.push_reserve(line)
        } else {
            match self.ordinary.push(line) {
                Ok(()) => Ok(()),
                Err(line) => self.push_reserve(line),
            }
        };
        // The push above moved the tail by a sequentially consistent exchange.
        if pushed.is_err() || self.state.load(Ordering::SeqCst) == PARKED {
            self.wake();
        }
        if pushed.is_err() && heap_bytes > 0 {
            self.heap_bytes.fetch_sub(heap_bytes, Ordering::Relaxed);
        }
        pushed
    }

    #[cold]
    fn push_reserve(&self, line: Line) -> Result<(), Box<Line>> {
        if line.severity > Severity::Error {
            return Err(Box::new(line));
        }
        self.reserved.store(true, Ordering::SeqCst);
        self.reserve.push(line).map_err(Box::new)
    }

    #[cold]
    fn reserve_heap(&self, bytes: usize) -> bool {
        let before = self.heap_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.heap_bound || before == 0;
        if !fits {
            self.heap_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Queues a line, and waits until there is room, as long as `goes_on`.
    pub(super) fn push_waiting(
        &self,
        mut line: Box<Line>,
        goes_on: impl Fn() -> bool,
    ) -> Result<(), Box<Line>> {
        while goes_on() {
            let guard = self
                .room_lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.waiters.fetch_add(1, Ordering::SeqCst);
            let pushed = self.push(*line);
            if pushed.is_err() {
                drop(self.room.wait_timeout(guard, ROOM_RECHECK));
            }
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            match pushed {
                Ok(()) => return Ok(()),
                Err(refused) => line = refused,
            }
        }
        Err(line)
    }

    /// Takes up to `most` lines, in order. Only the writer calls this.
    pub(super) fn drain(&self, most: usize, mut take: impl FnMut(&Line)) -> usize {
        let mut taken = 0;
        while taken < most {
            let Some(line) = self.ordinary.pop() else {
                break;
            };
            self.hand_over(line, &mut take);
            taken += 1;
        }
        if taken < most && self.reserved.load(Ordering::Relaxed) {
            taken += self.drain_reserve(&mut take);
        }
        // Callers that wait come back to much room at once, not one by one.
        let roomy = taken < most || self.ordinary.len() <= self.ordinary.capacity() / 2;
        if taken > 0 && roomy && self.waiters.load(Ordering::SeqCst) > 0 {
            drop(
                self.room_lock
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            self.room.notify_all();
        }
        taken
    }

    /// Empties the reserve; the first queue is empty. A line that enters while
    /// the mark is taken away is taken too, before what follows it elsewhere.
    #[cold]
    fn drain_reserve(&self, take: &mut impl FnMut(&Line)) -> usize {
        let mut taken = 0;
        // What entered the first queue before the mark was seen comes first.
        while let Some(line) = self.ordinary.pop() {
            self.hand_over(line, take);
            taken += 1;
        }
        loop {
            while let Some(line) = self.reserve.pop() {
                self.hand_over(line, take);
                taken += 1;
            }
            self.reserved.store(false, Ordering::SeqCst);
            if self.reserve.is_empty() {
                return taken;
            }
            self.reserved.store(true, Ordering::SeqCst);
        }
    }

    #[inline]
    fn hand_over(&self, line: Line, take: &mut impl FnMut(&Line)) {
        let heap_bytes = line.heap_bytes();
        if heap_bytes > 0 {
            self.heap_bytes.fetch_sub(heap_bytes, Ordering::Relaxed);
        }
        take(&line);
        line.recycle(&self.pool);
    }

    /// Lines that wait.
    pub(super) fn len(&self) -> usize {
        self.ordinary.len() + self.reserve.len()
    }

    fn is_empty(&self) -> bool {
        self.ordinary.is_empty() && self.reserve.is_empty()
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
    pub(super) fn nap(&self, length: Duration) {
        self.sleep(NAPPING, Some(length), || false);
    }

    /// Sleeps until a line comes, `wake` is called, or `length` is over.
    /// `unless` is asked after the sleep was announced.
    pub(super) fn park(&self, length: Option<Duration>, unless: impl Fn() -> bool) {
        self.sleep(PARKED, length, unless);
    }

    fn sleep(&self, state: u8, length: Option<Duration>, unless: impl Fn() -> bool) {
        self.state.store(state, Ordering::SeqCst);
        if self.is_empty() && !unless() {
            match length {
                Some(length) => thread::park_timeout(length),
                None => thread::park(),
            }
        }
        self.state.store(AWAKE, Ordering::SeqCst);
    }
}
