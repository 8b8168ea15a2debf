//! Appends lines, one write(2) for each, from any thread.
//!
//! The thread that decides formats its line and writes it under one lock, so the
//! file has them in the order of the chain. What takes longer is left to one more
//! thread, the [`Keeper`]: syncing, rolling, and taking back a line that a full
//! disk cut short. So those who decide need no right but to write.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::chain::{Head, link};
use super::error::TrailError;
use super::event::Event;
use super::json::Members;
#[cfg(doc)]
use super::keeper::Keeper;
use super::place::Place;
use super::synced::Synced;
use super::time;
use crate::ids::{Gid, Uid};

/// At least so often the head is logged while lines are added.
const HEAD_EVERY: Duration = Duration::from_secs(60 * 60);

/// When lines reach the disk (`trail_sync`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncPolicy {
    /// When the kernel likes, and before a file is rolled: a crash of the machine may
    /// lose the last half minute. A crash of the server loses nothing.
    No,
    /// Within 200 ms, many lines at once: nobody waits for it.
    #[default]
    Batch,
    /// Before a decision takes effect. Those who wait share one sync.
    Each,
}

/// Where a trail lies and how it is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// An absolute path. Its directory exists, belongs to root or to the
    /// server's user, and others may not write it. The lock lies beside it.
    pub path: PathBuf,
    /// Whose the files shall be, if privileges are dropped later.
    pub owner: Option<(Uid, Gid)>,
    /// When lines reach the disk.
    pub sync: SyncPolicy,
    /// At how many bytes the file is renamed to `NAME.YYYYMMDD-HHMMSS.uuuuuu` and a
    /// new one begun, whose first line goes on with the chain. Not compressed.
    pub max_size: u64,
    /// How many renamed files are kept; 0: all.
    pub keep: usize,
}

impl Options {
    /// Synced in batches, rolled at 64 MiB, all kept.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            owner: None,
            sync: SyncPolicy::Batch,
            max_size: 64 << 20,
            keep: 0,
        }
    }
}

/// How a trail was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The line that the next one continues from. [`Head::START`] for a new trail.
    pub head: Head,
    /// Where a torn last line was put, of this file or of the one before it, and how many
    /// bytes it had.
    pub torn: Option<(PathBuf, u64)>,
    /// Whether the owner may rename files in the directory, as rolling needs.
    pub can_roll: bool,
}

/// Puts a file's content on the disk.
type Disk = dyn Fn(&File) -> io::Result<()> + Send + Sync;

/// An open trail. Shared by all threads that decide.
pub struct Trail {
    pub(super) place: Place,
    pub(super) sync: SyncPolicy,
    pub(super) max_size: u64,
    pub(super) keep: usize,
    pub(super) head_every: Duration,
    /// fdatasync(2); something else in tests.
    pub(super) disk: Box<Disk>,
    pub(super) state: Mutex<State>,
    /// With which code the server stops, once it does: the last line is to be written.
    pub(super) stop: OnceLock<u8>,
    /// There is something to do for the keeper.
    pub(super) work: Condvar,
    /// A sync has answered, or nobody is left to do one.
    pub(super) answer: Condvar,
}

pub(super) struct State {
    pub(super) file: Arc<File>,
    pub(super) length: u64,
    pub(super) head: Head,
    config: [u8; 32],
    /// The line in the making; kept for its memory.
    line: Vec<u8>,
    /// Bytes of a line that was not written whole lie beyond `length`.
    pub(super) damaged: bool,
    pub(super) synced: Synced,
    /// Of two syncs at once one would tell a failure and the other success.
    pub(super) syncing: bool,
    /// The file's name may not be on the disk.
    pub(super) unnamed: bool,
    pub(super) keepers: usize,
    /// There was a keeper: nobody else does its work, not even after its end.
    pub(super) is_kept: bool,
    /// The keeper waits for something to do.
    pub(super) idle: bool,
    pub(super) roll_after: Option<Instant>,
    /// When a head was last logged or looked at, and its number.
    pub(super) said: (Instant, u64),
    pub(super) closing: bool,
}

