//! The library's client and a broker that is slow, silent, or says too much: played
//! by the test, over a pair of sockets.
#![cfg(feature = "client")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use secure_socket::client::{Client, ClientError, Event, ServerIdentity};
use secure_socket::frame::{
    Decoder, ErrorCode, Frame, FrameLimit, GREETING_BYTES, Greeting, Received, Side, Stamp, Subject,
};

const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

const STAMP: Stamp = Stamp {
    connection: 1,
    sequence: 1,
    uid: None,
    gid: None,
    pid: None,
    flags: 0,
};

/// A client, and the broker's end after both greetings. The client's socket holds
/// little, so that a broker which doesn't read soon is felt.
fn joined(timeout: Duration) -> (Client, UnixStream) {
    let (near, mut far) = UnixStream::pair().unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&near, 16 << 10).unwrap();
    let accepts = FrameLimit::MAX;
    far.write_all(&Greeting { accepts }.encode()).unwrap();
    let client = Client::over(near.into(), accepts, timeout).unwrap();
    far.read_exact(&mut [0; GREETING_BYTES]).unwrap();
    (client, far)
}

fn subject(text: &str) -> Subject<'_> {
    Subject::new(text.as_bytes()).unwrap()
}

fn bytes(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        frame.encode(&mut out);
    }
    out
}

fn message(body: &[u8]) -> Frame<'_> {
    Frame::Message {
        id: 1,
        subject: subject("a"),
        stamp: STAMP,
        body,
    }
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + SHORT)
}

fn later() -> Option<Instant> {
    Some(Instant::now() + PATIENCE)
}

/// What the broker reads until the client leaves: kind and length of each frame. The
/// subject must be one of those that were published.
#[track_caller]
fn read_all(mut far: UnixStream, subjects: &[&str]) -> Vec<(String, usize)> {
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut decoder = Decoder::new(Side::Client, FrameLimit::MAX);
    decoder.greeted();
    let (mut found, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let count = match far.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            read => read.unwrap(),
        };
        if count == 0 {
            break;
        }
        assert_eq!(decoder.push(&buffer[..count]), count);
        found.extend(decoder.frames().map(|item| match item.unwrap() {
            Received::Frame(Frame::Publish { subject, body, .. }) => {
                let subject = subject.to_string();
                assert!(subjects.contains(&subject.as_str()), "{subject} is forged");
                (subject, body.len())
            }
            Received::Frame(Frame::Pong { body, .. }) => (String::from("PONG"), body.len()),
            other => panic!("{other:?}"),
        }));
    }
    assert!(decoder.is_between_frames(), "a frame is torn");
    found
}

