//! The codec against `tests/vectors/`: bytes that another language's
//! implementation can be held to as well.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use secure_socket::frame::{
    Decoder, Frame, FrameError, FrameLimit, Greeting, Pattern, Received, Side, Stamp, Subject,
};

const FRAMES: &str = include_str!("vectors/frames.txt");
const SUBJECTS: &str = include_str!("vectors/subjects.txt");

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn verdict(error: FrameError) -> &'static str {
    match error {
        FrameError::Magic => "magic",
        FrameError::Version(_) => "version",
        FrameError::Reserved => "reserved",
        FrameError::LimitTooSmall(_) => "limit",
        FrameError::UnknownKind(_) => "kind",
        FrameError::WrongSide(_) => "side",
        FrameError::Flags(..) => "flags",
        FrameError::SubjectLength(..) => "subject_length",
        FrameError::BodyLength(_) => "body_length",
        FrameError::Subject(_) => "subject",
        FrameError::Id(_) => "id",
        FrameError::Text(_) => "text",
        _ => "other",
    }
}

fn stamp(stamp: &Stamp) -> String {
    let or = |id: Option<String>| id.unwrap_or_else(|| "-".into());
    format!(
        "connection={} sequence={} uid={} gid={} pid={} flags={}",
        stamp.connection,
        stamp.sequence,
        or(stamp.uid.map(|id| id.to_string())),
        or(stamp.gid.map(|id| id.to_string())),
        or(stamp.pid.map(|id| id.to_string())),
        stamp.flags
    )
}

fn meaning(frame: &Frame<'_>) -> String {
    let kind = frame.kind();
    match frame {
        Frame::Subscribe {
            id,
            pattern,
            drop_oldest,
        } => {
            let flag = if *drop_oldest { " drop_oldest" } else { "" };
            format!("{kind} id={id} pattern={pattern}{flag}")
        }
        Frame::Serve { id, pattern } => format!("{kind} id={id} pattern={pattern}"),
        Frame::Publish { id, subject, body } | Frame::Request { id, subject, body } => {
            format!("{kind} id={id} subject={subject} body={}", hex(body))
        }
        Frame::Reply { id, body } | Frame::Ping { id, body } | Frame::Pong { id, body } => {
            format!("{kind} id={id} body={}", hex(body))
        }
        Frame::Message {
            id,
            subject,
            stamp: s,
            body,
        }
        | Frame::Deliver {
            id,
            subject,
            stamp: s,
            body,
        } => {
            format!(
                "{kind} id={id} subject={subject} {} body={}",
                stamp(s),
                hex(body)
            )
        }
        Frame::Answer { id, stamp: s, body } => {
            format!("{kind} id={id} {} body={}", stamp(s), hex(body))
        }
        Frame::Error { id, code, text } => {
            format!("{kind} id={id} code={} text={text}", code.to_wire())
        }
        Frame::Gap { id, count } => format!("{kind} id={id} count={count}"),
        Frame::GoAway { millis } => format!("{kind} millis={millis}"),
        Frame::Proof { nonce } | Frame::Challenge { nonce } => {
            format!("{kind} nonce={}", hex(nonce))
        }
        Frame::Unsubscribe { id } | Frame::Unserve { id } | Frame::Ok { id } => {
            format!("{kind} id={id}")
        }
    }
}

#[test]
fn each_vector_means_what_it_says() {
    let mut count = 0;
    for line in lines(FRAMES) {
        let mut fields = line.splitn(4, ' ');
        let mut field = || fields.next().unwrap();
        let (expect, sender, bytes, text) = (field(), field(), unhex(field()), field());
        let side = if sender == "broker" {
            Side::Broker
        } else {
            Side::Client
        };
        let mut decoder = Decoder::new(side, FrameLimit::DEFAULT);
        if sender != "greeting" {
            decoder.push(
                &Greeting {
                    accepts: FrameLimit::DEFAULT,
                }
                .encode(),
            );
            assert!(matches!(
                decoder.frames().next(),
                Some(Ok(Received::Greeting(_)))
            ));
        }
        // A byte at a time: the cuts must not matter.
        let mut found = None;
        for byte in &bytes {
            assert!(found.is_none(), "{line}: found before its last byte");
            decoder.push(std::slice::from_ref(byte));
            found = decoder.frames().next().map(|item| match item {
                Ok(Received::Greeting(greeting)) => {
                    ("ok", format!("accepts {}", greeting.accepts.bytes()))
                }
                Ok(Received::Frame(frame)) => {
                    let mut again = Vec::new();
                    frame.encode(&mut again);
                    assert_eq!(again, bytes, "{line}");
                    let (head, data) = frame.split();
                    assert_eq!([head.as_bytes(), data].concat(), bytes, "{line}");
                    ("ok", meaning(&frame))
                }
                Ok(Received::TooLarge(header)) => (
                    "toolarge",
                    format!("{} id={} beyond the limit", header.kind, header.id),
                ),
                Ok(_) => ("other", String::new()),
                Err(error) => (verdict(error), String::new()),
            });
            if matches!(found, Some((verdict, _)) if verdict != "ok") {
                break;
            }
        }
        let (is, said) = found.unwrap_or_else(|| panic!("{line}: nothing found"));
        assert_eq!(is, expect, "{line}");
        if is == "ok" && sender != "greeting" || is == "toolarge" {
            assert_eq!(said, text);
        } else if sender == "greeting" && is == "ok" {
            assert!(text.starts_with(&said), "{line}");
        }
        count += 1;
    }
    assert!(count >= 70, "{count}");
}

#[test]
fn each_pattern_selects_what_it_says() {
    for line in lines(SUBJECTS) {
        let [verb, pattern, other, expect] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let pattern = Pattern::new(pattern.as_bytes()).unwrap();
        let found = match verb {
            "selects" => pattern.matches(Subject::new(other.as_bytes()).unwrap()),
            _ => pattern.covers(Pattern::new(other.as_bytes()).unwrap()),
        };
        assert_eq!(found, expect == "yes", "{line}");
    }
}
