//! A stream of the broker's wire format, cut anywhere.
//!
//! Input: one byte of choices, eight bytes of cuts, then the stream.
//!
//! - However it is cut, the same frames come out, and they tile the stream.
//! - What a client sent is encoded to the very bytes that it came in; what a
//!   broker sent is read back the same (codes of later versions are not kept).
//! - Memory stays within twice what has arrived, and within the bound.

use secure_socket::frame::{
    Decoder, ErrorCode, Frame, FrameLimit, GREETING_BYTES, Greeting, HEADER_BYTES, Head, Header,
    Pattern, Received, Side, Subject,
};

pub fn check(data: &[u8]) {
    if let Some((pattern, subject)) = data
        .iter()
        .position(|b| *b == b' ')
        .map(|at| data.split_at(at))
    {
        check_pattern(pattern, &subject[1..]);
    }
    let Some(([choices, cuts @ ..], stream)) = data.split_first_chunk::<9>() else {
        return;
    };
    let side = if choices & 1 == 0 {
        Side::Client
    } else {
        Side::Broker
    };
    let limit = if choices & 2 == 0 {
        FrameLimit::MIN
    } else {
        FrameLimit::DEFAULT
    };
    let greet = choices & 4 == 0;
    let whole = decode(stream, &[255], side, limit, greet);
    let cut = decode(stream, cuts, side, limit, greet);
    assert_eq!(whole, cut, "the cuts matter");
    assert_eq!(
        whole,
        decode(stream, &[0], side, limit, greet),
        "byte by byte"
    );
}

/// What was found, as text, for comparison.
fn decode(stream: &[u8], cuts: &[u8], side: Side, limit: FrameLimit, greet: bool) -> Vec<String> {
    let mut decoder = Decoder::new(side, limit);
    if !greet {
        decoder.greeted();
    }
    let bound = (limit.bytes() as usize + HEADER_BYTES).max(64 << 10);
    let (mut found, mut fed, mut at) = (Vec::new(), 0, 0);
    for cut in cuts.iter().cycle() {
        if fed >= stream.len() {
            break;
        }
        let part = if *cut == 255 {
            usize::MAX
        } else {
            usize::from(*cut) + 1
        };
        let part = part.min(stream.len() - fed);
        fed += decoder.push(&stream[fed..fed + part]);
        assert!(decoder.memory_bytes() <= bound);
        assert!(
            decoder.memory_bytes() <= (2 * fed).max(4096),
            "memory ahead of bytes"
        );
        for item in decoder.frames() {
            match item {
                Ok(Received::Greeting(greeting)) => {
                    let sent = &stream[at..at + GREETING_BYTES];
                    let again = Greeting::parse(&greeting.encode());
                    assert_eq!(again, Ok(greeting), "{sent:?}");
                    at += GREETING_BYTES;
                }
                Ok(Received::Frame(frame)) => {
                    let end = at + HEADER_BYTES + frame.length();
                    check_frame(&frame, &stream[at..end], side);
                    assert!(frame.length() <= limit.bytes() as usize);
                    at = end;
                }
                Ok(Received::TooLarge(header)) => {
                    assert!(header.length > limit.bytes());
                    at += HEADER_BYTES + header.payload_bytes();
                }
                Ok(_) => unreachable!("nothing else is received"),
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    found.push(format!("{error:?}"));
                    return found;
                }
            }
            found.push(format!("{item:?} to {at}"));
        }
        if decoder.is_between_frames() {
            decoder.rest();
            assert!(decoder.memory_bytes() <= 64 << 10);
        }
    }
    // Nothing that is whole is held back.
    if at < fed && (!greet || at > 0) {
        let rest = &stream[at..];
        if let Some(header) = rest
            .first_chunk()
            .and_then(|head| Header::parse(head, side).ok())
        {
            assert!(header.payload_bytes() > rest.len() - HEADER_BYTES);
        } else {
            assert!(rest.len() < HEADER_BYTES);
        }
    }
    found
}

fn check_frame(frame: &Frame<'_>, sent: &[u8], side: Side) {
    let mut again = Vec::new();
    frame.encode(&mut again);
    if let Frame::Error { code, .. } = frame {
        assert_eq!(ErrorCode::from_wire(code.to_wire()), Some(*code));
        assert!(!code.to_string().is_empty());
    }
    let (head, data): (Head, &[u8]) = frame.split();
    assert_eq!([head.as_bytes(), data].concat(), again);
    if side == Side::Client {
        assert_eq!(again, sent);
    }
    let (header, payload) = again.split_first_chunk().expect("a header");
    let header = Header::parse(header, side).expect("a good header");
    assert_eq!(Frame::parse(&header, payload).as_ref(), Ok(frame));
    assert_eq!((header.kind, header.id), (frame.kind(), frame.id()));
}

/// A pattern selects what an evaluation token by token says, and covers a pattern
/// only if it selects all subjects that the other one does.
fn check_pattern(pattern: &[u8], subject: &[u8]) {
    let Some(pattern) = Pattern::new(pattern) else {
        return;
    };
    if let Some(subject) = Subject::new(subject) {
        let tokens: Vec<&str> = subject.as_str().split('.').collect();
        let parts: Vec<&str> = pattern.as_str().split('.').collect();
        assert_eq!(pattern.matches(subject), selects(&parts, &tokens));
    }
    if let Some(other) = Pattern::new(subject) {
        // One subject that the other selects: the least that its wildcards allow.
        let text = other.as_str().replace('*', "zz").replace('>', "zz.zz");
        if let Some(subject) = Subject::new(text.as_bytes()) {
            assert!(other.matches(subject));
            assert!(!pattern.covers(other) || pattern.matches(subject));
        }
    }
}

fn selects(pattern: &[&str], subject: &[&str]) -> bool {
    match (pattern.split_first(), subject.split_first()) {
        (None, None) => true,
        (Some((&">", _)), Some(_)) => true,
        (Some((token, rest)), Some((first, others))) => {
            (*token == "*" || token == first) && selects(rest, others)
        }
        _ => false,
    }
}
