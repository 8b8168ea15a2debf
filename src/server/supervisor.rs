//! The thread that called `run`: starts the others, watches over them, and sees
//! the server to its end. It serves nobody itself.
//!
//! It sleeps until somebody rings: a worker that left nobody behind in accept, a
//! handle that asks for a stop, or the overseer of the embedding program.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;

use super::event_loop::EventLoop;
use super::inbox::Inbox;
use super::pool::{self, SPARE};
use super::shared::Shared;
use super::worker::Worker;
use super::{Handle, Outcome, ServerError, Threads};
use crate::service::CloseReason;
use crate::sys;
use crate::sys::interrupt::Thread;

/// How long surplus workers stay idle before they are let go.
const IDLE_BEFORE_LEAVING: Duration = Duration::from_secs(10);
/// How long to wait before another try to start a thread.
const BETWEEN_STARTS: Duration = Duration::from_millis(100);
/// The same, while one after the other leaves without having served.
const LONGEST_BETWEEN_STARTS: Duration = Duration::from_secs(5);
/// How often waiting workers are interrupted until they have noticed.
const BETWEEN_INTERRUPTS: Duration = Duration::from_millis(2);
/// How often the supervisor looks whether the last connection is over.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// How long threads get to leave after their connections were ended by force.
const GRACE_AFTER_FORCE: Duration = Duration::from_secs(2);

/// Wakes the supervisor. Rings that come before it looks are folded into one.
#[derive(Debug)]
pub(super) struct Bell {
    eventfd: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    /// # Errors
    /// When no descriptor is free.
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            eventfd: rustix::event::eventfd(0, flags)?,
            rung: AtomicBool::new(false),
        })
    }

    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
        }
    }

    fn hear(&self) {
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.eventfd, &mut count);
        // Takes over what was done before a ring that found it rung already, and lets no
        // look that follows be made before it: who rings after that writes again.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

/// What an embedding program watches on the supervisor's thread: signals, a
/// watchdog, a reload. The daemon is one.
pub trait Overseer {
    /// A descriptor to wait on, if any.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// When to be called in any case.
    fn next_call(&self) -> Option<Instant> {
        None
    }

    /// The descriptor is readable, the time has come, or refusals were passed
    /// over ([`Handle::needs_sweep`]).
    fn call(&mut self, handle: &Handle, now: Instant);

    /// All threads are up, and each has entered its role: the last moment before
    /// the first peer is accepted.
    ///
    /// # Errors
    /// Any error keeps the server from serving.
    fn before_accept(&mut self, _handle: &Handle) -> io::Result<()> {
        Ok(())
    }

    /// The server begins to drain.
    fn draining(&mut self, _handle: &Handle) {}
}

impl Overseer for () {
    fn call(&mut self, _handle: &Handle, _now: Instant) {}
}

