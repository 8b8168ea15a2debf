//! What all threads of one server share.

use std::error::Error;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::exhaustion::{AcceptError, Exhaustion, remedy};
use super::gate::{Gate, OnThreadStart};
use super::inbox::Inbox;
use super::journal::{self, Observer};
use super::phase::Phase;
use super::pool::Pool;
use super::registry::Registry;
use super::reserve::Reserve;
use super::rules::{Choice, Rules};
use super::supervisor::Bell;
use super::wards::Wards;
use crate::admission::{Abuse, Admission, Refusal, Subject};
use crate::listener::{Accepted, Listener, Sealed};
use crate::peer::{FactKind, Needs, Peer};
use crate::policy::Authorized;
use crate::sandbox::SandboxError;
use crate::service::{CloseReason, Connection, Kind, Protocol};

/// Room for data in transit, for each thread; only what is used costs memory.
/// Beyond the largest record that a Unix socket carries with default settings.
pub(super) const BUFFER_SIZE: usize = 256 * 1024;
/// How many newcomers beyond `max_connections` loops examine at once (`overload=refuse`).
pub(crate) const EXAMINED: usize = 64;

/// How connections are shared out among threads (`threads=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threads {
    /// A bounded pool, one connection for each worker at a time.
    Multi,
    /// So many threads, each with many connections. 1 is `threads=single`.
    Loops(NonZeroUsize),
}

/// What happens to newcomers at `max_connections` (`overload=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overload {
    /// They wait in the kernel's backlog.
    #[default]
    Wait,
    /// They are accepted and closed, counted and logged.
    Refuse,
}

pub(super) struct Shared {
    pub(super) listener: Listener<Sealed>,
    pub(super) protocol: Arc<dyn Protocol>,
    pub(super) threads: Threads,
    pub(super) overload: Overload,
    pub(super) stack_size: usize,
    pub(super) on_thread_start: OnThreadStart,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) rules: RwLock<Arc<Rules>>,
    /// Whether visits need a waker: for the service, or for checks that another
    /// thread makes.
    pub(super) wakes: AtomicBool,
    pub(super) reserve: Reserve,
    pub(super) connection_kind: Kind,
    pub(super) max_connections: AtomicUsize,
    /// Connections that the loops hold, those under examination included.
    pub(super) seated: AtomicUsize,
    pub(super) admission: Arc<Admission>,
    pub(super) registry: Registry,
    pub(super) wards: Wards,
    pub(super) exhaustion: Exhaustion,
    pub(super) pool: Pool,
    pub(super) phase: Phase,
    pub(super) gate: Gate,
    pub(super) supervisor: Bell,
    pub(super) loops: Mutex<Vec<Arc<Inbox>>>,
    /// Whether a loop stopped listening because the server is full.
    pub(super) paused: AtomicBool,
    pub(super) accepted: AtomicU64,
    /// Refusals were passed over, and the overseer was told that a sweep is due.
    pub(super) sweep_asked: AtomicBool,
    pub(super) failure: Mutex<Option<io::Error>>,
}

impl Shared {
    /// # Errors
    /// As accept(2).
    pub(super) fn accept(&self) -> io::Result<Accepted> {
        self.listener.accept()
    }

    /// What every thread does first: the embedder's hook, then its walls.
    ///
    /// # Errors
    /// If either fails; the thread must not serve.
    pub(super) fn enter_role(&self) -> io::Result<()> {
        (self.on_thread_start)()?;
        let Some(walls) = self.listener.walls() else {
            return Ok(());
        };
        loop {
            let Err(error) = walls.enter_role(self.protocol.role()) else {
                return Ok(());
            };
            // It reads how it stands. Where there is no descriptor for that, there is none
            // for a newcomer either, and it waits as if it were in accept(2) already.
            let is_late = self.gate.is_open() && self.phase.is_running();
            let Some(lack) = lack_of_descriptors(&error).filter(|_| is_late) else {
                return Err(io::Error::other(error));
            };
            self.pool.idle.fetch_add(1, Ordering::SeqCst);
            let wait = self.say_exhausted("accept", lack);
            self.exhaustion.wait(wait);
            self.pool.idle.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(super) fn listener_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Whether somebody waits in the backlog.
    pub(super) fn has_newcomers(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.listener_fd(), PollFlags::IN)];
        let polled = rustix::event::poll(&mut fds, Some(&Timespec::default()));
        polled.is_ok() && fds.iter().any(|fd| fd.revents().contains(PollFlags::IN))
    }

