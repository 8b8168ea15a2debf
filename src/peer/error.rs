//! Translates errors of the kernel into reasons why a fact can't be had.

use std::io;

use rustix::io::Errno;

use super::Unreadable;

/// An error of a read that isn't about a process.
pub(super) fn reason(error: &io::Error) -> Unreadable {
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => Unreadable::Permission,
        Some(Errno::MFILE | Errno::NFILE) => Unreadable::Descriptors,
        Some(Errno::NOPROTOOPT | Errno::NOSYS | Errno::OPNOTSUPP) => Unreadable::Unsupported,
        Some(Errno::RANGE) => Unreadable::TooLarge,
        Some(errno) => Unreadable::Failed(errno.raw_os_error()),
        None => Unreadable::Failed(0),
    }
}

/// An error of a read about a process, for which some numbers mean that it is gone.
pub(super) fn process_reason(error: &io::Error) -> Unreadable {
    match Errno::from_io_error(error) {
        Some(Errno::SRCH) => Unreadable::Gone,
        // It has no memory: it is exiting, or one of its threads is in execve(2).
        Some(Errno::NOENT) => Unreadable::NoMemory,
        _ => reason(error),
    }
}
