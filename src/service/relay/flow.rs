//! One direction of a relay: from a source to a sink, without waiting.
//!
//! Talk is copied, one receive and one send for each message, through a buffer
//! that the thread lends. Bulk is moved by `splice(2)` through a pipe. What the
//! connection does decides: two large reads in a row make it bulk, a few small
//! moves make it talk again.
//!
//! Invariants: nothing is read while something is held, so a flow holds at most
//! one lent buffer, or one pipe of 1 MiB; the pipe is held only while bytes are
//! in it or a step is under way. The end of the source is passed on after its
//! last byte, and never before.
//!
//! Not here: what the end of one direction means for the other (`joint`).

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::Shutdown;

use super::descriptors;
use super::pipes::{Pipe, Pipes};
use super::wire::{Received, enlarge, is_at_end, receive, restore, send, splice};

/// Reads in one step, before others have their turn.
const READS_PER_STEP: usize = 16;

/// Reads of so many bytes, so many in a row, make talk bulk. A Unix socket of the
/// default size never has more than some 200 KiB to read.
const LARGE_READ: usize = 48 << 10;
const LARGE_READS: u8 = 2;

/// A splice of fewer bytes is a sign of talk, so many in a row end bulk.
const SMALL_MOVE: usize = 16 << 10;
const SMALL_MOVES: u8 = 4;

/// After a splice of fewer bytes the source is taken to be empty for now.
const LIKELY_MORE: usize = 64 << 10;

/// A sink that took less of what is held within `write_timeout` is stalled: a
/// byte now and then doesn't extend it.
const PROGRESS: usize = 4096;

/// What all flows of a connection have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// `SOCK_SEQPACKET`: every receive is one message and stays one.
    pub(super) packets: bool,
    /// Descriptors that one message may carry.
    pub(super) descriptors: Passing,
    /// How long a sink may take nothing.
    pub(super) write_timeout: Option<Duration>,
}

/// What becomes of descriptors that come along with data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passing {
    /// The kernel throws them away, or refused them to the sender.
    Ignored,
    /// They are looked for, and end the connection.
    Refused,
    /// Up to so many with each message are passed on.
    Forwarded(usize),
}

/// What a step works with.
pub(super) struct Tools<'a> {
    pub(super) scratch: &'a mut [u8],
    pub(super) pipes: &'a Pipes,
    pub(super) now: Instant,
    /// Asked at the end of a source: whether it was cut off by the server itself.
    pub(super) cut: &'a dyn Fn() -> bool,
}

/// Where a flow stands after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// It can go on at once.
    More,
    /// The source has nothing.
    NeedsSource,
    /// The sink takes nothing.
    NeedsSink,
    /// The end was passed on, or there is nobody to pass anything to.
    Done,
}

/// Why a flow can't go on.
#[derive(Debug)]
pub(super) enum Fault {
    /// The source failed; everything that came before was delivered.
    Source(Errno),
    /// The sink failed.
    Sink(Errno),
    /// The sink took too little within `write_timeout`.
    Stalled,
    /// A message is larger than the buffer, or than the sink takes.
    TooLarge,
    /// Descriptors came along that are not to be passed on.
    Descriptors,
    /// The end was no end: the server itself cut the connection.
    Cut,
    /// The system refused something else.
    System(Errno),
}

