//! The other end of the socket: a connection that verifies its server before it
//! sends a byte.
//!
//! [`Client`] speaks the broker's protocol, blocking and in one thread. [`Server`]
//! says who the server must be; by default root or the own user.
//!
//! Invariants: nothing is sent to a server that was not verified; every wait has a
//! deadline, or is asked for by name; what comes in meanwhile is kept for
//! [`Client::next`], not lost.
//!
//! Not here: the commands of `secure_socketctl` (`client::ctl` holds those that
//! speak to a broker), and anything of the server's.

mod connection;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod ctl;
mod error;
mod event;
mod server;

pub use connection::{Client, connect};
pub use error::ClientError;
pub use event::Event;
pub use server::Server;
