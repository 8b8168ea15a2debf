//! Messages as text, bytes or JSON.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};

use crate::frame::Stamp;

use super::Format;

pub(super) struct Output<W: Write> {
    to: BufWriter<W>,
    format: Format,
}

impl<W: Write> Output<W> {
    pub(super) fn new(to: W, format: Format) -> Self {
        Self {
            to: BufWriter::with_capacity(64 << 10, to),
            format,
        }
    }

    pub(super) fn message(&mut self, subject: &str, stamp: &Stamp, body: &[u8]) -> io::Result<()> {
        if self.format.json {
            return writeln!(self.to, "{}", json(subject, stamp, body));
        }
        if self.format.length_prefixed {
            let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
            self.to.write_all(&length.to_be_bytes())?;
            return self.to.write_all(body);
        }
        self.whole(body)?;
        self.to.write_all(b"\n")
    }

    /// A body as it is, or harmless where it goes to a terminal.
    pub(super) fn whole(&mut self, body: &[u8]) -> io::Result<()> {
        if self.format.terminal {
            return self.to.write_all(harmless(body).as_bytes());
        }
        self.to.write_all(body)
    }

    pub(super) fn gap(&mut self, count: u64) -> io::Result<()> {
        if self.format.json {
            return writeln!(self.to, "{{\"gap\":{count}}}");
        }
        // Into the messages it would be taken for one.
        self.to.flush()?;
        writeln!(io::stderr(), "{count} messages were dropped here")
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Newlines and tabs stay; other control characters are written as `\xNN`.
fn harmless(body: &[u8]) -> String {
    let mut text = String::new();
    for chunk in body.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' | '\t' => text.push(character),
                _ if character.is_control() || is_bidirectional(character) => {
                    let _ = write!(text, "{}", character.escape_unicode());
                }
                _ => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn is_bidirectional(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One object, without a newline: `body` as a string, or `base64` where it isn't
/// UTF-8. Absent ids are null.
fn json(subject: &str, stamp: &Stamp, body: &[u8]) -> String {
    let or_null = |id: Option<String>| id.unwrap_or_else(|| String::from("null"));
    let mut out = format!(
        "{{\"subject\":\"{subject}\",\"connection\":{},\"sequence\":{},\"uid\":{},\"gid\":{},\"pid\":{},\
         \"pidfd\":{},\"exe_checked\":{},",
        stamp.connection,
        stamp.sequence,
        or_null(stamp.uid.map(|id| id.to_string())),
        or_null(stamp.gid.map(|id| id.to_string())),
        or_null(stamp.pid.map(|id| id.to_string())),
        stamp.flags & Stamp::PIDFD_HELD != 0,
        stamp.flags & Stamp::EXE_CHECKED != 0,
    );
    match std::str::from_utf8(body) {
        Ok(text) => {
            out.push_str("\"body\":\"");
            escape_json(text, &mut out);
        }
        Err(_) => {
            out.push_str("\"base64\":\"");
            base64(body, &mut out);
        }
    }
    out.push_str("\"}");
    out
}

fn escape_json(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            _ if character.is_control()
                || is_bidirectional(character)
                || matches!(character, '\u{2028}' | '\u{2029}') =>
            {
                // All of these lie in the basic plane.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
}

fn base64(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3) {
        let group = three
            .iter()
            .fold(0, |group, byte| group << 8 | usize::from(*byte));
        let group = group << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS
                .get(group >> (18 - 6 * place) & 63)
                .copied()
                .unwrap_or(b'=');
            out.push(if place <= three.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uid;

    #[test]
    fn base64_as_in_rfc_4648() {
        for (bytes, expect) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = String::new();
            base64(bytes.as_bytes(), &mut out);
            assert_eq!(out, expect);
        }
    }

    #[test]
    fn a_message_is_one_line_of_json() {
        let stamp = Stamp {
            connection: 1,
            sequence: 2,
            uid: Uid::from_raw(3),
            gid: None,
            pid: None,
            flags: 1,
        };
        assert_eq!(
            json("a.b", &stamp, "x\"\n\u{1b}\u{202e}".as_bytes()),
            "{\"subject\":\"a.b\",\"connection\":1,\"sequence\":2,\"uid\":3,\"gid\":null,\"pid\":null,\
             \"pidfd\":true,\"exe_checked\":false,\"body\":\"x\\\"\\n\\u001b\\u202e\"}"
        );
        assert!(json("a", &stamp, b"\xff").ends_with("\"base64\":\"/w==\"}"));
    }

    #[test]
    fn a_terminal_is_not_steered() {
        assert_eq!(harmless(b"a\x1b[2J\tb\xff\n"), "a\\u{1b}[2J\tb\\xff\n");
    }
}
