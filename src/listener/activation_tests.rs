//! What the service manager says, and what it hands over.

use super::*;
use crate::testing::{TempDir, set_mode};

#[track_caller]
fn check(
    pid: Option<&str>,
    count: Option<&str>,
    names: Option<&str>,
    expected: Result<&[&str], &str>,
) {
    let text = |text: Option<&str>| text.map(OsString::from);
    let found = parse(text(pid), text(count), text(names), Pid::from_raw(812));
    let found = found.map_err(|error| error.to_string());
    let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(found, expected.map_err(str::to_owned));
}

#[test]
fn a_path_may_be_as_open_as_was_asked_for() {
    let temp = TempDir::new();
    let path = temp.join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // What is there, what is asked for; whether it is taken, and said.
    for (found, wanted, expected) in [
        (0o600, 0o600, Some(false)),
        (0o400, 0o600, Some(false)),
        (0o644, 0o600, Some(false)),
        (0o660, 0o600, None),
        (0o602, 0o600, None),
        (0o660, 0o660, Some(false)),
        (0o604, 0o604, Some(false)),
        (0o606, 0o666, Some(true)),
        (0o666, 0o666, Some(true)),
    ] {
        set_mode(&path, found);
        let options = Options::at(&path).unwrap();
        let options = options.mode(SocketMode::from_bits(wanted).unwrap());
        let mut notices = Vec::new();
        let told = match check_path(&path, "name", &options, &mut notices) {
            Ok(()) => {
                let mode = SocketMode::from_bits(found).unwrap();
                let path = path.clone();
                let said = Notice::WorldAccessible { path, mode };
                assert!(notices.iter().all(|notice| *notice == said), "{notices:?}");
                Some(!notices.is_empty())
            }
            Err(BindError::HandedOver { problem, .. }) => {
                assert!(matches!(problem, Mismatch::TooOpen { .. }), "{problem}");
                None
            }
            Err(other) => panic!("{other}"),
        };
        assert_eq!(told, expected, "{found:o} for {wanted:o}");
    }
}

/// The group of the socket is the test's own, as nobody gave it another.
#[test]
fn only_the_group_that_was_asked_for_may_connect() {
    let temp = TempDir::new();
    let path = temp.join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let own = Gid::from_raw(rustix::process::getegid().as_raw());
    let other = Gid::from_raw(12_345);
    assert_ne!(own, other);
    // What is there, what is asked for and for which group; which group is expected.
    for (found, wanted, group, expected) in [
        (0o660, 0o660, None, None),
        (0o660, 0o660, own, None),
        (0o660, 0o660, other, other),
        (0o620, 0o660, other, other),
        // The group may not connect, or everyone may.
        (0o640, 0o660, other, None),
        (0o600, 0o660, other, None),
        (0o666, 0o666, other, None),
    ] {
        set_mode(&path, found);
        let options = Options::at(&path).unwrap().socket_group(group);
        let options = options.mode(SocketMode::from_bits(wanted).unwrap());
        let refused = match check_path(&path, "name", &options, &mut Vec::new()) {
            Ok(()) => None,
            Err(BindError::HandedOver {
                problem: Mismatch::Group { found, expected },
                ..
            }) => {
                assert_eq!(Some(found.group), own);
                Some(expected)
            }
            Err(other) => panic!("{other}"),
        };
        assert_eq!(refused, expected, "{found:o} for {wanted:o} of {group:?}");
    }
    // Without one it is that of the owner whom the socket was to have.
    set_mode(&path, 0o660);
    let options = Options::at(&path).unwrap();
    assert_eq!(expected_group(&options), own.unwrap());
    let options = options.run_as(crate::ids::Uid::ROOT, other.unwrap());
    assert_eq!(expected_group(&options), other.unwrap());
}

#[test]
fn what_is_not_for_us_is_ignored() {
    check(None, None, None, Ok(&[]));
    check(None, Some("1"), None, Ok(&[]));
    check(Some("812"), None, None, Ok(&[]));
    check(Some("811"), Some("1"), None, Ok(&[]));
    check(Some("811"), Some("many"), None, Ok(&[]));
    check(Some("812"), Some("0"), None, Ok(&[]));
    check(Some("812"), Some("0"), Some(""), Ok(&[]));
}

#[test]
fn what_is_for_us_is_counted_and_named() {
    check(Some("812"), Some("1"), None, Ok(&["unknown"]));
    check(
        Some("812"),
        Some("2"),
        Some("main:metrics"),
        Ok(&["main", "metrics"]),
    );
    check(Some("812"), Some("2"), Some(":"), Ok(&["", ""]));
    let names = vec!["unknown"; 64];
    check(Some("812"), Some("64"), None, Ok(&names));
}

