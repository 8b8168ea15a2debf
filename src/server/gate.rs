//! Holds the first threads back until all of them have entered their roles and
//! whoever wants to look at them has looked.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long threads may take to enter their roles.
const PATIENCE: Duration = Duration::from_secs(10);

/// What every thread of the server does first, e.g. enter its sandbox.
pub type OnThreadStart = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

#[derive(Debug, Default)]
struct State {
    entered: usize,
    open: bool,
    failure: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    /// Called by each thread: does what is due, waits for the gate. False if the
    /// thread must not serve.
    pub(super) fn enter(&self, on_start: &dyn Fn() -> io::Result<()>) -> bool {
        let done = on_start();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match done {
            Ok(()) => state.entered += 1,
            Err(error) => {
                crate::critical!("a thread can't enter its role and serves nobody: {error}");
                state.failure.get_or_insert_with(|| error.to_string());
            }
        }
        let entered = state.failure.is_none();
        self.changed.notify_all();
        while !state.open {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        entered
    }

    /// Waits until so many threads have entered. False if one could not.
    pub(super) fn wait_for(&self, count: usize) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |state: &mut State| state.entered < count && state.failure.is_none();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, waits);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.entered >= count && state.failure.is_none()
    }

    /// Lets them go, and those who come later.
    pub(super) fn open(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .open = true;
        self.changed.notify_all();
    }

    /// Why one could not enter.
    pub(super) fn failure(&self) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .failure
            .clone()
            .unwrap_or_else(|| "not ready in time".to_owned())
    }
}