/// Bytes that were copied and not taken yet, with the descriptors that go with the first.
struct Held {
    bytes: Box<[u8]>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

/// One direction.
pub(super) struct Flow {
    shape: Shape,
    splices: bool,
    held: Option<Held>,
    pipe: Option<Pipe>,
    piped: usize,
    source_ended: bool,
    /// Its end is the trace of a reset that was reported elsewhere.
    end_is_reset: bool,
    done: bool,
    /// The source may have something; unknown until it said so.
    more: bool,
    /// The sink took nothing the last time, and has not said otherwise since.
    blocked: bool,
    bulk: bool,
    streak: u8,
    /// The size of the sink's send buffer before bulk began.
    enlarged: Option<usize>,
    stalled_at: Option<Instant>,
    since_stall: usize,
    /// Something was read or written since [`Flow::has_moved`].
    moved: bool,
    /// Bytes read and written, taken by [`Flow::tally`].
    read: usize,
    written: usize,
}

impl Flow {
    /// `ahead` goes to the sink before all else; `more` says whether the source is
    /// tried before it was reported to be ready.
    pub(super) fn new(shape: Shape, ahead: Vec<u8>, more: bool) -> Self {
        let held = (!ahead.is_empty()).then(|| Held {
            bytes: ahead.into_boxed_slice(),
            sent: 0,
            descriptors: Vec::new(),
        });
        Self {
            shape,
            // Splice would glue messages together and lose descriptors.
            splices: !shape.packets && shape.descriptors == Passing::Ignored,
            held,
            pipe: None,
            piped: 0,
            source_ended: false,
            end_is_reset: false,
            done: false,
            more,
            blocked: false,
            bulk: false,
            streak: 0,
            enlarged: None,
            stalled_at: None,
            since_stall: 0,
            moved: false,
            read: 0,
            written: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether bytes were read that the sink has not taken.
    pub(super) fn holds_data(&self) -> bool {
        self.held.is_some() || self.piped > 0
    }

    /// Nobody is there to pass anything to: throws away what is held.
    pub(super) fn give_up(&mut self) {
        self.done = true;
        self.held = None;
        self.pipe = None;
        self.piped = 0;
        self.stalled_at = None;
    }

    pub(super) fn source_is_ready(&mut self) {
        self.more = true;
    }

    pub(super) fn sink_is_ready(&mut self) {
        self.blocked = false;
    }

    /// The source's socket was reset, though its data is still there to be read.
    pub(super) fn expect_reset(&mut self) {
        self.end_is_reset = true;
    }

    /// Whether anything was read or written since the last call.
    pub(super) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// When a sink that takes nothing is given up.
    pub(super) fn until(&self) -> Option<Instant> {
        self.stalled_at.filter(|_| !self.done)
    }

    /// Bytes read and written since the last call.
    pub(super) fn tally(&mut self) -> (usize, usize) {
        (
            std::mem::take(&mut self.read),
            std::mem::take(&mut self.written),
        )
    }

    /// Goes on as far as possible, within bounds.
    pub(super) fn step(
        &mut self,
        source: BorrowedFd<'_>,
        sink: BorrowedFd<'_>,
        tools: &mut Tools<'_>,
    ) -> Result<State, Fault> {
        let state = self.run(source, sink, tools);
        if self.piped == 0
            && let Some(pipe) = self.pipe.take()
        {
            tools.pipes.give_back(pipe);
        }
        state
    }

    fn run(
        &mut self,
        source: BorrowedFd<'_>,
        sink: BorrowedFd<'_>,
        tools: &mut Tools<'_>,
    ) -> Result<State, Fault> {
        for _ in 0..READS_PER_STEP {
            if self.done {
                return Ok(State::Done);
            }
            if self.holds_data() && !self.deliver(sink, tools.now)? {
                return Ok(State::NeedsSink);
            }
            if self.source_ended && self.end_is_reset {
                return Err(Fault::Source(Errno::CONNRESET));
            }
            if self.source_ended && (tools.cut)() {
                return Err(Fault::Cut);
            }
            if self.source_ended {
                // ENOTCONN says that the sink is gone, which its own direction finds out.
                let _ = rustix::net::shutdown(sink, Shutdown::Write);
                self.done = true;
                return Ok(State::Done);
            }
            if !self.more {
                return Ok(State::NeedsSource);
            }
            self.fill(source, sink, tools)?;
        }
        Ok(State::More)
    }

    /// Reads once, by the way that suits what the connection does.
    fn fill(
        &mut self,
        source: BorrowedFd<'_>,
        sink: BorrowedFd<'_>,
        tools: &mut Tools<'_>,
    ) -> Result<(), Fault> {
        if self.bulk && self.pipe.is_none() {
            self.pipe = tools.pipes.take();
            self.bulk = self.pipe.is_some();
            self.streak = 0;
        }
        if self.bulk {
            return self.splice_in(source);
        }
        if let Some(before) = self.enlarged.take() {
            restore(sink, before);
        }
        self.copy(source, sink, tools)
    }

    fn splice_in(&mut self, source: BorrowedFd<'_>) -> Result<(), Fault> {
        let Some(pipe) = &self.pipe else {
            return Ok(());
        };
        let moved = match splice(source, &pipe.write, pipe.capacity) {
            Ok(moved) => moved,
            Err(Errno::AGAIN) => {
                self.more = false;
                return Ok(());
            }
            Err(error) => return Err(Fault::Source(error)),
        };
        if moved == 0 {
            self.source_ended = true;
            return Ok(());
        }
        self.has_read(moved);
        self.piped = moved;
        self.more = moved >= LIKELY_MORE;
        self.streak = if moved < SMALL_MOVE {
            self.streak.saturating_add(1)
        } else {
            0
        };
        if self.streak >= SMALL_MOVES {
            self.bulk = false;
            self.streak = 0;
        }
        Ok(())
    }

    fn copy(
        &mut self,
        source: BorrowedFd<'_>,
        sink: BorrowedFd<'_>,
        tools: &mut Tools<'_>,
    ) -> Result<(), Fault> {
        let Some((length, with)) = self.receive(source, tools.scratch)? else {
            return Ok(());
        };
        let bytes = tools.scratch.get(..length).unwrap_or_default();
        self.has_read(length);
        let full = !self.shape.packets && length == tools.scratch.len();
        // After a short read the source is empty: its next report will come.
        self.more = full;
        self.streak = if length >= LARGE_READ.min(tools.scratch.len()) {
            self.streak.saturating_add(1)
        } else {
            0
        };
        if self.streak >= LARGE_READS && self.splices {
            self.bulk = true;
            self.streak = 0;
            self.enlarged = enlarge(sink);
        }
        let sent = match send(sink, bytes, &with) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => return self.hold(bytes, with, tools.now),
            Err(error) => return Err(self.sink_fault(error)),
        };
        self.wrote(sent);
        match bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            Some(rest) => self.hold(rest, Vec::new(), tools.now),
            None => Ok(()),
        }
    }

