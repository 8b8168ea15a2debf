//! Passes messages and requests between peers that never meet, each stamped with
//! the sender's identity as the kernel reported it.
//!
//! Invariants:
//! - What one peer publishes arrives in order at every subscriber, and on each
//!   connection the sequence only grows.
//! - A publisher never waits for a subscriber: what its socket doesn't take goes
//!   into a bounded queue.
//! - What is dropped is said (GAP); nothing is dropped in silence.
//! - A request ends in exactly one ANSWER or ERROR.
//! - Nobody gets or sends what no `permit` allows, also after a reload.
//! - No lock is shared by messages of unrelated subjects.
//!
//! Locks are taken in this order, each held briefly: outboxes, by connection; what
//! a connection has open; a shard of the routes. Two connections' open things are
//! never locked together.
//!
//! The format is [`crate::frame::protocol`]. Not here: sockets and readiness
//! (`session`), who is admitted (`policy`).
#![forbid(unsafe_code)]
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

mod deliver;
mod hub;
mod limits;
mod member;
mod outbox;
mod permit;
mod port;
mod protocol;
mod proving;
mod queue;
#[cfg(test)]
mod reload_tests;
mod request;
mod rights;
mod routes;
mod run;
mod session;
#[cfg(test)]
mod session_tests;
mod tree;

pub use hub::{Broker, Stats};
pub use limits::{Limits, Quota};
pub use permit::{Permit, Permits};
pub use protocol::BrokerService;
pub use rights::{Action, Rights};

// The broker without a socket, for tests and fuzz targets: no part of the API.
#[doc(hidden)]
pub use member::Identity;
#[doc(hidden)]
pub use outbox::Sink;
#[doc(hidden)]
pub use port::{Batch, Ending, Outgoing, Port};
