//! What a queue keeps, drops and says.

use super::*;
use crate::frame::{Decoder, FrameLimit, Greeting, Received, Side, Stamp, Subject};

fn message(id: u64, sequence: u64, data: &[u8]) -> Vec<u8> {
    let stamp = Stamp {
        connection: 1,
        sequence,
        uid: None,
        gid: None,
        pid: None,
        flags: 0,
    };
    let subject = Subject::new(b"s").unwrap();
    let mut out = Vec::new();
    Frame::Message {
        id,
        subject,
        stamp,
        body: data,
    }
    .encode(&mut out);
    out
}

/// Takes everything out in writes of `step` bytes.
fn drain(queue: &mut Queue, step: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while !queue.is_empty() {
        let mut part: Vec<u8> = queue.slices().iter().flat_map(|s| s.to_vec()).collect();
        part.truncate(step);
        queue.advance(part.len());
        out.extend(part);
    }
    assert_eq!(queue.bytes(), 0);
    out
}

fn read(bytes: &[u8]) -> Vec<(Kind, u64, u64)> {
    let mut decoder = Decoder::new(Side::Broker, FrameLimit::DEFAULT);
    decoder.push(
        &Greeting {
            accepts: FrameLimit::DEFAULT,
        }
        .encode(),
    );
    let _ = decoder.frames().next();
    decoder.push(bytes);
    let mut found = Vec::new();
    for item in decoder.frames() {
        match item.unwrap() {
            Received::Frame(Frame::Message { id, stamp, .. }) => {
                found.push((Kind::Message, id, stamp.sequence));
            }
            Received::Frame(Frame::Gap { id, count }) => found.push((Kind::Gap, id, count)),
            Received::Frame(frame) => found.push((frame.kind(), frame.id(), 0)),
            other => panic!("{other:?}"),
        }
    }
    assert!(decoder.is_between_frames(), "a frame is torn");
    found
}

#[test]
fn the_oldest_go_and_are_counted_in_their_place() {
    let mut queue = Queue::default();
    for sequence in 1..=10 {
        queue.push(&message(1, sequence, b""));
    }
    queue.drop_oldest(3 * 49, |_| true);
    queue.drop_oldest(1, |_| true);
    let found = read(&drain(&mut queue, 7));
    assert_eq!(found[..2], [(Kind::Gap, 1, 4), (Kind::Message, 1, 5)]);
    assert_eq!(found.len(), 7);
}

#[test]
fn what_may_not_be_dropped_stays_in_order() {
    let mut queue = Queue::default();
    for sequence in 1..=6 {
        queue.push(&message(sequence % 2, sequence, b"xy"));
        queue.push_frame(&Frame::Ok { id: sequence });
    }
    queue.drop_oldest(usize::MAX, |id| id == 1);
    let found = read(&drain(&mut queue, 1000));
    let evens: Vec<_> = found.iter().filter(|f| f.0 == Kind::Message).collect();
    assert_eq!(
        evens,
        [
            &(Kind::Message, 0, 2),
            &(Kind::Message, 0, 4),
            &(Kind::Message, 0, 6)
        ]
    );
    assert_eq!(found.iter().filter(|f| f.0 == Kind::Ok).count(), 6);
    assert_eq!(
        found
            .iter()
            .filter(|f| f.0 == Kind::Gap)
            .collect::<Vec<_>>(),
        [&(Kind::Gap, 1, 3)]
    );
}

#[test]
fn a_frame_that_has_left_in_part_is_finished() {
    for sent in 0..120 {
        let mut queue = Queue::default();
        queue.push(&message(1, 1, b"abc"));
        queue.push(&message(1, 2, b"def"));
        queue.push_shared(&message(1, 3, b""), Arc::from(&b""[..]), 0);
        let mut out: Vec<u8> = queue.slices().iter().flat_map(|s| s.to_vec()).collect();
        out.truncate(sent);
        queue.advance(sent);
        queue.drop_oldest(usize::MAX, |_| true);
        queue.drop_oldest(usize::MAX, |_| true);
        out.extend(drain(&mut queue, 5));
        let found = read(&out);
        let dropped: u64 = found.iter().filter(|f| f.0 == Kind::Gap).map(|f| f.2).sum();
        let kept = found.iter().filter(|f| f.0 == Kind::Message).count();
        assert_eq!(
            dropped + u64::try_from(kept).unwrap(),
            3,
            "after {sent} bytes"
        );
    }
}

#[test]
fn shared_data_is_not_copied() {
    let data: Arc<[u8]> = Arc::from(vec![7_u8; 1000]);
    let mut queue = Queue::default();
    let whole = message(1, 1, &data);
    let head = &whole[..whole.len() - 1000];
    queue.push_shared(head, Arc::clone(&data), 0);
    assert_eq!(Arc::strong_count(&data), 2);
    assert_eq!(queue.bytes(), whole.len());
    assert_eq!(drain(&mut queue, 999), whole);
    assert_eq!(Arc::strong_count(&data), 1);
}