pub(super) struct Supervisor<'a> {
    shared: Arc<Shared>,
    handle: Handle,
    overseer: &'a mut dyn Overseer,
    /// They say at their end whether they had entered their role.
    threads: Vec<Thread<bool>>,
    next_number: usize,
    /// When surplus workers leave.
    trim_at: Option<Instant>,
    /// When to try again to start a thread.
    retry_at: Option<Instant>,
    /// How long the next pause is, and how many had entered when the last one began.
    pause: Duration,
    entered: usize,
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(shared: Arc<Shared>, overseer: &'a mut dyn Overseer) -> Self {
        let handle = Handle::new(&shared);
        Self {
            shared,
            handle,
            overseer,
            threads: Vec::new(),
            next_number: 0,
            trim_at: None,
            retry_at: None,
            pause: BETWEEN_STARTS,
            entered: 0,
        }
    }

    pub(super) fn run(mut self) -> Result<Outcome, ServerError> {
        sys::interrupt::prepare().map_err(ServerError::System)?;
        let started = self.start();
        let ready = started.and_then(|()| {
            self.attest()?;
            self.overseer
                .before_accept(&self.handle)
                .map_err(ServerError::NotReady)
        });
        if let Err(error) = ready {
            self.shared.phase.force();
            self.shared.gate.open();
            self.finish();
            let_go(self.shared);
            return Err(error);
        }
        self.shared.gate.open();
        self.watch();
        let outcome = self.drain();
        self.finish();
        let failure = self.shared.take_failure();
        let_go(self.shared);
        match failure {
            Some(error) => Err(ServerError::Listener(error)),
            None => Ok(outcome),
        }
    }

    /// Asks the kernel whether every thread stands behind its walls.
    fn attest(&self) -> Result<(), ServerError> {
        let Some(walls) = self.shared.listener.walls() else {
            return Ok(());
        };
        let attested = walls
            .attest()
            .map_err(|error| ServerError::NotReady(io::Error::other(error)))?;
        // The kernel knows filters and no roles: one that entered none would pass.
        let role = self.shared.protocol.role();
        let stands = attested.threads.iter();
        let stand = stands.filter(|thread| thread.role == Some(role)).count();
        if walls.is_confined() && stand < self.threads.len() {
            let of = self.threads.len();
            let text = format!("{stand} of {of} threads stand in the role {role}");
            return Err(ServerError::NotReady(io::Error::other(text)));
        }
        crate::info!(
            "attested: {} threads stand behind their walls",
            attested.threads.len()
        );
        Ok(())
    }

    /// Starts the first threads, which wait at the gate.
    fn start(&mut self) -> Result<(), ServerError> {
        let first = match self.shared.threads {
            Threads::Multi => self.shared.pool.missing(),
            Threads::Loops(count) => count.get(),
        };
        for _ in 0..first {
            self.start_thread().map_err(ServerError::Thread)?;
        }
        if !self.shared.gate.wait_for(first) {
            return Err(ServerError::Role(self.shared.gate.failure()));
        }
        Ok(())
    }

    fn start_thread(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let number = self.next_number;
        let builder = std::thread::Builder::new()
            .name(thread_name(&shared, number))
            .stack_size(shared.stack_size);
        let body: Box<dyn FnOnce() + Send> = match self.shared.threads {
            Threads::Multi => {
                let place = pool::take_place()?;
                let worker = Worker::new(Arc::clone(&shared))?;
                Box::new(move || {
                    let _place = place;
                    worker.run();
                })
            }
            Threads::Loops(_) => {
                let inbox = Arc::new(Inbox::new()?);
                shared.add_loop(&inbox);
                let event_loop = EventLoop::new(Arc::clone(&shared), inbox)?;
                let shared_for_loop = Arc::clone(&shared);
                Box::new(move || {
                    if let Err(error) = event_loop.run() {
                        crate::critical!("an event loop ended: {error}");
                        shared_for_loop.listener_broke(&error);
                    }
                })
            }
        };
        let thread = Thread::spawn(builder, move || {
            let _leaving = Leaving(Arc::clone(&shared));
            let entered = shared.gate.enter(&|| shared.enter_role());
            if entered {
                body();
            }
            entered
        })?;
        self.shared.pool.total.fetch_add(1, Ordering::SeqCst);
        self.next_number += 1;
        self.threads.push(thread);
        Ok(())
    }

    /// Until a stop is asked for.
    fn watch(&mut self) {
        while self.shared.phase.is_running() {
            let next = earliest([self.trim_at, self.retry_at, self.overseer.next_call()]);
            self.sleep(next);
            self.reap();
            self.tend_pool();
        }
    }

    /// Sleeps until somebody rings, the overseer is due, or it is time.
    fn sleep(&mut self, until: Option<Instant>) {
        let until = earliest([until, self.shared.wards.due()]);
        let timeout = until.map(|until| sys::time::until(until, Instant::now()));
        let bell = PollFd::new(&self.shared.supervisor.eventfd, PollFlags::IN);
        let mut fds = vec![bell];
        if let Some(fd) = self.overseer.fd() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // Without it the supervisor would spin.
            Err(error) => {
                crate::critical!("the supervisor can't wait: poll: {error}");
                std::thread::sleep(BETWEEN_STARTS);
            }
        }
        let mut rung = fds.iter().map(|fd| !fd.revents().is_empty());
        let (bell, overseer) = (rung.next() == Some(true), rung.next() == Some(true));
        if bell {
            self.shared.supervisor.hear();
        }
        let now = Instant::now();
        self.shared.wards.look(&self.shared, now);
        let due = self.overseer.next_call().is_some_and(|at| at <= now);
        let asked = bell && self.shared.sweep_asked.load(Ordering::SeqCst);
        if overseer || due || asked {
            self.overseer.call(&self.handle, now);
        }
    }

    /// Joins the threads that have ended.
    fn reap(&mut self) {
        let (ended, alive) = self.threads.drain(..).partition(Thread::is_finished);
        self.threads = alive;
        let ended: Vec<Thread<bool>> = ended;
        for thread in ended {
            self.shared.pool.total.fetch_sub(1, Ordering::SeqCst);
            // A panic outside of a session, which has its own net, is a defect of the driver.
            let joined = thread.join();
            if joined.is_err() {
                crate::critical!("a worker thread panicked outside of a connection");
            }
            if !joined.unwrap_or(false) {
                self.pause_starts();
            }
            // A worker is started anew. A loop has taken its connections with it, and
            // without loops nobody would accept: better an end that is seen.
            if self.shared.threads != Threads::Multi {
                self.shared
                    .listener_broke(&io::Error::other("an event loop ended"));
            }
        }
    }

    /// A thread left without having served: the next one would do so at once as well.
    fn pause_starts(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let entered = self.shared.gate.entered();
        if std::mem::replace(&mut self.entered, entered) != entered {
            self.pause = BETWEEN_STARTS;
        }
        self.retry_at = Some(now + self.pause);
        // To the watchdog it is what can't be had for a while, as when no thread starts.
        if let (_, Some(count)) = self.shared.exhaustion.failed(now) {
            crate::error!(
                "a worker left without having served ({count} times); the next is started in {:?}",
                self.pause
            );
        }
        self.pause = (self.pause * 2).min(LONGEST_BETWEEN_STARTS);
    }

    /// Starts workers that are missing, lets go those that are too many.
    fn tend_pool(&mut self) {
        if self.shared.threads != Threads::Multi || !self.shared.phase.is_running() {
            return;
        }
        let now = Instant::now();
        if self.retry_at.is_none_or(|at| at <= now) {
            self.retry_at = None;
            self.start_missing(now);
        }
        // A reload may have lowered the bound: who is idle leaves before he takes a
        // newcomer beyond it.
        if self.shared.pool.has_excess() {
            self.interrupt_all();
        }
        self.trim(now);
    }

    fn start_missing(&mut self, now: Instant) {
        for _ in 0..self.shared.pool.missing() {
            if let Err(error) = self.start_thread() {
                let (_, unsaid) = self.shared.exhaustion.failed(now);
                if let Some(count) = unsaid {
                    crate::error!(
                        "can't start a worker: {error} ({count} times); raise RLIMIT_NPROC, \
                         TasksMax or vm.max_map_count, or lower max_connections"
                    );
                }
                self.retry_at = Some(now + BETWEEN_STARTS);
                break;
            }
        }
    }

    fn trim(&mut self, now: Instant) {
        let surplus = self.shared.pool.surplus();
        match self.trim_at {
            _ if self.threads.len() <= SPARE => self.trim_at = None,
            None => self.trim_at = Some(now + IDLE_BEFORE_LEAVING),
            Some(at) if at <= now => {
                self.trim_at = Some(now + IDLE_BEFORE_LEAVING);
                if surplus > 0 {
                    self.shared.pool.let_go(surplus);
                    // Each interrupted worker looks whether it is among them. One
                    // that is busy looks when it is done.
                    self.interrupt_all();
                }
            }
            Some(_) => {}
        }
    }

    fn interrupt_all(&self) {
        for thread in &self.threads {
            thread.interrupt();
        }
    }

    /// From the request to stop until the last connection is over, or the time is.
    fn drain(&mut self) -> Outcome {
        self.shared.stop_listening();
        self.overseer.draining(&self.handle);
        self.shared.drain_sessions();
        self.shared.ring_loops();
        let mut forced_at: Option<Instant> = None;
        loop {
            self.reap();
            if self.threads.is_empty() {
                break;
            }
            let now = Instant::now();
            if forced_at.is_none() && self.must_force(now) {
                self.shared.phase.force();
                self.shared.end_all(CloseReason::Stopping);
                self.shared.ring_loops();
                forced_at = Some(now);
            }
            if forced_at.is_some_and(|at| now >= at + GRACE_AFTER_FORCE) {
                crate::error!("{} threads did not end in time", self.threads.len());
                break;
            }
            // Those who wait for a newcomer; at the end also those who wait for a
            // peer that is not admitted yet, which the registry doesn't know.
            let idle = self.shared.pool.idle.load(Ordering::SeqCst) > 0 || forced_at.is_some();
            if idle {
                self.interrupt_all();
            }
            // A thread that ends rings the bell; the interrupts have to be
            // repeated, as one may come just before the call it was to end.
            let pause = if idle {
                BETWEEN_INTERRUPTS
            } else {
                BETWEEN_LOOKS
            };
            self.sleep(earliest([Some(now + pause), self.overseer.next_call()]));
        }
        // A force that found nobody has cut nothing off.
        if !self.threads.is_empty() || self.shared.phase.has_cut() {
            Outcome::Forced
        } else {
            Outcome::Drained
        }
    }

    fn must_force(&self, now: Instant) -> bool {
        self.shared.phase.is_forced() || self.shared.phase.until().is_none_or(|until| now >= until)
    }

    /// Joins what has ended. A thread that hangs in an embedder's service is left.
    fn finish(&mut self) {
        let until = Instant::now() + GRACE_AFTER_FORCE;
        while !self.threads.is_empty() && Instant::now() < until {
            self.interrupt_all();
            self.shared.ring_loops();
            self.reap();
            if !self.threads.is_empty() {
                std::thread::sleep(BETWEEN_INTERRUPTS);
            }
        }
    }
}

/// The listener ends here. A handle keeps all of it for as long as a call takes, maybe on
/// a thread whose walls let it unlink nothing: that one must not be the last to let go.
fn let_go(mut shared: Arc<Shared>) {
    let until = Instant::now() + GRACE_AFTER_FORCE;
    while let Err(still_held) = Arc::try_unwrap(shared) {
        if Instant::now() >= until {
            return;
        }
        shared = still_held;
        std::thread::sleep(BETWEEN_INTERRUPTS);
    }
}

/// Tells the supervisor that a thread ends, however it does.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.supervisor.ring();
    }
}

/// `relay-12`, `relay-loop-1`: whom a thread serves, as `ps -L` and `top -H` show it.
/// The kernel keeps 15 bytes of it, prctl(2).
fn thread_name(shared: &Shared, number: usize) -> String {
    let service = shared.protocol.name();
    match shared.threads {
        Threads::Multi => format!("{service}-{number}"),
        Threads::Loops(_) => format!("{service}-loop-{number}"),
    }
}

fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}
