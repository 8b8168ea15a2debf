//! Short texts put together on the stack, for what is said of every connection:
//! the formatter of the standard library takes several times as long for each number.
//!
//! Invariant: only whole strings and digits enter, so it always is UTF-8. Whoever
//! makes one gives it room for the longest text; what has none is left out whole.
//!
//! And what names of rolled files need: the next one in their order.
//! [`chain`] is for the rare line that tells an error with all its causes.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;

/// An error and all its causes, each once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

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

/// The next text in the order of such that have digits in the same places, as stamps have;
/// `None` behind the last. It keeps the order, not the calendar: `59.999999` is followed by
/// `60.000000`, which no clock shows.
#[cfg(any(feature = "logging", feature = "trail"))]
pub(crate) fn counted_up(text: &str) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    for byte in bytes.iter_mut().rev().filter(|byte| byte.is_ascii_digit()) {
        if *byte != b'9' {
            *byte = byte.saturating_add(1);
            return String::from_utf8(bytes).ok();
        }
        *byte = b'0';
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(any(feature = "logging", feature = "trail"))]
    #[test]
    fn what_is_counted_up_is_the_next_in_order() {
        for (text, expect) in [
            ("20261123-102030.123456", Some("20261123-102030.123457")),
            ("20261123-102030.999999", Some("20261123-102031.000000")),
            ("20261231-235959.999999", Some("20261231-235960.000000")),
            ("99999999-999999.999998", Some("99999999-999999.999999")),
            ("99999999-999999.999999", None),
            ("-.", None),
        ] {
            let next = counted_up(text);
            assert_eq!(next.as_deref(), expect);
            assert!(next.is_none_or(|next| next.as_str() > text));
        }
    }

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
