//! `threads=single` and `threads=N`: each thread serves many connections, as they
//! become ready (epoll(7)).
//!
//! All loops watch the one listener with `EPOLLEXCLUSIVE`, so a newcomer wakes one
//! of them. A descriptor is watched only while something is waited for on it: a
//! hang-up nobody asked about is told once and not again.
//!
//! Not here: what a session does, and why a connection may be opened or must end.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;

use super::exhaustion::AcceptError;
use super::inbox::Inbox;
use super::shared::{BUFFER_SIZE, Shared};
use super::slots::{Slots, Token, Which};
use super::visit::{Pace, Signals, Visit};
use crate::admission::LONGEST_REST;
use crate::service::{Interest, Ready, Waker};
use crate::sys;
use crate::sys::buffer::PageBuffer;

/// A wait is cut to this, and goes on. Beyond 24.8 days epoll_wait(2), which counts
/// milliseconds in 32 bits, would have to be another call, which no thread may make.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

const EVENTS_PER_WAIT: usize = 256;
/// Newcomers taken at one wake-up at most, so that a flood of them can't starve
/// those already served, and that other loops get their share.
const ACCEPTS_PER_WAKE: usize = 16;

/// A visit, and what epoll was told about its descriptors.
struct Seat {
    visit: Visit,
    client: Interest,
    client_watched: bool,
    other: Interest,
    /// The number of the other descriptor that is watched.
    other_watched: Option<u64>,
    exit_watched: bool,
    /// When the timer that is set for it fires.
    timer: Option<Instant>,
    /// Whether it stands in `again` already: data that keep coming report it
    /// there and by epoll, and it must not get a turn for each.
    again: bool,
}

impl Seat {
    /// Has the loop told when the process exits, as long as the connection ends with it.
    fn watch_exit(&mut self, epoll: &OwnedFd, token: Token) -> io::Result<()> {
        match self.visit.peer_exit() {
            Some(exit) if !self.exit_watched => {
                register(epoll, exit, token.exit(), None, Some(Interest::READ))?;
                self.exit_watched = true;
            }
            None if self.exit_watched => self.unwatch_exit(epoll),
            _ => {}
        }
        Ok(())
    }

    /// An exit is told for ever, and others may hold the pidfd.
    fn unwatch_exit(&mut self, epoll: &OwnedFd) {
        if let Some(exit) = self.visit.pidfd().filter(|_| self.exit_watched) {
            let _ = epoll::delete(epoll, exit);
            self.exit_watched = false;
        }
    }
}

/// One thread that serves many.
pub(super) struct EventLoop {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    epoll: OwnedFd,
    seats: Slots<Seat>,
    /// One for each seat at most: it goes with its seat, whatever its time.
    timers: BTreeSet<(Instant, Token)>,
    buffer: PageBuffer,
    again: Vec<Token>,
    listening: bool,
    /// Newcomers to take at the next wake-up: one, so that nobody is asked for who
    /// is not there; twice as many while each wake-up finds all that it takes.
    accepts: usize,
    /// Whether the last wake-up, and whether this one, took as many as it could.
    took_all: [bool; 2],
    /// After something ran out that a newcomer takes, or while those under a penalty are turned
    /// away at a pace: when to try again.
    resume: Option<Instant>,
}

impl EventLoop {
    /// # Errors
    /// When the system gives no memory or no descriptor.
    pub(super) fn new(shared: Arc<Shared>, inbox: Arc<Inbox>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let ring = epoll::EventData::new_u64(Token::INBOX.to_bits());
        epoll::add(&epoll, &inbox.eventfd, ring, epoll::EventFlags::IN)?;
        Ok(Self {
            shared,
            inbox,
            epoll,
            seats: Slots::new(),
            timers: BTreeSet::new(),
            buffer: PageBuffer::new(BUFFER_SIZE)?,
            again: Vec::new(),
            listening: false,
            accepts: 1,
            took_all: [false; 2],
            resume: None,
        })
    }