    /// The number of the next connection.
    pub(super) fn next_id(&self) -> u64 {
        self.accepted.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The rules in force now.
    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether visits need a waker.
    pub(super) fn needs_waker(&self) -> bool {
        self.wakes.load(Ordering::Relaxed)
    }

    /// Puts other rules in force.
    pub(super) fn set_rules(&self, rules: &Arc<Rules>) {
        let wakes = self.protocol.needs_waker() || rules.needs().has_any(Needs::PROC);
        self.wakes.store(wakes, Ordering::Relaxed);
        let mut in_force = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *in_force = Arc::clone(rules);
    }

    /// Keeps other rules from coming into force for a moment. `None` if others than
    /// these are already.
    pub(super) fn hold(&self, rules: &Arc<Rules>) -> Option<RwLockReadGuard<'_, Arc<Rules>>> {
        let in_force = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        Arc::ptr_eq(&in_force, rules).then_some(in_force)
    }

    /// Whether a peer has to prove itself before the session begins. A service
    /// that asks for the proof in its own protocol is left to it.
    pub(super) fn must_prove(&self, rules: &Rules, authorized: &Authorized) -> bool {
        rules.process_proof == Choice::Yes
            && authorized.names_executable()
            && !self.protocol.proves_by_itself()
    }

    /// Whether the kernel was asked to say who sent what, for the proof. A service that
    /// asks for the proof in its own protocol still needs it.
    pub(super) fn was_told_senders(&self, rules: &Rules) -> bool {
        rules.process_proof == Choice::Yes && !self.protocol.proves_by_itself()
    }

    /// A connection that had been admitted is over.
    pub(super) fn closed(&self, connection: &Connection, reason: CloseReason) {
        journal::closed(
            &*self.observer,
            connection,
            reason,
            connection.opened().elapsed(),
        );
        self.reserve.refill();
    }

    /// Counts a sign of abuse, and says what it led to. The last peer that gave it
    /// is named, with its executable where a rule made the server able to read it.
    pub(super) fn note_abuse(&self, subject: &Subject, peer: &Peer, abuse: Option<Abuse>) {
        let Some(abuse) = abuse else { return };
        let noticed = self.admission.abused(subject, abuse, Instant::now());
        journal::abuse(&*self.observer, subject, abuse, &noticed);
        let Some(count) = noticed.pattern else { return };
        let facts = peer.facts().clone();
        let rules = self.rules();
        if !rules.inspector.reads_processes() || peer.pidfd().is_none() {
            return journal::pattern(&facts, None, abuse, count);
        }
        let on_done = move |process| journal::pattern(&facts, Some(&process), abuse, count);
        let exe = Needs::only(FactKind::Exe);
        rules.inspector.learn_later(peer, exe, Box::new(on_done));
    }

    /// A peer was refused by a limit.
    pub(super) fn refused(&self, id: u64, subject: &Subject, refusal: &Refusal) {
        journal::refused(&*self.observer, id, subject, refusal);
        // The overseer may have nothing else to wake up for.
        if refusal.report().is_none() && !self.sweep_asked.swap(true, Ordering::SeqCst) {
            self.supervisor.ring();
        }
    }

    /// Tells of refusals that were passed over.
    pub(super) fn sweep(&self, all: bool) {
        self.sweep_asked.store(false, Ordering::SeqCst);
        for passed in self.admission.sweep(Instant::now(), all) {
            journal::passed_over(&*self.observer, &passed);
        }
    }

    /// Whether no loop may take newcomers now. Then the one who asked pauses,
    /// and is rung when a connection closes.
    pub(super) fn must_pause(&self) -> bool {
        if !self.is_full() {
            return false;
        }
        self.paused.store(true, Ordering::SeqCst);
        // Again, as the last connection may have closed before the note was read.
        self.is_full()
    }

