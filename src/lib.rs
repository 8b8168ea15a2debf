//! Locked-down local sockets: a hardened Unix-domain socket (or loopback TCP)
//! that admits only the peers that the kernel vouches for, and serves them from
//! a bounded pool of threads.

pub mod admission;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod ctl;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod exit;
pub mod frame;
pub mod ids;
pub mod listener;
pub mod logging;
pub mod peer;
pub mod policy;
pub mod proc;
pub mod sandbox;
pub mod server;
pub mod service;
pub mod sys;
#[cfg(feature = "trail")]
pub mod trail;