    /// Serves until the server has stopped and the last connection is over.
    ///
    /// # Errors
    /// As epoll_wait(2); not for any valid state of the process.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_PER_WAIT);
        let mut woken = Vec::new();
        loop {
            self.listen_or_not();
            if self.shared.phase.is_forced() {
                self.step_all();
            }
            if !self.shared.phase.is_running() && self.seats.is_empty() {
                return Ok(());
            }
            let timeout = self.wait_exactly(self.timeout());
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let now = Instant::now();
            self.choose_accepts();
            for event in &events {
                self.on_event(*event, now, &mut woken);
            }
            for token in woken.drain(..) {
                self.on_wake(token, now);
            }
            self.on_timers(now);
            for token in std::mem::take(&mut self.again) {
                if let Some(seat) = self.seats.get(token) {
                    seat.again = false;
                }
                self.step(token, Signals::default(), now);
            }
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        if !self.again.is_empty() {
            return Some(sys::time::timespec(Duration::ZERO));
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        let next = match (timer, self.resume) {
            (Some(timer), Some(resume)) => Some(timer.min(resume)),
            (timer, resume) => timer.or(resume),
        };
        let now = Instant::now();
        next.map(|next| sys::time::until(next.min(now + LONGEST_WAIT), now))
    }

    /// epoll_wait(2) counts in milliseconds, too coarse for the rest between two who are
    /// turned away: then it is ppoll(2) that waits, for the same. What is left to wait.
    fn wait_exactly(&self, timeout: Option<Timespec>) -> Option<Timespec> {
        let longest = i64::from(LONGEST_REST.subsec_nanos());
        let short = |time: &Timespec| time.tv_sec == 0 && (1..=longest).contains(&time.tv_nsec);
        let Some(time) = timeout.filter(|time| self.resume.is_some() && short(time)) else {
            return timeout;
        };
        let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
        // An interrupt ends the wait as well.
        let _ = rustix::event::poll(&mut fds, Some(&time));
        Some(sys::time::timespec(Duration::ZERO))
    }

    fn on_event(&mut self, event: epoll::Event, now: Instant, woken: &mut Vec<Token>) {
        let token = Token::from_bits(event.data.u64());
        if token == Token::INBOX {
            return self.inbox.take(woken);
        }
        if token == Token::LISTENER {
            return self.accept(now);
        }
        let flags = event.flags;
        let ended = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        let came = |wanted: Interest| Interest {
            read: wanted.read && (ended || flags.contains(epoll::EventFlags::IN)),
            write: wanted.write && (ended || flags.contains(epoll::EventFlags::OUT)),
        };
        // One that closed earlier in this batch.
        let Some(seat) = self.seats.get(token) else {
            return;
        };
        let mut signals = Signals::default();
        match token.which() {
            Which::Client => {
                signals.ready.client = came(seat.client);
                signals.ready.client_hangup = seat.client.is_none() && ended;
            }
            Which::Other => {
                signals.ready.other = came(seat.other);
                signals.ready.other_hangup = seat.other.is_none() && ended;
            }
            Which::Exit => signals.peer_exited = true,
        }
        self.step(token, signals, now);
    }

    fn on_wake(&mut self, token: Token, now: Instant) {
        let ready = Ready {
            woken: true,
            ..Ready::default()
        };
        self.step(
            token,
            Signals {
                ready,
                peer_exited: false,
            },
            now,
        );
    }

    fn on_timers(&mut self, now: Instant) {
        while let Some((at, token)) = self.timers.first().copied() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            let Some(seat) = self.seats.get(token) else {
                continue;
            };
            seat.timer = None;
            let expired = seat
                .visit
                .deadline()
                .is_some_and(|deadline| deadline <= now);
            if expired {
                let ready = Ready {
                    expired,
                    ..Ready::default()
                };
                self.step(
                    token,
                    Signals {
                        ready,
                        peer_exited: false,
                    },
                    now,
                );
            } else {
                self.set_timer(token);
            }
        }
    }