    fn hold(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>, now: Instant) -> Result<(), Fault> {
        self.held = Some(Held {
            bytes: bytes.into(),
            sent: 0,
            descriptors,
        });
        self.block(now).map(|_| ())
    }

    /// One receive. `None` if nothing is there, or at the end.
    fn receive(
        &mut self,
        source: BorrowedFd<'_>,
        scratch: &mut [u8],
    ) -> Result<Option<(usize, Vec<OwnedFd>)>, Fault> {
        let packets = self.shape.packets;
        let received = match self.shape.descriptors {
            Passing::Ignored => receive(source, scratch, packets)?,
            Passing::Refused => descriptors::receive(source, scratch, 0, packets)?,
            Passing::Forwarded(bound) => descriptors::receive(source, scratch, bound, packets)?,
        };
        let Some(Received {
            length,
            with,
            reset,
        }) = received
        else {
            self.more = false;
            return Ok(None);
        };
        self.end_is_reset |= reset;
        if length == 0 && with.is_empty() && is_at_end(source, self.shape.packets) {
            self.source_ended = true;
            return Ok(None);
        }
        Ok(Some((length, with)))
    }

    /// Sends what is held. False if the sink didn't take all of it.
    fn deliver(&mut self, sink: BorrowedFd<'_>, now: Instant) -> Result<bool, Fault> {
        if self.blocked && self.stalled_at.is_none_or(|at| now < at) {
            return Ok(false);
        }
        if let Some(mut held) = self.held.take() {
            loop {
                let rest = held.bytes.get(held.sent..).unwrap_or_default();
                match send(sink, rest, &held.descriptors) {
                    Ok(sent) => {
                        held.descriptors.clear();
                        held.sent = held.sent.saturating_add(sent);
                        self.wrote(sent);
                    }
                    Err(Errno::AGAIN) => {
                        self.held = Some(held);
                        return self.block(now);
                    }
                    Err(error) => return Err(self.sink_fault(error)),
                }
                if held.sent >= held.bytes.len() {
                    break;
                }
            }
        }
        while self.piped > 0 {
            let Some(pipe) = &self.pipe else { break };
            match splice(&pipe.read, sink, self.piped) {
                // A pipe gives nothing only if it is empty, which `piped` says it is not.
                Ok(0) => return Err(Fault::System(Errno::PIPE)),
                Ok(sent) => {
                    self.piped = self.piped.saturating_sub(sent);
                    self.wrote(sent);
                }
                Err(Errno::AGAIN) => return self.block(now),
                Err(error) => return Err(self.sink_fault(error)),
            }
        }
        self.stalled_at = None;
        self.since_stall = 0;
        Ok(true)
    }

    fn has_read(&mut self, length: usize) {
        self.read = self.read.saturating_add(length);
        self.moved = true;
    }

    fn wrote(&mut self, sent: usize) {
        self.written = self.written.saturating_add(sent);
        self.since_stall = self.since_stall.saturating_add(sent);
        self.moved = true;
    }

    /// The sink took nothing more: is it time to give up?
    fn block(&mut self, now: Instant) -> Result<bool, Fault> {
        self.blocked = true;
        let Some(bound) = self.shape.write_timeout else {
            return Ok(false);
        };
        match self.stalled_at {
            Some(at) if self.since_stall < PROGRESS => {
                if now >= at {
                    return Err(Fault::Stalled);
                }
            }
            _ => {
                self.stalled_at = now.checked_add(bound);
                self.since_stall = 0;
            }
        }
        Ok(false)
    }

    fn sink_fault(&self, error: Errno) -> Fault {
        match error {
            Errno::MSGSIZE => Fault::TooLarge,
            _ => Fault::Sink(error),
        }
    }
}
