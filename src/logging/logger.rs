//! A built logger: installs itself, starts its threads, and is told at run time
//! what changes.
//!
//! Threads are started by `start_writer` only, each of which first calls the
//! caller's hook: that is where a sandbox tightens the thread's filter.

use super::builder::Builder;
use super::shared::{HURRY_LIMIT, Phase, STOP_LIMIT, Shared, Taker};
use super::sink::complain_at_last;
use super::sink::compress::{Compressor, Handle};
use super::sink::remote::RemoteAddress;
use super::writer::Writer;
use super::{LoggingError, Severity, Verbosity, limited};
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a stop looks whether it has to hurry.
const TURN: Duration = Duration::from_millis(5);

/// What a thread of the logger does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ThreadRole {
    /// Writes lines to the sinks.
    LogWriter,
    /// Compresses and removes rolled files.
    LogCompressor,
}

/// Called by each thread of the logger before it does anything else. If it
/// fails, so does [`Logger::start_writer`].
pub type ThreadHook = Arc<dyn Fn(ThreadRole) -> io::Result<()> + Send + Sync>;

/// A directory in which the logger creates, opens, renames and removes files
/// after it was built: for Landlock, READ_FILE, WRITE_FILE, READ_DIR, MAKE_REG,
/// REMOVE_FILE and TRUNCATE beneath it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NeededPath {
    /// The directory.
    pub path: PathBuf,
}

/// What the logger counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Lines that wait in the queue.
    pub queued: usize,
    /// Lines that found no room in the queue, by severity 0 to 10.
    pub dropped: [u64; Severity::COUNT],
    /// Each sink.
    pub sinks: Vec<SinkStats>,
}

/// What one sink counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SinkStats {
    /// As `stdout` or `file /var/log/x`.
    pub name: String,
    /// Lines written.
    pub written: u64,
    /// Lines lost.
    pub lost: u64,
    /// Lines that wait for this sink.
    pub waiting: u64,
}

/// A logger. Clones are the same one. May be used by all threads.
#[derive(Clone)]
pub struct Logger(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    rate: Option<u32>,
    compressors: Mutex<Vec<(Compressor, Handle)>>,
    paths: Vec<NeededPath>,
    addresses: Vec<RemoteAddress>,
}

