//! `TIME SEVERITY [conn N] MESSAGE (FILE:LINE FUNCTION)`.

use super::super::line::Line;
use super::Renderer;
use super::time::push_number;

impl Renderer {
    pub(super) fn text(&mut self, line: &Line, colour: Option<&str>, out: &mut Vec<u8>) {
        self.clock.push(line.micros, out);
        let label = line.severity.label();
        match colour {
            Some(colour) => {
                for piece in [" ", colour, label, "\x1b[0m "] {
                    out.extend_from_slice(piece.as_bytes());
                }
            }
            None => {
                let mut padded = [b' '; 10];
                let end = label.len() + 1;
                if let Some(room) = padded.get_mut(1..end) {
                    room.copy_from_slice(label.as_bytes());
                }
                out.extend_from_slice(padded.get(..=end).unwrap_or_default());
            }
        }
        self.body(line, out);
    }

    /// `[conn N] MESSAGE (FILE:LINE FUNCTION)`.
    pub(super) fn body(&mut self, line: &Line, out: &mut Vec<u8>) {
        if let Some(conn) = line.conn() {
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
        out.extend_from_slice(line.file().as_bytes());
        out.push(b':');
        push_number(u64::from(line.file_line()), out);
        out.push(b')');
    }
}
