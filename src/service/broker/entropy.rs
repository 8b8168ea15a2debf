//! Random bytes from the kernel.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Fills `bytes` from getrandom(2).
///
/// # Errors
///
/// What the kernel says; never once the machine is up, except where a filter
/// forbids the call.
pub(super) fn fill(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match getrandom(&mut *bytes, GetRandomFlags::empty()) {
            Ok(count) => bytes = bytes.get_mut(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
