//! From what C hands in to what Rust works with. With `lib.rs` the only `unsafe` of
//! this crate; every pointer is looked at before it is used.

use std::ffi::{CStr, c_char};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::status::{Failure, ss_status};

/// A text that must be there.
///
/// # Safety
/// `pointer` is NULL, or points to bytes that end in a NUL and stay as they are for
/// `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: as the caller vouches.
    let bytes = unsafe { bytes(pointer, what) }?;
    std::str::from_utf8(bytes)
        .map_err(|_| Failure::new(ss_status::SsNotUtf8, format!("{what}: expected UTF-8")))
}

/// The same, whatever its bytes: what somebody else chose need not be UTF-8.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn bytes<'a>(pointer: *const c_char, what: &str) -> Result<&'a [u8], Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: it is not NULL; the rest is what the caller vouches for.
    let text = unsafe { CStr::from_ptr(pointer) };
    Ok(text.to_bytes())
}

/// A thing that must be there, shared. C has threads, so it must bear them.
///
/// # Safety
/// `pointer` is NULL, or came from [`hand_over`] and was not given back.
pub(crate) unsafe fn shared<'a, T: Sync>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: as the caller vouches; NULL gives `None`.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(what))
}

/// A thing that must be there, for this call alone.
///
/// # Safety
/// As [`shared`], and nobody else uses it meanwhile.
pub(crate) unsafe fn exclusive<'a, T: Send>(
    pointer: *mut T,
    what: &str,
) -> Result<&'a mut T, Failure> {
    // SAFETY: as the caller vouches; NULL gives `None`.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(what))
}

/// Puts a value where C wants it.
///
/// # Safety
/// `place` is NULL, or valid for a write of `T`; it need not be initialised.
pub(crate) unsafe fn put<T>(place: *mut T, value: T, what: &str) -> Result<(), Failure> {
    if place.is_null() {
        return Err(null(what));
    }
    // SAFETY: it is not NULL; the rest is what the caller vouches for.
    unsafe { place.write(value) };
    Ok(())
}

/// Makes a thing C's own, which may give it back in another thread.
pub(crate) fn hand_over<T: Send>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Takes it back. `None` for NULL.
///
/// # Safety
/// `pointer` is NULL, or came from [`hand_over`], and is used by nobody from now on.
pub(crate) unsafe fn take_back<T: Send>(pointer: *mut T) -> Option<Box<T>> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: it came from a Box, and it is C's to give back.
    Some(unsafe { Box::from_raw(pointer) })
}

/// Copies a text with its final NUL, cut to what fits.
///
/// # Safety
/// `buffer` is NULL, or valid for writes of `length` bytes.
pub(crate) unsafe fn copy_out(text: &str, buffer: *mut c_char, length: usize) {
    let Some(room) = length.checked_sub(1).filter(|_| !buffer.is_null()) else {
        return;
    };
    let mut end = text.len().min(room);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // SAFETY: `end` is at most `length - 1`, and the two don't overlap: one is ours.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, end) };
    // SAFETY: `end` is less than `length`.
    let last = unsafe { buffer.add(end) };
    // SAFETY: `last` lies within the buffer.
    unsafe { last.write(0) };
}

/// A place for one thing that stays for good, read and filled without a lock: a child
/// of fork(2) can't find it locked by a thread that it doesn't have.
pub(crate) struct Slot<T: 'static>(AtomicPtr<T>);

impl<T: Send + Sync> Slot<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        let found = self.0.load(Ordering::Acquire);
        // SAFETY: NULL gives `None`; else it came from `fill`, which makes it of a Box
        // that is never given back and that nobody changes.
        unsafe { found.as_ref() }
    }

    /// Gives what is there then: another thread may have been first, and what it put
    /// there stays; this one's thing is lost.
    pub(crate) fn fill(&self, thing: Box<T>) -> Option<&'static T> {
        let new = Box::into_raw(thing);
        let _ = self
            .0
            .compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        self.get()
    }
}

fn null(what: &str) -> Failure {
    Failure::new(ss_status::SsNullPointer, format!("{what} is NULL"))
}
