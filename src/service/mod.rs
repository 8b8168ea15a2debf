//! What is done for an admitted peer.
//!
//! A built-in service opens a [`Session`] for each connection: a state machine
//! that is told what is ready, goes on as far as it can, and says what it waits
//! for next. It exists once and is driven in two ways: by the worker that owns
//! one connection (poll), and by threads that share many (epoll). An embedder
//! implements [`Service`] instead, which blocks, and runs on the pool.
//!
//! Invariants: a session is reached with a [`Connection`] only, and that is made
//! only from an `Authorized` value. No session waits on its own, except where
//! the driver allows a receive to block.
//!
//! Not here: accepting, admission, timeouts of the connection as a whole, threads.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod blocking;
#[cfg(feature = "broker")]
pub mod broker;
mod close;
mod connection;
mod echo;
#[cfg(feature = "broker")]
mod receiving;
#[cfg(feature = "relay")]
pub mod relay;
mod session;
mod stream;
mod timeouts;

pub(crate) use blocking::Blocking;
pub use close::CloseReason;
pub use connection::Connection;
pub(crate) use connection::Kind;
pub use echo::Echo;
pub use session::{Interest, Next, Opened, Protocol, Ready, Session, Turn, Wait, Waker};
pub(crate) use stream::Watch;
pub use timeouts::Timeouts;

use std::io;

/// A service of an embedding program: it is called on a worker thread for each
/// admitted connection, and may block. When it returns, the connection closes.
///
/// A panic in it closes that connection only. Closures
/// `Fn(&Connection) -> io::Result<()>` are services.
pub trait Service: Send + Sync + 'static {
    /// Serves one connection to its end.
    ///
    /// # Errors
    /// Whatever ends the connection early; it is logged, and the peer is told nothing.
    fn serve(&self, connection: &Connection) -> io::Result<()>;
}

impl<F> Service for F
where
    F: Fn(&Connection) -> io::Result<()> + Send + Sync + 'static,
{
    fn serve(&self, connection: &Connection) -> io::Result<()> {
        self(connection)
    }
}
