#![doc = include_str!("front_page.md")]

pub mod admission;
#[cfg(feature = "client")]
pub mod client;
pub mod frame;
pub mod ids;
pub mod listener;
pub mod logging;
pub mod peer;
pub mod policy;
pub mod sandbox;
pub mod server;
pub mod service;
#[cfg(test)]
mod testing;
mod text;
#[cfg(feature = "trail")]
pub mod trail;

// Of the programs, and of tests and fuzz targets: no part of the API.
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod config;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod ctl;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod daemon;
#[doc(hidden)]
pub mod exit;
#[doc(hidden)]
pub mod proc;
#[doc(hidden)]
pub mod sys;

#[cfg(feature = "client")]
pub use client::Client;
pub use listener::Listener;
pub use policy::Policy;
pub use server::Server;
pub use service::{Connection, Service};
