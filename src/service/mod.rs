//! The services.

#[cfg(feature = "broker")]
pub mod broker;
