//! What is only sound while the program has just begun: closing descriptors
//! that nobody has opened, and editing the environment (close_range(2), environ(7)).

use std::ffi::{OsStr, c_uint};
use std::io;

/// Closes every descriptor from `first` on.
///
/// For the first lines of `main` only: a descriptor that some value of this
/// program owns would be closed under it.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub(crate) fn close_descriptors_from(first: c_uint) -> io::Result<()> {
    // SAFETY: close_range takes three integers. That no owner of a descriptor
    // in the range exists is what the caller is told to keep.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Removes one variable from the environment.
///
/// For a process with one thread only.
pub(crate) fn remove_variable(name: &OsStr) {
    // SAFETY: no other thread reads or writes the environment, as the caller
    // is the only thread.
    unsafe { std::env::remove_var(name) }
}
