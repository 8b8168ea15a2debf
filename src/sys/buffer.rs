//! Memory for data in transit, taken from the kernel page by page as it is used
//! and given back at once (mmap(2), madvise(2)).

use std::fmt;
use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// A buffer of zeroes. Untouched pages cost no memory.
pub struct PageBuffer {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it owns its mapping, and nothing else refers to that.
unsafe impl Send for PageBuffer {}

impl PageBuffer {
    /// Maps `length` bytes, at least 1.
    ///
    /// # Errors
    /// `OutOfMemory` when the kernel gives none.
    pub fn new(length: usize) -> io::Result<Self> {
        // SAFETY: a new private mapping at an address of the kernel's choice
        // touches no memory that is in use.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        match NonNull::new(start.cast::<u8>()) {
            Some(start) => Ok(Self { start, length }),
            None => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// The whole buffer; what it contains is unspecified.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `length` bytes, readable and writable, zeroed by
        // the kernel, and borrowed as long as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    /// Gives the pages back; the buffer reads as zeroes afterwards.
    pub fn release(&mut self) {
        // SAFETY: the range is this buffer's own mapping; its contents are not
        // relied on. A failure leaves the pages where they are.
        let _ = unsafe {
            rustix::mm::madvise(
                self.start.as_ptr().cast(),
                self.length,
                Advice::LinuxDontNeed,
            )
        };
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        // SAFETY: the range is this buffer's own mapping, and `self` ends here.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

impl fmt::Debug for PageBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageBuffer({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_written_until_released() {
        let mut buffer = PageBuffer::new(100_000).unwrap();
        assert_eq!(buffer.as_mut_slice().len(), 100_000);
        buffer.as_mut_slice()[99_999] = 7;
        assert_eq!(buffer.as_mut_slice()[99_999], 7);
        buffer.release();
        assert_eq!(buffer.as_mut_slice()[99_999], 0);
    }
}
