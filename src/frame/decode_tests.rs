//! The decoder, cut anywhere.

use super::super::{Greeting, Kind, Subject};
use super::*;

fn publish(body: &[u8]) -> Vec<u8> {
    let subject = Subject::new(b"a.b").unwrap();
    let mut out = Vec::new();
    Frame::Publish {
        id: 9,
        subject,
        body,
    }
    .encode(&mut out);
    out
}

fn greeted(limit: u32) -> Decoder {
    let mut decoder = Decoder::new(Side::Client, FrameLimit::new(limit).unwrap());
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
    decoder
}

fn lengths(decoder: &mut Decoder) -> Vec<i64> {
    let of = |item| match item {
        Ok(Received::Frame(frame)) => i64::try_from(frame_body(&frame)).unwrap(),
        Ok(Received::TooLarge(header)) => -i64::from(header.length),
        other => panic!("{other:?}"),
    };
    decoder.frames().map(of).collect()
}

fn frame_body(frame: &Frame<'_>) -> usize {
    match frame {
        Frame::Publish { body, .. } => body.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_limit_holds_at_the_edge_and_the_stream_goes_on() {
    for (body, found) in [(1020, 1020), (1021, 1021), (1022, -1025)] {
        let mut decoder = greeted(1024);
        decoder.push(&publish(&vec![7; body]));
        decoder.push(&publish(b"next"));
        assert_eq!(lengths(&mut decoder), [found, 4]);
    }
}

#[test]
fn what_is_too_large_takes_no_memory() {
    let mut decoder = greeted(1024);
    let header = Header {
        length: u32::MAX,
        kind: Kind::Publish,
        flags: 0,
        subject_length: 1,
        id: 1,
    };
    decoder.push(&header.encode());
    assert_eq!(lengths(&mut decoder), [-i64::from(u32::MAX)]);
    for _ in 0..64 {
        assert_eq!(decoder.push(&[0; 1 << 16]), 1 << 16, "all is skipped");
    }
    assert!(decoder.memory_bytes() <= LARGEST_READ_BYTES);
}

#[test]
fn a_promise_takes_no_memory() {
    let mut decoder = greeted(FrameLimit::MAX.bytes());
    decoder.push(&publish(&[0; 1 << 20])[..5000]);
    assert!(decoder.frames().next().is_none());
    assert!(
        decoder.memory_bytes() <= 16 << 10,
        "{}",
        decoder.memory_bytes()
    );
}

#[test]
fn an_error_ends_what_is_yielded_and_is_told_again() {
    let mut decoder = Decoder::new(Side::Client, FrameLimit::MIN);
    decoder.greeted();
    decoder.push(&publish(b"1"));
    decoder.push(&[0xff; HEADER_BYTES]);
    assert_eq!(
        decoder
            .frames()
            .map(|found| found.is_ok())
            .collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(
        decoder
            .frames()
            .map(|found| found.is_ok())
            .collect::<Vec<_>>(),
        [false]
    );
}

#[test]
fn every_cut_gives_the_same_frames() {
    let mut bytes = Greeting {
        accepts: FrameLimit::DEFAULT,
    }
    .encode()
    .to_vec();
    for body in [0, 1, 40] {
        bytes.extend(publish(&vec![1; body]));
    }
    for cut in 0..=bytes.len() {
        let mut decoder = Decoder::new(Side::Client, FrameLimit::MIN);
        let mut count = 0;
        for part in [&bytes[..cut], &bytes[cut..]] {
            decoder.push(part);
            count += decoder.frames().map(Result::unwrap).count();
        }
        assert_eq!(count, 4, "cut at {cut}");
        assert!(decoder.is_between_frames());
    }
}

#[test]
fn an_error_stays() {
    let mut decoder = greeted(1024);
    decoder.push(&[0; 16]);
    decoder.push(&publish(b""));
    for _ in 0..3 {
        assert_eq!(
            decoder.frames().next(),
            Some(Err(FrameError::UnknownKind(0)))
        );
    }
}

#[test]
fn memory_is_given_back_once_a_large_frame_is_taken() {
    let mut decoder = greeted(1 << 20);
    let bytes = publish(&vec![1; 100_000]);
    decoder.push(&bytes[..100]);
    assert!(!decoder.is_large());
    decoder.push(&bytes[100..]);
    assert!(decoder.is_large());
    decoder.rest();
    assert_eq!(lengths(&mut decoder), [100_000], "nothing of it was lost");
    decoder.rest();
    assert_eq!(decoder.memory_bytes(), 0);
    assert!(!decoder.is_large());
    decoder.push(&publish(b"small"));
    assert_eq!(lengths(&mut decoder), [5]);
    decoder.rest();
    assert_eq!(decoder.memory_bytes(), FIRST_BUFFER_BYTES, "kept");
}

#[test]
fn room_is_made_by_moving_before_it_is_made_by_growing() {
    let mut decoder = greeted(1 << 20);
    assert_eq!(decoder.space().len(), FIRST_BUFFER_BYTES);
    let one = publish(&[1; 1000]);
    decoder.push(&one);
    decoder.push(&one[..10]);
    assert_eq!(lengths(&mut decoder), [1000]);
    // There is room behind: nothing is moved.
    let left = FIRST_BUFFER_BYTES - one.len() - 10;
    assert_eq!(decoder.space().len(), left);
    // There is none behind, and some before.
    let rest = [&one[10..], &one, &one, &one[..90]].concat();
    decoder.push(&rest[..left]);
    assert_eq!(decoder.space().len(), one.len());
    assert_eq!(decoder.memory_bytes(), FIRST_BUFFER_BYTES);
    decoder.push(&rest[left..]);
    decoder.push(&one[90..]);
    assert_eq!(lengths(&mut decoder), [1000; 4]);
    // There is none at all.
    let full = publish(&vec![1; FIRST_BUFFER_BYTES]);
    decoder.push(&full[..100]);
    decoder.push(&full[100..FIRST_BUFFER_BYTES]);
    assert_eq!(decoder.space().len(), FIRST_BUFFER_BYTES);
    assert_eq!(decoder.memory_bytes(), 2 * FIRST_BUFFER_BYTES);
}

#[test]
fn a_read_that_fills_the_empty_buffer_doubles_it_up_to_what_one_read_brings() {
    let mut decoder = greeted(1024);
    let mut expect = FIRST_BUFFER_BYTES;
    let fill = |decoder: &mut Decoder, bytes: usize| {
        let frame = publish(&[1; 60]);
        let space = decoder.space();
        for (place, byte) in space.iter_mut().zip(frame.iter().cycle()).take(bytes) {
            *place = *byte;
        }
        decoder.filled(bytes);
        decoder.memory_bytes()
    };
    // 4096 is no multiple of a frame: what is left over is taken as if it were not there.
    let whole = publish(&[1; 60]).len();
    assert_eq!(fill(&mut decoder, whole), expect, "not full");
    assert_eq!(lengths(&mut decoder), [60]);
    while expect < LARGEST_READ_BYTES {
        let mut fresh = greeted(1024);
        fresh.buffer.resize(expect, 0);
        assert_eq!(fresh.space().len(), expect);
        assert_eq!(fill(&mut fresh, expect), 2 * expect);
        expect *= 2;
    }
    let mut largest = greeted(1024);
    largest.buffer.resize(expect, 0);
    assert_eq!(fill(&mut largest, expect), LARGEST_READ_BYTES);
    assert!(!largest.is_large());
    // One that only completes what was there says nothing of the kind.
    let mut half = greeted(1024);
    fill(&mut half, 100);
    let left = half.space().len();
    assert_eq!(fill(&mut half, left), FIRST_BUFFER_BYTES);
}

#[test]
fn between_frames_is_where_nothing_is_open() {
    let mut decoder = Decoder::new(Side::Client, FrameLimit::MIN);
    assert!(!decoder.is_between_frames(), "the greeting is due");
    decoder.greeted();
    assert!(decoder.is_between_frames());
    let bytes = publish(b"x");
    decoder.push(&bytes[..5]);
    assert!(!decoder.is_between_frames());
    decoder.push(&bytes[5..]);
    assert_eq!(lengths(&mut decoder), [1]);
    assert!(decoder.is_between_frames());
    let large = publish(&vec![1; 70_000]);
    decoder.push(&large[..HEADER_BYTES]);
    assert_eq!(lengths(&mut decoder).len(), 1);
    assert!(!decoder.is_between_frames(), "it is being skipped");
    decoder.push(&large[HEADER_BYTES..]);
    assert!(decoder.is_between_frames());
    // Said again, it changes nothing.
    decoder.push(&[0; HEADER_BYTES]);
    assert!(decoder.frames().next().unwrap().is_err());
    decoder.greeted();
    assert!(decoder.frames().next().unwrap().is_err());
}
