//! What can go wrong before the first line is logged.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A logger could not be built or started.
#[non_exhaustive]
#[derive(Debug)]
pub enum LoggingError {
    /// A value is out of its bounds; the text names it.
    Value(String),
    /// The directory of a log file, or a part of its path, can't be used.
    Directory {
        /// The component at fault.
        path: PathBuf,
        /// What is wrong and what was expected.
        why: String,
        /// The system's reason, if it gave one.
        source: Option<io::Error>,
    },
    /// A log file can't be used.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected.
        why: String,
        /// The system's reason, if it gave one.
        source: Option<io::Error>,
    },
    /// A message queue can't be used.
    Queue {
        /// Its name.
        name: String,
        /// What is wrong and what was expected.
        why: String,
        /// The system's reason, if it gave one.
        source: Option<io::Error>,
    },
    /// A remote log server can't be used.
    Remote {
        /// As it was given.
        server: String,
        /// What is wrong and what was expected.
        why: String,
        /// The system's reason, if it gave one.
        source: Option<io::Error>,
    },
    /// Another logger is installed in this program already.
    Installed,
    /// The writer was started before.
    Started,
    /// A thread could not be started.
    Thread {
        /// Which one.
        name: &'static str,
        /// The system's reason, or that of the hook which the caller gave.
        source: io::Error,
    },
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(why) => f.write_str(why),
            Self::Directory { path, why, .. } => {
                write!(f, "log directory {}: {why}", path.display())
            }
            Self::File { path, why, .. } => write!(f, "log file {}: {why}", path.display()),
            Self::Queue { name, why, .. } => write!(f, "message queue {name}: {why}"),
            Self::Remote { server, why, .. } => write!(f, "log server {server}: {why}"),
            Self::Installed => f.write_str("another logger is installed in this program"),
            Self::Started => f.write_str("the log writer was started before"),
            Self::Thread { name, .. } => write!(f, "the thread {name} could not be started"),
        }
    }
}

impl std::error::Error for LoggingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory { source, .. }
            | Self::File { source, .. }
            | Self::Queue { source, .. }
            | Self::Remote { source, .. } => source
                .as_ref()
                .map(|source| source as &(dyn std::error::Error + 'static)),
            Self::Thread { source, .. } => Some(source),
            Self::Value(_) | Self::Installed | Self::Started => None,
        }
    }
}
