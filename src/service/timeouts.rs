//! How long a connection may take for what it does.

use std::time::Duration;

/// Bounds of time for one connection. `None` is no bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the first byte in either direction.
    pub first_byte: Option<Duration>,
    /// Since the last byte in either direction.
    pub idle: Option<Duration>,
    /// To connect to one address of an upstream.
    pub connect: Option<Duration>,
    /// For a peer that does not take what it is sent.
    pub write: Option<Duration>,
    /// For the second direction, once the first has ended.
    pub half_close: Option<Duration>,
    /// From accept to the end, whatever happens.
    pub max_lifetime: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_byte: Some(Duration::from_secs(10)),
            idle: None,
            connect: Some(Duration::from_secs(5)),
            write: Some(Duration::from_secs(10)),
            half_close: Some(Duration::from_secs(60)),
            max_lifetime: None,
        }
    }
}
