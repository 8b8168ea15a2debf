//! The way out to one connection: straight to its socket while nothing waits,
//! else into its queue.
//!
//! Invariants:
//! - One lock covers the queue and the writes to the socket, so frames of several
//!   publishers are never mixed and never torn.
//! - Nothing here waits: a write takes what the socket has room for.
//! - The queue stays within its bounds; what doesn't fit is dropped and counted
//!   where the subscription asked for that, else the connection ends.
//! - What the account of the uid was told is what the queue holds.
//!
//! Not here: who gets what ([`super::deliver`]), and who closes the socket: the
//! session, when it finds [`Out::ending`].

// Sums and differences of lengths of buffers that are in memory: no sum can reach the
// end of usize, and a difference that is wrong ends its connection, as arithmetic is
// checked in release builds as well. A saturating one would hide it.
#![allow(clippy::arithmetic_side_effects)]

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::frame::{ErrorCode, Frame, FrameLimit, HEADER_BYTES, Subject};

use super::limits::{Account, Limits, Quota, Refused};
use super::port::Ending;
use super::queue::{Queue, frame_start};
use super::run::Run;

/// A connection as the broker writes to it. A socket, or in tests and fuzzing
/// anything else.
pub trait Sink: Send + Sync {
    /// Writes as much as there is room for, without waiting, and returns how many
    /// bytes that was.
    ///
    /// # Errors
    ///
    /// `WouldBlock` for no room at all; any other error ends the connection.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Tells the connection's own thread to look at its outbox: something waits
    /// for room in the socket, or the connection is to end.
    fn wake(&self);
}

pub(super) struct Outbox {
    out: Mutex<Out>,
    /// Whether the connection's own thread has to write, or to end: to be seen without
    /// the lock, as it looks before each wait, while another may be writing.
    needs_owner: Arc<AtomicBool>,
}

/// What the lock of an [`Outbox`] covers.
pub(super) struct Out {
    queue: Queue,
    phase: Phase,
    /// The socket had no room; its own thread writes when it has.
    blocked: bool,
    /// Somebody has appended and will flush.
    corked: bool,
    sink: Option<Arc<dyn Sink>>,
    account: Arc<Account>,
    accounted: usize,
    drop_oldest: HashSet<u64>,
    limits: Limits,
    accepts: FrameLimit,
    needs_owner: Arc<AtomicBool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// Takes nothing more; what is queued still goes out.
    Ending(Ending),
    Closed,
}

impl Outbox {
    pub(super) fn new(
        sink: Arc<dyn Sink>,
        account: Arc<Account>,
        limits: Limits,
        accepts: FrameLimit,
    ) -> Self {
        let needs_owner = Arc::new(AtomicBool::new(false));
        let out = Mutex::new(Out {
            queue: Queue::default(),
            phase: Phase::Open,
            blocked: false,
            corked: false,
            sink: Some(sink),
            account,
            accounted: 0,
            drop_oldest: HashSet::new(),
            limits,
            accepts,
            needs_owner: Arc::clone(&needs_owner),
        });
        Self { out, needs_owner }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever makes it so wakes that thread afterwards, which looks again then.
    pub(super) fn needs_owner(&self) -> bool {
        self.needs_owner.load(Ordering::Acquire)
    }
}

impl Out {
    /// Appends the answer to something that this client sent, or says that it is
    /// larger than the client accepts. Beyond the bounds the connection ends: it asks,
    /// but doesn't read.
    pub(super) fn control(&mut self, frame: &Frame<'_>) {
        let taken = match self.append(frame) {
            Err(Refused::TooLarge) => self.append(&Frame::Error {
                id: frame.id(),
                code: ErrorCode::TooLarge,
                text: "the answer is larger than you accept",
            }),
            other => other,
        };
        if let Err(Refused::Quota(quota)) = taken {
            self.end(ErrorCode::Quota, &quota.to_string());
        }
    }

    /// Appends a frame, or says why not.
    pub(super) fn append(&mut self, frame: &Frame<'_>) -> Result<(), Refused> {
        if self.phase != Phase::Open {
            return Err(Refused::Gone);
        }
        if frame.length() > accepted(self.accepts) {
            return Err(Refused::TooLarge);
        }
        self.room(HEADER_BYTES + frame.length())
            .map_err(Refused::Quota)?;
        self.queue.push_frame(frame);
        Ok(())
    }

    /// Appends the messages of a run, for subscription `id`. With `now` they are
    /// written straight to the socket if nothing waits.
    pub(super) fn messages(&mut self, id: u64, run: &mut Run, now: bool) {
        if self.phase != Phase::Open {
            return;
        }
        run.set_id(id);
        let mut sent = 0;
        if run.longest <= accepted(self.accepts) {
            if now && self.queue.is_empty() && !self.blocked {
                sent = self.write_through(&[IoSlice::new(&run.bytes)]);
                if sent == run.bytes.len() || self.phase != Phase::Open {
                    return;
                }
            }
            if self.reserve_within(run.bytes.len() - sent).is_ok() {
                self.queue.push_run(id, run, sent);
                return;
            }
        }
        self.messages_left(id, run, sent);
    }