    fn step(&mut self, token: Token, signals: Signals, now: Instant) {
        let Some(seat) = self.seats.get(token) else {
            return;
        };
        match seat
            .visit
            .step(signals, false, now, self.buffer.as_mut_slice())
        {
            Pace::Over(reason) => self.leave(token, |visit| visit.finish(reason)),
            Pace::Again => {
                if !std::mem::replace(&mut seat.again, true) {
                    self.again.push(token.client());
                }
                // One that is busy from the first may never come to a wait.
                if let Err(error) = seat.watch_exit(&self.epoll, token) {
                    self.leave(token, |visit| visit.fail(&error));
                }
            }
            Pace::Wait => match self.watch(token) {
                Ok(()) => self.set_timer(token),
                Err(error) => self.leave(token, |visit| visit.fail(&error)),
            },
        }
    }

    /// At a forced end: a peer under examination hears of it by nothing else.
    fn step_all(&mut self) {
        let now = Instant::now();
        for token in self.seats.tokens() {
            self.step(token, Signals::default(), now);
        }
    }

    fn leave(&mut self, token: Token, end: impl FnOnce(Visit)) {
        let Some(mut seat) = self.seats.remove(token) else {
            return;
        };
        if let Some(timer) = seat.timer {
            self.timers.remove(&(timer, token.client()));
        }
        // Closing a descriptor takes it out of epoll only if nobody else holds a
        // duplicate; the registry may, for a moment.
        if let Some(client) = seat.visit.client().filter(|_| seat.client_watched) {
            let _ = epoll::delete(&self.epoll, client);
        }
        seat.unwatch_exit(&self.epoll);
        end(seat.visit);
        self.shared.seated.fetch_sub(1, Ordering::SeqCst);
        self.shared.exhaustion.freed();
        self.shared.resume_loops();
    }

    /// Tells epoll what has changed in what the visit waits for.
    fn watch(&mut self, token: Token) -> io::Result<()> {
        let Self { seats, epoll, .. } = self;
        let Some(seat) = seats.get(token) else {
            return Ok(());
        };
        if let Some(client) = seat.visit.client() {
            let want = seat.visit.watch_client();
            let have = seat.client_watched.then_some(seat.client);
            register(epoll, client, token.client(), have, want)?;
            seat.client_watched = want.is_some();
            seat.client = want.unwrap_or_default();
        }
        if let Some((other, number)) = seat.visit.other() {
            let want = seat.visit.watch_other();
            if seat.other_watched.is_some_and(|watched| watched != number) {
                // Usually it is another descriptor, and the one before was
                // closed; but one that has only now connected is the same.
                let _ = epoll::delete(&*epoll, other);
            }
            let have = seat
                .other_watched
                .filter(|watched| *watched == number)
                .map(|_| seat.other);
            register(epoll, other, token.other(), have, want)?;
            seat.other_watched = want.map(|_| number);
            seat.other = want.unwrap_or_default();
        }
        seat.watch_exit(epoll, token)
    }

    /// Sees to it that a timer fires no later than the visit's deadline. One that
    /// fires too early is set again then: most deadlines only ever move away.
    fn set_timer(&mut self, token: Token) {
        let Some(seat) = self.seats.get(token) else {
            return;
        };
        let Some(deadline) = seat.visit.deadline() else {
            return;
        };
        if seat.timer.is_none_or(|timer| timer > deadline) {
            if let Some(later) = seat.timer.replace(deadline) {
                self.timers.remove(&(later, token.client()));
            }
            self.timers.insert((deadline, token.client()));
        }
    }

