//! Reversible escapes for text that somebody else chose. Pure.
//!
//! `line` makes of any text one that stays on its line and steers no terminal;
//! `unline` gives the text back. Bytes that are not UTF-8 travel inside a
//! `str` as characters of a private area, see [`Untrusted`], and come out as
//! `\xNN`.
//!
//! | character | escape |
//! |---|---|
//! | backslash | `\\` |
//! | tab, line feed, carriage return | `\t` `\n` `\r` |
//! | the other C0 controls, DEL | `\x00` to `\x1f`, `\x7f` |
//! | a byte that is not UTF-8 | `\x80` to `\xff` |
//! | C1, U+2028, U+2029, bidirectional controls | `\u{85}` and so on |
//!
//! Not here: the escapes that JSON and RFC 5424 need besides.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The byte `0xNN` that is no UTF-8 travels as the character `U+10FFNN`.
const CARRIER: u32 = 0x0010_FF00;

/// Bytes from elsewhere: a name, a path, a command line. Displays as they are,
/// except that bytes which are not UTF-8 become characters which the log
/// shows as `\xNN`.
#[derive(Clone, Copy, Debug)]
pub struct Untrusted<'a>(pub &'a [u8]);

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            let mut rest = chunk.valid();
            // A genuine character of the private area would be taken for a
            // byte: it is shown as the bytes that it is made of.
            while let Some((at, carrier)) = rest.char_indices().find(|(_, c)| carried(*c).is_some())
            {
                let (before, after) = rest.split_at(at);
                f.write_str(before)?;
                let (bytes, tail) = after.split_at(carrier.len_utf8());
                write_bytes(bytes.as_bytes(), f)?;
                rest = tail;
            }
            f.write_str(rest)?;
            write_bytes(chunk.invalid(), f)?;
        }
        Ok(())
    }
}

fn write_bytes(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes
        .iter()
        .try_for_each(|byte| f.write_char(carrier(*byte)))
}

/// The character that stands for a byte of 0x80 or more.
fn carrier(byte: u8) -> char {
    char::from_u32(CARRIER + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character stands for.
fn carried(character: char) -> Option<u8> {
    let low = u32::from(character).checked_sub(CARRIER)?;
    u8::try_from(low).ok().filter(|byte| *byte >= 0x80)
}

/// Whether a text has only printable ASCII without backslash: the usual case,
/// found without a branch for each byte.
pub fn is_plain(text: &[u8]) -> bool {
    !text.iter().fold(false, |found, &byte| {
        found | !(0x20..0x7f).contains(&byte) | (byte == b'\\')
    })
}

/// Whether a character could end the line, steer a terminal or reorder text.
fn is_control(character: char) -> bool {
    matches!(character,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether `line` writes this character otherwise than it is.
pub(super) fn needs_escape(character: char) -> bool {
    character == '\\' || is_control(character) || carried(character).is_some()
}

/// Appends `text` to `out`, escaped.
pub fn line(text: &str, out: &mut String) {
    escape(text, out, needs_escape);
}

/// A text as [`line()`] writes it: the same, where it is plain.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if is_plain(text.as_bytes()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    line(text, &mut out);
    Cow::Owned(out)
}

/// Appends a text that is already escaped to `out`, with only what is not: for
/// lines that come back from a queue. Backslashes stay single.
pub fn leftover(text: &str, out: &mut String) {
    escape(text, out, |character| {
        character != '\\' && needs_escape(character)
    });
}

fn escape(text: &str, out: &mut String, wrong: impl Fn(char) -> bool) {
    let mut rest = text;
    while let Some((at, character)) = rest.char_indices().find(|(_, c)| wrong(*c)) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        push_escape(character, out);
        rest = after.get(character.len_utf8()..).unwrap_or_default();
    }
    out.push_str(rest);
}

fn push_escape(character: char, out: &mut String) {
    // Writing to a String can't fail.
    let _ = match (character, carried(character)) {
        ('\\', _) => out.write_str("\\\\"),
        ('\t', _) => out.write_str("\\t"),
        ('\n', _) => out.write_str("\\n"),
        ('\r', _) => out.write_str("\\r"),
        (_, Some(byte)) => write!(out, "\\x{byte:02x}"),
        (ascii, None) if ascii.is_ascii() => write!(out, "\\x{:02x}", u32::from(ascii)),
        (other, None) => write!(out, "\\u{{{:x}}}", u32::from(other)),
    };
}

/// The text is not one that `line` writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotEscaped {
    /// Offset in bytes of the first thing that `line` would not have written.
    pub at: usize,
}

impl fmt::Display for NotEscaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected an escaped text, found something else at byte {}",
            self.at
        )
    }
}

impl std::error::Error for NotEscaped {}

