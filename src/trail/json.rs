//! Writes JSON (RFC 8259) members into a buffer, and checks that a line is one
//! flat object of the kind that is written here.
//!
//! Text that is not UTF-8 is written in hexadecimal under a name with `_hex`
//! appended, so that nothing is lost and every line is valid.
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

use std::io::Write;

/// Appends `,"name":` and a value. The first member is the caller's.
#[derive(Debug)]
pub(super) struct Members<'a>(pub(super) &'a mut Vec<u8>);

impl Members<'_> {
    pub(super) fn number(&mut self, name: &str, value: impl Into<u64>) {
        self.name(name, "");
        let _ = write!(self.0, "{}", value.into());
    }

    pub(super) fn flag(&mut self, name: &str, value: bool) {
        self.name(name, "");
        self.0
            .extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(super) fn null(&mut self, name: &str) {
        self.name(name, "");
        self.0.extend_from_slice(b"null");
    }

    /// Text that somebody else may have chosen. Beyond `most` bytes it is cut,
    /// and a member with `_bytes` appended says how long it was.
    pub(super) fn text(&mut self, name: &str, value: &[u8], most: usize) {
        let cut = cut(value, most);
        match std::str::from_utf8(cut) {
            Ok(text) => {
                self.name(name, "");
                string(self.0, text);
            }
            Err(_) => {
                self.name(name, "_hex");
                self.0.push(b'"');
                hex(self.0, cut);
                self.0.push(b'"');
            }
        }
        if cut.len() < value.len() {
            self.name(name, "_bytes");
            let _ = write!(self.0, "{}", value.len());
        }
    }

    pub(super) fn digest(&mut self, name: &str, value: &[u8; 32]) {
        self.name(name, "");
        self.0.push(b'"');
        hex(self.0, value);
        self.0.push(b'"');
    }

    /// At most `most`; beyond, a member with `_count` appended says how many there were.
    pub(super) fn numbers(
        &mut self,
        name: &str,
        values: impl ExactSizeIterator<Item = u32>,
        most: usize,
    ) {
        let count = values.len();
        self.name(name, "");
        for (place, value) in values.take(most).enumerate() {
            self.0.push(if place == 0 { b'[' } else { b',' });
            let _ = write!(self.0, "{value}");
        }
        self.0
            .extend_from_slice(if count == 0 || most == 0 { b"[]" } else { b"]" });
        if count > most {
            self.name(name, "_count");
            let _ = write!(self.0, "{count}");
        }
    }

    fn name(&mut self, name: &str, suffix: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(suffix.as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

/// Cuts where no character is split, if it is text.
fn cut(value: &[u8], most: usize) -> &[u8] {
    if value.len() <= most {
        return value;
    }
    let end = match std::str::from_utf8(value) {
        Ok(text) => (0..=most)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0),
        Err(_) => most,
    };
    value.get(..end).unwrap_or_default()
}

pub(super) fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    for byte in bytes {
        out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if text
        .bytes()
        .all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\')
    {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.chars().for_each(|character| escaped(out, character));
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, character: char) {
    let mut room = [0; 4];
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        // Controls, and what reorders or splits a line where it is shown.
        '\0'..='\x1f'
        | '\x7f'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}' => {
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        }
        other => out.extend_from_slice(other.encode_utf8(&mut room).as_bytes()),
    }
}

/// Whether a line is one JSON object whose values are texts, whole numbers,
/// `true`, `false`, `null`, or lists of such.
pub(super) fn is_flat_object(line: &str) -> bool {
    let mut rest = line.as_bytes();
    object(&mut rest).is_some() && rest.is_empty()
}

fn object(rest: &mut &[u8]) -> Option<()> {
    eat(rest, b'{')?;
    loop {
        quoted(rest)?;
        eat(rest, b':')?;
        if rest.first() == Some(&b'[') {
            list(rest)?;
        } else {
            scalar(rest)?;
        }
        match next(rest)? {
            b',' => {}
            b'}' => return Some(()),
            _ => return None,
        }
    }
}

fn list(rest: &mut &[u8]) -> Option<()> {
    eat(rest, b'[')?;
    if rest.first() == Some(&b']') {
        return eat(rest, b']');
    }
    loop {
        scalar(rest)?;
        match next(rest)? {
            b',' => {}
            b']' => return Some(()),
            _ => return None,
        }
    }
}

fn scalar(rest: &mut &[u8]) -> Option<()> {
    if rest.first() == Some(&b'"') {
        return quoted(rest);
    }
    for word in [&b"true"[..], b"false", b"null"] {
        if let Some(after) = rest.strip_prefix(word) {
            *rest = after;
            return Some(());
        }
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let leading_zero = digits > 1 && rest.first() == Some(&b'0');
    if digits == 0 || leading_zero {
        return None;
    }
    *rest = rest.get(digits..)?;
    Some(())
}

fn quoted(rest: &mut &[u8]) -> Option<()> {
    eat(rest, b'"')?;
    loop {
        match next(rest)? {
            b'"' => return Some(()),
            0..0x20 => return None,
            b'\\' => match next(rest)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    for _ in 0..4 {
                        next(rest)?.is_ascii_hexdigit().then_some(())?;
                    }
                }
                _ => return None,
            },
            _ => {}
        }
    }
}

fn eat(rest: &mut &[u8], wanted: u8) -> Option<()> {
    (next(rest)? == wanted).then_some(())
}

fn next(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &[u8], most: usize, expected: &str) {
        let mut out = b"{\"a\":1".to_vec();
        Members(&mut out).text("t", value, most);
        out.push(b'}');
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line, format!("{{\"a\":1{expected}}}"));
        assert!(is_flat_object(&line), "{line}");
    }

    #[test]
    fn no_text_ends_the_line_or_the_string() {
        check(b"plain", 99, r#","t":"plain""#);
        check(
            b"a\"b\\c\n\x1b\x7f",
            99,
            r#","t":"a\"b\\c\u000a\u001b\u007f""#,
        );
        check(
            "ü\u{85}\u{202e}\u{2028}".as_bytes(),
            99,
            r#","t":"ü\u0085\u202e\u2028""#,
        );
        check(b"a\xffb", 99, r#","t_hex":"61ff62""#);
    }

    #[test]
    fn what_is_cut_says_how_long_it_was() {
        check(b"abcdef", 6, r#","t":"abcdef""#);
        check(b"abcdef", 5, r#","t":"abcde","t_bytes":6"#);
        check("aü".as_bytes(), 2, r#","t":"a","t_bytes":3"#);
    }

    #[test]
    fn lists_are_bounded() {
        let mut out = b"{\"a\":1".to_vec();
        Members(&mut out).numbers("n", vec![1, 2, 3].into_iter(), 2);
        Members(&mut out).numbers("e", vec![].into_iter(), 2);
        out.push(b'}');
        assert_eq!(out, br#"{"a":1,"n":[1,2],"n_count":3,"e":[]}"#);
        assert!(is_flat_object(std::str::from_utf8(&out).unwrap()));
    }

    #[test]
    fn only_flat_objects_pass() {
        for good in [r#"{"a":[1,"x",null]}"#, r#"{"a":true,"b":0}"#] {
            assert!(is_flat_object(good), "{good}");
        }
        let bad = [
            "",
            "{}",
            "{\"a\":01}",
            "{\"a\":1} ",
            "{\"a\":1,}",
            "{\"a\":{}}",
            "{\"a\":-1}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":NaN}",
            "{a:1}",
            "[1]",
            "{\"a\":1.5}",
        ];
        for bad in bad {
            assert!(!is_flat_object(bad), "{bad}");
        }
    }
}
