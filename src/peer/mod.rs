//! Asks the kernel who is at the other end of a connection.
//!
//! Facts come from the accepted descriptor (`SO_PEERCRED`, `SO_PEERGROUPS`,
//! `SO_PEERPIDFD`, `SO_PEERSEC`) and, where a rule asks for them, from `/proc`
//! while a pidfd shows that the process still lives.
//!
//! Invariants: a fact that could not be read is [`Fact::Unreadable`] and never a
//! value; an id that has no mapping in this user namespace is `None`; a process is
//! held by its pidfd and never by its number alone.
//!
//! Not here: who may enter. That is decided by `policy`, from [`Facts`] alone.
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

mod checker;
mod credentials;
mod digest;
mod error;
mod facts;
mod inspector;
mod pins;
mod probe;
mod process;
pub mod proof;
mod queue;
mod socket;

pub use checker::{Checker, CheckerConfig, CheckerThread, OnDone};
pub use credentials::{Credentials, IdMaps};
pub use facts::{Exe, Fact, FactKind, Facts, FileId, Needs, Process, Unreadable};
pub use inspector::Inspector;
pub use pins::{PinError, Pins, check_path};
pub use probe::{CAP_SYS_PTRACE, CheckerReach, Kernel, Shortcoming};
pub use process::{ARGS_MAX, ProcessFacts};
pub use socket::{Peer, PidfdSource, id_maps};
