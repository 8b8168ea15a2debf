//! What can go wrong with a trail.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a trail can't be opened or continued.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrailError {
    /// The system refused something about a file.
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something other than a file of its owner's lies there.
    Unfit {
        /// Where.
        path: PathBuf,
        /// What was found and what was expected.
        found: String,
    },
    /// Another process writes this trail.
    Locked {
        /// The lock that it holds.
        path: PathBuf,
    },
    /// The last line of the file is not one of a trail.
    NotATrail {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: super::Malformed,
    },
    /// A line could not be written.
    Write(io::Error),
    /// A line could not be synced to the disk (`trail_sync=each`).
    Sync(io::Error),
    /// An earlier line was written in part only, and could not yet be taken back.
    Damaged,
}

impl TrailError {
    pub(super) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::File {
            what,
            path: path.into(),
            source: source.into(),
        }
    }
}

impl fmt::Display for TrailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { what, path, .. } => write!(f, "can't {what} {}", path.display()),
            Self::Unfit { path, found } => write!(f, "{}: {found}", path.display()),
            Self::Locked { path } => write!(
                f,
                "another process writes this trail: it holds the lock {}",
                path.display()
            ),
            Self::NotATrail { path, why } => write!(
                f,
                "{}: the last line is not one of a trail: {why}; expected a trail or an empty file",
                path.display()
            ),
            Self::Write(_) => f.write_str("the trail can't be written"),
            Self::Sync(_) => f.write_str("the trail can't be synced to the disk"),
            Self::Damaged => {
                f.write_str("the last line of the trail is torn and could not be taken back yet")
            }
        }
    }
}

impl std::error::Error for TrailError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::Write(source) | Self::Sync(source) => Some(source),
            _ => None,
        }
    }
}
