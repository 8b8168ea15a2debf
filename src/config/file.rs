//! A configuration file: `option=value` lines, `#` comments, optional quotes.
//!
//! - Blanks around the name and the value don't count. `#` begins a comment at
//!   the start of a line or behind a blank.
//! - A value in double quotes may contain `\"` and `\\`; one in single quotes is
//!   taken as it stands. Nothing but a comment may follow the closing quote.
//! - The file is opened once and checked on its descriptor: regular, at most
//!   1M, owned by root or by who runs the program, and not writable by its group
//!   or others. Whoever could write it could choose who is admitted.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::args;
use super::diagnostics::Diagnostics;
use super::given::{At, Given};
use super::key::ORIGINAL_BUILD_NAMES;
use super::place::{Escaped, Place, Source, quoted};
use crate::ids::Uid;
use crate::logging::escape::Untrusted;

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// Reads the file at `path`. The error says why it can't be used.
pub(crate) fn open(path: &Path, euid: Uid) -> Result<Vec<u8>, String> {
    let shown = path.display().to_string();
    let shown = Escaped(&shown);
    let cannot = |error: io::Error| format!("cannot read {shown}: {}", reason(&error));
    // O_NONBLOCK: opening a FIFO would wait for its writer.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
        .map_err(cannot)?;
    let facts = file.metadata().map_err(cannot)?;
    if !facts.is_file() {
        let found = match facts.file_type() {
            kind if kind.is_dir() => "a directory",
            kind if kind.is_fifo() => "a FIFO",
            kind if kind.is_char_device() || kind.is_block_device() => "a device",
            _ => "something else",
        };
        return Err(format!("expected a regular file at {shown}, found {found}"));
    }
    if facts.uid() != 0 && facts.uid() != euid.as_raw() {
        let owner = facts.uid();
        let text = format!("{shown} belongs to uid {owner}, expected root or uid {euid}");
        return Err(text);
    }
    let mode = facts.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let text = "is writable by its group or others, expected at most 0755";
        return Err(format!("{shown} {text}, found {mode:04o}"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() > 1 << 20 {
        return Err(format!("{shown} is larger than 1M"));
    }
    Ok(bytes)
}

/// The system's sentence in lower case, without the number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// Takes the lines of a file apart.
pub(crate) fn read(name: &str, bytes: &[u8], diagnostics: &mut Diagnostics) -> Vec<Given> {
    let source = Source::File(name.into());
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut given = Vec::new();
    for (row, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                let line = Line {
                    source: &source,
                    row,
                    text: text.into(),
                };
                given.extend(line.read(diagnostics));
            }
            Err(error) => {
                let start = error.valid_up_to();
                let text = Untrusted(bytes).to_string().into();
                let line = Line {
                    source: &source,
                    row,
                    text,
                };
                let place = line.place(start, start + char::MAX.len_utf8());
                diagnostics.error(Some(place), "", "the line is not UTF-8");
            }
        }
    }
    given
}

/// One line of a file.
struct Line<'a> {
    source: &'a Source,
    row: u32,
    text: Arc<str>,
}

impl Line<'_> {
    fn read(&self, diagnostics: &mut Diagnostics) -> Option<Given> {
        let start = self.text.len() - self.text.trim_start().len();
        let body = self.text.get(start..).unwrap_or_default();
        if body.is_empty() || body.starts_with('#') {
            return None;
        }
        let Some((name, rest)) = body.split_once('=') else {
            let place = self.place(start, self.text.trim_end().len());
            let found = quoted(body.trim_end());
            let text = format!("expected option=value, found {found}");
            diagnostics.error(Some(place), "", text);
            return None;
        };
        let value_start = self.text.len() - rest.len();
        let name = name.trim_end();
        if ORIGINAL_BUILD_NAMES.contains(&name) {
            let place = self.place(start, start + name.len());
            let text = "steered the original's build, ignored";
            diagnostics.notice(Some(place), name, text);
            return None;
        }
        let value = self.value(value_start, name, diagnostics);
        let place = || self.place(start, start + name.len());
        if name == "config" {
            diagnostics.error(Some(place()), name, "only on the command line");
            return None;
        }
        let key = args::find(&super::GRAMMAR, name, place, diagnostics)?;
        let (text, start, unescaped) = value?;
        let at = At {
            start,
            unescaped,
            ..self.at()
        };
        Some(Given { key, text, at })
    }

    /// The value that begins at or behind byte `from`: its text, the byte at
    /// which it begins, and whether escapes were taken away.
    fn value(
        &self,
        from: usize,
        name: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<(String, usize, bool)> {
        let rest = self.text.get(from..).unwrap_or_default();
        let start = from + rest.len() - rest.trim_start().len();
        let rest = rest.trim_start();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            let value = before_comment(rest);
            // Where nothing follows, the caret stands right behind the sign.
            let start = if value.is_empty() { from } else { start };
            return Some((value.to_owned(), start, false));
        };
        let inside = rest.get(1..).unwrap_or_default();
        let Some((value, length)) = unquote(inside, quote) else {
            let place = self.place(start, self.text.len());
            let text = format!("expected a closing {quote}");
            diagnostics.error(Some(place), name, text);
            return None;
        };
        let after = inside.get(length + 1..).unwrap_or_default();
        let junk = after.trim_start();
        let comment = junk.starts_with('#') && junk.len() < after.len();
        if !junk.is_empty() && !comment {
            let at = self.text.len() - junk.len();
            let place = self.place(at, self.text.trim_end().len());
            let text = format!("expected nothing behind the closing {quote}");
            diagnostics.error(Some(place), name, text);
            return None;
        }
        Some((value, start + 1, quote == '"'))
    }

    fn at(&self) -> At {
        At {
            source: self.source.clone(),
            row: self.row,
            line: Arc::clone(&self.text),
            start: 0,
            unescaped: false,
        }
    }

    fn place(&self, start: usize, end: usize) -> Place {
        self.at().place(&self.text, start..end, start)
    }
}

