//! A message while it is formatted, on the caller's stack.
//!
//! A message of up to 128 bytes needs neither a thread's buffer nor the
//! allocator, so a call inside a Display needs nothing that the interrupted call
//! holds. Nor does one in a signal handler, as long as the writer runs, at
//! severities 2 to 10, where the queue drops what it has no room for: fatal and
//! alert wait for the writer, and `Block` for room, both with a lock. A longer
//! message takes a String from a pool, and gives it back. A message is cut at
//! [`LONGEST`].

use crossbeam::queue::ArrayQueue;
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes of a message that is formatted on the stack: as many as are cleared
/// without a call.
const INLINE: usize = 128;

/// Bytes of the longest message; the rest of a longer one is counted.
pub(super) const LONGEST: usize = 128 * 1024;

/// Strings that have served and will serve again.
pub(super) struct Pool(ArrayQueue<String>);

impl Pool {
    /// Strings that are kept.
    const STRINGS: usize = 64;
    /// Bytes of the longest that is kept.
    const LONGEST: usize = 4096;

    pub(super) fn new() -> Self {
        Self(ArrayQueue::new(Self::STRINGS))
    }

    fn take(&self) -> String {
        self.0
            .pop()
            .unwrap_or_else(|| String::with_capacity(8 * INLINE))
    }

    fn put_back(&self, mut string: String) {
        if string.capacity() <= Self::LONGEST {
            string.clear();
            let _ = self.0.push(string);
        }
    }
}

/// See the module.
pub(super) struct Message<'p> {
    inline: [u8; INLINE],
    /// Bytes used of it, 0 when the message did not fit.
    length: usize,
    long: Option<String>,
    pool: &'p Pool,
    /// Bytes beyond the longest message.
    cut: usize,
}

impl<'p> Message<'p> {
    #[inline]
    pub(super) const fn new(pool: &'p Pool) -> Self {
        Self {
            inline: [0; INLINE],
            length: 0,
            long: None,
            pool,
            cut: 0,
        }
    }

    /// Formats the message. A panic in a Display leaves what there is, which
    /// the caller may still log, and is given back to go on.
    #[inline]
    pub(super) fn format(
        &mut self,
        arguments: fmt::Arguments<'_>,
    ) -> Result<(), Box<dyn Any + Send>> {
        let formatted = match arguments.as_str() {
            Some(text) => Ok(fmt::Write::write_str(self, text)),
            None => catch_unwind(AssertUnwindSafe(|| fmt::write(self, arguments))),
        };
        if !matches!(formatted, Ok(Ok(()))) || self.cut > 0 {
            self.explain(&formatted);
        }
        formatted.map(|_| ())
    }

    /// The message's bytes, which are UTF-8.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.long {
            None => self.inline.get(..self.length).unwrap_or(&self.inline),
            Some(long) => long.as_bytes(),
        }
    }

    /// Says at the end of a message why it isn't whole.
    #[cold]
    fn explain(&mut self, formatted: &Result<fmt::Result, Box<dyn Any + Send>>) {
        match formatted {
            Ok(Ok(())) => {}
            Ok(Err(fmt::Error)) => self.append(" (a part of this message could not be formatted)"),
            Err(_) => self.append(" (the rest of this message panicked)"),
        }
        if self.cut > 0 {
            let note = format!(" (cut: {} bytes more)", self.cut);
            self.append(&note);
        }
    }

    #[inline]
    fn append(&mut self, piece: &str) {
        if self.long.is_none() {
            let end = self.length + piece.len();
            if let Some(room) = self.inline.get_mut(self.length..end) {
                room.copy_from_slice(piece.as_bytes());
                self.length = end;
                return;
            }
        }
        self.append_long(piece);
    }

    #[cold]
    fn append_long(&mut self, piece: &str) {
        let long = self.long.get_or_insert_with(|| {
            let mut long = self.pool.take();
            let held = self.inline.get(..self.length).unwrap_or_default();
            long.push_str(std::str::from_utf8(held).unwrap_or_default());
            self.length = 0;
            long
        });
        long.push_str(piece);
    }

    /// Appends as much as the longest message allows, and counts the rest.
    #[cold]
    fn append_cut(&mut self, piece: &str) {
        let room = LONGEST.saturating_sub(self.bytes().len());
        let end = if self.cut == 0 { room } else { 0 };
        let (kept, rest) = piece.split_at(floor_boundary(piece, end));
        self.cut += rest.len();
        self.append(kept);
    }
}

impl fmt::Write for Message<'_> {
    #[inline]
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let long = self.long.as_ref().map_or(0, String::len);
        if self.cut > 0 || long + self.length + piece.len() > LONGEST {
            self.append_cut(piece);
        } else {
            self.append(piece);
        }
        Ok(())
    }
}

/// The last boundary between characters that is not after `at`.
pub(super) fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

impl Drop for Message<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(long) = self.long.take() {
            self.pool.put_back(long);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(arguments: fmt::Arguments<'_>, expected: &str) {
        let pool = Pool::new();
        let mut message = Message::new(&pool);
        message.format(arguments).unwrap();
        assert_eq!(std::str::from_utf8(message.bytes()).unwrap(), expected);
    }

    #[test]
    fn a_message_of_any_length_is_kept_up_to_the_longest() {
        for length in [0, 1, INLINE - 1, INLINE, INLINE + 1, LONGEST - 1, LONGEST] {
            let text = "x".repeat(length);
            let (one, other) = text.split_at(length / 2);
            check(format_args!("{text}"), &text);
            check(format_args!("{one}{other}"), &text);
        }
        let text = "ä".repeat(LONGEST / 2);
        let all = format!("{text} (cut: {} bytes more)", LONGEST + 6);
        check(format_args!("{text}äb{text}{}{}", "ä", 7), &all);
        check(
            format_args!("{text}{}", "ä"),
            &format!("{text} (cut: 2 bytes more)"),
        );
    }

    #[test]
    fn a_string_that_served_serves_again() {
        let pool = Pool::new();
        for _ in 0..3 {
            let mut message = Message::new(&pool);
            message.format(format_args!("{:600}", 1)).unwrap();
            assert_eq!(pool.0.len(), 0);
            drop(message);
            assert_eq!(pool.0.len(), 1);
        }
        Message::new(&pool)
            .format(format_args!("{:60000}", 1))
            .unwrap();
        assert_eq!(pool.0.len(), 0, "one that grew too long is not kept");
    }

    #[test]
    fn a_panic_in_a_display_keeps_what_there_is() {
        struct Panics;
        impl fmt::Display for Panics {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("in a Display")
            }
        }
        let pool = Pool::new();
        let mut kept = Message::new(&pool);
        let panic = kept.format(format_args!("before {} after", Panics));
        assert!(panic.is_err());
        assert_eq!(kept.bytes(), b"before  (the rest of this message panicked)");
    }
}
