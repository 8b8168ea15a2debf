//! A server that runs on a thread of its own, for programs that have other things
//! to do.

use std::thread::JoinHandle;
use std::time::Duration;

use super::{Handle, Outcome, Server, ServerError};

/// A server that runs in the background. Dropped, it goes on until a [`Handle`] stops
/// it or the program ends; then its socket is not unlinked, and the next start
/// replaces it.
#[derive(Debug)]
#[must_use = "a server that nobody stops runs until the program ends"]
pub struct Running {
    handle: Handle,
    thread: JoinHandle<Result<Outcome, ServerError>>,
}

impl Running {
    pub(super) fn start(server: Server) -> Result<Self, ServerError> {
        let handle = server.handle();
        let thread = std::thread::Builder::new()
            .name(String::from("supervisor"))
            .spawn(move || server.run())
            .map_err(ServerError::Thread)?;
        Ok(Self { handle, thread })
    }

    /// Stops the server, or changes it, from any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Takes no newcomers from now on, lets open connections finish for `grace`, closes
    /// the rest, and waits for the end.
    ///
    /// # Errors
    /// Those of [`Server::run`].
    pub fn stop(self, grace: Duration) -> Result<Outcome, ServerError> {
        self.handle.stop(grace);
        self.join()
    }

    /// Waits until the server has ended.
    ///
    /// # Errors
    /// Those of [`Server::run`].
    pub fn join(self) -> Result<Outcome, ServerError> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(ServerError::Role(String::from("the supervisor panicked"))))
    }
}
