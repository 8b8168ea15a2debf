//! Every bound of the broker, one below it, at it, and one beyond: what is refused, with
//! which words, and that nobody else pays for it.
#![cfg(feature = "broker")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

#[path = "broker_support/fake.rs"]
mod fake;

use std::time::{Duration, Instant};

use fake::{Client, Got, bodies, codes, dropping, hub, pattern, publish, request, subscribe};
use secure_socket::frame::{ErrorCode, Frame, FrameLimit};
use secure_socket::service::broker::Limits;

/// The length of a message on the subject `a` with a body of so many bytes.
fn message_bytes(body: usize) -> usize {
    16 + 1 + 32 + body
}

fn serve(id: u64) -> Frame<'static> {
    let pattern = pattern("s");
    Frame::Serve { id, pattern }
}

fn texts(got: &[Got]) -> Vec<&str> {
    got.iter()
        .filter_map(|got| match got {
            Got::Error(.., text) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

/// How many messages of subscription 1 were dropped.
fn missed(got: &[Got]) -> u64 {
    got.iter()
        .map(|got| match got {
            Got::Gap(1, count) => *count,
            _ => 0,
        })
        .sum()
}

/// Does something so many times, and expects the last to be refused with these words.
#[track_caller]
fn only_the_last_is_refused(got: &[Got], count: u64, text: &str) {
    let refused: Vec<u64> = codes(got)
        .iter()
        .filter(|(_, code)| *code == Some(ErrorCode::Quota.to_wire()))
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(refused, [count]);
    assert_eq!(texts(got), [text]);
}

#[test]
fn subscriptions_registrations_and_requests_of_a_connection() {
    for limit in [1, 2, 256] {
        let limits = Limits {
            subscriptions: limit,
            requests: limit,
            ..Limits::default()
        };
        let broker = hub(limits);
        let mut one = Client::join(&broker, 1, 1);
        let mut other = Client::join(&broker, 2, 2);
        let count = u64::try_from(limit).unwrap() + 1;
        for id in 1..=count {
            one.send(&[subscribe(id, "a")]);
        }
        let text = format!("broker_subscriptions: {limit} subscriptions for each connection");
        only_the_last_is_refused(&one.read(), count, &text);
        for id in 1..=count {
            one.send(&[serve(id)]);
        }
        let text = format!("broker_subscriptions: {limit} registrations for each connection");
        only_the_last_is_refused(&one.read(), count, &text);
        for id in 1..=count {
            other.send(&[request(id, "s", b"")]);
        }
        let text = format!("broker_requests: {limit} open requests for each connection");
        only_the_last_is_refused(&other.read(), count, &text);
        assert_eq!(broker.stats().requests, limit);
        // One that ends makes room for one.
        let asked = one.read();
        let Got::Deliver { id, .. } = asked[0] else {
            panic!("{asked:?}")
        };
        one.send(&[Frame::Reply { id, body: b"" }]);
        other.send(&[request(500, "s", b""), request(501, "s", b"")]);
        assert_eq!(codes(&other.read()), [(501, Some(6))]);
    }
}

#[test]
fn requests_of_a_uid() {
    let limits = Limits {
        requests: 1,
        ..Limits::default()
    };
    let broker = hub(limits);
    // Each of them owes one uid one answer.
    let mut servers: Vec<_> = (1..=65).map(|n| Client::join(&broker, n, 1)).collect();
    servers
        .iter_mut()
        .for_each(|server| server.send(&[serve(1)]));
    let mut askers: Vec<_> = (101..=165).map(|n| Client::join(&broker, n, 2)).collect();
    for (number, asker) in askers.iter_mut().enumerate() {
        asker.send(&[request(1, "s", b"")]);
        let got = asker.read();
        if number < 64 {
            assert!(got.is_empty(), "{number}: {got:?}");
        } else {
            only_the_last_is_refused(&got, 1, "broker_requests: 64 open requests for each uid");
        }
    }
    let mut stranger = Client::join(&broker, 200, 3);
    stranger.send(&[request(1, "s", b"")]);
    assert!(stranger.read().is_empty());
}

#[test]
fn one_user_leaves_room_at_a_responder_for_others() {
    let limits = Limits {
        requests: 8,
        ..Limits::default()
    };
    let broker = hub(limits);
    let mut server = Client::join(&broker, 1, 1);
    server.send(&[serve(1)]);
    server.read();
    let mut held = Vec::new();
    for uid in 2..7_u32 {
        // As many connections as it likes, each with as many requests as it may have.
        let mut taken = 0;
        for connection in 0..3 {
            let mut greedy = Client::join(&broker, u64::from(uid * 10 + connection), uid);
            for id in 0..8 {
                greedy.send(&[request(id, "s", b"")]);
            }
            let refused = greedy.read();
            for text in texts(&refused) {
                assert_eq!(text, "broker_requests: every responder is at its bound");
            }
            taken += 8 - refused.len();
            held.push(greedy);
        }
        assert!(taken > 0, "uid {uid} gets nothing");
        // The first half of 16 places, the next half of what is left, and so on.
        assert_eq!(taken, [8, 4, 2, 1, 1][uid as usize - 2], "uid {uid}");
    }
    // What is answered is free again.
    for got in server.read() {
        let Got::Deliver { id, .. } = got else {
            panic!("{got:?}")
        };
        server.send(&[Frame::Reply { id, body: b"" }]);
    }
    held[0].send(&[request(100, "s", b"")]);
    assert!(texts(&held[0].read()).is_empty());
}

#[test]
fn a_full_responder_is_said_to_be_full_by_the_bound_that_it_has_reached() {
    let (some, large) = ([0; 100], vec![0; 10_000]);
    for (pending_bytes, pending_bytes_per_uid, text) in [
        (
            9_000,
            20_000,
            "broker_pending: 9000 bytes for each connection, which the responder has reached",
        ),
        (
            20_000,
            9_000,
            "broker_pending_per_uid: 9000 bytes for each uid, which the responder has reached",
        ),
    ] {
        let broker = hub(Limits {
            pending_bytes,
            pending_bytes_per_uid,
            ..Limits::default()
        });
        let mut server = Client::join(&broker, 1, 1);
        let mut asker = Client::join(&broker, 2, 2);
        server.send(&[serve(1)]);
        server.read();
        server.room(0);
        // One waits in any case; no other fits.
        asker.send(&[request(1, "s", &large), request(2, "s", &some)]);
        let got = asker.read();
        assert_eq!(codes(&got), [(2, Some(ErrorCode::Quota.to_wire()))]);
        assert_eq!(texts(&got), [text]);
        assert!(server.port.outgoing().ending.is_none());
    }
}

#[test]
fn who_serves_a_subject_a_thousand_times_makes_no_request_dear() {
    let broker = hub(Limits::default());
    let mut asker = Client::join(&broker, 1, 1);
    // None of them accepts what is asked.
    let mut greedy: Vec<_> = (2..10)
        .map(|n| Client::join_with(&broker, n, 2, FrameLimit::MIN))
        .collect();
    for client in &mut greedy {
        (0..256).for_each(|id| client.send(&[serve(id)]));
        client.read();
    }
    let body = [0; 2000];
    let begin = Instant::now();
    asker.send(&[request(1, "s", &body)]);
    let too_large = Some(ErrorCode::TooLarge.to_wire());
    assert_eq!(codes(&asker.read()), [(1, too_large)]);
    // One who does is found among them, each time.
    let mut server = Client::join(&broker, 20, 3);
    server.send(&[serve(1)]);
    server.read();
    for id in 2..20 {
        asker.send(&[request(id, "s", &body)]);
        assert!(matches!(server.read()[..], [Got::Deliver { .. }]));
    }
    assert!(asker.read().is_empty());
    let took = begin.elapsed();
    assert!(took.as_secs() < 5, "{took:?}: each is compared with all");
}

/// Small messages, and between any two one that the peer doesn't accept.
#[test]
fn the_places_of_what_is_missing_weigh_as_well() {
    const PAIRS: usize = 30_000;
    const BOUND: usize = 1 << 20;
    for drop_oldest in [false, true] {
        for bound_is_per_uid in [false, true] {
            let broker = hub(Limits {
                pending_bytes: if bound_is_per_uid { 1 << 30 } else { BOUND },
                pending_bytes_per_uid: if bound_is_per_uid { BOUND } else { 1 << 30 },
                ..Limits::default()
            });
            let mut publisher = Client::join(&broker, 1, 1);
            let mut slow = Client::join_with(&broker, 2, 2, FrameLimit::MIN);
            slow.send(&[if drop_oldest {
                dropping(1, "a")
            } else {
                subscribe(1, "a")
            }]);
            slow.read();
            slow.room(0);
            let mut sent = 0;
            while sent < PAIRS && slow.port.outgoing().ending.is_none() {
                publisher.send(&[publish("a", b"x"), publish("a", &[0; 2048])]);
                sent += 1;
                let held = broker.stats().pending_bytes;
                assert!(held <= BOUND + 1024, "{held} bytes");
            }
            let got = slow.read();
            let places = got.iter().filter(|got| matches!(got, Got::Gap(..)));
            // Half a KiB each, or there is no telling what they take.
            assert!(places.count() <= BOUND / 512);
            let seen = u64::try_from(bodies(&got).len()).unwrap();
            if drop_oldest {
                assert_eq!(seen + missed(&got), 2 * PAIRS as u64, "lost in silence");
            } else {
                assert!(sent <= BOUND / 512, "{sent} pairs waited");
            }
            assert_eq!(broker.stats().pending_bytes, 0);
        }
    }
}

/// How long some publications take while so many large messages wait that may not be
/// dropped, before those that may.
fn published_behind(large: usize) -> Duration {
    let broker = hub(Limits {
        pending_bytes: large * (9 << 10) + (128 << 10),
        pending_bytes_per_uid: 1 << 30,
        ..Limits::default()
    });
    let mut publisher = Client::join(&broker, 1, 1);
    let mut slow = Client::join(&broker, 2, 2);
    slow.send(&[subscribe(1, "large"), dropping(2, "small")]);
    slow.read();
    slow.room(0);
    for _ in 0..large {
        publisher.send(&[publish("large", &[0; 8 << 10])]);
    }
    let begin = Instant::now();
    for _ in 0..1_000 {
        publisher.send(&[publish("small", &[0; 4 << 10])]);
    }
    let took = begin.elapsed();
    assert!(slow.port.outgoing().ending.is_none());
    took
}

#[test]
fn a_long_queue_is_no_burden_on_who_publishes() {
    // A ratio, the best of some: what the machine does meanwhile hits both alike, and a queue
    // that is moved each time takes hundreds of times as long.
    let ratio = || published_behind(4_000).as_secs_f64() / published_behind(10).as_secs_f64();
    let ratios = [ratio(), ratio(), ratio()];
    let least = ratios.into_iter().fold(f64::INFINITY, f64::min);
    assert!(least < 25.0, "{ratios:?}: the queue is moved each time");
}

#[test]
fn bytes_of_a_connection() {
    // Ten messages of 100 bytes wait; does an eleventh fit?
    let eleven = 11 * message_bytes(100);
    for (limit, fits) in [(eleven - 1, false), (eleven, true), (eleven + 1, true)] {
        for drop_oldest in [false, true] {
            let limits = Limits {
                pending_bytes: limit,
                ..Limits::default()
            };
            let broker = hub(limits);
            let mut publisher = Client::join(&broker, 1, 1);
            let mut slow = Client::join(&broker, 2, 2);
            slow.send(&[if drop_oldest {
                dropping(1, "a")
            } else {
                subscribe(1, "a")
            }]);
            slow.read();
            slow.room(0);
            for number in 0..11 {
                publisher.send(&[publish("a", &[number; 100])]);
            }
            assert_eq!(slow.port.outgoing().ending.is_some(), !fits && !drop_oldest);
            let got = slow.read();
            match (fits, drop_oldest) {
                (true, _) => assert_eq!(bodies(&got).len(), 11),
                (false, true) => {
                    assert_eq!(got[0], Got::Gap(1, 1), "the oldest");
                    assert_eq!(bodies(&got).len(), 10);
                }
                (false, false) => {
                    assert!(bodies(&got).is_empty());
                    assert_eq!(missed(&got), 11, "all that waited, and the one too many");
                    let text = format!("broker_pending: {limit} bytes for each connection");
                    assert_eq!(texts(&got), [text]);
                }
            }
            assert_eq!(broker.stats().pending_bytes, 0);
        }
    }
}

#[test]
fn bytes_of_a_uid() {
    // Two connections, five messages each.
    let ten = 10 * message_bytes(100);
    for (limit, fits) in [(ten - 1, false), (ten, true), (ten + 1, true)] {
        let limits = Limits {
            pending_bytes_per_uid: limit,
            ..Limits::default()
        };
        let broker = hub(limits);
        let mut publisher = Client::join(&broker, 1, 1);
        let mut slow: Vec<_> = (2..4).map(|n| Client::join(&broker, n, 2)).collect();
        let mut other = Client::join(&broker, 9, 3);
        for client in slow.iter_mut().chain([&mut other]) {
            client.send(&[subscribe(1, "a")]);
            client.read();
            client.room(0);
        }
        for _ in 0..5 {
            publisher.send(&[publish("a", &[0; 100])]);
        }
        let ended = slow
            .iter()
            .filter(|one| one.port.outgoing().ending.is_some());
        assert_eq!(ended.count(), usize::from(!fits));
        let got: Vec<Got> = slow.iter_mut().flat_map(Client::read).collect();
        let text = format!("broker_pending_per_uid: {limit} bytes for each uid");
        assert_eq!(texts(&got), vec![text.as_str(); usize::from(!fits)]);
        assert_eq!(bodies(&other.read()).len(), 5);
    }
}

#[test]
fn many_connections_of_one_uid_hold_no_more_than_its_bound() {
    // Each queue takes one frame in any case; a run of many must not count as one.
    const CONNECTIONS: usize = 200;
    let limits = Limits {
        pending_bytes_per_uid: 64 << 10,
        ..Limits::default()
    };
    let broker = hub(limits);
    let mut publisher = Client::join(&broker, 1, 1);
    let mut slow: Vec<_> = (0..CONNECTIONS as u64)
        .map(|n| Client::join(&broker, 2 + n, 2))
        .collect();
    for client in &mut slow {
        client.send(&[dropping(1, "a")]);
        client.read();
        client.room(0);
    }
    let run: Vec<_> = (0..100).map(|_| publish("a", &[0; 1000])).collect();
    publisher.send(&run);
    let held = broker.stats().pending_bytes;
    let most = (64 << 10) + CONNECTIONS * message_bytes(1000);
    assert!(held <= most, "{held} bytes, at most {most}");
    for client in &mut slow {
        let got = client.read();
        let seen = u64::try_from(bodies(&got).len()).unwrap();
        assert_eq!(seen + missed(&got), 100, "lost in silence");
    }
    assert_eq!(broker.stats().pending_bytes, 0);
}
