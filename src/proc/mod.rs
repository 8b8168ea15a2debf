//! Parses texts of `/proc`: bytes in, facts out.
//!
//! Invariants: no input panics; what a parser does not understand is `None` and
//! never a default.
//!
//! Not here: opening or reading any file.

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

mod cmdline;
mod id_map;
mod pidfd;
mod status;

pub use cmdline::{command_line, command_name};
pub use id_map::{covers_all_ids, overflow_id};
pub use pidfd::{PidfdState, pidfd_state};
pub use status::{Capabilities, capabilities, has_capability};