#[test]
fn many_small_drops_leave_few_pieces() {
    let mut queue = Queue::default();
    for sequence in 0..2000 {
        queue.push_frame(&Frame::Ok { id: sequence });
        queue.push(&message(1, sequence, b""));
        if sequence > 10 {
            queue.drop_oldest(1, |_| true);
        }
    }
    assert!(queue.pieces.len() < 20, "{}", queue.pieces.len());
    let found = read(&drain(&mut queue, 1 << 20));
    let oks: Vec<u64> = found
        .iter()
        .filter(|f| f.0 == Kind::Ok)
        .map(|f| f.1)
        .collect();
    assert_eq!(oks, (0..2000).collect::<Vec<_>>());
}

#[test]
fn places_of_gaps_are_charged_for_until_they_are_said() {
    let mut queue = Queue::default();
    let frame = message(1, 1, b"x").len();
    for sequence in 1..=1000 {
        queue.push(&message(1, sequence, b"x"));
        queue.push_gap(1, 1);
        queue.push_gap(1, 1);
    }
    let place = queue.bytes() / 1000 - frame;
    assert!(place >= 256, "{place}");
    // Each subscription that is counted at a place costs.
    let before = queue.bytes();
    (2..102).for_each(|id| queue.push_gap(id, 1));
    assert!(queue.bytes() - before >= 100 * 24);
    // What makes room gives it all back, and says the same.
    queue.drop_oldest(usize::MAX, |id| id == 1);
    assert_eq!((queue.bytes(), queue.pieces.len()), (0, 1));
    let found = read(&drain(&mut queue, 100));
    assert_eq!(found[0], (Kind::Gap, 1, 3000));
    assert_eq!(found.len(), 101);
}

/// A run of messages with the numbers from `first` on.
fn run(first: u64, count: u64, data: &[u8]) -> Run {
    let mut run = Run::default();
    for sequence in first..first + count {
        let stamp = Stamp {
            connection: 1,
            sequence,
            uid: None,
            gid: None,
            pid: None,
            flags: 0,
        };
        run.push(&Frame::Message {
            id: 0,
            subject: Subject::new(b"s").unwrap(),
            stamp,
            body: data,
        });
    }
    run
}

#[test]
fn a_run_is_shared_and_each_gets_its_own_id() {
    for (bytes, count) in [(1100, 9), (100, 100), (0, 5)] {
        let mut run = run(1, count, &vec![7; bytes]);
        let total = run.bytes.len();
        for sent in [0, 1, 8, 15, 16, 17, 40, total / 2, total - 1] {
            for step in [13, 1000, 1 << 20] {
                let mut out = Vec::new();
                for id in [5, 5, 6] {
                    run.set_id(id);
                    let mut queue = Queue::default();
                    queue.push_run(id, &mut run, sent);
                    assert_eq!(queue.bytes(), total - sent);
                    out = run.bytes[..sent].to_vec();
                    out.extend(drain(&mut queue, step));
                    assert_eq!(out, run.bytes, "{bytes} {sent} {step} {id}");
                }
                let all: Vec<_> = (1..=count).map(|n| (Kind::Message, 6, n)).collect();
                assert_eq!(read(&out), all);
            }
        }
    }
    let mut one = run(1, 9, &[0; 1100]);
    let held = one.share();
    let mut queues = [Queue::default(), Queue::default()];
    queues[0].push_run(1, &mut one, 0);
    queues[1].push_run(2, &mut one, 0);
    assert_eq!(Arc::strong_count(&held), 4, "it was copied");
}

#[test]
fn of_a_shared_run_the_oldest_go() {
    for id in [0, 9] {
        for sent in [0, 1, 2067, 2068] {
            let mut one = run(1, 10, &[0; 2019]);
            one.share();
            one.set_id(id);
            let mut queue = Queue::default();
            queue.push_run(id, &mut one, sent);
            queue.push(&message(3, 11, b"after"));
            queue.drop_oldest(3 * 2068, |dropped| dropped == id);
            let mut out = one.bytes[..sent].to_vec();
            out.extend(drain(&mut queue, 500));
            let got = read(&out);
            let kept = u64::try_from(sent.div_ceil(2068)).unwrap();
            let mut all: Vec<_> = (1..=kept).map(|n| (Kind::Message, id, n)).collect();
            all.push((Kind::Gap, id, 3));
            all.extend((kept + 4..=10).map(|n| (Kind::Message, id, n)));
            all.push((Kind::Message, 3, 11));
            assert_eq!(got, all, "id {id}, sent {sent}");
        }
    }
}
