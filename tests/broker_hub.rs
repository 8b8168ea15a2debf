//! The broker without sockets: quotas at every edge, routes, requests, reloads.
#![cfg(feature = "broker")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

#[path = "broker_support/fake.rs"]
mod fake;

use std::time::{Duration, Instant};

use fake::{
    Client, Got, bodies, codes, dropping, hub, pattern, publish, request, subject, subscribe,
};
use secure_socket::frame::{ErrorCode, Frame, FrameLimit};
use secure_socket::ids::Uid;
use secure_socket::policy::{Numeric, Rule};
use secure_socket::service::broker::{Action, Broker, Limits, Permit, Permits};

#[test]
fn a_message_reaches_each_subscription_once_and_is_stamped() {
    let broker = hub(Limits::default());
    let mut publisher = Client::join(&broker, 1, 33);
    let mut subscriber = Client::join(&broker, 2, 44);
    subscriber.send(&[subscribe(5, "a.*"), subscribe(6, ">"), subscribe(7, "b")]);
    assert_eq!(codes(&subscriber.read()), [(5, None), (6, None), (7, None)]);
    publisher.send(&[
        publish("a.x", b"one"),
        publish("a.x", b"two"),
        publish("b", b"three"),
    ]);
    let got = subscriber.read();
    let seen: Vec<_> = got
        .iter()
        .map(|got| match got {
            Got::Message {
                id,
                subject,
                stamp,
                body,
            } => {
                assert_eq!(stamp.connection, 1);
                assert_eq!(stamp.uid, Uid::from_raw(33));
                (*id, subject.as_str(), body.as_slice())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    // Three in one batch: still the sequence only grows, whatever they match.
    let sequence = |got: &Got| match got {
        Got::Message { stamp, .. } => stamp.sequence,
        other => panic!("{other:?}"),
    };
    assert!(got.iter().map(sequence).is_sorted());
    let of = |wanted: u64| {
        seen.iter()
            .filter(|s| s.0 == wanted)
            .map(|s| s.2)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(5), [b"one", b"two"]);
    assert_eq!(of(6), [&b"one"[..], b"two", b"three"]);
    assert_eq!(of(7), [b"three"]);
    assert!(publisher.read().is_empty());
}

#[test]
fn after_ok_to_unsubscribe_nothing_comes() {
    let broker = hub(Limits::default());
    let mut publisher = Client::join(&broker, 1, 1);
    let mut subscriber = Client::join(&broker, 2, 1);
    subscriber.send(&[subscribe(5, "a")]);
    publisher.send(&[publish("a", b"1")]);
    subscriber.send(&[Frame::Unsubscribe { id: 5 }, Frame::Unsubscribe { id: 5 }]);
    publisher.send(&[publish("a", b"2")]);
    let got = subscriber.read();
    assert_eq!(bodies(&got), [b"1"]);
    assert_eq!(codes(&got), [(5, None), (5, None), (5, Some(5))]);
}

#[test]
fn quotas_of_a_connection_hold_at_the_edge() {
    let limits = Limits {
        subscriptions: 3,
        requests: 3,
        ..Limits::default()
    };
    let broker = hub(limits);
    let mut one = Client::join(&broker, 1, 1);
    let mut other = Client::join(&broker, 2, 1);
    for id in 1..=4 {
        one.send(&[subscribe(id, "a")]);
        one.send(&[Frame::Serve {
            id,
            pattern: pattern("s"),
        }]);
    }
    let got = one.read();
    let expect = [1, 1, 2, 2, 3, 3, 4, 4].map(|id| (id, (id == 4).then_some(6)));
    assert_eq!(codes(&got), expect);
    let texts: Vec<_> = got
        .iter()
        .filter_map(|got| match got {
            Got::Error(_, _, text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        texts,
        [
            "broker_subscriptions: 3 subscriptions for each connection",
            "broker_subscriptions: 3 registrations for each connection"
        ]
    );
    for id in 1..=4 {
        other.send(&[request(id, "s", b"")]);
    }
    assert_eq!(codes(&other.read()), [(4, Some(6))]);
    // What is given back can be taken again.
    one.send(&[
        Frame::Unsubscribe { id: 2 },
        subscribe(9, "b"),
        subscribe(10, "b"),
    ]);
    one.send(&[subscribe(9, "b")]);
    assert_eq!(
        codes(&one.read()),
        [(2, None), (9, None), (10, Some(6)), (9, Some(8))]
    );
}

#[test]
fn quotas_of_a_uid_hold_over_its_connections_and_for_nobody_else() {
    let broker = hub(Limits {
        subscriptions: 1,
        requests: 1,
        ..Limits::default()
    });
    let mut clients: Vec<_> = (1..=65).map(|n| Client::join(&broker, n, 1)).collect();
    let mut stranger = Client::join(&broker, 100, 2);
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&[
            subscribe(1, "a"),
            Frame::Serve {
                id: 2,
                pattern: pattern("b"),
            },
        ]);
        let refused = number == 64;
        let expect = [1, 2].map(|id| (id, refused.then_some(6)));
        assert_eq!(codes(&client.read()), expect, "{number}");
    }
    stranger.send(&[
        subscribe(1, "a"),
        Frame::Serve {
            id: 2,
            pattern: pattern("b"),
        },
    ]);
    assert_eq!(codes(&stranger.read()), [(1, None), (2, None)]);
    drop(clients.pop());
    drop(clients.pop());
    let mut late = Client::join(&broker, 200, 1);
    late.send(&[subscribe(1, "a")]);
    assert_eq!(codes(&late.read()), [(1, None)]);
}

#[test]
fn a_slow_subscriber_is_closed_with_what_it_missed_or_loses_the_oldest() {
    for dropping_oldest in [false, true] {
        for (pending_bytes, body) in [(10_000, 10), (10_000, 100), (100_000, 9_000)] {
            let broker = hub(Limits {
                pending_bytes,
                ..Limits::default()
            });
            let mut publisher = Client::join(&broker, 1, 1);
            let mut slow = Client::join(&broker, 2, 2);
            let mut quick = Client::join(&broker, 3, 3);
            slow.send(&[if dropping_oldest {
                dropping(1, "a")
            } else {
                subscribe(1, "a")
            }]);
            quick.send(&[subscribe(1, "a")]);
            let _ = (slow.read(), quick.read());
            slow.room(5);
            for number in 0..1000_u32 {
                let mut data = vec![0; body];
                data[..4].copy_from_slice(&number.to_be_bytes());
                publisher.send(&[publish("a", &data)]);
                let got = quick.read();
                assert_eq!(bodies(&got), [data]);
            }
            let ended = slow.port.outgoing().ending.is_some();
            assert_eq!(ended, !dropping_oldest);
            let got = slow.read();
            let missed: u64 = got
                .iter()
                .map(|g| if let Got::Gap(1, n) = g { *n } else { 0 })
                .sum();
            let seen = u64::try_from(bodies(&got).len()).unwrap();
            if dropping_oldest {
                assert_eq!(missed + seen, 1000, "body {body}");
                let last = bodies(&got).last().unwrap()[..4].to_vec();
                assert_eq!(last, 999_u32.to_be_bytes());
            } else {
                assert!(missed > 0 && missed + seen <= 1000);
                let Some(Got::Error(0, ErrorCode::Quota, text)) = got.last() else {
                    panic!("{:?}", got.last());
                };
                let expect = format!("broker_pending: {pending_bytes} bytes for each connection");
                assert_eq!(*text, expect);
            }
        }
    }
}

#[test]
fn one_user_cannot_use_up_the_room_of_another() {
    let limits = Limits {
        pending_bytes: 10_000,
        pending_bytes_per_uid: 15_000,
        ..Limits::default()
    };
    let broker = hub(limits);
    let mut publisher = Client::join(&broker, 1, 1);
    let mut slow: Vec<_> = (2..6).map(|n| Client::join(&broker, n, 2)).collect();
    let mut other = Client::join(&broker, 10, 3);
    for client in &mut slow {
        client.send(&[subscribe(1, "a")]);
        client.read();
        client.room(0);
    }
    other.send(&[subscribe(1, "a")]);
    other.read();
    other.room(0);
    for _ in 0..60 {
        publisher.send(&[publish("a", &[0; 100])]);
    }
    // 60 messages take 9000 bytes: all of uid 2's queues together pass its bound.
    assert!(
        slow.iter()
            .any(|client| client.port.outgoing().ending.is_some())
    );
    assert!(other.port.outgoing().ending.is_none());
    assert_eq!(bodies(&other.read()).len(), 60);
    let texts: Vec<_> = slow.iter_mut().flat_map(Client::read).collect();
    assert!(texts.iter().any(
        |got| matches!(got, Got::Error(0, ErrorCode::Quota, text) if text.contains("per_uid: 15000"))
    ));
}

#[test]
fn requests_go_in_turn_and_end_once() {
    let broker = hub(Limits::default());
    let mut asker = Client::join(&broker, 1, 1);
    let mut servers: Vec<_> = (2..5).map(|n| Client::join(&broker, n, n as u32)).collect();
    asker.send(&[request(1, "t.now", b"?")]);
    assert_eq!(codes(&asker.read()), [(1, Some(3))]);
    for (server, text) in servers.iter_mut().zip(["t.now", "t.*", ">"]) {
        server.send(&[Frame::Serve {
            id: 1,
            pattern: pattern(text),
        }]);
        server.read();
    }
    for id in 0..9 {
        asker.send(&[request(id, "t.now", b"?")]);
    }
    for server in &mut servers {
        let asked = server.read();
        assert_eq!(asked.len(), 3, "not in turn");
        for got in asked {
            let Got::Deliver { id, body, .. } = got else {
                panic!("{got:?}")
            };
            assert_eq!(body, b"?");
            server.send(&[
                Frame::Reply { id, body: b"!" },
                Frame::Reply { id, body: b"twice" },
            ]);
            assert_eq!(codes(&server.read()), [(id, Some(5))]);
        }
    }
    let got = asker.read();
    assert_eq!(got.len(), 9);
    assert!(
        got.iter()
            .all(|got| matches!(got, Got::Answer { body, .. } if body == b"!"))
    );
    assert!(asker.port.is_idle() && servers.iter().all(|server| server.port.is_idle()));
}

#[test]
fn the_answer_of_another_is_refused() {
    let broker = hub(Limits::default());
    let mut asker = Client::join(&broker, 1, 1);
    let mut server = Client::join(&broker, 2, 2);
    let mut thief = Client::join(&broker, 3, 3);
    server.send(&[Frame::Serve {
        id: 1,
        pattern: pattern("s"),
    }]);
    asker.send(&[request(7, "s", b"")]);
    let number = server
        .read()
        .iter()
        .find_map(|got| {
            if let Got::Deliver { id, .. } = got {
                Some(*id)
            } else {
                None
            }
        })
        .unwrap();
    for id in [number, 7, 0, 1, number + 1, number - 1] {
        thief.send(&[Frame::Reply {
            id,
            body: b"forged",
        }]);
        assert_eq!(codes(&thief.read()), [(id, Some(5))]);
    }
    assert!(asker.read().is_empty());
    server.send(&[Frame::Reply {
        id: number,
        body: b"true",
    }]);
    let got = asker.read();
    let [Got::Answer { id: 7, stamp, body }] = &got[..] else {
        panic!("{got:?}")
    };
    assert_eq!(
        (stamp.uid, body.as_slice()),
        (Uid::from_raw(2), &b"true"[..])
    );
}

#[test]
fn a_request_ends_when_either_side_goes_or_time_passes() {
    let broker = hub(Limits {
        request_timeout: Duration::from_secs(5),
        ..Limits::default()
    });
    let mut asker = Client::join(&broker, 1, 1);
    let mut server = Client::join(&broker, 2, 2);
    server.send(&[Frame::Serve {
        id: 1,
        pattern: pattern("s"),
    }]);
    asker.send(&[request(1, "s", b"")]);
    drop(server);
    assert_eq!(codes(&asker.read()), [(1, Some(5))]);

    let mut server = Client::join(&broker, 3, 2);
    server.send(&[Frame::Serve {
        id: 1,
        pattern: pattern("s"),
    }]);
    asker.send(&[request(1, "s", b"")]);
    let start = Instant::now();
    assert!(asker.port.tick(start).is_some());
    assert!(asker.read().is_empty());
    assert_eq!(asker.port.tick(start + Duration::from_secs(6)), None);
    assert_eq!(codes(&asker.read()), [(1, Some(4))]);
    let late = server.read();
    let Some(Got::Deliver { id, .. }) = late.last() else {
        panic!("{late:?}")
    };
    server.send(&[Frame::Reply {
        id: *id,
        body: b"late",
    }]);
    assert_eq!(codes(&server.read()), [(*id, Some(5))]);
    assert!(asker.read().is_empty());

    asker.send(&[request(1, "s", b"")]);
    drop(asker);
    let got = server.read();
    let Some(Got::Deliver { id, .. }) = got.last() else {
        panic!("{got:?}")
    };
    server.send(&[Frame::Reply { id: *id, body: b"" }]);
    assert_eq!(codes(&server.read()), [(*id, Some(5))]);
    assert!(server.port.is_idle());
}

#[test]
fn permits_are_obeyed_when_asked_and_after_a_reload() {
    let rule = |text: &str| {
        Rule::parse(
            text,
            &Numeric {
                own_user: Uid::ROOT,
            },
        )
        .unwrap()
    };
    let permits = |of: &[(Action, &str, &str)]| {
        Permits::new(
            of.iter()
                .map(|(a, p, r)| Permit::new(*a, pattern(p), rule(r)))
                .collect(),
        )
    };
    let both = [
        (Action::Publish, "orders.>", "uid:1"),
        (Action::Subscribe, "orders.>", "uid:2"),
        (Action::Serve, "time", "uid:2"),
        (Action::Request, "time", "uid:1"),
    ];
    let broker = Broker::new(Limits::default(), permits(&both));
    let mut shop = Client::join(&broker, 1, 1);
    let mut desk = Client::join(&broker, 2, 2);
    desk.send(&[
        subscribe(1, "orders.>"),
        subscribe(2, ">"),
        subscribe(3, "secret"),
    ]);
    desk.send(&[Frame::Serve {
        id: 4,
        pattern: pattern("time"),
    }]);
    desk.send(&[Frame::Publish {
        id: 5,
        subject: subject("orders.x"),
        body: b"",
    }]);
    let codes_of_desk = codes(&desk.read());
    assert_eq!(
        codes_of_desk,
        [
            (1, None),
            (2, Some(2)),
            (3, Some(2)),
            (4, None),
            (5, Some(2))
        ]
    );
    desk.room(0);
    shop.send(&[publish("orders.new", b"1"), publish("other", b"no")]);
    shop.send(&[subscribe(1, "orders.new"), request(2, "time", b"")]);
    assert_eq!(codes(&shop.read()), [(0, Some(2)), (1, Some(2))]);
    broker.reload(Limits::default(), permits(&both[..1]));
    shop.send(&[publish("orders.new", b"2"), request(3, "time", b"")]);
    let got = desk.read();
    assert!(
        bodies(&got).is_empty(),
        "delivered without a right: {got:?}"
    );
    assert_eq!(codes(&got), [(1, Some(2)), (4, Some(2))]);
    assert!(got.contains(&Got::Gap(1, 1)));
    // Nor is the request that waited for room; who asked is told.
    assert!(!got.iter().any(|got| matches!(got, Got::Deliver { .. })));
    assert_eq!(codes(&shop.read()), [(2, Some(2)), (3, Some(2))]);
    assert!(shop.port.is_idle() && desk.port.is_idle());
    broker.reload(Limits::default(), permits(&both));
    desk.send(&[subscribe(1, "orders.>")]);
    shop.send(&[publish("orders.new", b"3")]);
    assert_eq!(bodies(&desk.read()), [b"3"]);
}

#[test]
fn a_reload_takes_back_what_waits_of_a_subscription_that_is_over() {
    let everybody = Rule::parse(
        "any",
        &Numeric {
            own_user: Uid::ROOT,
        },
    )
    .unwrap();
    let permits = |of: &[Action]| {
        let permit = |action: &Action| Permit::new(*action, pattern("a"), everybody.clone());
        Permits::new(of.iter().map(permit).collect())
    };
    for (small, body) in [(true, 10), (false, 5_000)] {
        let broker = Broker::new(
            Limits::default(),
            permits(&[Action::Publish, Action::Subscribe]),
        );
        let mut publisher = Client::join(&broker, 1, 1);
        let mut reader = Client::join(&broker, 2, 2);
        reader.send(&[subscribe(7, "a")]);
        reader.read();
        // The first leaves in part: that one goes on, a frame is never torn.
        reader.room(20);
        for _ in 0..3 {
            publisher.send(&[publish("a", &vec![1; body])]);
        }
        reader.send(&[Frame::Unsubscribe { id: 7 }]);
        broker.reload(Limits::default(), permits(&[Action::Publish]));
        let got = reader.read();
        assert_eq!(bodies(&got).len(), 1, "small={small}: {got:?}");
        let missing = got.iter().map(|one| match one {
            Got::Gap(7, count) => *count,
            _ => 0,
        });
        assert_eq!(missing.sum::<u64>(), 2, "small={small}: {got:?}");
    }
}

#[test]
fn what_a_receiver_does_not_accept_is_said() {
    let broker = hub(Limits::default());
    let mut large = Client::join(&broker, 1, 1);
    let mut small = Client::join_with(&broker, 2, 2, FrameLimit::MIN);
    small.send(&[
        subscribe(1, "a"),
        Frame::Serve {
            id: 2,
            pattern: pattern("s"),
        },
    ]);
    small.read();
    for (body, arrives) in [(990, true), (991, true), (992, false), (20_000, false)] {
        large.send(&[publish("a", &vec![0; body])]);
        let got = small.read();
        assert_eq!(bodies(&got).len(), usize::from(arrives), "{body}");
        assert_eq!(got.contains(&Got::Gap(1, 1)), !arrives, "{body}");
    }
    large.send(&[request(3, "s", &[0; 992])]);
    assert_eq!(codes(&large.read()), [(3, Some(7))]);
    assert!(small.port.is_idle());
    // Nor is it silence that answers its own PING.
    for (body, expect) in [(1024, None), (1025, Some(7)), (2048, Some(7))] {
        let body = &vec![0; body];
        small.send(&[Frame::Ping { id: 4, body }]);
        let got = small.read();
        assert_eq!(got.len(), 1, "{got:?}");
        let said = codes(&got).first().and_then(|(id, code)| {
            assert_eq!(*id, 4);
            *code
        });
        assert_eq!(said, expect, "{} bytes", body.len());
    }
}

#[test]
fn a_timeout_that_no_clock_holds_is_for_ever() {
    let broker = hub(Limits {
        request_timeout: Duration::MAX,
        ..Limits::default()
    });
    let mut asker = Client::join(&broker, 1, 1);
    let mut server = Client::join(&broker, 2, 2);
    let pattern = pattern("s");
    server.send(&[Frame::Serve { id: 1, pattern }]);
    asker.send(&[request(1, "s", b"")]);
    let later = Instant::now() + Duration::from_secs(1_000_000);
    let due = asker.port.tick(later);
    assert!(due.is_none_or(|due| due > later));
    assert!(asker.read().is_empty(), "it timed out");
    assert!(!asker.port.is_idle());
}

#[test]
fn ten_thousand_patterns_find_only_their_own() {
    let broker = hub(Limits {
        subscriptions: 10_000,
        ..Limits::default()
    });
    let mut many = Client::join(&broker, 1, 1);
    let mut publisher = Client::join(&broker, 2, 1);
    for number in 0..10_000_u64 {
        let text = format!("t{}.n{number}.*", number % 100);
        many.send(&[subscribe(number, &text)]);
    }
    assert_eq!(many.read().len(), 10_000);
    let start = Instant::now();
    for number in (0..10_000_u64).step_by(7) {
        publisher.send(&[publish(&format!("t{}.n{number}.x", number % 100), b"")]);
        let got = many.read();
        assert!(
            matches!(got[..], [Got::Message { id, .. }] if id == number),
            "{number}"
        );
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "a scan of all patterns?"
    );
}

#[test]
fn when_stopping_nothing_new_is_taken_and_what_is_open_ends() {
    let broker = hub(Limits::default());
    let mut asker = Client::join(&broker, 1, 1);
    let mut server = Client::join(&broker, 2, 2);
    server.send(&[Frame::Serve {
        id: 1,
        pattern: pattern("s"),
    }]);
    asker.send(&[request(1, "s", b"")]);
    broker.stop(Instant::now());
    asker.port.go_away(Duration::from_secs(3));
    asker.send(&[request(2, "s", b""), publish("a", b""), subscribe(3, "a")]);
    let got = asker.read();
    assert!(
        got.contains(&Got::Other("GoAway { millis: 3000 }".into())),
        "{got:?}"
    );
    assert_eq!(codes(&got), [(2, Some(9)), (0, Some(9)), (3, Some(9))]);
    assert!(!asker.port.is_idle());
    let Some(Got::Deliver { id, .. }) = server.read().last().cloned() else {
        panic!()
    };
    server.send(&[Frame::Reply { id, body: b"still" }]);
    assert!(matches!(asker.read()[..], [Got::Answer { id: 1, .. }]));
    assert!(asker.port.is_idle());
}
