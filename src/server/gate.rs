//! Holds the first threads back until all of them have entered their roles and
//! whoever wants to look at them has looked.
//!
//! Until it opens, one that fails keeps all from serving. Later each is judged by itself:
//! what the kernel could not give to one it may have for the next.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::text::chain;

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
        let failure = on_start().err().map(|error| chain(&error));
        if let Some(why) = &failure {
            crate::limited!(
                critical,
                "a thread can't enter its role and serves nobody: {why}"
            );
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let entered = failure.is_none();
        state.entered += usize::from(entered);
        if state.open {
            return entered;
        }
        state.failure = state.failure.take().or(failure);
        self.changed.notify_all();
        while !state.open {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.is_none()
    }

    /// How many threads have entered so far.
    pub(super) fn entered(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.entered
    }

    /// Waits until so many threads have entered. False if one could not.
    pub(super) fn wait_for(&self, count: usize) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |state: &mut State| state.entered < count && state.failure.is_none();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, waits);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.entered >= count && state.failure.is_none()
    }

    /// Whether the first threads were let go.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn refused() -> io::Result<()> {
        Err(io::Error::other(Outer(rustix::io::Errno::NOMEM.into())))
    }

    #[derive(Debug)]
    struct Outer(io::Error);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("can't install a filter")
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn one_of_the_first_that_fails_keeps_all_from_serving() {
        let gate = Arc::new(Gate::default());
        let threads = [refused, || Ok(())].map(|on_start| {
            let gate = Arc::clone(&gate);
            std::thread::spawn(move || gate.enter(&on_start))
        });
        assert!(!gate.wait_for(2));
        let why = gate.failure();
        assert!(why.contains("a filter: Cannot allocate memory"), "{why}");
        // Both are inside by then: one that came later would be judged by itself.
        while gate.entered() == 0 {
            std::thread::yield_now();
        }
        gate.open();
        assert_eq!(threads.map(|thread| thread.join().unwrap()), [false; 2]);
    }

    #[test]
    fn once_it_is_open_each_is_judged_by_itself() {
        let gate = Gate::default();
        gate.open();
        assert!(!gate.enter(&refused));
        assert!(gate.enter(&|| Ok(())));
    }
}
