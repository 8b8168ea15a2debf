//! The kernel's facilities that the standard library and rustix don't offer
//! safely: one safe function for one facility, and the only `unsafe` of the crate.
//!
//! Every file says which man page it follows. No raw descriptor leaves this room:
//! functions take `BorrowedFd` and give `OwnedFd`.
#![allow(unsafe_code)]

#[cfg(feature = "names")]
pub mod account;

pub mod peer;
pub mod process;

#[cfg(feature = "logging")]
pub(crate) mod fork;
#[cfg(feature = "sandbox")]
pub(crate) mod landlock;
#[cfg(feature = "logging")]
pub(crate) mod mqueue;
#[cfg(any(feature = "logging", feature = "trail"))]
pub(crate) mod rename;
#[cfg(feature = "sandbox")]
pub(crate) mod seccomp;
#[cfg(feature = "sandbox")]
pub(crate) mod startup;

pub mod buffer;
pub(crate) mod inherited;
pub mod interrupt;
pub mod socket;
pub mod time;
#[cfg(feature = "sandbox")]
pub(crate) mod trap;
pub(crate) mod unix_name;
