//! Gives up everything that a server doesn't need once its socket is bound,
//! and proves it: identity and capabilities, the file system and the network
//! (Landlock), system calls (seccomp).
//!
//! Invariants:
//! - [`enter`] runs while the process has one thread. What it takes away from
//!   that thread, every later thread is born without.
//! - A [`Sealed`] has three origins: [`enter`]; [`enter_threads`], for a program
//!   that has threads already; and by name, [`Sealed::dangerously_unconfined`].
//! - [`Mode::Enforce`] gives no `Sealed` unless every wall stands.
//! - A capability that a feature needs is held by one thread, with a filter of
//!   its own, and named in the [`Report`].
//! - [`Sealed::attest`] believes the kernel (`/proc/PID/task/*/status`), not
//!   what was asked for.
//!
//! Threads share memory: the filter of a role contains mistakes; against code
//! that an attacker runs in the process, only what all threads have in common
//! holds.
//!
//! Not here: which paths, ports and ids a configuration leads to (the daemon
//! makes the [`Plan`]), and the parsing of the filters, which happens when the
//! crate is built (`seccomp/build.rs`).

mod attest;
#[cfg(feature = "sandbox")]
mod enter;
mod error;
#[cfg(feature = "sandbox")]
mod landlock;
mod plan;
#[cfg(feature = "sandbox")]
mod privileges;
mod report;
mod sealed;
#[cfg(feature = "sandbox")]
mod seccomp;
#[cfg(all(test, feature = "sandbox"))]
mod simulated;
#[cfg(feature = "sandbox")]
mod startup;

pub use attest::{Attestation, ThreadState};
#[cfg(feature = "sandbox")]
pub use enter::{enter, enter_threads, preview};
pub use error::SandboxError;
pub use plan::{
    Access, Capability, Mode, PathGrant, Plan, PrivilegedThread, Role, RunAs, SeccompAction,
};
pub use report::{Report, Standing, Wall};
pub use sealed::Sealed;
#[cfg(feature = "sandbox")]
pub use startup::early_hardening;
