//! Opens the socket that peers connect to, in a directory that nobody else can
//! tamper with.

mod address;
mod options;

pub use address::{
    ABSTRACT_MAX_LEN, Address, CLIENT_PATH_MAX_LEN, DIRECTORY_NAME_MAX_LEN, Kind, NAME_MAX_LEN,
    PATH_MAX_LEN, SocketMode, SocketModeError, SocketName, SocketPath, SocketPathError,
};
pub use options::{DEFAULT_BACKLOG, Options};

use crate::ids::Uid;

/// The effective user of this process.
fn effective_uid() -> Uid {
    // No process has the id -1 (setresuid(2)); were it so, it would be nobody's.
    Uid::from_raw(rustix::process::geteuid().as_raw()).unwrap_or(Uid::OVERFLOW)
}