/// The inverse of [`line()`]: gives the text that was escaped. Takes only what
/// `line` writes, so that each text has one escaped form.
pub fn unline(escaped: &str) -> Result<String, NotEscaped> {
    let mut text = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(character) = rest.chars().next() {
        let wrong = NotEscaped {
            at: escaped.len().saturating_sub(rest.len()),
        };
        if character == '\\' {
            let (original, tail) = take_escape(rest).ok_or(wrong)?;
            text.push(original);
            rest = tail;
        } else if needs_escape(character) {
            return Err(wrong);
        } else {
            text.push(character);
            rest = rest.get(character.len_utf8()..).unwrap_or_default();
        }
    }
    Ok(text)
}

/// The inverse of [`line()`] after [`Untrusted`]: gives the bytes.
pub fn unline_bytes(escaped: &str) -> Result<Vec<u8>, NotEscaped> {
    let text = unline(escaped)?;
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match carried(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(bytes)
}

/// The character that the escape at the start of `text` stands for, and what
/// follows it.
fn take_escape(text: &str) -> Option<(char, &str)> {
    let body = text.strip_prefix('\\')?;
    let kind = body.chars().next()?;
    let tail = body.get(kind.len_utf8()..)?;
    let (original, tail) = match kind {
        '\\' => ('\\', tail),
        't' => ('\t', tail),
        'n' => ('\n', tail),
        'r' => ('\r', tail),
        'x' => {
            let (digits, tail) = tail.split_at_checked(2)?;
            let byte = u8::from_str_radix(digits, 16).ok()?;
            (
                if byte < 0x80 {
                    char::from(byte)
                } else {
                    carrier(byte)
                },
                tail,
            )
        }
        'u' => {
            let (digits, tail) = tail.strip_prefix('{')?.split_once('}')?;
            (char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, tail)
        }
        _ => return None,
    };
    // `\x41`, `\x1B` and `\u{00085}` are not how `line` writes anything.
    let mut canonical = String::new();
    push_escape(original, &mut canonical);
    let taken = text.len().saturating_sub(tail.len());
    (needs_escape(original) && text.get(..taken) == Some(canonical.as_str()))
        .then_some((original, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut escaped = String::new();
        line(text, &mut escaped);
        assert_eq!(escaped, expected);
        assert_eq!(unline(&escaped).as_deref(), Ok(text));
        assert_eq!(
            is_plain(text.as_bytes()),
            text == expected && text.is_ascii()
        );
    }

    #[test]
    fn controls_are_escaped_and_come_back() {
        check("peer admitted uid=33", "peer admitted uid=33");
        check("a\nb\tc\rd\\n", "a\\nb\\tc\\rd\\\\n");
        check("\0\x1b[31m\x7f", "\\x00\\x1b[31m\\x7f");
        check("\u{80}\u{9b}31m\u{85}", "\\u{80}\\u{9b}31m\\u{85}");
        check(
            "\u{2028}\u{2029}\u{202e}\u{2066}",
            "\\u{2028}\\u{2029}\\u{202e}\\u{2066}",
        );
        check("\u{61c}\u{200e}\u{200f}", "\\u{61c}\\u{200e}\\u{200f}");
        check("Grüße, 世界 \u{a0}", "Grüße, 世界 \u{a0}");
    }

    #[test]
    fn every_character_comes_back() {
        for character in '\0'..=char::MAX {
            let text = format!("<{character}>");
            let mut escaped = String::new();
            line(&text, &mut escaped);
            assert_eq!(unline(&escaped), Ok(text));
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_come_back() {
        for bytes in [
            &b"\xff\xfe"[..],
            b"a\xc3",
            b"\xed\xa0\x80",
            "\u{10ff85}\u{10ffff}".as_bytes(),
        ] {
            let mut escaped = String::new();
            line(&Untrusted(bytes).to_string(), &mut escaped);
            assert!(escaped.is_ascii());
            assert_eq!(unline_bytes(&escaped).as_deref(), Ok(bytes));
        }
        assert_eq!(unline_bytes("a\\xffb"), Ok(b"a\xffb".to_vec()));
    }

    #[test]
    fn only_the_one_form_is_taken_back() {
        for (wrong, at) in [
            ("\\", 0),
            ("a\\q", 1),
            ("\\x4", 0),
            ("\\x41", 0),
            ("\\x1B", 0),
            ("\\u{085}", 0),
        ] {
            assert_eq!(unline(wrong), Err(NotEscaped { at }), "{wrong}");
        }
        assert_eq!(unline("ab\n"), Err(NotEscaped { at: 2 }));
        assert_eq!(unline("\\x+1"), Err(NotEscaped { at: 0 }));
    }

    #[test]
    fn what_is_escaped_already_keeps_its_backslashes() {
        let mut out = String::new();
        leftover("a\\nb\x1b[0m", &mut out);
        assert_eq!(out, "a\\nb\\x1b[0m");
    }
}