    fn choose_accepts(&mut self) {
        let [before, last] = self.took_all;
        self.accepts = match (before, last) {
            (true, true) => (self.accepts * 2).min(ACCEPTS_PER_WAKE),
            _ => 1,
        };
        self.took_all = [last, false];
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..self.accepts {
            if !self.shared.phase.is_running() || self.shared.must_pause() {
                return;
            }
            if let Some(until) = self.shared.admission.rest() {
                self.resume = Some(until);
                return;
            }
            let error = match self.shared.accept() {
                Ok(accepted) => {
                    self.shared.exhaustion.recovered();
                    self.seat(accepted, now);
                    continue;
                }
                Err(error) => error,
            };
            match AcceptError::of(&error) {
                AcceptError::Passing => {}
                AcceptError::Nothing => return,
                AcceptError::Exhausted => {
                    self.resume = Some(now + self.shared.say_exhausted("accept", &error));
                    return;
                }
                AcceptError::Broken => return self.shared.listener_broke(&error),
            }
        }
        self.took_all = [self.took_all[0], true];
    }

    fn seat(&mut self, accepted: crate::listener::Accepted, now: Instant) {
        let token = self.seats.reserve();
        let waker = self.shared.needs_waker().then(|| {
            let inbox = Arc::clone(&self.inbox);
            Waker::new(move || inbox.post(token))
        });
        let Some(visit) = Visit::begin(&self.shared, accepted, Ok(waker), now) else {
            return self.seats.give_back(token);
        };
        let seat = Seat {
            visit,
            client: Interest::NONE,
            client_watched: false,
            other: Interest::NONE,
            other_watched: None,
            exit_watched: false,
            timer: None,
            again: false,
        };
        self.shared.seated.fetch_add(1, Ordering::SeqCst);
        self.seats.fill(token, seat);
        self.step(token, Signals::default(), now);
    }

    /// Watches the listener exactly while newcomers may be taken.
    fn listen_or_not(&mut self) {
        if self.resume.is_some_and(|resume| resume <= Instant::now()) {
            self.resume = None;
        }
        let wanted =
            self.shared.phase.is_running() && self.resume.is_none() && !self.shared.must_pause();
        if wanted == self.listening {
            return;
        }
        let listener = self.shared.listener_fd();
        let done = if wanted {
            let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
            epoll::add(
                &self.epoll,
                listener,
                epoll::EventData::new_u64(Token::LISTENER.to_bits()),
                flags,
            )
        } else {
            epoll::delete(&self.epoll, listener)
        };
        self.listened(wanted, done.map_err(io::Error::from));
    }

    /// What became of that. To watch takes memory, and one of the watches that a user may
    /// have: what ran out may come back, and newcomers wait for it in the backlog.
    fn listened(&mut self, wanted: bool, done: io::Result<()>) {
        match done {
            Ok(()) => self.listening = wanted,
            Err(error) if wanted && AcceptError::of(&error) == AcceptError::Exhausted => {
                let wait = self.shared.say_exhausted("epoll_ctl", &error);
                self.resume = Some(Instant::now() + wait);
            }
            Err(error) => self.shared.listener_broke(&error),
        }
    }
}

fn register(
    epoll: &OwnedFd,
    fd: BorrowedFd<'_>,
    token: Token,
    have: Option<Interest>,
    want: Option<Interest>,
) -> io::Result<()> {
    let data = epoll::EventData::new_u64(token.to_bits());
    let flags = |interest: Interest| {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, interest.read);
        flags.set(epoll::EventFlags::OUT, interest.write);
        flags
    };
    match (have, want) {
        (Some(have), Some(want)) if have == want => Ok(()),
        (Some(_), Some(want)) => Ok(epoll::modify(epoll, fd, data, flags(want))?),
        (None, Some(want)) => Ok(epoll::add(epoll, fd, data, flags(want))?),
        (Some(_), None) => Ok(epoll::delete(epoll, fd)?),
        (None, None) => Ok(()),
    }
}

#[cfg(test)]
#[path = "event_loop_tests.rs"]
mod tests;
