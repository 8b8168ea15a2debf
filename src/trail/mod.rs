//! The trail: each decision and each step in the life of the server as one JSON
//! line, which carries the SHA-256 of the line before it.
//!
//! Invariants: a line is written whole with one write(2), or taken back; after a
//! crash the chain goes on from the last whole line, and a torn one is kept
//! aside, never lost; nothing that a peer chose makes a second line; who can't be
//! recorded is not served (the caller sees to that). A file that is rolled is
//! continued by the first line of the next.
//!
//! A chain alone can't show that its end was cut off, nor that all of it was
//! written anew. Its head therefore goes to the log, and from there to wherever
//! the log goes; [`verify_files`] takes heads to compare.
//!
//! Walls: threads that append write to an open descriptor and nothing else. The
//! keeper ([`Keeper`]) creates, renames and removes files in the trail's
//! directory, and so needs that directory opened to it (Landlock: make, remove,
//! write and truncate files).
//!
//! Not here: what is decided, and what happens if it can't be recorded.

#![forbid(unsafe_code)]

mod chain;
mod error;
mod event;
mod json;
mod keeper;
mod place;
mod synced;
mod time;
mod verify;
mod writer;

pub use chain::{Head, MAX_LINE, Malformed};
pub use error::TrailError;
pub use event::{Event, Peer};
pub use keeper::Keeper;
pub use verify::{FileError, Problem, ProblemKind, Summary, Verifier, VerifyError, verify_files};
pub use writer::{Opened, Options, SyncPolicy, Trail};

#[cfg(test)]
mod keeper_tests;
#[cfg(test)]
mod tests;
