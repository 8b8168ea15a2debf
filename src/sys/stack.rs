//! The calling thread's own stack: pages that deeper calls touched before and that
//! nothing is on now go back to the kernel (madvise(2)).
//!
//! A thread that waits for long keeps what its deepest call ever took, some pages of
//! four KiB for each connection of a pool. The stack below the current frame holds
//! nothing that is read again before it is written.

use std::hint::black_box;
use std::marker::PhantomData;
use std::ptr;

use rustix::mm::Advice;

/// What the kernel's pages are taken to be. Where they are larger the range is not
/// aligned, which the kernel refuses (EINVAL), and the pages stay.
const PAGE: usize = 4096;

/// Left untouched below the frame that trims: its own calls, and the red zone of 128
/// bytes that the ABI of `x86_64` lets a function use below its frame.
const MARGIN: usize = 1024;

/// At the top of a stack, above the first frame: the C library's description of the
/// thread, its thread-local variables, a guard page.
const TOP: usize = 24 << 10;

/// Where the stack of a thread ends, as far as may be relied on.
#[derive(Debug)]
pub(crate) struct Stack {
    floor: usize,
    /// Of no use to another thread.
    not_send: PhantomData<*const u8>,
}

impl Stack {
    /// Of a thread that was started with a stack of `size` bytes; to be called from
    /// one of its first functions.
    pub(crate) fn of_this_thread(size: usize) -> Self {
        let usable = size.saturating_sub(TOP);
        let floor = here().saturating_sub(usable).next_multiple_of(PAGE);
        Self {
            floor,
            not_send: PhantomData,
        }
    }

    /// Gives back what lies below the caller's frame. Only by the thread that
    /// [`of_this_thread`](Self::of_this_thread) was called on: the type can't be sent.
    #[inline(never)]
    pub(crate) fn trim(&self) {
        let end = here().saturating_sub(MARGIN) & !(PAGE - 1);
        let Some(length) = end.checked_sub(self.floor).filter(|length| *length > 0) else {
            return;
        };
        let start = ptr::with_exposed_provenance_mut(self.floor);
        // SAFETY: the range lies in this thread's own stack, above its lowest address
        // and below every live frame, by more than what this call itself needs; a
        // signal handler's frames are gone, or not there yet, when it takes effect.
        let _ = unsafe { rustix::mm::madvise(start, length, Advice::LinuxDontNeed) };
    }
}

/// An address in the caller's frame, or close to it.
#[inline(always)]
fn here() -> usize {
    let marker = 0_u8;
    black_box(&raw const marker).expose_provenance()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of the mapping of `address` that are resident.
    fn resident(address: usize) -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().unwrap().split_once('-');
            let bound = |text| usize::from_str_radix(text, 16).ok();
            if let Some((Some(from), Some(to))) = range.map(|(from, to)| (bound(from), bound(to))) {
                inside = (from..to).contains(&address);
            } else if inside && let Some(size) = line.strip_prefix("Rss:") {
                return size.trim().trim_end_matches(" kB").parse().unwrap();
            }
        }
        panic!("{address:x} is in no mapping");
    }

    #[inline(never)]
    fn deep(value: u8) -> u8 {
        let block = black_box([value; 200 << 10]);
        block[black_box(7)]
    }

    #[test]
    fn what_a_deep_call_took_is_given_back_and_can_be_used_again() {
        const SIZE: usize = 512 << 10;
        let thread = std::thread::Builder::new().stack_size(SIZE);
        let thread = thread.spawn(|| {
            let stack = Stack::of_this_thread(SIZE);
            let kept = [black_box(3_u8); 64];
            let address = kept.as_ptr().addr();
            assert_eq!(deep(5), 5);
            let before = resident(address);
            stack.trim();
            let after = resident(address);
            assert!(before >= 200 && after < before - 150, "{before}, {after} KiB");
            // What is live is whole, and there is room again.
            assert_eq!(black_box(kept), [3; 64]);
            assert_eq!(deep(9), 9);
        });
        thread.unwrap().join().unwrap();
    }
}
