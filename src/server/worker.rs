//! `threads=multi`: a worker waits in accept(2) together with the other idle ones,
//! checks the peer that it got, and serves that one connection to its end.
//!
//! The kernel wakes one idle worker for each connection, so there is no hand-off, except
//! while those under a penalty are turned away at a pace (`penalty_rate`).
//! A worker that leaves nobody behind in accept asks the supervisor for another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;

use super::exhaustion::{AcceptError, remedy};
use super::shared::{BUFFER_SIZE, Shared};
use super::visit::{Pace, Signals, Visit};
use crate::listener::Accepted;
use crate::service::{Interest, Ready, Waker};
use crate::sys;
use crate::sys::buffer::PageBuffer;

/// How long a worker waits before it gives the pages of its buffer back.
const IDLE_BEFORE_RELEASE: Duration = Duration::from_secs(1);
/// How many turns on end a busy connection gets between two looks at its process.
const TURNS_PER_LOOK: u32 = 8;

/// One thread of the pool.
pub(super) struct Worker {
    shared: Arc<Shared>,
    buffer: PageBuffer,
    /// Wakes this worker's session; kept from one connection to the next, as a
    /// late wake does no harm.
    wake: Option<(Arc<OwnedFd>, Waker)>,
}

impl Worker {
    /// # Errors
    /// When the system gives no memory or no descriptor.
    pub(super) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let buffer = PageBuffer::new(BUFFER_SIZE)?;
        Ok(Self {
            shared,
            buffer,
            wake: None,
        })
    }

    /// Serves until the server stops or the supervisor lets this worker go.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while self.shared.phase.is_running() && !self.shared.pool.may_leave() {
            self.shared.pool.idle.fetch_add(1, Ordering::SeqCst);
            let (accepted, turn) = accept(&shared);
            let left = self.shared.pool.idle.fetch_sub(1, Ordering::SeqCst) - 1;
            match accepted {
                Ok(accepted) => {
                    if left == 0 {
                        self.shared.pool.ask_for_workers(&self.shared.supervisor);
                    }
                    self.shared.exhaustion.recovered();
                    self.attend(accepted, turn);
                    self.shared.exhaustion.freed();
                }
                Err(error) => {
                    drop(turn);
                    self.after_failed_accept(&error);
                }
            }
        }
    }

    fn after_failed_accept(&self, error: &io::Error) {
        match AcceptError::of(error) {
            AcceptError::Passing | AcceptError::Nothing => {}
            AcceptError::Exhausted => {
                let wait = self.shared.say_exhausted("accept", error);
                self.shared.exhaustion.wait(wait);
            }
            AcceptError::Broken => self.shared.listener_broke(error),
        }
    }

    fn attend(&mut self, accepted: Accepted, turn: Option<MutexGuard<'_, ()>>) {
        let waker = self.waker();
        let now = Instant::now();
        let begun = Visit::begin(&self.shared, accepted, waker, now);
        // Whoever is turned away is counted by now: the next one knows how long to rest.
        drop(turn);
        let Some(mut visit) = begun else {
            return;
        };
        let mut signals = Signals::default();
        let mut may_block = false;
        let mut now = now;
        let mut turns = 0_u32;
        loop {
            let buffer = self.buffer.as_mut_slice();
            match visit.step(signals, may_block, now, buffer) {
                Pace::Over(reason) => return visit.finish(reason),
                Pace::Again => {
                    turns = turns.wrapping_add(1);
                    let is_due = turns.is_multiple_of(TURNS_PER_LOOK);
                    signals = Signals {
                        peer_exited: is_due && self.has_exited(&visit),
                        ..Signals::default()
                    };
                    now = Instant::now();
                }
                // Nothing else can happen than that the peer sends: the receive
                // itself may wait for that.
                Pace::Wait if !may_block && visit.may_block() => may_block = true,
                Pace::Wait => {
                    may_block = false;
                    match self.wait_for(&visit) {
                        Ok(came) => signals = came,
                        Err(error) => return visit.fail(&error),
                    }
                    now = Instant::now();
                }
            }
        }
    }

    /// Whether the process has exited with which the connection ends: one that is
    /// always busy never waits, where it would be told.
    fn has_exited(&self, visit: &Visit) -> bool {
        let Some(exit) = visit.peer_exit() else {
            return false;
        };
        let slots = [Slot::new(Some(exit), Interest::READ)];
        let at_once = sys::time::timespec(Duration::ZERO);
        let polled = poll(slots, self.shared.listener_fd(), Some(&at_once));
        polled.is_ok_and(|[exit]| !exit.is_empty())
    }

    /// Waits for what the visit waits for. If that takes long, the buffer's pages
    /// are given back meanwhile: nothing in it outlives a step.
    fn wait_for(&mut self, visit: &Visit) -> io::Result<Signals> {
        let deadline = visit.deadline();
        let passed = |at: Option<Instant>| at.is_some_and(|at| Instant::now() >= at);
        let now = Instant::now();
        let release_at = Some(now + IDLE_BEFORE_RELEASE);
        let until = deadline.into_iter().chain(release_at).min();
        let mut signals = self.poll(visit, now, until)?;
        // An interrupt ends the wait as well.
        if signals == Signals::default() && passed(release_at) {
            self.buffer.release();
            signals = self.poll(visit, Instant::now(), deadline)?;
        }
        signals.ready.expired = passed(deadline);
        Ok(signals)
    }

    /// Waits until something comes or it is time; `Ready::expired` is left out. `now`
    /// is this moment and not the one of the last step, which may have blocked since.
    fn poll(&self, visit: &Visit, now: Instant, until: Option<Instant>) -> io::Result<Signals> {
        let timeout = until.map(|until| sys::time::until(until, now));
        let wait = visit.wait();
        let client = Slot::new(
            visit.watch_client().and_then(|_| visit.client()),
            wait.client,
        );
        let other = visit
            .watch_other()
            .and_then(|_| visit.other())
            .map(|(fd, _)| fd);
        let other = Slot::new(other, wait.other);
        let exit = Slot::new(visit.peer_exit(), Interest::READ);
        let wake = Slot::new(self.wake.as_ref().map(|(fd, _)| fd.as_fd()), Interest::READ);
        let slots = [client, other, exit, wake];
        let [client, other, exit, wake] = poll(slots, self.shared.listener_fd(), timeout.as_ref())?;
        if !wake.is_empty() {
            drain(self.wake.as_ref().map(|(fd, _)| fd.as_fd()));
        }
        let ready = Ready {
            client: interest(client, wait.client),
            other: interest(other, wait.other),
            client_hangup: wait.client.is_none() && !client.is_empty(),
            other_hangup: wait.other.is_none() && !other.is_empty(),
            woken: !wake.is_empty(),
            expired: false,
        };
        Ok(Signals {
            ready,
            peer_exited: !exit.is_empty(),
        })
    }

    /// What wakes the next session, where the service or the check needs it.
    ///
    /// # Errors
    /// When no descriptor is free.
    fn waker(&mut self) -> io::Result<Option<Waker>> {
        if !self.shared.needs_waker() {
            return Ok(None);
        }
        if self.wake.is_none() {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            let fd = rustix::event::eventfd(0, flags).map_err(no_waker)?;
            let fd = Arc::new(fd);
            let target = Arc::clone(&fd);
            let waker = Waker::new(move || {
                // Only a full counter can refuse, and then a wake is due anyway.
                let _ = rustix::io::write(&target, &1_u64.to_ne_bytes());
            });
            self.wake = Some((fd, waker));
        }
        Ok(self.wake.as_ref().map(|(_, waker)| waker.clone()))
    }
}

