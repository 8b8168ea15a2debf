//! What a reader of the metrics asks, and the head of its answer: a little of HTTP/1.0.
//!
//! Of a request no more is looked at than its first line and whether it asks for the
//! older text format. Bytes in, bytes out.
//!
//! Invariants: however a request is cut, its answer is the same, and what follows it
//! changes nothing; no more than [`MOST`] bytes of it are kept.
//!
//! Not here: sockets and time (`metrics_reader`), the text itself (`exposition`).
#![forbid(unsafe_code)]
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

use super::exposition::Form;

/// The longest request, with the empty line at its end, in bytes.
pub(super) const MOST: usize = 8 * 1024;

const BAD_REQUEST: &str = "400 Bad Request";
const NOT_FOUND: &str = "404 Not Found";
const NOT_ALLOWED: &str = "405 Method Not Allowed";

/// A request, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Request(pub(super) Vec<u8>);

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// More is to come.
    Part,
    /// It can be answered.
    Whole,
    /// It is longer than [`MOST`], and gets no answer.
    TooLong,
}

impl Request {
    /// Takes what came; nothing at all is the end.
    pub(super) fn take(&mut self, part: &[u8]) -> Heard {
        if part.is_empty() {
            return Heard::Whole;
        }
        // What ends it may have begun with the last two bytes.
        let looked_at = self.0.len().saturating_sub(2);
        let room = MOST.saturating_sub(self.0.len());
        self.0.extend_from_slice(part.get(..room).unwrap_or(part));
        if let Some(length) = self.0.get(looked_at..).and_then(up_to_empty_line) {
            self.0.truncate(looked_at.saturating_add(length));
            return Heard::Whole;
        }
        if part.len() > room {
            Heard::TooLong
        } else {
            Heard::Part
        }
    }

    /// The response, with what `render` makes where the metrics are asked for.
    pub(super) fn answer(&self, render: impl Fn(Form) -> String) -> Vec<u8> {
        let response = match understand(&self.0) {
            Ok(form) => {
                let text = render(form);
                head("200 OK", form.content_type(), text.len()) + &text
            }
            Err(status) => head(status, "text/plain; charset=utf-8", 0),
        };
        response.into_bytes()
    }
}

/// How long the bytes are with the first line that is empty.
fn up_to_empty_line(bytes: &[u8]) -> Option<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(at, _)| at.saturating_add(1)).find_map(|next| {
        let rest = bytes.get(next..)?;
        let empty = [&b"\n"[..], b"\r\n"]
            .into_iter()
            .find(|line| rest.starts_with(line))?;
        Some(next.saturating_add(empty.len()))
    })
}

/// What is asked for, or the status to answer with. No request at all asks for
/// the metrics.
fn understand(request: &[u8]) -> Result<Form, &'static str> {
    if request.is_empty() {
        return Ok(Form::OpenMetrics);
    }
    let text = std::str::from_utf8(request).map_err(|_| BAD_REQUEST)?;
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    if method != "GET" {
        return Err(NOT_ALLOWED);
    }
    if !matches!(path.split('?').next(), Some("/" | "/metrics")) {
        return Err(NOT_FOUND);
    }
    let accept = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("accept"))
        .map(|(_, value)| value)
        .unwrap_or_default();
    let older = accept.contains("text/plain") && !accept.contains("openmetrics");
    Ok(if older {
        Form::Prometheus
    } else {
        Form::OpenMetrics
    })
}

fn head(status: &str, content_type: &str, length: usize) -> String {
    format!(
        "HTTP/1.0 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_understood_or_refused() {
        let get = "GET /metrics HTTP/1.0\r\n\r\n";
        assert_eq!(understand(get.as_bytes()), Ok(Form::OpenMetrics));
        assert_eq!(understand(b""), Ok(Form::OpenMetrics));
        assert_eq!(
            understand(b"GET / HTTP/1.1\r\naccept: */*\r\n\r\n"),
            Ok(Form::OpenMetrics)
        );
        let older = b"GET /?x HTTP/1.1\r\nAccept: text/plain;version=0.0.4\r\n\r\n";
        assert_eq!(understand(older), Ok(Form::Prometheus));
        let both = b"GET / HTTP/1.1\r\nAccept: application/openmetrics-text,text/plain\r\n\r\n";
        assert_eq!(understand(both), Ok(Form::OpenMetrics));
        assert_eq!(understand(b"POST / HTTP/1.1\r\n\r\n"), Err(NOT_ALLOWED));
        assert_eq!(
            understand(b"GET /etc/passwd HTTP/1.1\r\n\r\n"),
            Err(NOT_FOUND)
        );
        assert_eq!(understand(b"\xff\xfe\r\n\r\n"), Err(BAD_REQUEST));
    }

    /// What becomes of bytes that come in parts of that many, and then end.
    fn heard(bytes: &[u8], parts: usize) -> Option<Vec<u8>> {
        let mut request = Request::default();
        for part in bytes.chunks(parts).chain([&[][..]]) {
            let heard = request.take(part);
            assert!(request.0.len() <= MOST && request.0.capacity() <= 2 * MOST);
            match heard {
                Heard::Part => {}
                Heard::Whole => return Some(request.answer(|form| format!("{form:?}"))),
                Heard::TooLong => return None,
            }
        }
        panic!("the end was not seen");
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<&str>) {
        for parts in [1, 2, 3, 4, 5, 7, 1_000, bytes.len().max(1)] {
            let answer = heard(bytes, parts).map(|answer| String::from_utf8(answer).unwrap());
            let (answer, cut) = (answer.as_deref(), format!("parts of {parts}"));
            match expected {
                Some(word) => assert!(answer.unwrap().contains(word), "{cut}: {answer:?}"),
                None => assert_eq!(answer, None, "{cut}"),
            }
        }
    }

    #[test]
    fn what_follows_a_request_changes_nothing_however_it_is_cut() {
        check(b"", Some("OpenMetrics"));
        check(b"GET /", Some("OpenMetrics"));
        for end in ["\r\n\r\n", "\n\n", "\r\n\n", "\n\r\n"] {
            let asked = format!("GET / HTTP/1.0{end}");
            for more in [&b"Accept: text/plain\r\n\r\n"[..], b"\xff", b"\n"] {
                check(&[asked.as_bytes(), more].concat(), Some("OpenMetrics"));
            }
        }
        check(b"GET /\nAccept: text/plain\n\n", Some("Prometheus"));
        check(b"\n\nGET / HTTP/1.0\r\n\r\n", Some(NOT_ALLOWED));
    }

    #[test]
    fn a_request_has_its_bound_however_it_is_cut() {
        let asked = |length: usize| {
            let head = "GET / HTTP/1.0\r\nx:";
            format!("{head}{:y<1$}\r\n\r\n", "", length - head.len() - 4)
        };
        let rest = |length: usize| asked(length) + &"z".repeat(3 * MOST);
        for length in [MOST - 1, MOST] {
            check(asked(length).as_bytes(), Some("OpenMetrics"));
            check(rest(length).as_bytes(), Some("OpenMetrics"));
        }
        check(asked(MOST + 1).as_bytes(), None);
        check(rest(MOST + 1).as_bytes(), None);
        // Without an empty line its end is that of the connection.
        check(&[b'x'; MOST], Some(NOT_ALLOWED));
        check(&[b'x'; MOST + 1], None);
    }
}
