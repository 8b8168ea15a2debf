//! One rule of the relay at a time, over real sockets and with a clock of its own.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use super::descriptors;
use super::flow::{Fault, Passing, Shape};
use super::joint::{End, Joint, Side};
use super::joint_tests::{Bench, PLAIN};

const SECOND: Duration = Duration::from_secs(1);

/// A client, a server, and a joint between them.
fn joined(shape: Shape, half_close: Option<Duration>) -> (UnixStream, UnixStream, Bench) {
    let pair = || {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        (near, OwnedFd::from(far))
    };
    let ((client, near), (server, far)) = (pair(), pair());
    let joint = Joint::new(far, (shape, shape), half_close, b"ahead ".to_vec());
    (client, server, Bench::of(near, joint, 64 << 10))
}

fn settle(bench: &mut Bench) {
    (0..200).for_each(|_| bench.step());
}

fn read(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let length = stream.read(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

/// Writes until nothing more is taken.
fn fill(from: &mut UnixStream, bench: &mut Bench) -> usize {
    let mut sent = 0;
    let mut idle = 0;
    while idle < 3 {
        match from.write(&[7; 64 << 10]) {
            Ok(length) => {
                sent += length;
                idle = 0;
            }
            Err(_) => idle += 1,
        }
        settle(bench);
    }
    sent
}

#[test]
fn a_client_that_shuts_down_first_gets_the_whole_answer() {
    let (mut client, mut server, mut bench) = joined(PLAIN, Some(SECOND));
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    settle(&mut bench);
    assert_eq!(read(&mut server), b"ahead question");
    assert_eq!(read(&mut server), b"");
    for _ in 0..50 {
        server.write_all(&[9; 100_000]).unwrap();
        let mut taken = 0;
        while taken < 100_000 {
            settle(&mut bench);
            taken += read(&mut client).len();
        }
        // Each lot takes most of the bound, and all of them much more.
        bench.now += SECOND * 3 / 4;
        settle(&mut bench);
        assert_eq!(bench.end, None);
    }
    drop(server);
    settle(&mut bench);
    assert_eq!(
        (read(&mut client).len(), bench.end),
        (0, Some(End::Finished))
    );
}

#[test]
fn the_direction_that_is_left_has_a_bound_while_nothing_moves() {
    let (client, _server, mut bench) = joined(PLAIN, Some(SECOND));
    client.shutdown(Shutdown::Write).unwrap();
    settle(&mut bench);
    bench.now += SECOND - Duration::from_millis(1);
    settle(&mut bench);
    assert_eq!(bench.end, None);
    bench.now += Duration::from_millis(1);
    settle(&mut bench);
    assert_eq!(bench.end, Some(End::HalfClosed));
}

#[test]
fn a_client_that_is_gone_does_not_keep_its_upstream() {
    let (client, mut server, mut bench) = joined(PLAIN, None);
    settle(&mut bench);
    assert_eq!(read(&mut server), b"ahead ");
    drop(client);
    settle(&mut bench);
    assert_eq!(
        (read(&mut server).len(), bench.end),
        (0, Some(End::Finished))
    );
}

#[test]
fn a_side_that_takes_nothing_is_given_up_and_the_memory_for_it_is_bounded() {
    let shape = Shape {
        write_timeout: Some(SECOND),
        ..PLAIN
    };
    let (mut client, mut server, mut bench) = joined(shape, None);
    let sent = fill(&mut client, &mut bench);
    // Two Unix socket buffers, one of them enlarged to 1 MiB and counted twice
    // by the kernel, and one pipe or one lent buffer between them.
    assert!(sent < (4 << 20), "{sent} bytes are on the way");
    let started = Instant::now();
    bench.now = started;
    settle(&mut bench);
    // A byte now and then is no progress.
    for _ in 0..3 {
        bench.now += SECOND / 4;
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        settle(&mut bench);
        assert_eq!(bench.end, None);
    }
    bench.now = started + SECOND * 2;
    settle(&mut bench);
    assert_eq!(bench.end, Some(End::Stalled(Side::Upstream)));
}

#[test]
fn a_slow_side_that_goes_on_is_waited_for() {
    let shape = Shape {
        write_timeout: Some(SECOND),
        ..PLAIN
    };
    let (mut client, mut server, mut bench) = joined(shape, None);
    let sent = fill(&mut server, &mut bench);
    let mut received = 0;
    while received < sent {
        let mut some = vec![0; 300_000];
        received += client.read(&mut some).unwrap();
        bench.now += SECOND * 9 / 10;
        settle(&mut bench);
        assert_eq!(bench.end, None);
    }
    assert_eq!(received, sent);
}

#[test]
fn a_writer_learns_that_nobody_reads_any_more() {
    let (mut client, mut server, mut bench) = joined(PLAIN, None);
    settle(&mut bench);
    assert_eq!(read(&mut server), b"ahead ");
    server.shutdown(Shutdown::Read).unwrap();
    client.write_all(b"lost").unwrap();
    settle(&mut bench);
    assert_eq!(
        client.write(b"x").unwrap_err().kind(),
        std::io::ErrorKind::BrokenPipe
    );
    assert_eq!(bench.end, None, "the answer may still come");
    server.write_all(b"answer").unwrap();
    drop(server);
    settle(&mut bench);
    assert_eq!(read(&mut client), b"answer");
    assert_eq!(bench.end, Some(End::Finished));
}

fn packets() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

#[test]
fn messages_stay_messages_and_empty_ones_too() {
    let shape = Shape {
        packets: true,
        ..PLAIN
    };
    let ((client, near), (server, far)) = (packets(), packets());
    let joint = Joint::new(far, (shape, shape), None, Vec::new());
    let mut bench = Bench::of(near, joint, 64 << 10);
    let sent: [&[u8]; 5] = [b"one", b"", b"", &[5; 64 << 10], b"last"];
    for message in sent {
        send(&client, message, SendFlags::empty()).unwrap();
    }
    rustix::net::shutdown(&client, rustix::net::Shutdown::Write).unwrap();
    settle(&mut bench);
    let mut buffer = vec![0; 1 << 20];
    for message in sent {
        let (_, length) = recv(&server, &mut buffer[..], RecvFlags::empty()).unwrap();
        assert_eq!(&buffer[..length], message);
    }
    let (_, length) = recv(&server, &mut buffer[..], RecvFlags::empty()).unwrap();
    assert_eq!((length, bench.end), (0, None));
}

#[test]
fn a_message_that_is_larger_than_the_buffer_ends_the_connection_of_whoever_sent_it() {
    for from in [Side::Client, Side::Upstream] {
        let too_large = Some(End::TooLarge(from));
        for (length, end) in [(64 << 10, None), ((64 << 10) + 1, too_large)] {
            let shape = Shape {
                packets: true,
                ..PLAIN
            };
            let ((client, near), (server, far)) = (packets(), packets());
            let joint = Joint::new(far, (shape, shape), None, Vec::new());
            let mut bench = Bench::of(near, joint, 64 << 10);
            let sender = match from {
                Side::Client => &client,
                Side::Upstream => &server,
            };
            send(sender, &vec![1; length], SendFlags::empty()).unwrap();
            settle(&mut bench);
            assert_eq!(bench.end, end, "{length} from {from:?}");
        }
    }
}

/// As large as the near socket of the receiver takes, or larger (unix(7), `SO_SNDBUF`).
#[test]
fn a_message_that_the_other_side_can_not_take_is_its_sender_s() {
    for from in [Side::Client, Side::Upstream] {
        let shape = Shape {
            packets: true,
            ..PLAIN
        };
        let ((client, near), (server, far)) = (packets(), packets());
        let (sender, narrow) = match from {
            Side::Client => (&client, &far),
            Side::Upstream => (&server, &near),
        };
        rustix::net::sockopt::set_socket_send_buffer_size(narrow, 8 << 10).unwrap();
        send(sender, &[1; 48 << 10], SendFlags::empty()).unwrap();
        let joint = Joint::new(far, (shape, shape), None, Vec::new());
        let mut bench = Bench::of(near, joint, 64 << 10);
        settle(&mut bench);
        assert_eq!(bench.end, Some(End::TooLarge(from)));
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn some_descriptors(count: usize) -> Vec<OwnedFd> {
    (0..count)
        .map(|_| std::fs::File::open("/dev/null").unwrap().into())
        .collect()
}

#[test]
fn descriptors_go_with_their_bytes_up_to_the_bound() {
    // In a process of its own no other test changes the count of descriptors.
    let shape = Shape {
        descriptors: Passing::Forwarded(3),
        ..PLAIN
    };
    for (count, fits) in [(1, true), (3, true), (4, false), (253, false)] {
        let (client, mut server, mut bench) = joined(shape, None);
        settle(&mut bench);
        assert_eq!(read(&mut server), b"ahead ");
        let passed = some_descriptors(count);
        assert_eq!(
            descriptors::send(client.as_fd(), b"message", &passed).unwrap(),
            7
        );
        settle(&mut bench);
        if !fits {
            assert_eq!(bench.end, Some(End::Descriptors(Side::Client)));
            continue;
        }
        let mut bytes = [0; 64];
        let got = descriptors::receive(server.as_fd(), &mut bytes, 253, false)
            .unwrap()
            .unwrap();
        let seen = (&bytes[..got.length], got.with.len());
        assert_eq!(seen, (&b"message"[..], count));
        assert_eq!(bench.end, None);
    }
}

#[test]
fn too_many_descriptors_are_all_closed() {
    let (one, other) = UnixStream::pair().unwrap();
    let passed = some_descriptors(100);
    descriptors::send(one.as_fd(), b"x", &passed).unwrap();
    drop(passed);
    // Other tests open and close some at the same time, but never that many.
    let before = open_descriptors();
    let result = descriptors::receive(other.as_fd(), &mut [0; 8], 50, false);
    assert!(matches!(result, Err(Fault::Descriptors)));
    assert!(open_descriptors() < before + 50);
}

#[test]
fn descriptors_are_refused_where_none_are_expected_and_seen() {
    let shape = Shape {
        descriptors: Passing::Refused,
        ..PLAIN
    };
    let (client, _server, mut bench) = joined(shape, None);
    descriptors::send(client.as_fd(), b"x", &some_descriptors(1)).unwrap();
    settle(&mut bench);
    assert_eq!(bench.end, Some(End::Descriptors(Side::Client)));
}
