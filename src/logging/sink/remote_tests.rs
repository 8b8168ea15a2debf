//! The remote log against servers of its own, mostly in virtual time.

use super::*;
use rustix::net::{bind, getsockname, listen};
use std::net::{TcpListener, UdpSocket};

/// A port that refuses until somebody listens with the socket, and that nobody else
/// can take meanwhile.
fn refusing() -> (OwnedFd, RemoteAddress) {
    let kind = SocketType::STREAM;
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
    (socket, RemoteAddress::Tcp(address))
}

/// The same: a socket that hears nobody but itself.
fn refusing_datagrams() -> (UdpSocket, RemoteAddress) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket.connect(address).unwrap();
    (socket, RemoteAddress::Udp(address))
}

#[test]
fn a_server_that_refuses_is_tried_less_and_less() {
    let ((_tcp, tcp), (_udp, udp)) = (refusing(), refusing_datagrams());
    for to in [tcp, udp] {
        let mut remote = Remote::new(to.clone());
        let tries = tries(&mut remote, 1);
        // The first ones are 0.1, 0.2, 0.4 s apart, those after some minutes 30 s, and
        // a connection is looked at some times before it is refused.
        assert!(tries < 1000, "{to:?}: {tries}");
        assert!(remote.backoff.failures > 5, "{to:?}: {:?}", remote.backoff);
    }
}

#[test]
fn at_the_end_a_server_is_asked_whether_it_is_back() {
    let (server, address) = refusing();
    let mut remote = Remote::new(address);
    tries(&mut remote, 1);
    let later = Instant::now() + Duration::from_secs(600);
    remote.backoff.failed(later);
    listen(&server, 1).unwrap();
    remote.retry(later);
    assert!(matches!(remote.link, Link::Down));
    remote.try_at_last();
    remote.retry(later);
    assert!(!matches!(remote.link, Link::Down));
}

#[test]
fn a_server_that_closes_at_once_is_tried_less_and_less() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut remote = Remote::new(RemoteAddress::Tcp(listener.local_addr().unwrap()));
    let begin = Instant::now();
    for second in 0..20 {
        let now = begin + Duration::from_secs(second) * 60;
        for step in 0..100 {
            remote.write(&lines(1), now + Duration::from_millis(step));
            if matches!(remote.link, Link::Up(_)) {
                drop(listener.accept().unwrap());
            }
        }
    }
    assert!(remote.backoff.failures > 5, "{:?}", remote.backoff);
}

#[test]
fn a_server_that_took_lines_for_a_while_is_tried_at_once_when_it_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut remote = Remote::new(RemoteAddress::Tcp(listener.local_addr().unwrap()));
    remote.backoff.failures = 9;
    let mut now = Instant::now();
    while !matches!(remote.link, Link::Up(_)) || !remote.backlog.is_empty() {
        remote.write(&lines(1), now);
        now += Duration::from_millis(1);
    }
    drop((listener.accept().unwrap(), listener));
    now += HELD;
    while matches!(remote.link, Link::Up(_)) {
        remote.write(&lines(1), now);
    }
    assert_eq!(remote.backoff.failures, 1);
}

#[test]
fn a_server_that_does_not_read_is_looked_at_now_and_then() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut remote = Remote::new(RemoteAddress::Tcp(listener.local_addr().unwrap()));
    let looks = tries(&mut remote, 100_000);
    assert!(matches!(remote.link, Link::Up(_)) && !remote.backlog.is_empty());
    assert!(looks < 10_000, "{looks}");
}

#[test]
fn fresh_lines_do_not_wait_for_a_server_that_has_room_again() {
    let path = std::env::temp_dir().join(format!("secure_socket-log-{}", std::process::id()));
    let server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    server.set_nonblocking(true).unwrap();
    let read = || std::iter::from_fn(|| server.recv(&mut [0; 200]).ok()).count();
    let mut remote = Remote::new(RemoteAddress::Unix(path.clone()));
    let now = Instant::now();
    remote.write(&lines(5000), now);
    std::fs::remove_file(path).unwrap();
    assert!(read() > 0 && remote.retry_at().is_some_and(|at| at > now));
    // As little time passes between batches as a server needs to read.
    for _ in 0..10 {
        remote.retry(now);
        assert_eq!(read(), 0);
        remote.write(&lines(1), now);
        assert!(read() > 0);
    }
}

/// How often it wants to be asked again within 10 minutes with these lines, which pass
/// as fast as it asks.
fn tries(remote: &mut Remote, count: usize) -> usize {
    let begin = Instant::now();
    let mut now = begin;
    for _ in 0..count.div_ceil(1000) {
        remote.write(&lines(count.min(1000)), now);
    }
    for asked in 0..100_000 {
        let Some(at) = remote.retry_at() else {
            return asked;
        };
        now = now.max(at);
        if now.duration_since(begin) > Duration::from_secs(600) {
            return asked;
        }
        remote.retry(now);
    }
    100_000
}

fn lines(count: usize) -> Lines {
    let mut lines = Lines::default();
    let mark = Mark {
        end: 0,
        severity: super::super::Severity::Info,
        micros: 1,
    };
    for _ in 0..count {
        lines.push(&[b'x'; 100], &mark);
    }
    lines
}

#[test]
fn only_an_absolute_path_is_a_server() {
    for (path, taken) in [
        ("/dev/log", true),
        ("", false),
        ("log", false),
        ("@log", false),
    ] {
        let found = RemoteSpec::Unix(PathBuf::from(path)).resolve();
        assert_eq!(found.is_ok(), taken, "{path:?}");
    }
    let long = format!("/{}", "x".repeat(108));
    assert!(RemoteSpec::Unix(PathBuf::from(long)).resolve().is_err());
}