    /// Queues what of a run has not left, frame by frame where not all of it fits.
    fn messages_left(&mut self, id: u64, run: &Run, sent: usize) {
        let torn = frame_start(&run.bytes, sent);
        for (start, frame) in run.starts.iter().zip(run.frames()) {
            if start + frame.len() <= sent {
                continue;
            }
            if *start == torn && torn < sent {
                self.keep_rest(frame.len() - (sent - torn));
                self.queue.push_rest(frame, sent - torn);
            } else {
                self.message(id, frame, None);
            }
        }
    }

    /// Appends one message with the id of the subscription in its head. Its data
    /// is copied once, by the first connection that can't take it at once.
    pub(super) fn large(
        &mut self,
        id: u64,
        head: &[u8],
        data: &[u8],
        shared: &mut Option<Arc<[u8]>>,
    ) {
        if self.phase != Phase::Open {
            return;
        }
        let fits = head.len() + data.len() - HEADER_BYTES <= accepted(self.accepts);
        if fits && self.queue.is_empty() && !self.blocked {
            let sent = self.write_through(&[IoSlice::new(head), IoSlice::new(data)]);
            let left = head.len() + data.len() - sent;
            if left == 0 || self.phase != Phase::Open {
                return;
            }
            if sent > 0 {
                let data = shared.get_or_insert_with(|| Arc::from(data));
                self.keep_rest(left);
                self.queue.push_shared(head, Arc::clone(data), sent);
                return;
            }
        }
        let data = shared.get_or_insert_with(|| Arc::from(data));
        let data = Arc::clone(data);
        self.message(id, head, Some(data));
    }

    /// Queues one message, makes room for it, or drops it and says so.
    pub(super) fn message(&mut self, id: u64, head: &[u8], shared: Option<Arc<[u8]>>) {
        let length = head.len() + shared.as_ref().map_or(0, |data| data.len());
        if self.phase != Phase::Open {
            return;
        }
        if length - HEADER_BYTES > accepted(self.accepts) {
            return self.miss(id);
        }
        match (self.room(length), shared) {
            (Ok(()), None) => self.queue.push(head),
            (Ok(()), Some(data)) => self.queue.push_shared(head, data, 0),
            (Err(_), _) if self.drop_oldest.contains(&id) => self.miss(id),
            (Err(quota), _) => {
                self.miss(id);
                self.end(ErrorCode::Quota, &quota.to_string());
            }
        }
    }

    /// Says in the queue that a message is missing. Without a look at the bounds: what
    /// comes next is held against them.
    fn miss(&mut self, id: u64) {
        self.queue.push_gap(id, 1);
        self.release();
    }

    /// Takes what is to be queued next into account, after making room for it if
    /// need be: by writing, then by dropping what may be dropped.
    fn room(&mut self, length: usize) -> Result<(), Quota> {
        if self.reserve(length).is_ok() {
            return Ok(());
        }
        if !self.blocked {
            self.flush();
            if self.reserve(length).is_ok() {
                return Ok(());
            }
        }
        if !self.drop_oldest.is_empty() {
            let over = (self.queue.bytes() + length).saturating_sub(self.limits.pending_bytes);
            let droppable = &self.drop_oldest;
            self.queue
                .drop_oldest(over.max(length), |id| droppable.contains(&id));
            self.release();
        }
        self.reserve(length)
    }

    /// A single frame is taken in any case, so that a bound below the largest
    /// frame doesn't cut a connection off.
    fn reserve(&mut self, length: usize) -> Result<(), Quota> {
        if self.queue.is_empty() {
            self.account.pending_bytes.add(length);
            self.accounted += length;
            return Ok(());
        }
        self.reserve_within(length)
    }

    /// Takes it into account if it is within the bounds.
    fn reserve_within(&mut self, length: usize) -> Result<(), Quota> {
        if self.queue.bytes() + length > self.limits.pending_bytes {
            return Err(Quota::Pending(self.limits.pending_bytes));
        }
        let limit = self.limits.pending_bytes_per_uid;
        if !self.account.pending_bytes.try_add(length, limit) {
            return Err(Quota::PendingPerUid(limit));
        }
        self.accounted += length;
        Ok(())
    }

    /// The rest of a frame that has left in part must follow, whatever the bounds.
    fn keep_rest(&mut self, length: usize) {
        self.account.pending_bytes.add(length);
        self.accounted += length;
    }

    /// Tells the account what the queue weighs.
    fn release(&mut self) {
        let queued = self.queue.bytes();
        if queued < self.accounted {
            self.account.pending_bytes.subtract(self.accounted - queued);
        } else {
            self.account.pending_bytes.add(queued - self.accounted);
        }
        self.accounted = queued;
    }