/// A body that is frames itself: whoever begins this one anew in its middle has them
/// read as the client's own.
#[test]
fn a_send_that_times_out_goes_on_where_it_stopped() {
    let (mut client, mut far) = joined(SHORT);
    let hidden = bytes(&[Frame::Publish {
        id: 0,
        subject: subject("stolen"),
        body: b"",
    }]);
    let body = hidden.repeat((1 << 20) / hidden.len());
    for (subject, body) in [("a", &body[..]), ("b", b"small")] {
        let error = client.publish(subject, body).unwrap_err();
        assert!(matches!(error, ClientError::Timeout), "{error}");
    }
    let ping = bytes(&[Frame::Ping {
        id: 1,
        body: b"tick",
    }]);
    far.write_all(&ping).unwrap();
    assert_eq!(client.next(soon()).unwrap(), None);
    let reader = thread::spawn(move || read_all(far, &["a", "b"]));
    let until = Instant::now() + PATIENCE;
    while client.flush().is_err() {
        assert!(Instant::now() < until, "nothing goes on");
    }
    drop(client);
    // The second publication found no room behind so large a rest.
    let expected = [("a", body.len()), ("PONG", 4)];
    let found = reader.join().unwrap();
    let found: Vec<_> = found.iter().map(|(a, n)| (a.as_str(), *n)).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_a_failed_send_leaves_is_bounded() {
    let (mut client, far) = joined(Duration::from_millis(1));
    let body = vec![0; 10_000];
    let mut taken = 0;
    for _ in 0..100 {
        taken += usize::from(client.publish_later("a", &body).is_ok());
    }
    assert!((1..20).contains(&taken), "{taken}");
    let reader = thread::spawn(move || read_all(far, &["a"]));
    let until = Instant::now() + PATIENCE;
    while client.flush().is_err() {
        assert!(Instant::now() < until, "nothing goes on");
    }
    drop(client);
    let arrived = reader.join().unwrap().len();
    // One whose own flush failed may have been kept.
    assert!((taken..20).contains(&arrived), "{taken} {arrived}");
}

#[test]
fn a_broker_that_does_not_read_is_still_heard() {
    let (mut client, mut far) = joined(SHORT);
    let tick = vec![0; 100_000];
    let writer = thread::spawn(move || {
        let ping = Frame::Ping { id: 1, body: &tick };
        far.write_all(&bytes(&[ping, ping, ping, message(b"news")]))
            .unwrap();
        far
    });
    let event = client.next(later()).unwrap();
    assert!(
        matches!(&event, Some(Event::Message { body, .. }) if body == b"news"),
        "{event:?}"
    );
    let far = writer.join().unwrap();
    let reader = thread::spawn(move || read_all(far, &[]));
    // While it waits, it sends what it owes.
    let until = Instant::now() + PATIENCE;
    while client.flush().is_err() {
        assert!(Instant::now() < until, "nothing goes on");
    }
    drop(client);
    let pong = (String::from("PONG"), 100_000);
    assert_eq!(reader.join().unwrap(), [pong.clone(), pong.clone(), pong]);
}

#[test]
fn the_late_end_of_a_call_is_nobodys() {
    let (mut client, mut far) = joined(SHORT);
    let error = client.request("a", b"").unwrap_err();
    assert!(matches!(error, ClientError::Timeout), "{error}");
    let error = client.publish_confirmed("a", b"").unwrap_err();
    assert!(matches!(error, ClientError::Timeout), "{error}");
    let late = [
        Frame::Answer {
            id: 1,
            stamp: STAMP,
            body: b"late",
        },
        Frame::Ok { id: 2 },
        message(b"news"),
    ];
    far.write_all(&bytes(&late)).unwrap();
    let event = client.next(later()).unwrap();
    assert!(matches!(event, Some(Event::Message { .. })), "{event:?}");
    assert_eq!(client.next(soon()).unwrap(), None);
}

#[test]
fn refusals_that_nobody_takes_do_not_pile_up() {
    let (mut client, mut far) = joined(PATIENCE);
    let refusal = Frame::Error {
        id: 0,
        code: ErrorCode::Denied,
        text: "no rule permits it",
    };
    let writer = thread::spawn(move || {
        let mut frames = vec![refusal; 3000];
        frames.push(Frame::Pong { id: 1, body: b"" });
        // Once it was asked.
        far.read_exact(&mut [0; 16]).unwrap();
        far.write_all(&bytes(&frames)).unwrap();
        far
    });
    client.sync().unwrap();
    assert_eq!(client.refusals_dropped(), 3000 - 1024);
    let kept = std::iter::from_fn(|| client.try_next()).count();
    assert_eq!(kept, 1024);
    drop(writer.join().unwrap());
}

#[test]
fn with_a_full_inbox_a_call_says_so_and_goes_on_when_there_is_room() {
    const MESSAGES: usize = 70;
    let (mut client, mut far) = joined(PATIENCE);
    let writer = thread::spawn(move || {
        let body = vec![0; 1 << 20];
        let news = bytes(&[message(&body)]);
        for _ in 0..MESSAGES {
            far.write_all(&news).unwrap();
        }
        far.write_all(&bytes(&[Frame::Ok { id: 1 }])).unwrap();
        // The first two frames of the client, of a subject of one byte and no body.
        far.read_exact(&mut [0; 2 * 17]).unwrap();
        far.write_all(&bytes(&[Frame::Ok { id: 2 }])).unwrap();
        far
    });
    let error = client.publish_confirmed("a", b"").unwrap_err();
    assert!(matches!(error, ClientError::InboxFull), "{error}");
    for number in 0..MESSAGES {
        let event = client.next(later()).unwrap();
        assert!(
            matches!(event, Some(Event::Message { .. })),
            "{number}: {event:?}"
        );
    }
    client.publish_confirmed("a", b"").unwrap();
    assert_eq!(client.try_next(), None);
    drop(writer.join().unwrap());
}

/// Its answer to the PING finds nobody.
#[test]
fn what_came_before_the_end_is_told_before_the_end() {
    let (mut client, mut far) = joined(PATIENCE);
    let ping = Frame::Ping { id: 1, body: b"" };
    far.write_all(&bytes(&[ping, message(b"news")])).unwrap();
    drop(far);
    let event = client.next(later()).unwrap();
    assert!(matches!(event, Some(Event::Message { .. })), "{event:?}");
    let error = client.next(later()).unwrap_err();
    assert!(matches!(error, ClientError::Closed), "{error}");
}

#[test]
fn connecting_to_a_full_backlog_ends_in_time() {
    let address = SocketAddrUnix::new_abstract_name(
        format!("secure_socket-backlog-{}", std::process::id()).as_bytes(),
    )
    .unwrap();
    let socket = |flags| {
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
    };
    let listener = socket(SocketFlags::CLOEXEC);
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let mut crowd = Vec::new();
    loop {
        let one = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        if rustix::net::connect(&one, &address).is_err() {
            break;
        }
        crowd.push(one);
    }
    let (sender, ended) = channel();
    thread::spawn(move || {
        let path = format!("@secure_socket-backlog-{}", std::process::id());
        let server = ServerIdentity::root_or_self();
        for timeout in [Duration::ZERO, SHORT] {
            let error = Client::connect(path.as_ref(), &server, timeout).unwrap_err();
            sender.send(error).unwrap();
        }
    });
    for _ in 0..2 {
        let error = ended.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(error, ClientError::Timeout), "{error}");
    }
}

#[test]
fn a_timeout_may_be_of_any_length() {
    let (mut client, mut far) = joined(Duration::MAX);
    far.write_all(&bytes(&[message(b"news")])).unwrap();
    client.publish("a", b"").unwrap();
    assert!(client.next(None).unwrap().is_some());
    far.read_exact(&mut [0; 17]).unwrap();
    let (near, _silent) = UnixStream::pair().unwrap();
    let error = Client::over(near.into(), FrameLimit::MAX, Duration::ZERO).unwrap_err();
    assert!(matches!(error, ClientError::Timeout), "{error}");
}
