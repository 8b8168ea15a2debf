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
use std::thread;
use std::time::{Duration, Instant};

use secure_socket::client::{Client, ClientError, Event};
use secure_socket::frame::{
    Decoder, Frame, FrameLimit, GREETING_BYTES, Greeting, Received, Side, Stamp, Subject,
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
