//! Logging: macros for eleven severities, and, with the feature `logging`, a
//! logger for the `log` crate with every sink that a daemon needs.
//!
//! A call formats its message on its own stack and pushes it to a bounded
//! queue; one thread takes many lines at once, renders them, and hands them to
//! the sinks: stdout, stderr, a file with rolling, a POSIX message queue, a
//! syslog server. See [`Builder`] for the start.
//!
//! Invariants: a caller waits for no disk and no network, except at fatal and
//! alert, or where it asked to wait for room; one call is one line on every
//! sink; what a sink could not take is counted and said.
//!
//! Not here: what is logged where. The macros alone (`info!` and the others)
//! are compiled without the feature too, and speak to any logger.

mod limited;
mod macros;
mod severity;
mod site;

pub mod escape;

pub use limited::{LINES_PER_SECOND, RateLimited};
pub use severity::{NotAVerbosity, Severity, Verbosity};
pub use site::{Site, enabled, submit, verbosity};
