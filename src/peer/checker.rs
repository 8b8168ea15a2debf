//! The process checker: a few threads that read what `/proc` says of peers.
//!
//! They stay outside Landlock, which would hide executables, and alone keep
//! CAP_SYS_PTRACE. One thread reads; others compute digests, so that a large
//! executable holds up nobody who isn't asked for its digest. Everything waits in
//! bounded queues, and past its bound is answered [`Unreadable::Busy`].
//!
//! The threads are made by whoever owns the order of start-up: [`Checker::new`]
//! returns what each of them runs. They return when the last handle is dropped.

use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use std::{fmt, io};

use super::digest::{Cache, Key, digest};
use super::pins::Pins;
use super::process::{ProcRoot, ProcessFacts, confirm, read};
use super::queue::Queue;
use super::{Needs, Peer, Unreadable};
use crate::ids::Pid;
use crate::sys;

/// The bounds of the checker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckerConfig {
    /// How many digests are computed at once; 0 where no rule asks for any.
    pub digest_threads: usize,
    /// How long a peer waits for its digest, from the moment it is asked for.
    /// Zero: only a digest that is remembered is good.
    pub digest_wait: Duration,
    /// The largest executable whose digest is computed, in bytes.
    pub digest_max_bytes: u64,
    /// How many digests are remembered.
    pub digests_remembered: usize,
    /// How many peers may wait, for each kind of thread.
    pub queue: usize,
}

impl Default for CheckerConfig {
    fn default() -> Self {
        Self {
            digest_threads: 1,
            digest_wait: Duration::from_secs(5),
            digest_max_bytes: 256 * 1024 * 1024,
            digests_remembered: 256,
            queue: 1_024,
        }
    }
}

/// Whom an answer goes to. Runs on a thread of the checker: it must be quick.
pub type OnDone = Box<dyn FnOnce(ProcessFacts) + Send>;

/// A process to be read.
struct Job {
    pidfd: Arc<OwnedFd>,
    pid: Pid,
    needs: Needs,
    pins: Arc<Pins>,
    deadline: Instant,
    on_done: OnDone,
}

impl Job {
    fn answer(self, facts: Result<ProcessFacts, Unreadable>) {
        let unreadable = |why| ProcessFacts::all_unreadable(self.needs, why);
        let facts = facts.unwrap_or_else(unreadable);
        (self.on_done)(facts);
    }
}

struct Shared {
    config: CheckerConfig,
    proc: ProcRoot,
    reads: Queue<Job>,
    digests: Queue<Job>,
    cache: std::sync::Mutex<Cache>,
}

/// Closes the queues when the last handle goes.
struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.reads.close();
        self.0.digests.close();
    }
}

/// A handle on the process checker. Cheap to clone, may be shared by threads.
#[derive(Clone)]
pub struct Checker {
    closer: Arc<Closer>,
    /// Without threads: whoever asks reads for himself.
    is_direct: bool,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker")
            .field("config", &self.closer.0.config)
            .finish_non_exhaustive()
    }
}

/// What one thread of the checker runs.
pub struct CheckerThread {
    /// A name for the thread, at most 15 bytes.
    pub name: &'static str,
    body: Box<dyn FnOnce() + Send>,
}

impl CheckerThread {
    /// Serves until the last handle is dropped. A panic in an answer's receiver ends
    /// that answer only.
    pub fn run(self) {
        (self.body)();
    }
}

impl fmt::Debug for CheckerThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckerThread")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Checker {
    /// Opens `/proc`, and returns the handle and what each thread is to run: one
    /// that reads, and `digest_threads` more.
    ///
    /// # Errors
    ///
    /// If `/proc` isn't there, or is something else.
    pub fn new(config: CheckerConfig) -> io::Result<(Self, Vec<CheckerThread>)> {
        let shared = Arc::new(Shared::new(config)?);
        let reader = Arc::clone(&shared);
        let reader: Box<dyn FnOnce() + Send> = Box::new(move || reader.serve_reads());
        let mut threads = vec![CheckerThread {
            name: "process-check",
            body: reader,
        }];
        for _ in 0..config.digest_threads {
            let hasher = Arc::clone(&shared);
            let hasher: Box<dyn FnOnce() + Send> = Box::new(move || hasher.serve_digests());
            threads.push(CheckerThread {
                name: "process-digest",
                body: hasher,
            });
        }
        Ok((Self::of(shared, false), threads))
    }

    /// As [`Checker::new`], with the threads started here: for programs that have
    /// no sandbox.
    ///
    /// # Errors
    ///
    /// As there, or if a thread can't be started.
    pub fn start(config: CheckerConfig) -> io::Result<Self> {
        let (checker, threads) = Self::new(config)?;
        for thread in threads {
            let name = String::from(thread.name);
            std::thread::Builder::new()
                .name(name)
                .spawn(move || thread.run())?;
        }
        Ok(checker)
    }

    /// Without threads: each question is answered on the thread that asks, digests
    /// included. For clients, which ask once, and outside any sandbox.
    ///
    /// # Errors
    ///
    /// As [`Checker::new`].
    pub fn direct(config: CheckerConfig) -> io::Result<Self> {
        Ok(Self::of(Arc::new(Shared::new(config)?), true))
    }

    fn of(shared: Arc<Shared>, is_direct: bool) -> Self {
        Self {
            closer: Arc::new(Closer(shared)),
            is_direct,
        }
    }

    /// Has a peer's process read, and hands the answer to `on_done` on a thread of
    /// the checker; on this one, and at once, if nothing can be read at all.
    ///
    /// The answer comes within about `digest_wait`, whatever happens.
    pub fn submit(&self, peer: &Peer, needs: Needs, pins: &Arc<Pins>, on_done: OnDone) {
        let held = peer.held().and_then(|pidfd| {
            let pid = peer.pid().ok_or(Unreadable::NotVisible)?;
            Ok((Arc::clone(pidfd), pid))
        });
        let needs = needs.within(Needs::PROC);
        let (pidfd, pid) = match held {
            Ok(held) => held,
            Err(why) => return on_done(ProcessFacts::all_unreadable(needs, why)),
        };
        let deadline = sys::time::after(Instant::now(), self.patience());
        let job = Job {
            pidfd,
            pid,
            needs,
            pins: Arc::clone(pins),
            deadline,
            on_done,
        };
        if self.is_direct {
            return self.closer.0.read_here(job);
        }
        if let Err(job) = self.closer.0.reads.push(job) {
            job.answer(Err(Unreadable::Busy));
        }
    }

    /// Within about what time an answer comes.
    pub(super) fn patience(&self) -> Duration {
        self.closer.0.config.digest_wait
    }

    /// As [`Checker::submit`], and waits for the answer.
    pub fn read(&self, peer: &Peer, needs: Needs, pins: &Arc<Pins>) -> ProcessFacts {
        let (sender, receiver) = mpsc::sync_channel(1);
        let on_done = move |facts| drop(sender.try_send(facts));
        self.submit(peer, needs, pins, Box::new(on_done));
        // The sender goes with its job at the latest.
        receiver
            .recv()
            .unwrap_or_else(|_| ProcessFacts::all_unreadable(needs, Unreadable::Busy))
    }
}

