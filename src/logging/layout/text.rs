//! `TIME SEVERITY [conn N] MESSAGE (FILE:LINE FUNCTION)`.

use super::super::line::Line;
use super::Renderer;
use super::time::push_number;

impl Renderer {
    pub(super) fn text(&mut self, line: &Line, colour: Option<&str>, out: &mut Vec<u8>) {
        self.clock.push(line.micros, out);
        out.push(b' ');
        let label = line.severity.label().as_bytes();
        match colour {
            Some(colour) => {
                out.extend_from_slice(colour.as_bytes());
                out.extend_from_slice(label);
                out.extend_from_slice(b"\x1b[0m ");
            }
            None => {
                out.extend_from_slice(label);
                out.push(b' ');
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
        let file = line.file();
        if file.is_empty() {
            return;
        }
        out.extend_from_slice(b" (");
        out.extend_from_slice(file.as_bytes());
        out.push(b':');
        push_number(u64::from(line.file_line()), out);
        let function = line.function();
        if !function.is_empty() {
            out.push(b' ');
            out.extend_from_slice(function.as_bytes());
        }
        out.push(b')');
    }
}
