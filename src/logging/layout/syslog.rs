//! Syslog: RFC 5424 with structured data, and the older form that a local
//! syslogd or journald reads from `/dev/log`.
//!
//! `32473` is the enterprise number that RFC 5612 sets aside for examples; a
//! project without one of its own has no better.

use super::super::line::Line;
use super::Renderer;
use super::time::{Civil, push_number, push_padded};
use crate::logging::escape;

/// The facility of daemons, shifted into place (RFC 5424, 6.2.1).
const DAEMON: u64 = 3 << 3;

/// The largest sequenceId (RFC 5424, 7.3.1); 1 follows.
const LAST_SEQUENCE_ID: u64 = 2_147_483_647;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

impl Renderer {
    pub(super) fn rfc5424(&mut self, line: &Line<'_>, number: u64, out: &mut Vec<u8>) {
        push_priority(line, out);
        out.extend_from_slice(b"1 ");
        self.clock.push(line.micros, out);
        for field in [&self.origin.hostname, &self.origin.app_name] {
            out.push(b' ');
            out.extend_from_slice(field.as_bytes());
        }
        out.push(b' ');
        push_number(u64::from(self.origin.process), out);
        out.push(b' ');
        push_message_id(line.function(), out);
        out.extend_from_slice(b" [meta sequenceId=\"");
        push_number(number.saturating_sub(1) % LAST_SEQUENCE_ID + 1, out);
        out.extend_from_slice(b"\"][line@32473 severity=\"");
        out.extend_from_slice(line.severity.name().as_bytes());
        out.extend_from_slice(b"\" level=\"");
        push_number(u64::from(line.severity.number()), out);
        if let Some(conn) = line.conn {
            out.extend_from_slice(b"\" conn=\"");
            push_number(conn, out);
        }
        for (name, value) in [("module", line.module()), ("file", line.file())] {
            if !value.is_empty() {
                out.extend_from_slice(b"\" ");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"=\"");
                push_value(value, out);
            }
        }
        if !line.file().is_empty() {
            out.extend_from_slice(b"\" line=\"");
            push_number(u64::from(line.file_line()), out);
        }
        out.extend_from_slice(b"\"] ");
        self.push_escaped(line, out);
    }

    /// `<PRI>Mmm dd hh:mm:ss NAME[PID]: BODY`. The time is UTC; both daemons
    /// replace it with that of receipt.
    pub(super) fn local(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        push_priority(line, out);
        let civil = Civil::from_unix(line.micros / 1_000_000);
        let month = usize::try_from(civil.month.saturating_sub(1)).unwrap_or(0);
        out.extend_from_slice(MONTHS.get(month).unwrap_or(&"Jan").as_bytes());
        out.extend_from_slice(if civil.day < 10 { b"  " } else { b" " });
        push_number(civil.day, out);
        for (separator, number) in [
            (b' ', civil.hour),
            (b':', civil.minute),
            (b':', civil.second),
        ] {
            out.push(separator);
            push_padded(number, 2, out);
        }
        out.push(b' ');
        out.extend_from_slice(self.origin.app_name.as_bytes());
        out.push(b'[');
        push_number(u64::from(self.origin.process), out);
        out.extend_from_slice(b"]: ");
        self.body(line, out);
    }
}

fn push_priority(line: &Line<'_>, out: &mut Vec<u8>) {
    out.push(b'<');
    push_number(DAEMON | u64::from(line.severity.syslog()), out);
    out.push(b'>');
}

/// The function's name, as far as MSGID can carry it.
fn push_message_id(function: &str, out: &mut Vec<u8>) {
    let before = out.len();
    out.extend(function.bytes().filter(u8::is_ascii_graphic).take(32));
    if out.len() == before {
        out.push(b'-');
    }
}

/// A value of structured data (RFC 5424, 6.3.3), which may hold any character:
/// those that could end the line are escaped before.
fn push_value(text: &str, out: &mut Vec<u8>) {
    for &byte in escape::escaped(text).as_bytes() {
        if matches!(byte, b'"' | b'\\' | b']') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}
