//! Appends lines, one write(2) for each, from any thread.
//!
//! The thread that decides formats its line and writes it under one lock, so the
//! file has them in the order of the chain. What takes longer is left to one more
//! thread, [`Trail::keep`]: syncing, rolling, and taking back a line that a full
//! disk cut short. So those who decide need no right but to write.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::chain::{Head, link};
use super::error::TrailError;
use super::event::Event;
use super::json::Members;
use super::place::Place;
use super::time;
use crate::ids::{Gid, Uid};

/// How long lines may wait for a sync with [`SyncPolicy::Batch`].
const BATCH: Duration = Duration::from_millis(200);
/// How long to wait after a repair, a sync or a roll that failed.
const RETRY: Duration = Duration::from_secs(1);
/// At least so often the head is logged while lines are added.
const HEAD_EVERY: Duration = Duration::from_secs(60 * 60);

/// When lines reach the disk (`trail_sync`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncPolicy {
    /// When the kernel likes: a crash of the machine may lose the last half
    /// minute. A crash of the server loses nothing.
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
    /// Where a torn last line was put, and how many bytes it had.
    pub torn: Option<(PathBuf, u64)>,
    /// Whether the owner may rename files in the directory, as rolling needs.
    pub can_roll: bool,
}

/// An open trail. Shared by all threads that decide.
pub struct Trail {
    place: Place,
    sync: SyncPolicy,
    max_size: u64,
    keep: usize,
    state: Mutex<State>,
    work: Condvar,
    synced: Condvar,
}

