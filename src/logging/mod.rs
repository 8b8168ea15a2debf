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

#[cfg(feature = "logging")]
mod builder;
#[cfg(feature = "logging")]
mod edition;
#[cfg(feature = "logging")]
mod error;
#[cfg(feature = "logging")]
mod flush;
#[cfg(feature = "logging")]
mod layout;
mod limited;
#[cfg(feature = "logging")]
mod line;
#[cfg(feature = "logging")]
mod lines;
#[cfg(feature = "logging")]
mod logger;
#[cfg(feature = "logging")]
mod loss;
mod macros;
#[cfg(feature = "logging")]
mod message;
#[cfg(feature = "logging")]
mod outlet;
#[cfg(feature = "logging")]
mod queue;
#[cfg(feature = "logging")]
mod ring;
mod severity;
#[cfg(feature = "logging")]
mod shared;
#[cfg(feature = "logging")]
mod sink;
mod site;
#[cfg(all(test, feature = "logging"))]
mod tests;
#[cfg(feature = "logging")]
mod thresholds;
#[cfg(feature = "logging")]
mod writer;

#[doc(hidden)]
pub mod escape;
#[cfg(feature = "logging")]
#[doc(hidden)]
pub mod rotation_names;

pub use limited::{LINES_PER_SECOND, RateLimited};
pub use severity::{NotAVerbosity, Severity, Verbosity};
pub use site::{Site, enabled, submit, verbosity};

#[cfg(feature = "daemon")]
pub(crate) use sink::directory::log_file_remarks;
#[cfg(feature = "logging")]
pub use {
    builder::{Builder, Overflow, SinkSpec, Target},
    error::LoggingError,
    layout::Format,
    logger::{Guard, Logger, NeededPath, SinkStats, Stats, ThreadHook, ThreadRole},
    sink::file::FileSpec,
    sink::mq::mqcat,
    sink::remote::{RemoteAddress, RemoteSpec},
};
