//! What a reader of the metrics sends, cut anywhere. The file of the server is compiled in
//! here: nothing of it is public for this.
//!
//! Input: four bytes of cuts, one that says how much is put before the rest, then the bytes.
//!
//! - However they are cut, the answer is the same, and it is that of a second reader.
//! - Answers are 200 in one of two forms, 400, 404, 405; their length is the one they tell.
//! - What follows the empty line changes nothing.
//! - No more is kept than a request may have, and memory stays within twice that.

/// What the file knows of its room.
mod exposition {
    pub(super) use secure_socket::server::Form;
}
#[path = "../../src/server/metrics_request.rs"]
#[allow(dead_code)]
mod request;

use exposition::Form;
use request::{Heard, MOST, Request};

pub fn check(data: &[u8]) {
    let Some(([cuts @ .., ahead], rest)) = data.split_first_chunk::<5>() else {
        return;
    };
    let bytes = stretched(rest, *ahead);
    let expected = expected(&bytes);
    for cuts in [&cuts[..], &[0], &[1, 0], &[254], &[255]] {
        assert_eq!(heard(&bytes, cuts), expected, "cut by {cuts:?}");
    }
    if let Some(end) = end_of_request(&bytes) {
        assert_eq!(
            heard(&bytes[..end], &[255]),
            expected,
            "what follows matters"
        );
    }
}

/// A long header before the last line, so that inputs of few bytes reach the bound.
fn stretched(bytes: &[u8], ahead: u8) -> Vec<u8> {
    let at = bytes.iter().position(|byte| *byte == b'\n');
    let (Some(at), true) = (at, ahead > 127) else {
        return bytes.to_vec();
    };
    let (first, rest) = bytes.split_at(at + 1);
    // From well below the bound to beyond it.
    let length = MOST - 120 + usize::from(ahead - 128);
    let long = b"x:".iter().chain(&[b'y'; MOST + 200]).copied();
    let long: Vec<u8> = long.take(length.saturating_sub(at)).collect();
    [first, &long, b"\n", rest].concat()
}

/// The answer to bytes that come in parts, and then end. `None` if there is none.
fn heard(bytes: &[u8], cuts: &[u8]) -> Option<Vec<u8>> {
    let mut request = Request::default();
    let (mut fed, mut cuts) = (0, cuts.iter().cycle());
    loop {
        let part = match cuts.next() {
            // As much as the server reads at once, and everything.
            Some(254) => 2_048,
            Some(255) | None => usize::MAX,
            Some(cut) => usize::from(*cut) + 1,
        };
        let end = fed + part.min(bytes.len() - fed);
        let heard = request.take(&bytes[fed..end]);
        assert!(request.0.len() <= MOST && request.0.capacity() <= 2 * MOST);
        match heard {
            Heard::Part => assert!(end > fed, "the end is the end"),
            Heard::Whole => break,
            Heard::TooLong => return None,
        }
        fed = end;
    }
    let answer = request.answer(|form| text(form).to_owned());
    check_answer(&answer);
    Some(answer)
}

fn text(form: Form) -> &'static str {
    match form {
        Form::OpenMetrics => "x 1\n# EOF\n",
        Form::Prometheus => "x 1\n",
    }
}

fn check_answer(answer: &[u8]) {
    let answer = std::str::from_utf8(answer).expect("a text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.split("\r\n");
    let status = lines.next().expect("a status");
    let found = |name: &str| {
        let mut values = lines.clone().filter_map(|line| line.strip_prefix(name));
        let value = values.next().expect("a header");
        assert_eq!(values.next(), None);
        value
    };
    assert_eq!(found("Content-Length: "), body.len().to_string());
    assert_eq!(found("Connection: "), "close");
    let kind = found("Content-Type: ");
    match status {
        "HTTP/1.0 200 OK" => {
            let forms = [Form::OpenMetrics, Form::Prometheus];
            let told = forms.iter().filter(|form| form.content_type() == kind);
            assert!(told.into_iter().any(|form| text(*form) == body));
        }
        "HTTP/1.0 400 Bad Request"
        | "HTTP/1.0 404 Not Found"
        | "HTTP/1.0 405 Method Not Allowed" => assert_eq!(body, ""),
        other => panic!("{other}"),
    }
}

/// The second reader: line by line, of the whole.
fn end_of_request(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        at += line.len();
        if number > 0 && [&b"\n"[..], b"\r\n"].contains(&line) {
            return Some(at);
        }
    }
    None
}

fn expected(bytes: &[u8]) -> Option<Vec<u8>> {
    let bytes = match end_of_request(bytes) {
        Some(end) => &bytes[..end],
        None => bytes,
    };
    if bytes.len() > MOST {
        return None;
    }
    let (status, form) = status(bytes);
    let (kind, body) = match form {
        Some(form) => (form.content_type(), text(form)),
        None => ("text/plain; charset=utf-8", ""),
    };
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    Some([head.as_bytes(), body.as_bytes()].concat())
}

fn status(bytes: &[u8]) -> (&'static str, Option<Form>) {
    if bytes.is_empty() {
        return ("200 OK", Some(Form::OpenMetrics));
    }
    if std::str::from_utf8(bytes).is_err() {
        return ("400 Bad Request", None);
    }
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    // A carriage return ends a line only together with a line feed.
    let ended = bytes.contains(&b'\n');
    let first = first.strip_suffix(b"\r").filter(|_| ended).unwrap_or(first);
    let Some(asked) = first.strip_prefix(b"GET").filter(|rest| {
        // The word ends here, or the line does.
        rest.is_empty() || rest.starts_with(b" ")
    }) else {
        return ("405 Method Not Allowed", None);
    };
    let asked = asked.get(1..).unwrap_or_default();
    let end = asked.iter().position(|byte| b" ?".contains(byte));
    if ![&b"/"[..], b"/metrics"].contains(&&asked[..end.unwrap_or(asked.len())]) {
        return ("404 Not Found", None);
    }
    let has = |line: &[u8], word: &[u8]| line.windows(word.len()).any(|part| part == word);
    let accept = lines.find(|line| {
        let name = line.get(..7).unwrap_or_default();
        name.eq_ignore_ascii_case(b"accept:")
    });
    let accept = accept.unwrap_or_default();
    if has(accept, b"text/plain") && !has(accept, b"openmetrics") {
        ("200 OK", Some(Form::Prometheus))
    } else {
        ("200 OK", Some(Form::OpenMetrics))
    }
}
