//! Keeps a trail: syncs, rolls, takes back what was written of a line, logs the head.

use std::fs::File;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event::Event;
use super::writer::{State, SyncPolicy, Trail, wait};
use crate::text;

/// How long lines may wait for a sync with [`SyncPolicy::Batch`].
const BATCH: Duration = Duration::from_millis(200);
/// How long to wait after a repair or a sync that failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often lines that came during a sync are synced before a roll while others may go on.
const SYNCS_BEFORE_ROLL: usize = 4;
/// How long to wait after a roll that failed.
const ROLL_AGAIN: Duration = Duration::from_secs(60);

/// What [`Trail::keeper`] gives: the work that those who append leave to one thread.
#[derive(Debug)]
pub struct Keeper {
    trail: Arc<Trail>,
}

impl Trail {
    /// From now on those who append only write: the rest is left to whoever runs
    /// [`Keeper::keep`]. That creates, renames and removes files in the trail's directory.
    /// A trail that never had a keeper does all that in [`append`](Self::append), which
    /// the walls of a thread that serves (`Role`) don't allow: a confined program asks for
    /// the keeper before such threads append, and runs it as `Role::LogWriter`.
    ///
    /// With [`SyncPolicy::Each`] those who append wait for it. Once it was dropped, run or
    /// not, each line of theirs is written and fails.
    pub fn keeper(self: &Arc<Self>) -> Keeper {
        let mut state = self.state();
        state.keepers += 1;
        state.is_kept = true;
        drop(state);
        Keeper {
            trail: Arc::clone(self),
        }
    }

    /// Ends [`Keeper::keep`] when all is done.
    pub fn close(&self) {
        self.state().closing = true;
        self.work.notify_all();
    }

    /// As [`close`](Self::close), with a last line that the keeper writes. It waits for no
    /// lock, which whoever waits for a disk may hold, and so may come between two steps of
    /// the keeper: to be called again until that has ended.
    #[cfg(feature = "daemon")]
    pub(crate) fn close_with_stop(&self, code: u8) {
        let _ = self.stop.set(code);
        self.work.notify_all();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.trail.state().keepers -= 1;
        self.trail.answer.notify_all();
    }
}

impl Keeper {
    /// The body of the thread: it syncs, rolls and repairs, logs the head when a file is
    /// rolled and hourly while lines are added, and sleeps while nothing is due. It
    /// returns after [`Trail::close`].
    pub fn keep(self) {
        let trail = &*self.trail;
        let mut state = trail.state();
        let mut retry: Option<Instant> = None;
        loop {
            let now = Instant::now();
            trail.say_head(&mut state, now);
            if let Some(code) = trail.stop.get().filter(|_| !state.closing) {
                trail.write_stop(&mut state, *code);
                retry = None;
            }
            if trail.has_work(&state, now) && retry.is_none_or(|at| now >= at) {
                let done;
                (state, done) = trail.tend(state, true);
                retry = if done { None } else { now.checked_add(RETRY) };
                if trail.sync == SyncPolicy::Batch && !state.closing {
                    // Lines that come now share the next sync.
                    state = pause(trail, state, BATCH);
                }
                if done {
                    continue;
                }
            }
            if state.closing {
                break;
            }
            state.idle = true;
            let now = Instant::now();
            let retry = retry.map(|at| at.saturating_duration_since(now));
            let head = trail.head_every.saturating_sub(state.said.0.elapsed());
            let length = until_next(trail.has_work(&state, now), retry, head);
            state = pause(trail, state, length);
            state.idle = false;
        }
    }
}

/// How long to sleep: until what is left of the work is tried again, or a head is due.
fn until_next(has_work: bool, retry: Option<Duration>, head: Duration) -> Duration {
    retry
        .filter(|_| has_work)
        .map_or(head, |retry| retry.min(head))
}

fn pause<'a>(
    trail: &'a Trail,
    state: MutexGuard<'a, State>,
    length: Duration,
) -> MutexGuard<'a, State> {
    let waited = trail.work.wait_timeout(state, length);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

impl Trail {
    pub(super) fn has_work(&self, state: &State, now: Instant) -> bool {
        let unsynced = self.sync != SyncPolicy::No && state.synced.lacks(state.head.sequence);
        state.damaged || unsynced || self.must_roll(state, now)
    }

    fn must_roll(&self, state: &State, now: Instant) -> bool {
        state.length >= self.max_size && state.roll_after.is_none_or(|at| now >= at)
    }

