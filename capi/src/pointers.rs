//! From what C hands in to what Rust works with. With `lib.rs` the only `unsafe` of
//! this crate; every pointer is looked at before it is used.

use std::ffi::{CStr, c_char};

use crate::status::{Failure, ss_status};

/// A text that must be there.
///
/// # Safety
/// `pointer` is NULL, or points to bytes that end in a NUL and stay as they are for
/// `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: it is not NULL; the rest is what the caller vouches for.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str()
        .map_err(|_| Failure::new(ss_status::SsNotUtf8, format!("{what}: expected UTF-8")))
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

fn null(what: &str) -> Failure {
    Failure::new(ss_status::SsNullPointer, format!("{what} is NULL"))
}