#[test]
fn what_is_malformed_is_refused() {
    let count = "LISTEN_FDS: expected a number from 0 to 64, found ";
    for text in ["65", "65536", "4294967297", "-1", "+1", "", " 1", "1x"] {
        check(
            Some("812"),
            Some(text),
            None,
            Err(&format!("{count}\"{text}\"")),
        );
    }
    for text in ["", "0", "-812", "+812", "8 12", "99999999999"] {
        let expected = format!("LISTEN_PID: expected a process id, found \"{text}\"");
        check(Some(text), Some("1"), None, Err(&expected));
    }
    let names = "LISTEN_FDNAMES: expected 2 names joined by colons, found ";
    check(
        Some("812"),
        Some("2"),
        Some("a"),
        Err(&format!("{names}\"a\"")),
    );
    check(
        Some("812"),
        Some("2"),
        Some("a:b:c"),
        Err(&format!("{names}\"a:b:c\"")),
    );
    check(
        Some("812"),
        Some("2"),
        Some(""),
        Err(&format!("{names}\"\"")),
    );
}

fn handed(name: &str, socket: impl Into<OwnedFd>) -> HandedOver {
    let (name, socket) = (name.to_owned(), socket.into());
    HandedOver { name, socket }
}

fn null() -> std::fs::File {
    std::fs::File::open("/dev/null").unwrap()
}

#[test]
fn the_only_socket_is_taken_and_one_of_several_by_its_name() {
    assert!(only(Vec::new()).unwrap().is_none());
    let one = only(vec![handed("a", null())]).unwrap().unwrap();
    assert_eq!(one.name(), "a");
    let several = || ["a", "b", "c"].map(|name| handed(name, null())).into();
    match only(several()) {
        Err(BindError::SeveralHandedOver { names }) => assert_eq!(names, ["a", "b", "c"]),
        other => panic!("{other:?}"),
    }
    let mut left: Vec<HandedOver> = several();
    assert!(take_named(&mut left, "d").is_none());
    assert_eq!(take_named(&mut left, "b").unwrap().name(), "b");
    let names: Vec<&str> = left.iter().map(HandedOver::name).collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn what_differs_is_named_and_nothing_is_where_nothing_does() {
    use std::net::{TcpListener, UdpSocket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

    let told = |socket: OwnedFd, options: &Options| {
        let problem = compare(&socket, options)?;
        Some(problem.to_string())
    };
    let name = format!("compare-{}", std::process::id());
    let wanted = Options::at(format!("@{name}")).unwrap();
    let bound = |name: &str| {
        let address = SocketAddr::from_abstract_name(name).unwrap();
        OwnedFd::from(UnixListener::bind_addr(&address).unwrap())
    };
    assert_eq!(told(bound(&name), &wanted), None);
    let elsewhere = told(bound(&format!("{name}-2")), &wanted);
    let expected = format!("expected it to be bound to @{name}, found @{name}-2");
    assert_eq!(elsewhere, Some(expected));

    let temp = TempDir::new();
    let path = temp.join("socket");
    let at_path = OwnedFd::from(UnixListener::bind(&path).unwrap());
    let same = Options::at(&path).unwrap();
    assert_eq!(told(at_path.try_clone().unwrap(), &same), None);
    assert!(
        told(at_path, &wanted)
            .unwrap()
            .ends_with(path.to_str().unwrap())
    );

    let nameless = UnixStream::pair().unwrap().0;
    assert!(
        told(nameless.into(), &wanted)
            .unwrap()
            .contains("does not listen")
    );
    let datagrams = UnixDatagram::unbound().unwrap();
    assert_eq!(
        told(datagrams.into(), &wanted).unwrap(),
        "expected SOCK_STREAM, found SOCK_DGRAM"
    );
    let records = wanted.clone().kind(super::super::Kind::SeqPacket);
    assert_eq!(
        told(bound(&format!("{name}-3")), &records).unwrap(),
        "expected SOCK_SEQPACKET, found SOCK_STREAM"
    );
    assert_eq!(
        told(null().into(), &wanted).unwrap(),
        "expected AF_UNIX, found no socket"
    );

    for (local, other, family) in [
        ("127.0.0.1:0", "[::1]:7", "expected AF_INET6, found AF_INET"),
        (
            "127.0.0.1:0",
            "127.0.0.1:7",
            "expected it to be bound to 127.0.0.1:7, found 127.0.0.1:",
        ),
    ] {
        let listener = TcpListener::bind(local).unwrap();
        let here = Options::new(Address::Inet(listener.local_addr().unwrap()));
        let socket = OwnedFd::from(listener);
        assert_eq!(told(socket.try_clone().unwrap(), &here), None);
        assert_eq!(
            told(socket.try_clone().unwrap(), &wanted).unwrap(),
            "expected AF_UNIX, found AF_INET"
        );
        let there = Options::new(Address::Inet(other.parse().unwrap()));
        assert!(told(socket, &there).unwrap().starts_with(family), "{other}");
    }
    let packets = UdpSocket::bind("127.0.0.1:0").unwrap();
    let here = Options::new(Address::Inet(packets.local_addr().unwrap()));
    assert_eq!(
        told(packets.into(), &here).unwrap(),
        "expected SOCK_STREAM, found SOCK_DGRAM"
    );
    assert_eq!(family_name(AddressFamily::NETLINK), "address family 16");
    assert_eq!(family_name(AddressFamily::INET6), "AF_INET6");
    assert_eq!(kind_name(rustix::net::SocketType::RAW), "socket type 3");
}