thread_local! {
    static MEMBERS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Trail {
    /// Opens or creates the trail and finds the line to go on from. `config` is
    /// the SHA-256 of the configuration in force.
    ///
    /// # Errors
    /// The place is not fit, another process writes the trail, or what is there
    /// is not one. A torn last line is no error.
    pub fn open(options: &Options, config: [u8; 32]) -> Result<(Self, Opened), TrailError> {
        let place = Place::open(&options.path, options.owner)?;
        let mut found = place.open_file()?;
        let head = place.head(&mut found)?;
        let opened = Opened {
            head,
            torn: found.torn,
            can_roll: place.can_roll(),
        };
        let state = State {
            file: Arc::new(found.lines.file),
            length: found.lines.length,
            head,
            config,
            line: Vec::with_capacity(1_024),
            damaged: false,
            synced: Synced::new(head.sequence),
            syncing: false,
            unnamed: true,
            keepers: 0,
            is_kept: false,
            idle: false,
            roll_after: None,
            said: (Instant::now(), head.sequence),
            closing: false,
        };
        let trail = Self {
            place,
            sync: options.sync,
            max_size: options.max_size,
            keep: options.keep,
            head_every: HEAD_EVERY,
            disk: Box::new(File::sync_data),
            state: Mutex::new(state),
            stop: OnceLock::new(),
            work: Condvar::new(),
            answer: Condvar::new(),
        };
        Ok((trail, opened))
    }

    /// Appends one line. With [`SyncPolicy::Each`] it returns when that is on the disk.
    ///
    /// # Errors
    /// The event is not recorded; what it stands for must not happen.
    pub fn append(&self, event: &Event<'_>) -> Result<(), TrailError> {
        MEMBERS.with(|members| match members.try_borrow_mut() {
            Ok(mut members) => self.append_with(event, &mut members),
            Err(_) => self.append_with(event, &mut Vec::new()),
        })
    }

    fn append_with(&self, event: &Event<'_>, members: &mut Vec<u8>) -> Result<(), TrailError> {
        members.clear();
        event.write(members);
        let mut state = self.state();
        if state.damaged && !state.is_kept {
            state.repair();
        }
        let written = state.write(members);
        if written.is_err() {
            self.work.notify_one();
        }
        let sequence = written?;
        let must_sync = self.sync == SyncPolicy::Each;
        if !state.is_kept {
            (state, _) = self.tend(state, must_sync);
        } else if state.idle && self.has_work(&state, Instant::now()) {
            self.work.notify_one();
        }
        if !must_sync {
            return Ok(());
        }
        loop {
            let nobody = || io::Error::other("the thread that syncs it has ended");
            return Err(TrailError::Sync(match state.synced.outcome(sequence) {
                Some(Ok(())) => return Ok(()),
                Some(Err(errno)) => io::Error::from_raw_os_error(errno),
                None if state.keepers == 0 => nobody(),
                None => {
                    state = wait(&self.answer, state);
                    continue;
                }
            }));
        }
    }

    /// The SHA-256 of the configuration that lines carry from now on.
    pub fn set_config(&self, config: [u8; 32]) {
        self.state().config = config;
    }

    /// The last line. What a chain alone can't show, that its end was cut off,
    /// shows by comparison with a head that was logged elsewhere.
    pub fn head(&self) -> Head {
        self.state().head
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn wait<'a>(what: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    what.wait(state).unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Writes one line; its number.
    pub(super) fn write(&mut self, members: &[u8]) -> Result<u64, TrailError> {
        if self.damaged {
            return Err(TrailError::Damaged);
        }
        let config = self.config;
        let head = link(&mut self.line, self.head, |line| {
            line.extend_from_slice(b",\"time\":\"");
            time::now().write(line);
            line.push(b'"');
            line.extend_from_slice(members);
            Members(line).digest("config", &config);
        });
        let mut rest = self.line.as_slice();
        while !rest.is_empty() {
            match (&*self.file).write(rest) {
                Ok(count) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => {
                    self.damaged = rest.len() < self.line.len();
                    return Err(TrailError::Write(
                        other.err().unwrap_or(io::ErrorKind::WriteZero.into()),
                    ));
                }
            }
        }
        self.length = self.length.saturating_add(self.line.len() as u64);
        self.head = head;
        Ok(head.sequence)
    }

    /// Takes back what was written of a line. False if that failed.
    pub(super) fn repair(&mut self) -> bool {
        match self.file.set_len(self.length) {
            Ok(()) => self.damaged = false,
            Err(error) => {
                crate::limited!(error, "trail: can't take back a torn line: {error}");
            }
        }
        !self.damaged
    }
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trail")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}