    fn write_stop(&self, state: &mut State, code: u8) {
        state.closing = true;
        if state.damaged {
            state.repair();
        }
        let mut members = Vec::new();
        Event::Stop { code }.write(&mut members);
        if let Err(error) = state.write(&members) {
            crate::error!("trail: {}", text::chain(&error));
        }
    }

    fn say_head(&self, state: &mut State, now: Instant) {
        if now.saturating_duration_since(state.said.0) < self.head_every {
            return;
        }
        if state.head.sequence > state.said.1 {
            crate::notice!("trail: head {}", state.head);
        }
        state.said = (now, state.head.sequence);
    }

    /// Does what is due. False if something failed that may succeed later.
    pub(super) fn tend<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        sync: bool,
    ) -> (MutexGuard<'a, State>, bool) {
        let mut done = true;
        if state.damaged {
            done &= state.repair();
        }
        // Before a roll most is on the disk without anybody having waited for it.
        let syncs = sync && self.sync != SyncPolicy::No;
        if syncs || self.must_roll(&state, Instant::now()) {
            for _ in 0..SYNCS_BEFORE_ROLL {
                while state.syncing {
                    state = wait(&self.answer, state);
                }
                if !state.synced.lacks(state.head.sequence) {
                    break;
                }
                let synced;
                (state, synced) = self.sync_lines(state);
                done &= synced;
                if !synced && self.must_roll(&state, Instant::now()) {
                    state.roll_after = Instant::now().checked_add(ROLL_AGAIN);
                }
                if !self.must_roll(&state, Instant::now()) {
                    break;
                }
            }
        }
        if !state.damaged && !state.syncing && self.must_roll(&state, Instant::now()) {
            self.roll(&mut state);
        }
        (state, done)
    }

    fn sync_lines<'a>(&'a self, mut state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, bool) {
        let (file, sequence) = (Arc::clone(&state.file), state.head.sequence);
        let unnamed = state.unnamed;
        state.syncing = true;
        // Others go on writing meanwhile.
        drop(state);
        let result = self.sync_file(&file, unnamed);
        state = self.state();
        state.syncing = false;
        let done = result.is_ok();
        match result {
            Ok(()) => {
                state.unnamed = false;
                state.synced.succeeded(sequence);
            }
            Err(error) => self.sync_failed(&mut state, &error),
        }
        self.answer.notify_all();
        (state, done)
    }

    fn sync_file(&self, file: &File, unnamed: bool) -> io::Result<()> {
        (self.disk)(file)?;
        if unnamed {
            self.place.sync_directory()?;
        }
        Ok(())
    }

    fn sync_failed(&self, state: &mut State, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let path = self.path().display();
        let Some(lines) = state.synced.failed(state.head.sequence, errno) else {
            return crate::limited!(error, "trail: can't sync {path}: {error}");
        };
        crate::limited!(
            error,
            "trail: can't sync {path}: lines {} to {} may not be on the disk: {error}",
            lines.first,
            lines.last
        );
    }

    fn roll(&self, state: &mut State) {
        // Whatever the policy: what lies under a final name has no torn end.
        let is_synced = state.synced.outcome(state.head.sequence) == Some(Ok(()));
        let synced = match is_synced && !state.unnamed {
            true => Ok(()),
            false => self.sync_file(&state.file, state.unnamed),
        };
        if let Err(error) = synced {
            state.roll_after = Instant::now().checked_add(ROLL_AGAIN);
            self.sync_failed(state, &error);
            self.answer.notify_all();
            return;
        }
        state.synced.succeeded(state.head.sequence);
        self.answer.notify_all();
        match self.place.roll() {
            Ok((file, name)) => {
                state.file = Arc::new(file);
                state.length = 0;
                state.unnamed = true;
                crate::notice!("trail: rolled to {name}, head {}", state.head);
                let mut members = Vec::new();
                Event::Roll { before: &name }.write(&mut members);
                if let Err(error) = state.write(&members) {
                    crate::limited!(error, "trail: {error}");
                }
            }
            Err(error) => {
                state.roll_after = Instant::now().checked_add(ROLL_AGAIN);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_woken_for_work_that_is_done() {
        let [long, short] = [60, 1].map(Duration::from_secs);
        #[track_caller]
        fn check(has_work: bool, retry: Option<Duration>, head: Duration, expect: Duration) {
            assert_eq!(until_next(has_work, retry, head), expect);
        }
        check(false, None, long, long);
        check(false, Some(Duration::ZERO), long, long);
        check(true, Some(short), long, short);
        check(true, Some(long), short, short);
    }
}
