//! One line on its way from the call to the writer: when, where, how severe,
//! and the message as it was given.
//!
//! A message of usual length is formatted on the caller's stack and moves
//! through the queue by value, so that neither a thread's buffer nor the
//! allocator is in the way: a call inside a Display, or in a signal handler,
//! needs nothing that the interrupted call holds. Longer ones take a String
//! from a pool. A message is cut at [`MAX_MESSAGE`].

use super::site::Context;
use super::{Severity, escape};
use crossbeam::queue::ArrayQueue;
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a message that travel inside the line. With the rest it makes a
/// slot of the queue 256 bytes.
const INLINE: usize = 190;

/// Bytes of the longest message; the rest of a longer one is counted.
pub(super) const MAX_MESSAGE: usize = 128 * 1024;

/// No sink-independent verbosity holds for the line's module.
pub(super) const NO_SCOPE: u8 = u8::MAX;

/// Where a line was logged.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// By one of our macros.
    Site(Context),
    /// By a macro of the `log` crate.
    Foreign {
        file: &'static str,
        line: u32,
        module: &'static str,
    },
}

/// The message: at home in the line, or on the heap.
enum Text {
    Inline { bytes: [u8; INLINE], length: u8 },
    Heap(String),
}

/// One line, not yet rendered.
pub(super) struct Line {
    pub(super) micros: u64,
    origin: Origin,
    pub(super) severity: Severity,
    /// The verbosity of the line's module, as a threshold, or `NO_SCOPE`.
    pub(super) scope: u8,
    /// Only printable ASCII without backslash: needs no escape in a text.
    pub(super) plain: bool,
    text: Text,
}

/// Strings that have served and will serve again.
pub(super) struct Pool(ArrayQueue<String>);

impl Pool {
    /// Strings that are kept.
    const STRINGS: usize = 256;
    /// Bytes of the longest that is kept.
    const LONGEST: usize = 4096;

    pub(super) fn new() -> Self {
        Self(ArrayQueue::new(Self::STRINGS))
    }

    fn take(&self) -> String {
        self.0
            .pop()
            .unwrap_or_else(|| String::with_capacity(4 * INLINE))
    }

    fn put_back(&self, mut string: String) {
        if string.capacity() <= Self::LONGEST {
            string.clear();
            let _ = self.0.push(string);
        }
    }
}

impl Line {
    /// A line without a message.
    #[inline]
    pub(super) fn new(severity: Severity, scope: u8, origin: Origin) -> Self {
        let text = Text::Inline {
            bytes: [0; INLINE],
            length: 0,
        };
        Self {
            micros: 0,
            origin,
            severity,
            scope,
            plain: true,
            text,
        }
    }

    /// Formats the message, in place. A panic in a Display leaves what there
    /// is, which the caller may still log, and is given back to go on.
    #[inline]
    pub(super) fn format(
        &mut self,
        message: fmt::Arguments<'_>,
        pool: &Pool,
    ) -> Result<(), Box<dyn Any + Send>> {
        let mut draft = Draft {
            text: &mut self.text,
            pool,
            cut: 0,
        };
        let formatted = match message.as_str() {
            Some(text) => Ok(fmt::Write::write_str(&mut draft, text)),
            None => catch_unwind(AssertUnwindSafe(|| fmt::write(&mut draft, message))),
        };
        if !matches!(formatted, Ok(Ok(()))) || draft.cut > 0 {
            draft.explain(&formatted);
        }
        self.plain = escape::is_plain(self.text.bytes());
        self.micros = now_micros();
        formatted.map(|_| ())
    }

    /// The message's bytes, which are UTF-8.
    pub(super) fn message(&self) -> &[u8] {
        self.text.bytes()
    }

    /// Source file, or nothing if it isn't known.
    pub(super) fn file(&self) -> &'static str {
        match self.origin {
            Origin::Site(context) => context.site.file(),
            Origin::Foreign { file, .. } => file,
        }
    }

    /// Line in the source file.
    pub(super) fn file_line(&self) -> u32 {
        match self.origin {
            Origin::Site(context) => context.site.line(),
            Origin::Foreign { line, .. } => line,
        }
    }

    /// Path of the module, or nothing if it isn't known.
    pub(super) fn module(&self) -> &'static str {
        match self.origin {
            Origin::Site(context) => context.site.module(),
            Origin::Foreign { module, .. } => module,
        }
    }

    /// ` (FILE:LINE FUNCTION)`, if one of our macros made the line.
    #[inline]
    pub(super) fn place(&self) -> &str {
        match &self.origin {
            Origin::Site(context) => context.site.place(),
            Origin::Foreign { .. } => "",
        }
    }

    /// Name of the function, or nothing if it isn't known.
    pub(super) fn function(&self) -> &'static str {
        match self.origin {
            Origin::Site(context) => context.site.function(),
            Origin::Foreign { .. } => "",
        }
    }

    /// Number of the connection that the line is about.
    pub(super) fn conn(&self) -> Option<u64> {
        match self.origin {
            Origin::Site(context) => context.conn,
            Origin::Foreign { .. } => None,
        }
    }

    /// Bytes that the line holds on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.text {
            Text::Inline { .. } => 0,
            Text::Heap(string) => string.capacity(),
        }
    }

    /// Gives the line's String back.
    pub(super) fn recycle(self, pool: &Pool) {
        if let Text::Heap(string) = self.text {
            pool.put_back(string);
        }
    }
}