/// A value without quotes: up to a comment, without blanks at its end.
fn before_comment(rest: &str) -> &str {
    let mut previous = ' ';
    for (at, c) in rest.char_indices() {
        if c == '#' && previous.is_whitespace() {
            return rest.get(..at).unwrap_or_default().trim_end();
        }
        previous = c;
    }
    rest.trim_end()
}

/// The text up to the closing quote, and how many bytes it takes.
fn unquote(inside: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = inside.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let escaped = c == '\\' && quote == '"';
        match chars.peek() {
            _ if c == quote => return Some((value, at)),
            Some((_, next @ ('"' | '\\'))) if escaped => {
                value.push(*next);
                chars.next();
            }
            _ => value.push(c),
        }
    }
    None
}

/// The text as a value in a file, in quotes where it needs them.
pub(crate) fn quote(text: &str) -> String {
    let bare = !text.is_empty()
        && text.trim() == text
        && !text.starts_with(['"', '\'', '#'])
        // Whatever counts as a blank could begin a comment.
        && !text.contains(char::is_whitespace);
    if bare {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let mut diagnostics = Diagnostics::default();
        let given = read("f", text.as_bytes(), &mut diagnostics);
        assert!(!diagnostics.has_errors(), "{diagnostics}");
        let found: Vec<_> = given
            .iter()
            .map(|g| (g.key.name, g.text.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let mut diagnostics = Diagnostics::default();
        read("f", text.as_bytes(), &mut diagnostics);
        let found: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(found.join("\n"), expected);
    }

    #[test]
    fn a_line_is_an_option_and_its_value() {
        check(
            "port=1\nport = 2 \r\n\n  # x\n\tport=3",
            &[("port", "1"), ("port", "2"), ("port", "3")],
        );
        check("\u{feff}port=1", &[("port", "1")]);
    }

    #[test]
    fn a_comment_begins_behind_a_blank() {
        check("socket_path=/a#b # c", &[("socket_path", "/a#b")]);
        check("socket_path= # c", &[("socket_path", "")]);
        check("socket_path=\"/a # b\" # c", &[("socket_path", "/a # b")]);
    }

    #[test]
    fn quotes_keep_blanks_and_double_ones_know_two_escapes() {
        check(
            r#"socket_path="/a \"b\" \\c \d""#,
            &[("socket_path", r#"/a "b" \c \d"#)],
        );
        check(r"socket_path='/a \\'", &[("socket_path", r"/a \\")]);
        refused(
            "port=\"1",
            "f:1:6: port: expected a closing \"\n    port=\"1\n         ^~",
        );
        refused(
            "port='1'x",
            "f:1:9: port: expected nothing behind the closing '\n    port='1'x\n            ^",
        );
    }

    #[test]
    fn what_is_quoted_reads_back() {
        for text in [
            "/a",
            "",
            " a",
            "a b",
            "\"a\"",
            "'",
            "#a",
            "a#b",
            "a\\b c",
            "a # b",
            "\\",
            "a\u{a0}#b",
            "a\u{b}#b",
            "a\u{3000}#b",
        ] {
            let line = format!("socket_path = {}  # from here", quote(text));
            check(&line, &[("socket_path", text)]);
        }
    }

    #[test]
    fn lines_of_another_form_are_refused_by_place() {
        refused(
            "port",
            "f:1:1: expected option=value, found \"port\"\n    port\n    ^~~~",
        );
        refused(
            "\n =1",
            "f:2:2: expected the name of an option before =\n     =1\n     ^",
        );
        refused(
            "config=/a",
            "f:1:1: config: only on the command line\n    config=/a\n    ^~~~~~",
        );
    }
}