impl Shared {
    fn new(config: CheckerConfig) -> io::Result<Self> {
        Ok(Self {
            config,
            proc: ProcRoot::open()?,
            reads: Queue::new(config.queue),
            digests: Queue::new(config.queue),
            cache: std::sync::Mutex::new(Cache::new(config.digests_remembered)),
        })
    }

    fn serve_reads(&self) {
        loop {
            // Digests that nobody got to in time are answered from here: the threads
            // that compute them may all be at a large file.
            let next_deadline = self.digests.peek(|job| job.deadline);
            let Some(job) = self.reads.pop(next_deadline) else {
                break;
            };
            while let Some(late) = self.digests.take_if(|job| job.deadline <= Instant::now()) {
                guard(|| late.answer(Err(Unreadable::Busy)));
            }
            if let Some(job) = job {
                guard(|| self.read(job));
            }
        }
    }

    fn read(&self, job: Job) {
        if job.needs.has(super::FactKind::Sha256) {
            return self.read_with_digest(job);
        }
        let facts = read(&self.proc, job.pidfd.as_fd(), job.pid, job.needs, &job.pins)
            .and_then(|reading| confirm(reading, None));
        job.answer(facts);
    }

    /// Answers at once if the digest is remembered, else leaves it to the others.
    fn read_with_digest(&self, job: Job) {
        let wait = self.config.digest_wait.is_zero() || self.config.digest_threads == 0;
        match self.confirm_with(&job, |_, key| self.remembered(key).ok_or(Unreadable::Busy)) {
            Err(Unreadable::Busy) if !wait => {
                if let Err(job) = self.digests.push(job) {
                    job.answer(Err(Unreadable::Busy));
                }
            }
            facts => job.answer(facts),
        }
    }

    fn serve_digests(&self) {
        while let Some(job) = self.digests.pop(None) {
            let Some(job) = job else { continue };
            guard(|| self.read_here(job));
        }
    }

    /// Reads everything, the digest included.
    fn read_here(&self, job: Job) {
        let facts = self.confirm_with(&job, |file, key| self.digest(file, key, &job));
        job.answer(facts);
    }

    fn digest(&self, file: &std::fs::File, key: &Key, job: &Job) -> Result<[u8; 32], Unreadable> {
        if let Some(digest) = self.remembered(key) {
            return Ok(digest);
        }
        let digest = digest(file, key, self.config.digest_max_bytes, job.deadline)?;
        self.cache().insert(*key, digest);
        Ok(digest)
    }

    /// Reads all facts at one time, the digest from wherever it comes. `Busy` is
    /// for the whole, since facts of different times are never put together.
    fn confirm_with(
        &self,
        job: &Job,
        digest: impl FnOnce(&std::fs::File, &Key) -> Result<[u8; 32], Unreadable>,
    ) -> Result<ProcessFacts, Unreadable> {
        let mut reading = read(&self.proc, job.pidfd.as_fd(), job.pid, job.needs, &job.pins)?;
        let Some((file, id)) = reading.take_exe() else {
            return confirm(reading, None);
        };
        let digest = Key::of(&file).and_then(|key| digest(&file, &key));
        if digest == Err(Unreadable::Busy) {
            return Err(Unreadable::Busy);
        }
        confirm(reading, Some((id, digest)))
    }

    fn remembered(&self, key: &Key) -> Option<[u8; 32]> {
        self.cache().get(key)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A panic in whoever receives an answer must not end the checks of all others.
/// It has been reported by the panic hook already.
fn guard(work: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(work)));
}
