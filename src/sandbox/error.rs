//! What can go wrong while the walls are put up.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::Role;
use crate::ids::Uid;

/// Why the process was not sealed, or doesn't stand behind its walls.
#[derive(Debug)]
#[non_exhaustive]
pub enum SandboxError {
    /// The process has more than one thread, so some would escape.
    Threads {
        /// How many it has.
        found: usize,
    },
    /// A wall can't stand, and [`Mode::Enforce`](super::Mode::Enforce) was asked for.
    Wall {
        /// Which one.
        wall: &'static str,
        /// What is missing: a kernel option, version or capability.
        missing: String,
    },
    /// A system call failed that should not.
    System {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A path of the plan could not be opened.
    Path {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The identity that was given up could be taken back.
    WayBack {
        /// What succeeded, or was left.
        what: String,
    },
    /// A thread that keeps a capability did not reach its body.
    PrivilegedThread {
        /// Its name.
        name: &'static str,
        /// What stopped it.
        reason: String,
    },
    /// The plan has what is a process's and not a thread's.
    WholeProcess {
        /// What it is, as a field of [`Plan`](super::Plan).
        what: &'static str,
    },
    /// The thread has entered another role, which it can't leave.
    OtherRole {
        /// That one.
        entered: Role,
        /// The one that it was to enter now.
        wanted: Role,
    },
    /// The listener was bound for another user than the one to become.
    OtherUser {
        /// The user that owns the socket.
        bound_for: Uid,
        /// The user of the plan.
        planned: Uid,
    },
    /// A thread doesn't stand behind the walls that it should.
    Exposed {
        /// Its name, as the kernel has it.
        thread: String,
        /// Its thread id.
        tid: i32,
        /// What its status shows, and what was expected.
        what: String,
    },
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads { found } => write!(
                f,
                "the sandbox must be entered before the first thread is started, found {found} threads"
            ),
            Self::Wall { wall, missing } => {
                write!(
                    f,
                    "{wall} can't be enforced: {missing} (sandbox=best_effort goes without)"
                )
            }
            Self::System { step, .. } => f.write_str(step),
            Self::Path { path, .. } => {
                write!(f, "can't open {} to keep it accessible", path.display())
            }
            Self::WayBack { what } => {
                write!(f, "privileges were not given up for good: {what}")
            }
            Self::PrivilegedThread { name, reason } => {
                write!(f, "thread {name} did not start: {reason}")
            }
            Self::WholeProcess { what } => write!(
                f,
                "{what} is for the whole process, and only the server's threads are confined"
            ),
            Self::OtherRole { entered, wanted } => write!(
                f,
                "this thread is confined as {entered} and can't become {wanted}"
            ),
            Self::OtherUser { bound_for, planned } => write!(
                f,
                "the socket was made for uid {bound_for}, and the plan is to become uid {planned}"
            ),
            Self::Exposed { thread, tid, what } => {
                write!(
                    f,
                    "thread {thread} (tid {tid}) is not behind its walls: {what}"
                )
            }
        }
    }
}

impl std::error::Error for SandboxError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } | Self::Path { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// A failed step, for `map_err`.
pub(super) fn system(step: &'static str, source: io::Error) -> SandboxError {
    SandboxError::System { step, source }
}
