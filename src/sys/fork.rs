//! Tells a process that it is a fork of the one that asked to be told
//! (pthread_atfork(3)): it has none of the other's threads.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static FORKED: AtomicBool = AtomicBool::new(false);

extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
}

/// Begins to watch. Later calls do nothing. Gives whether the C library agreed;
/// it refuses for lack of memory only.
pub(crate) fn watch() -> bool {
    static WATCHED: OnceLock<bool> = OnceLock::new();
    *WATCHED.get_or_init(|| {
        // SAFETY: the handler is a function of this program that lives as long
        // as it does, takes nothing, and only stores to an atomic, which is
        // allowed between fork and exec (signal-safety(7)).
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) == 0 }
    })
}

/// Whether this process was forked after `watch` was called.
#[inline]
pub(crate) fn forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}
