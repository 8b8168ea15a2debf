//! Short texts put together on the stack, for what is said of every connection:
//! the formatter of the standard library takes several times as long for each number.
//!
//! Invariant: only whole strings and digits enter, so it always is UTF-8. Whoever
//! makes one gives it room for the longest text; what has none is left out whole.

#![forbid(unsafe_code)]

use std::fmt;

/// A text of at most `N` bytes.
pub(crate) struct ShortText<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> ShortText<N> {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    /// Appends a text.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.push_bytes(text.as_bytes());
        self
    }

    /// Appends a number in decimal, with at least `width` digits, at most 20.
    pub(crate) fn push_number(&mut self, number: u64, width: usize) -> &mut Self {
        let mut digits = [b'0'; 20];
        let (mut rest, mut used) = (number, 0);
        for digit in digits.iter_mut().rev() {
            if rest == 0 && used > 0 {
                break;
            }
            *digit = b'0' | u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            used += 1;
        }
        let shown = digits.len() - used.max(width.min(digits.len()));
        self.push_bytes(digits.get(shown..).unwrap_or_default());
        self
    }

    /// Appends what something shows.
    pub(crate) fn push_shown(&mut self, shown: &dyn fmt::Display) -> &mut Self {
        // No part of it is refused, see `write_str`.
        let _ = fmt::Write::write_fmt(self, format_args!("{shown}"));
        self
    }

    /// The text so far.
    pub(crate) fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        let end = self.length.saturating_add(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(bytes);
            self.length = end;
        }
    }
}

impl<const N: usize> fmt::Write for ShortText<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

impl<const N: usize> fmt::Display for ShortText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(number: u64, width: usize, expect: &str) {
        let mut text = ShortText::<24>::new();
        assert_eq!(text.push_number(number, width).as_str(), expect);
    }

    #[test]
    fn numbers_are_decimal() {
        check(0, 0, "0");
        check(9, 1, "9");
        check(10, 1, "10");
        check(7, 3, "007");
        check(1234, 3, "1234");
        check(u64::MAX, 0, "18446744073709551615");
        check(1, 99, "00000000000000000001");
    }

    #[test]
    fn what_has_no_room_is_left_out_whole() {
        let mut text = ShortText::<4>::new();
        text.push("ab").push("\u{e9}x").push("\u{e9}").push("c");
        assert_eq!(text.as_str(), "ab\u{e9}");
    }
}