fn no_waker(errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    let text = format!(
        "no descriptor to wake its session with: {error}; {}",
        remedy(&error)
    );
    io::Error::new(error.kind(), text)
}

/// Waits in accept(2). While those under a penalty come faster than they are to be turned
/// away, only the worker whose turn it is does so, after a rest.
fn accept(shared: &Shared) -> (io::Result<Accepted>, Option<MutexGuard<'_, ()>>) {
    let mut turn = shared.admission.is_paced().then(|| shared.pool.turn());
    while turn.is_some() {
        // Asked by each before it rests: those who wait for their turn are not interrupted.
        if !shared.phase.is_running() || shared.pool.has_excess() {
            return (Err(Errno::INTR.into()), turn);
        }
        let Some(until) = shared.admission.rest() else {
            break;
        };
        let time = sys::time::until(until, Instant::now());
        if let Err(error) = rustix::event::poll(&mut [], Some(&time)) {
            return (Err(error.into()), turn);
        }
    }
    if !shared.admission.is_paced() {
        turn = None;
    }
    // Looked at again after this worker was counted as idle: a stop that comes now sees
    // that, and interrupts it.
    if !shared.phase.is_running() {
        return (Err(Errno::INTR.into()), turn);
    }
    (shared.accept(), turn)
}

/// One descriptor to poll, or none.
#[derive(Clone, Copy)]
struct Slot<'a> {
    fd: Option<BorrowedFd<'a>>,
    events: PollFlags,
}