struct State {
    file: Arc<File>,
    length: u64,
    head: Head,
    config: [u8; 32],
    /// The line in the making; kept for its memory.
    line: Vec<u8>,
    /// Bytes of a line that was not written whole lie beyond `length`.
    damaged: bool,
    /// Up to which line all is on the disk.
    synced: u64,
    /// Up to which line a sync failed.
    sync_failed: Option<(u64, i32)>,
    keepers: usize,
    /// The keeper waits for something to do.
    idle: bool,
    roll_after: Option<Instant>,
    closing: bool,
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
        let found = place.open_file()?;
        let head = place.head(&found)?;
        let opened = Opened {
            head,
            torn: found.torn,
            can_roll: place.can_roll(),
        };
        let state = State {
            file: Arc::new(found.file),
            length: found.length,
            head,
            config,
            line: Vec::with_capacity(1_024),
            damaged: false,
            synced: head.sequence,
            sync_failed: None,
            keepers: 0,
            idle: false,
            roll_after: None,
            closing: false,
        };
        let trail = Self {
            place,
            sync: options.sync,
            max_size: options.max_size,
            keep: options.keep,
            state: Mutex::new(state),
            work: Condvar::new(),
            synced: Condvar::new(),
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
        if state.damaged && state.keepers == 0 {
            state.repair();
        }
        let written = state.write(members);
        if written.is_err() {
            self.work.notify_one();
        }
        let sequence = written?;
        let must_sync = self.sync == SyncPolicy::Each;
        if state.keepers == 0 {
            self.tend(state, must_sync);
            return if must_sync {
                self.outcome_of(&self.state(), sequence)
            } else {
                Ok(())
            };
        }
        if state.idle && self.has_work(&state, Instant::now()) {
            self.work.notify_one();
        }
        if !must_sync {
            return Ok(());
        }
        while state.synced < sequence && state.sync_failed.is_none_or(|(last, _)| last < sequence) {
            state = self
                .synced
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.outcome_of(&state, sequence)
    }

    fn outcome_of(&self, state: &State, sequence: u64) -> Result<(), TrailError> {
        match state.sync_failed {
            _ if state.synced >= sequence => Ok(()),
            Some((_, errno)) => Err(TrailError::Sync(io::Error::from_raw_os_error(errno))),
            None => Err(TrailError::Sync(io::ErrorKind::Interrupted.into())),
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

    /// The body of the one thread that keeps the trail: it syncs, rolls and
    /// repairs, logs the head when a file is rolled and hourly, and sleeps while
    /// nothing is due. It returns after [`close`](Self::close). It creates,
    /// renames and removes files in the trail's directory. A trail without it
    /// does all that in [`append`](Self::append), which the walls of a thread that serves
    /// (`Role`) don't allow: a confined program starts a keeper, as `Role::LogWriter`.
    pub fn keep(&self) {
        let mut state = self.state();
        state.keepers += 1;
        let mut retry: Option<Instant> = None;
        let mut said = (Instant::now(), state.head.sequence);
        loop {
            let now = Instant::now();
            let due = self.has_work(&state, now) && retry.is_none_or(|at| now >= at);
            if due {
                let done = self.tend(state, true);
                state = self.state();
                retry = if done { None } else { now.checked_add(RETRY) };
                if now >= said.0 + HEAD_EVERY && state.head.sequence > said.1 {
                    crate::notice!("trail: head {}", state.head);
                    said = (now, state.head.sequence);
                }
                if self.sync == SyncPolicy::Batch && !state.closing {
                    // Lines that come now share the next sync.
                    (state, _) = self
                        .work
                        .wait_timeout(state, BATCH)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                if done {
                    continue;
                }
            }
            if state.closing {
                break;
            }
            state.idle = true;
            let waited = retry.map(|at| at.saturating_duration_since(Instant::now()));
            state = match waited {
                Some(pause) => {
                    self.work
                        .wait_timeout(state, pause)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
            state.idle = false;
        }
        state.keepers -= 1;
    }

    /// Ends [`keep`](Self::keep) when all is done. Lines can still be appended.
    pub fn close(&self) {
        self.state().closing = true;
        self.work.notify_all();
    }

    fn has_work(&self, state: &State, now: Instant) -> bool {
        let unsynced = self.sync != SyncPolicy::No && state.synced < state.head.sequence;
        state.damaged || unsynced || self.must_roll(state, now)
    }

    fn must_roll(&self, state: &State, now: Instant) -> bool {
        state.length >= self.max_size && state.roll_after.is_none_or(|at| now >= at)
    }

    /// Does what is due. False if something failed that may succeed later.
    fn tend<'a>(&'a self, mut state: MutexGuard<'a, State>, sync: bool) -> bool {
        let mut done = true;
        if state.damaged {
            done &= state.repair();
        }
        if sync && self.sync != SyncPolicy::No && state.synced < state.head.sequence {
            let (file, sequence) = (Arc::clone(&state.file), state.head.sequence);
            // Others go on writing meanwhile.
            drop(state);
            let result = file.sync_data();
            state = self.state();
            match result {
                Ok(()) => state.synced = state.synced.max(sequence),
                Err(error) => {
                    crate::limited!(
                        error,
                        "trail: can't sync {}: {error}",
                        self.path().display()
                    );
                    state.sync_failed = Some((sequence, error.raw_os_error().unwrap_or(libc::EIO)));
                    // The kernel reports an error once, and forgets those pages.
                    state.synced = state.synced.max(sequence);
                    done = false;
                }
            }
            self.synced.notify_all();
        }
        if !state.damaged && self.must_roll(&state, Instant::now()) {
            self.roll(&mut state);
        }
        done
    }

    fn roll(&self, state: &mut State) {
        let synced = if self.sync == SyncPolicy::No {
            Ok(())
        } else {
            state.file.sync_data()
        };
        let rolled = synced
            .map_err(|error| TrailError::file("sync", self.path(), error))
            .and_then(|()| self.place.roll());
        match rolled {
            Ok((file, name)) => {
                state.file = Arc::new(file);
                state.length = 0;
                state.synced = state.synced.max(state.head.sequence);
                crate::notice!("trail: rolled to {name}, head {}", state.head);
                let mut members = Vec::new();
                Event::Roll { before: &name }.write(&mut members);
                if let Err(error) = state.write(&members) {
                    crate::limited!(error, "trail: {error}");
                }
            }
            Err(error) => {
                state.roll_after = Instant::now().checked_add(Duration::from_secs(60));
                crate::limited!(
                    error,
                    "trail: {error}: {}; it goes on in the same file",
                    std::error::Error::source(&error)
                        .map(ToString::to_string)
                        .unwrap_or_default()
                );
            }
        }
        if self.keep > 0 {
            self.forget();
        }
    }

    fn forget(&self) {
        match self.place.forget_beyond(self.keep) {
            Ok(None) => {}
            Ok(Some((count, newest))) => {
                let keep = self.keep;
                crate::notice!("trail: removed {count} beyond trail_keep={keep}, up to {newest}");
            }
            Err(error) => crate::limited!(
                error,
                "trail: can't remove old files of {}: {error}",
                self.path().display()
            ),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Writes one line; its number.
    fn write(&mut self, members: &[u8]) -> Result<u64, TrailError> {
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
    fn repair(&mut self) -> bool {
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
