//! The library's client against a broker, over real sockets.
#![cfg(all(feature = "broker", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod broker_support;

use std::thread;
use std::time::{Duration, Instant};

use broker_support::Running;
use secure_socket::client::{Client, ClientError, Event, ServerIdentity, WhenSlow};
use secure_socket::frame::ErrorCode;
use secure_socket::ids::Uid;
use secure_socket::policy::Numeric;

fn client(broker: &Running) -> Client {
    Client::connect(
        &broker.path,
        &ServerIdentity::root_or_self(),
        Duration::from_secs(5),
    )
    .unwrap()
}

fn next(client: &mut Client) -> Event {
    client
        .next(Some(Instant::now() + Duration::from_secs(5)))
        .unwrap()
        .unwrap()
}

#[test]
fn publishes_and_subscribes() {
    let broker = Running::default();
    let (mut one, mut two) = (client(&broker), client(&broker));
    let id = two.subscribe("a.>", WhenSlow::Disconnect).unwrap();
    for number in 0..10_000_u32 {
        one.publish_later("a.b", &number.to_be_bytes()).unwrap();
    }
    one.flush().unwrap();
    let mut last = 0;
    for number in 0..10_000_u32 {
        match next(&mut two) {
            Event::Message {
                id: of,
                subject,
                stamp,
                body,
            } => {
                assert_eq!((of, subject.as_str()), (id, "a.b"));
                assert_eq!(body, number.to_be_bytes());
                assert!(stamp.sequence > last);
                last = stamp.sequence;
                let pid = i32::try_from(std::process::id()).unwrap();
                assert_eq!(stamp.pid.map(secure_socket::ids::Pid::as_raw), Some(pid));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn large_messages_arrive_whole() {
    let broker = Running::default();
    let (mut one, mut two) = (client(&broker), client(&broker));
    two.subscribe("a", WhenSlow::Disconnect).unwrap();
    let sender = thread::spawn(move || {
        for size in [0, 1, 8191, 8192, 65_536, 1_000_000, (1 << 20) - 1] {
            let body: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[0]).collect();
            one.publish_confirmed("a", &body).unwrap();
        }
        let error = one.publish_confirmed("a", &vec![0; 1 << 20]).unwrap_err();
        assert!(
            matches!(
                error,
                ClientError::TooLarge {
                    accepted: 1_048_576,
                    ..
                }
            ),
            "{error}"
        );
    });
    for size in [0, 1, 8191, 8192, 65_536, 1_000_000, (1 << 20) - 1] {
        match next(&mut two) {
            Event::Message { body, .. } => {
                assert_eq!(body.len(), size);
                let all = body
                    .iter()
                    .zip(0_u32..)
                    .all(|(byte, n)| *byte == n.to_le_bytes()[0]);
                assert!(all, "{size}");
            }
            other => panic!("{other:?}"),
        }
    }
    sender.join().unwrap();
}

#[test]
fn asks_and_answers() {
    let broker = Running::default();
    let (mut asker, mut server) = (client(&broker), client(&broker));
    let refused = asker.request("time.now", b"").unwrap_err();
    assert!(matches!(
        refused,
        ClientError::Refused {
            code: ErrorCode::NoResponder,
            ..
        }
    ));
    server.serve("time.*").unwrap();
    let serving = thread::spawn(move || {
        for _ in 0..100 {
            match next(&mut server) {
                Event::Deliver { id, body, .. } => server.reply(id, &[&body[..], b"!"].concat()),
                other => panic!("{other:?}"),
            }
            .unwrap();
        }
        // Leaves with one request open.
        assert!(matches!(next(&mut server), Event::Deliver { .. }));
    });
    for _ in 0..100 {
        let (stamp, body) = asker.request("time.now", b"noon").unwrap();
        assert_eq!(body, b"noon!");
        assert_eq!(stamp.uid, Uid::from_raw(rustix::process::getuid().as_raw()));
    }
    let gone = asker.request("time.now", b"").unwrap_err();
    assert!(
        matches!(
            gone,
            ClientError::Refused {
                code: ErrorCode::Gone,
                ..
            }
        ),
        "{gone}"
    );
    serving.join().unwrap();
}

#[test]
fn a_server_that_is_somebody_else_gets_nothing() {
    let broker = Running::default();
    let own_user = Uid::ROOT;
    let server = ServerIdentity::parse("uid:12345", &Numeric { own_user }).unwrap();
    let error = Client::connect(&broker.path, &server, Duration::from_secs(5)).unwrap_err();
    assert!(matches!(error, ClientError::Untrusted { .. }), "{error}");
    broker.await_connections(0);
}

#[test]
fn a_client_may_have_all_the_time_there_is() {
    let broker = Running::default();
    let server = ServerIdentity::root_or_self();
    let mut client = Client::connect(&broker.path, &server, Duration::MAX).unwrap();
    client.sync().unwrap();
}

#[test]
fn a_thousand_connections_come_and_go() {
    let broker = Running::default();
    let mut clients: Vec<_> = (0..1000).map(|_| client(&broker)).collect();
    for client in &mut clients {
        client.subscribe("all", WhenSlow::Disconnect).unwrap();
    }
    clients[0].publish_confirmed("all", b"x").unwrap();
    for client in &mut clients {
        assert!(matches!(next(client), Event::Message { .. }));
    }
    broker.await_connections(1000);
    drop(clients);
    broker.await_connections(0);
}