    /// Writes what is queued as far as there is room.
    pub(super) fn flush(&mut self) {
        while !self.queue.is_empty() {
            let Some(sink) = self.sink.clone() else { break };
            let slices = self.queue.slices();
            let given: usize = slices.iter().map(|slice| slice.len()).sum();
            let sent = match sink.write(&slices) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.broken(),
            };
            drop(slices);
            self.queue.advance(sent);
            if sent < given {
                self.block();
                break;
            }
        }
        self.release();
    }

    /// Writes past the empty queue; what didn't go is the caller's to queue.
    fn write_through(&mut self, slices: &[IoSlice<'_>]) -> usize {
        let Some(sink) = self.sink.clone() else {
            return 0;
        };
        let given: usize = slices.iter().map(|slice| slice.len()).sum();
        let sent = loop {
            match sink.write(slices) {
                Ok(sent) => break sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break 0,
                Err(_) => {
                    self.broken();
                    return 0;
                }
            }
        };
        if sent < given {
            self.block();
        }
        sent
    }

    fn block(&mut self) {
        if !self.blocked {
            self.blocked = true;
            self.tell_owner();
            self.wake();
        }
    }

    fn tell_owner(&self) {
        self.needs_owner
            .store(self.blocked || self.phase != Phase::Open, Ordering::Release);
    }

    /// Has the connection's own thread look at it.
    pub(super) fn wake(&self) {
        self.sink.iter().for_each(|sink| sink.wake());
    }

    /// The socket is of no use any more: nothing can be said on it.
    fn broken(&mut self) {
        self.phase = Phase::Ending(Ending::Broken);
        self.queue.clear();
        self.release();
        self.tell_owner();
        self.wake();
    }

    /// Ends the connection: messages that wait are dropped and counted, the error
    /// follows, then it takes nothing more.
    pub(super) fn end(&mut self, code: ErrorCode, text: &str) {
        if self.phase != Phase::Open {
            return;
        }
        if code == ErrorCode::Quota {
            self.queue.drop_all(None);
        }
        self.queue.push_frame(&Frame::Error { id: 0, code, text });
        self.phase = Phase::Ending(if code == ErrorCode::Quota {
            Ending::Quota
        } else {
            Ending::Violation
        });
        self.release();
        self.tell_owner();
        self.wake();
    }

    /// Drops everything, at once.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Closed;
        self.sink = None;
        self.queue.clear();
        self.release();
        self.tell_owner();
    }

    /// Claims the duty to flush; false if another has it already, or if the
    /// connection's own thread writes.
    pub(super) fn cork(&mut self) -> bool {
        !self.blocked && !self.queue.is_empty() && !std::mem::replace(&mut self.corked, true)
    }

    pub(super) fn uncork(&mut self) {
        self.corked = false;
        if !self.blocked {
            self.flush();
        }
    }

    /// Writes now, if nothing is in the way.
    pub(super) fn push_out(&mut self) {
        if !self.blocked {
            self.flush();
        }
    }

    /// Leaves what is queued to the connection's own thread.
    pub(super) fn hand_over(&mut self) {
        if !self.queue.is_empty() {
            self.block();
        }
    }

    /// For the connection's own thread: the socket has room again.
    pub(super) fn writable(&mut self) {
        // Still marked as blocked, so that a write without room wakes nobody.
        self.blocked = true;
        self.flush();
        self.blocked = !self.queue.is_empty();
        self.tell_owner();
    }

    /// Whether the connection's own thread should wait for room in the socket.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Why it takes nothing more, if so.
    pub(super) fn ending(&self) -> Option<Ending> {
        match self.phase {
            Phase::Open => None,
            Phase::Ending(ending) => Some(ending),
            Phase::Closed => Some(Ending::Broken),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Notes whether messages of `id` may be dropped.
    pub(super) fn subscribed(&mut self, id: u64, drop_oldest: bool) {
        if drop_oldest {
            self.drop_oldest.insert(id);
        }
    }

    pub(super) fn unsubscribed(&mut self, id: u64) {
        self.drop_oldest.remove(&id);
    }

    /// Takes back what waits of a subscription that lost its right.
    pub(super) fn revoke(&mut self, id: u64) {
        self.queue.drop_all(Some(id));
        self.drop_oldest.remove(&id);
        self.release();
    }

    /// Takes back messages that wait and whose subject is not `permitted` any more, also those
    /// of subscriptions that are over.
    pub(super) fn revoke_messages(&mut self, permitted: impl Fn(Subject<'_>) -> bool) {
        self.queue.drop_denied(permitted);
        self.release();
    }

    /// Takes back requests that wait and whose subject is not `permitted` any more;
    /// returns their numbers.
    pub(super) fn revoke_requests(&mut self, permitted: impl Fn(Subject<'_>) -> bool) -> Vec<u64> {
        let taken = self.queue.take_requests(permitted);
        self.release();
        taken
    }
}

fn accepted(limit: FrameLimit) -> usize {
    usize::try_from(limit.bytes()).unwrap_or(usize::MAX)
}
