//! Descriptors that a service manager left open for this process
//! (sd_listen_fds(3)).

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;

/// The first of them (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes `count` descriptors from number 3 on, and closes them on exec.
///
/// The caller has seen by `LISTEN_PID` that they were left for this very
/// process, and calls this before the program closes descriptors that it did
/// not open itself. `Ok(None)` the second time: they have an owner by then.
///
/// # Errors
///
/// `EBADF` if one of them is not open; none is taken then.
pub(crate) fn take(count: u16) -> io::Result<Option<Vec<OwnedFd>>> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(None);
    }
    let numbers = FIRST..FIRST.saturating_add(RawFd::from(count));
    for number in numbers.clone() {
        // SAFETY: 3 and above is not -1, and the one use of the borrow fails
        // harmlessly with EBADF if nothing is open under this number.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    let take = |number| {
        // SAFETY: it was open a moment ago, and it has no other owner: it was
        // inherited from the service manager, which LISTEN_PID says meant it
        // for this process, and TAKEN says that it was not taken before.
        unsafe { OwnedFd::from_raw_fd(number) }
    };
    Ok(Some(numbers.map(take).collect()))
}