impl Text {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline { bytes, length } => bytes.get(..usize::from(*length)).unwrap_or(bytes),
            Self::Heap(string) => string.as_bytes(),
        }
    }
}

/// A message while it is formatted.
struct Draft<'a> {
    text: &'a mut Text,
    pool: &'a Pool,
    /// Bytes beyond the longest message.
    cut: usize,
}

impl Draft<'_> {
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
    fn push(&mut self, piece: &str) {
        let length = self.text.bytes().len();
        let room = MAX_MESSAGE.saturating_sub(length);
        if self.cut == 0 && piece.len() <= room {
            self.append(piece);
            return;
        }
        let mut end = if self.cut == 0 { room } else { 0 };
        while !piece.is_char_boundary(end) {
            end -= 1;
        }
        let (kept, rest) = piece.split_at(end);
        self.cut += rest.len();
        self.append(kept);
    }

    fn append(&mut self, piece: &str) {
        let spilled = match &mut *self.text {
            Text::Heap(string) => return string.push_str(piece),
            Text::Inline { bytes, length } => {
                let start = usize::from(*length);
                let end = start + piece.len();
                match (bytes.get_mut(start..end), u8::try_from(end)) {
                    (Some(room), Ok(end)) => {
                        room.copy_from_slice(piece.as_bytes());
                        *length = end;
                        return;
                    }
                    _ => {
                        let mut string = self.pool.take();
                        let held = bytes.get(..start).unwrap_or_default();
                        string.push_str(std::str::from_utf8(held).unwrap_or_default());
                        string.push_str(piece);
                        string
                    }
                }
            }
        };
        *self.text = Text::Heap(spilled);
    }
}

impl fmt::Write for Draft<'_> {
    #[inline]
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.push(piece);
        Ok(())
    }
}

/// Microseconds since 1970, 0 for a clock that is set before.
pub(super) fn now_micros() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since
        .as_secs()
        .saturating_mul(1_000_000)
        .saturating_add(u64::from(since.subsec_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: Origin = Origin::Foreign {
        file: "",
        line: 0,
        module: "",
    };

    fn format(message: fmt::Arguments<'_>) -> Line {
        let mut line = Line::new(Severity::Info, NO_SCOPE, FOREIGN);
        line.format(message, &Pool::new()).unwrap();
        line
    }

    #[test]
    fn a_slot_of_the_queue_is_256_bytes() {
        assert_eq!(size_of::<Line>(), 248);
    }

    #[test]
    fn a_message_of_any_length_is_kept_up_to_the_longest() {
        for length in [
            0,
            1,
            INLINE - 1,
            INLINE,
            INLINE + 1,
            MAX_MESSAGE - 1,
            MAX_MESSAGE,
        ] {
            let text = "x".repeat(length);
            assert_eq!(format(format_args!("{text}")).message(), text.as_bytes());
            assert_eq!(
                format(format_args!(
                    "{}{}",
                    &text[..length / 2],
                    &text[length / 2..]
                ))
                .message()
                .len(),
                length
            );
        }
        let text = "ä".repeat(MAX_MESSAGE / 2) + "äb";
        let line = format(format_args!("{text}{text}"));
        let message = std::str::from_utf8(line.message()).unwrap();
        assert!(message.ends_with(&format!("ä (cut: {} bytes more)", MAX_MESSAGE + 6)));
    }

    #[test]
    fn a_panic_in_a_display_keeps_what_there_is() {
        struct Panics;
        impl fmt::Display for Panics {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("in a Display")
            }
        }
        let mut kept = Line::new(Severity::Info, NO_SCOPE, FOREIGN);
        let panic = kept.format(format_args!("before {} after", Panics), &Pool::new());
        assert!(panic.is_err());
        assert_eq!(
            kept.message(),
            b"before  (the rest of this message panicked)"
        );
    }
}