impl std::fmt::Debug for Logger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logger")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Logger {
    pub(super) fn new(
        shared: Arc<Shared>,
        rate: Option<u32>,
        compressors: Vec<(Compressor, Handle)>,
        paths: Vec<NeededPath>,
        addresses: Vec<RemoteAddress>,
    ) -> Self {
        let compressors = Mutex::new(compressors);
        Self(Arc::new(Inner {
            shared,
            rate,
            compressors,
            paths,
            addresses,
        }))
    }

    /// See [`Builder::new`].
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Makes this the program's logger: that of the `log` crate, and of the
    /// macros here.
    ///
    /// # Errors
    /// [`LoggingError::Installed`] if there is one already.
    pub fn install(&self) -> Result<(), LoggingError> {
        log::set_boxed_logger(self.as_log()).map_err(|_| LoggingError::Installed)?;
        self.0.shared.thresholds.set_installed();
        limited::set_rate(self.0.rate);
        Ok(())
    }

    /// This logger for the `log` crate, to be combined with others. The caller
    /// sets [`log::set_max_level`].
    pub fn as_log(&self) -> Box<dyn log::Log> {
        let (filter, front) = (Arc::clone(&self.0.shared), Arc::clone(&self.0.shared));
        let (_, dispatch) = fern::Dispatch::new()
            .level(log::LevelFilter::Trace)
            .filter(move |metadata| may_pass(&filter, metadata))
            .chain(fern::Output::call(move |record| front.accept(record)))
            .into_log();
        Box::new(Installed {
            dispatch,
            shared: Arc::clone(&self.0.shared),
        })
    }

    /// Starts the writer, and a compressor for each file. From now on lines are
    /// written within a millisecond. Threads get all signals blocked, if the
    /// caller has.
    ///
    /// # Errors
    /// A thread could not be started, or its hook failed; or the writer was
    /// started before.
    pub fn start_writer(&self, on_thread_start: ThreadHook) -> Result<Guard, LoggingError> {
        let shared = &self.0.shared;
        let writer = shared.take_writer().ok_or(LoggingError::Started)?;
        let (ended, ends) = bounded(1);
        let (give, given) = bounded::<Box<Writer>>(1);
        let in_thread = Arc::clone(shared);
        let spawned = spawn(
            "log-writer",
            ThreadRole::LogWriter,
            &on_thread_start,
            move || {
                if let Ok(writer) = given.recv() {
                    let writer = writer.run(&in_thread);
                    let _ = ended.send(writer);
                }
            },
        );
        let handle = match spawned {
            Ok(handle) => handle,
            Err(error) => {
                *shared.taker() = Taker::Parked(writer);
                return Err(error);
            }
        };
        let mut guard = Guard {
            logger: self.clone(),
            ends,
            writer: Some(handle),
            compressors: Vec::new(),
        };
        shared.set_phase(Phase::Running);
        let _ = give.send(writer);
        let mut waiting = self
            .0
            .compressors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (compressor, stop) in waiting.drain(..) {
            let role = ThreadRole::LogCompressor;
            let thread = spawn("log-compress", role, &on_thread_start, move || {
                compressor.run()
            })?;
            guard.compressors.push((thread, stop));
        }
        Ok(guard)
    }

    /// Writes what is queued on the calling thread, as long as the writer has
    /// no thread of its own: for a start that fails.
    pub fn drain_blocking(&self) {
        self.0.shared.drain_here();
    }

    /// Waits until all that was logged before is written to files, streams and
    /// message queues, or `limit` is over. Gives whether it is; at once where it
    /// can't be, as on a full disk. What goes to a syslog server may be on its way,
    /// and what the queue dropped is not waited for: see [`Logger::stats`].
    pub fn flush(&self, limit: Duration) -> bool {
        self.0.shared.flush(limit)
    }

    /// Opens files again that were renamed or removed.
    pub fn reopen(&self) {
        self.0.shared.reopen.store(true, Ordering::SeqCst);
        self.0.shared.queue.wake();
    }

    /// Changes which severities are logged, for sinks without a level of their own.
    pub fn set_verbosity(&self, verbosity: Verbosity) {
        self.0.shared.thresholds.set_verbosity(verbosity);
    }

    /// Changes which severities are logged of which modules.
    pub fn set_verbosity_for(&self, modules: Vec<(String, Verbosity)>) {
        self.0.shared.thresholds.set_scopes(modules);
    }

    /// Changes how many lines a second each `limited!` of the program may
    /// write; `None` for any number.
    pub fn set_rate(&self, lines_per_second: Option<u32>) {
        limited::set_rate(lines_per_second);
    }

    /// What was counted until now. Not a point in time: counters go on.
    pub fn stats(&self) -> Stats {
        let shared = &self.0.shared;
        let sinks = shared.sinks.iter().map(|sink| SinkStats {
            name: sink.name.clone(),
            written: sink.counters.written.load(Ordering::Relaxed),
            lost: sink.counters.lost.load(Ordering::Relaxed),
            waiting: sink.counters.waiting.load(Ordering::Relaxed),
        });
        Stats {
            queued: shared.queue.len(),
            dropped: shared.dropped().by_severity(),
            sinks: sinks.collect(),
        }
    }

    /// The directories that the logger goes on to use.
    pub fn paths_needed(&self) -> &[NeededPath] {
        &self.0.paths
    }

    /// The servers that the logger goes on to connect to, each with a new
    /// socket(2) whenever it has to.
    pub fn addresses_needed(&self) -> &[RemoteAddress] {
        &self.0.addresses
    }
}

