//! `TIME SEVERITY [conn N] MESSAGE (FILE:LINE FUNCTION)`.

use super::super::line::Line;
use super::Renderer;
use super::time::push_number;
use crate::logging::escape;

impl Renderer {
    pub(super) fn text(&mut self, line: &Line<'_>, colour: Option<&str>, out: &mut Vec<u8>) {
        self.clock.push(line.micros, out);
        match colour {
            Some(colour) => {
                for piece in [" ", colour, line.severity.label(), "\x1b[0m "] {
                    out.extend_from_slice(piece.as_bytes());
                }
            }
            None => out.extend_from_slice(line.severity.column().as_bytes()),
        }
        self.body(line, out);
    }

    /// `[conn N] MESSAGE (FILE:LINE FUNCTION)`.
    pub(super) fn body(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        if let Some(conn) = line.conn {
            out.extend_from_slice(b"[conn ");
            push_number(conn, out);
            out.extend_from_slice(b"] ");
        }
        self.push_escaped(line, out);
        let place = line.place();
        if !place.is_empty() || line.file().is_empty() {
            out.extend_from_slice(place.as_bytes());
            return;
        }
        out.extend_from_slice(b" (");
        out.extend_from_slice(escape::escaped(line.file()).as_bytes());
        out.push(b':');
        push_number(u64::from(line.file_line()), out);
        out.push(b')');
    }
}