impl<'a> Slot<'a> {
    fn new(fd: Option<BorrowedFd<'a>>, interest: Interest) -> Self {
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, interest.read);
        events.set(PollFlags::OUT, interest.write);
        Self { fd, events }
    }
}

/// poll(2) over the slots that have a descriptor; the answers keep their places.
/// `spare` fills the places behind them, which are not polled.
fn poll<const N: usize>(
    slots: [Slot<'_>; N],
    spare: BorrowedFd<'_>,
    timeout: Option<&rustix::event::Timespec>,
) -> io::Result<[PollFlags; N]> {
    let mut fds: [PollFd<'_>; N] =
        std::array::from_fn(|_| PollFd::from_borrowed_fd(spare, PollFlags::empty()));
    let present = || {
        slots
            .iter()
            .filter_map(|slot| slot.fd.map(|fd| (fd, slot.events)))
    };
    for (place, (fd, events)) in fds.iter_mut().zip(present()) {
        *place = PollFd::from_borrowed_fd(fd, events);
    }
    let polled = fds.get_mut(..present().count()).unwrap_or_default();
    match rustix::event::poll(polled, timeout) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut revents = polled.iter().map(PollFd::revents);
    Ok(slots.map(|slot| {
        slot.fd
            .and_then(|_| revents.next())
            .unwrap_or(PollFlags::empty())
    }))
}

/// Errors and hang-ups count as what was waited for, so that the next call finds out.
fn interest(came: PollFlags, wanted: Interest) -> Interest {
    let ended = came.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
    Interest {
        read: wanted.read && (ended || came.contains(PollFlags::IN)),
        write: wanted.write && (ended || came.contains(PollFlags::OUT)),
    }
}

fn drain(eventfd: Option<BorrowedFd<'_>>) {
    let mut count = [0_u8; 8];
    if let Some(eventfd) = eventfd {
        // EAGAIN says that it was empty already.
        let _ = rustix::io::read(eventfd, &mut count);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;

    /// How many pages of a range are in memory, by proc_pid_pagemap(5).
    fn resident(start: usize, length: usize) -> usize {
        let map = std::fs::File::open("/proc/self/pagemap").unwrap();
        let page = page_size();
        let mut entries = vec![0; length / page * 8];
        let first = start / page * 8;
        map.read_exact_at(&mut entries, first as u64).unwrap();
        entries
            .chunks(8)
            .filter(|entry| entry[7] & 0x80 != 0)
            .count()
    }

    fn page_size() -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let size = |line: &str| {
            let line = line.strip_prefix("KernelPageSize:")?.trim();
            line.strip_suffix(" kB")?.parse::<usize>().ok()
        };
        maps.lines().find_map(size).unwrap() * 1024
    }

    #[test]
    fn the_first_pages_that_a_worker_uses_are_given_back_as_well() {
        const BULK: usize = 60_000;
        let bench = Bench::new();
        let mut client = UnixStream::connect(&bench.path).unwrap();
        client.write_all(&[7; BULK]).unwrap();
        let accepted = bench.shared.accept().unwrap();
        let mut worker = Worker::new(Arc::clone(&bench.shared)).unwrap();
        let buffer = worker.buffer.as_mut_slice();
        let (start, length) = (buffer.as_ptr().addr(), buffer.len());
        let serving = std::thread::spawn(move || worker.attend(accepted, None));
        client.read_exact(&mut [0; BULK]).unwrap();
        // It waits for more now, and nothing comes.
        let end = Instant::now() + Duration::from_secs(20);
        while resident(start, length) > 0 {
            assert!(Instant::now() < end, "never given back");
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(client);
        serving.join().unwrap();
    }
}