/// Starts a thread and waits until its hook has succeeded.
fn spawn(
    name: &'static str,
    role: ThreadRole,
    hook: &ThreadHook,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, LoggingError> {
    let failed = |source| LoggingError::Thread { name, source };
    let (ready, readiness) = bounded(1);
    let hook = Arc::clone(hook);
    let thread = thread::Builder::new().name(name.into()).spawn(move || {
        if role == ThreadRole::LogCompressor {
            Compressor::lower_priority();
        }
        let entered = hook(role);
        let goes_on = entered.is_ok();
        let _ = ready.send(entered);
        if goes_on {
            body();
        }
    });
    let thread = thread.map_err(failed)?;
    match readiness.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(io::Error::other("its start hook panicked"))),
    }
}

/// A first look at what other crates log: whether any sink could take it.
fn may_pass(shared: &Shared, metadata: &log::Metadata<'_>) -> bool {
    let scope = shared.thresholds.scope_of(metadata.target());
    metadata.level() <= shared.thresholds.within(scope).log_filter()
}

/// What the `log` crate gets.
struct Installed {
    dispatch: Box<dyn log::Log>,
    shared: Arc<Shared>,
}

impl log::Log for Installed {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.dispatch.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        self.dispatch.log(record);
    }

    fn flush(&self) {
        self.shared.flush(super::shared::FLUSH_LIMIT);
    }
}

/// Keeps the writer running. Dropped, it writes what was logged and ends the
/// logger's threads, as [`Guard::shutdown`] does; what is logged later goes to stderr.
#[derive(Debug)]
#[must_use = "dropping the guard stops the logger"]
pub struct Guard {
    logger: Logger,
    ends: Receiver<Box<Writer>>,
    writer: Option<JoinHandle<()>>,
    compressors: Vec<(JoinHandle<()>, Handle)>,
}

impl Guard {
    /// The logger.
    pub fn logger(&self) -> &Logger {
        &self.logger
    }

    /// Writes all that was logged, says what was lost, and ends the threads.
    /// A sink that is slow is waited for, without bound; one that takes nothing for 5
    /// seconds is given up, a disk that hangs after 10, and what they have not taken by
    /// then is lost. Gives whether the writer came to its end.
    pub fn shutdown(self) -> bool {
        self.shutdown_unless(|| false)
    }

    /// As [`Guard::shutdown`]; once `hurries` says so, 1 second is left, whatever sinks
    /// take, and a second more for a disk that hangs.
    /// It is asked every few milliseconds while the logger waits, on the calling
    /// thread, and not again after its first yes.
    pub fn shutdown_unless(mut self, hurries: impl FnMut() -> bool) -> bool {
        self.stop(hurries)
    }

    fn stop(&mut self, mut hurries: impl FnMut() -> bool) -> bool {
        let Some(thread) = self.writer.take() else {
            return true;
        };
        for (_, compressor) in &self.compressors {
            compressor.stop();
        }
        let shared = &self.logger.0.shared;
        limited::summarise_all();
        // Now begins its time; the writer puts its end off while sinks take lines.
        shared.stop_by();
        shared.stop.store(true, Ordering::SeqCst);
        shared.queue.wake();
        let mut hurry = false;
        let mut look = || {
            if !hurry && hurries() {
                hurry = true;
                shared.hurry();
            }
            shared.stop_by() + if hurry { HURRY_LIMIT } else { STOP_LIMIT }
        };
        let writer = await_writer(&self.ends, &mut look);
        shared.set_phase(Phase::After);
        let Some(mut writer) = writer else {
            complain_at_last("the writer hangs and is left: the last lines may be missing");
            return false;
        };
        let _ = thread.join();
        for (thread, _) in self.compressors.drain(..) {
            while !thread.is_finished() && Instant::now() < look() {
                thread::sleep(TURN);
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
        writer.close(shared, &mut || {
            look();
        });
        drop(writer);
        *shared.taker() = Taker::Ended;
        shared.drain_late();
        true
    }
}

/// Waits for the writer until the moment that `look` gives.
fn await_writer(
    ends: &Receiver<Box<Writer>>,
    look: &mut impl FnMut() -> Instant,
) -> Option<Box<Writer>> {
    loop {
        let until = look();
        match ends.recv_timeout(TURN) {
            Ok(writer) => return Some(writer),
            Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
            Err(_) => return None,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop(|| false);
    }
}
