//! The other end of the socket: a connection that verifies its server before it
//! sends a byte.
//!
//! [`Client`] speaks the broker's protocol, blocking and in one thread.
//! [`ServerIdentity`] says who the server must be: as a rule, root or the own user.
//!
//! Invariants: nothing is sent to a server that was not verified; every wait has a
//! deadline, or is asked for by name; what comes in meanwhile is kept for
//! [`Client::next`], within bounds, and what was dropped is counted; a frame is sent
//! whole or the connection is over.
//!
//! Not here: the commands of `secure_socketctl` (`client::ctl` holds those that
//! speak to a broker), and anything of the server's.

mod connect;
mod connection;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod ctl;
mod error;
mod event;
mod identity;
mod inbox;
mod link;
mod outbox;

pub use connect::connect;
pub use connection::{Client, WhenSlow};
pub use error::ClientError;
pub use event::Event;
pub use identity::ServerIdentity;
