//! What each call ends with, and the words of the last failure of a thread.
//!
//! Invariant: no panic leaves [`guarded`], which surrounds the body of every function
//! that C calls and that could panic (but for ss_last_error's, see there).

use std::cell::RefCell;
use std::error::Error;
use std::ffi::CStr;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a call ended with.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(non_camel_case_types, reason = "its name in C")]
pub enum ss_status {
    /// Done.
    SsOk = 0,
    /// A pointer that must not be NULL is.
    SsNullPointer = 1,
    /// A text is not UTF-8.
    SsNotUtf8 = 2,
    /// A number is out of its bounds.
    SsValue = 3,
    /// A rule of the policy is wrong.
    SsRule = 4,
    /// The socket can't be bound, or the policy can't be evaluated here.
    SsBind = 5,
    /// Nobody who is admitted came in time.
    SsTimeout = 6,
    /// A system call failed.
    SsSystem = 7,
    /// The log can't be opened, or there is one already.
    SsNoLog = 8,
    /// A defect in the library; the call has done nothing, or part of its work.
    SsPanic = 9,
}

/// A failure on its way to C.
pub(crate) struct Failure {
    status: ss_status,
    text: String,
}

impl Failure {
    pub(crate) fn new(status: ss_status, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    /// An error with its causes.
    pub(crate) fn of(status: ss_status, error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            // Writing to a String can't fail.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        Self { status, text }
    }
}

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The words of this thread's last failure.
pub(crate) fn last() -> String {
    LAST.with_borrow(Clone::clone)
}

fn remember(text: String) {
    // In a thread that is ending nobody asks any more.
    let _ = LAST.try_with(|last| last.replace(text));
}

/// Runs the body of a call: no panic passes, and a failure is remembered.
pub(crate) fn guarded(body: impl FnOnce() -> Result<(), Failure>) -> ss_status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ss_status::SsOk,
        Ok(Err(failure)) => {
            remember(failure.text);
            failure.status
        }
        Err(payload) => {
            // Its destructor is somebody else's code, and may panic again.
            std::mem::forget(payload);
            remember(String::from("a defect in the library: it panicked"));
            ss_status::SsPanic
        }
    }
}

/// What a status means.
pub(crate) const fn text(status: ss_status) -> &'static CStr {
    match status {
        ss_status::SsOk => c"done",
        ss_status::SsNullPointer => c"a pointer is NULL that must not be",
        ss_status::SsNotUtf8 => c"a text is not UTF-8",
        ss_status::SsValue => c"a number is out of its bounds",
        ss_status::SsRule => c"a rule of the policy is wrong",
        ss_status::SsBind => c"the socket can't be bound",
        ss_status::SsTimeout => c"nobody who is admitted came in time",
        ss_status::SsSystem => c"a system call failed",
        ss_status::SsNoLog => c"the log can't be opened",
        ss_status::SsPanic => c"a defect in the library",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_int;

    /// A payload whose own end panics.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in the destructor of a payload");
        }
    }

    // As C calls it: what unwinds out of such a function ends the process.
    extern "C" fn provoke(kind: c_int) -> ss_status {
        guarded(|| match kind {
            0 => panic!("provoked"),
            1 => std::panic::panic_any(Bomb),
            _ => Err(Failure::new(ss_status::SsValue, "no such kind")),
        })
    }

    #[test]
    fn a_panic_ends_at_the_boundary_as_a_status() {
        let call: extern "C" fn(c_int) -> ss_status = provoke;
        for kind in [0, 1] {
            assert_eq!(call(2), ss_status::SsValue);
            assert_eq!(call(kind), ss_status::SsPanic);
            assert_eq!(last(), "a defect in the library: it panicked");
        }
        assert_eq!(call(2), ss_status::SsValue);
        assert_eq!(last(), "no such kind");
    }
}
