//! One JSON object (RFC 8259) a line, in ASCII where a terminal could be
//! steered: what the text layout escapes is `\uXXXX` here, so a parser gives
//! the message as it was logged.

use super::super::line::Line;
use super::time::push_number;
use super::{Renderer, message};
use crate::logging::escape;

impl Renderer {
    pub(super) fn json(&mut self, line: &Line<'_>, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        self.clock.push(line.micros, out);
        out.extend_from_slice(b"\",\"seq\":");
        push_number(number, out);
        out.extend_from_slice(b",\"severity\":\"");
        out.extend_from_slice(line.severity.name().as_bytes());
        out.extend_from_slice(b"\",\"level\":");
        push_number(u64::from(line.severity.number()), out);
        if let Some(conn) = line.conn {
            out.extend_from_slice(b",\"conn\":");
            push_number(conn, out);
        }
        out.extend_from_slice(b",\"message\":\"");
        if line.plain && !line.message.contains(&b'"') {
            out.extend_from_slice(line.message);
        } else {
            push_string(&message(line), out);
        }
        out.push(b'"');
        push_member("module", line.module(), out);
        push_member("file", line.file(), out);
        if !line.file().is_empty() {
            out.extend_from_slice(b",\"line\":");
            push_number(u64::from(line.file_line()), out);
        }
        push_member("function", line.function(), out);
        out.extend_from_slice(b",\"pid\":");
        push_number(u64::from(self.origin.process), out);
        out.push(b'}');
    }
}

/// Appends a member that is a string, unless it is empty.
fn push_member(key: &str, value: &str, out: &mut Vec<u8>) {
    if value.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":\"");
    push_string(value, out);
    out.push(b'"');
}

/// The inside of a JSON string.
fn push_string(text: &str, out: &mut Vec<u8>) {
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            other if escape::needs_escape(other) => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let [high, low] = unit.to_be_bytes();
                    out.extend_from_slice(b"\\u");
                    for nibble in [high >> 4, high & 15, low >> 4, low & 15] {
                        out.push(if nibble < 10 {
                            b'0' + nibble
                        } else {
                            b'a' + nibble - 10
                        });
                    }
                }
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}