    pub(super) fn is_full(&self) -> bool {
        let bound = self.max_connections.load(Ordering::Relaxed);
        let taken = self
            .seated
            .load(Ordering::SeqCst)
            .max(self.admission.open());
        match self.overload {
            Overload::Wait => taken >= bound,
            // They are accepted to be turned away, but those who are still being
            // examined are bounded all the same.
            Overload::Refuse => taken >= bound.saturating_add(EXAMINED),
        }
    }

    /// Whether who comes beyond the bound waits for a place. Few do, where they are to wait
    /// in the backlog: several threads that accept at the same moment, or after a reload
    /// that lowered it.
    pub(super) fn waits_for_places(&self) -> bool {
        self.overload == Overload::Wait && self.phase.is_running()
    }

    /// A connection closed: loops that paused may listen again.
    pub(super) fn resume_loops(&self) {
        if self.paused.load(Ordering::SeqCst) && !self.is_full() {
            self.paused.store(false, Ordering::SeqCst);
            self.ring_loops();
        }
    }

    pub(super) fn add_loop(&self, inbox: &Arc<Inbox>) {
        self.loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(inbox));
    }

    pub(super) fn ring_loops(&self) {
        for inbox in self
            .loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            inbox.ring();
        }
    }

    /// A call that takes newcomers ran out of something: says so, at most once a second,
    /// and how long to wait.
    pub(super) fn say_exhausted(&self, call: &str, error: &io::Error) -> Duration {
        let (wait, unsaid) = self.exhaustion.failed(Instant::now());
        if let Some(count) = unsaid {
            crate::error!(
                "{call}: {error} ({count} times); newcomers wait in the backlog: {}",
                remedy(error)
            );
        }
        wait
    }

    /// The listener can't be used any more: the server stops.
    pub(super) fn listener_broke(&self, error: &io::Error) {
        if !self.phase.is_running() {
            return;
        }
        crate::critical!("accept: {error}; the server stops");
        let failure = io::Error::new(error.kind(), error.to_string());
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(failure);
        self.phase.drain(Instant::now());
        self.supervisor.ring();
    }

    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Closes whoever is in the backlog of a listener that was shut down; gives how many
    /// there were. Where descriptors ran out, the one held in reserve does for it.
    fn turn_away_all(&self) -> u64 {
        let mut number = 0_u64;
        loop {
            let turned_away = match self.accept() {
                Ok(accepted) => {
                    drop(accepted);
                    true
                }
                Err(error) => match AcceptError::of(&error) {
                    AcceptError::Passing => continue,
                    AcceptError::Exhausted => self.reserve.spend_on(|| self.accept().is_ok()),
                    AcceptError::Nothing | AcceptError::Broken => false,
                },
            };
            if !turned_away {
                return number;
            }
            number = number.saturating_add(1);
        }
    }

    /// Newcomers are turned away by the kernel from now on, and here those who came
    /// before and wait: in the backlog, and in connect(2) where that is full. They would
    /// be held until the last connection is over, which may take as long as it likes.
    pub(super) fn stop_listening(&self) {
        match self.listener.shut_down() {
            // Once the backlog is empty, accept fails.
            Ok(true) => {
                let waited = self.turn_away_all();
                if waited > 0 {
                    crate::info!("{waited} newcomers who waited are turned away");
                }
            }
            // The service manager's: who waits is for the next one that it starts.
            Ok(false) => {}
            Err(error) => crate::debug!("shutdown of the listener: {error}"),
        }
    }

    pub(super) fn drain_sessions(&self) {
        let until = self.phase.until().unwrap_or_else(Instant::now);
        self.protocol.drain(until);
    }

    /// Ends every open connection.
    pub(super) fn end_all(&self, reason: CloseReason) {
        for connection in self.registry.snapshot() {
            self.phase.cut();
            connection.end_by_force(reason);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("service", &self.protocol.name())
            .finish_non_exhaustive()
    }
}

fn lack_of_descriptors(error: &SandboxError) -> Option<&io::Error> {
    let source = error.source()?.downcast_ref::<io::Error>()?;
    let errno = Errno::from_io_error(source)?;
    matches!(errno, Errno::MFILE | Errno::NFILE).then_some(source)
}
