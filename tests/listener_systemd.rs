//! Sockets that a service manager hands over: taken if they are what the
//! configuration says, refused with the difference otherwise, never unlinked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod listener_support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use listener_support::*;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use secure_socket::listener::{
    Address, Kind, Listener, Options, Removal, handed_over, only, take_named,
};

/// Becomes a program with standard input as descriptor 3, as a service manager
/// starts it, and runs the helper of that name.
fn activated(helper: &str, socket: OwnedFd, task: &Path, address: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = "exec 3<&0 4<&0 0</dev/null; export LISTEN_PID=$$; exec \"$@\"";
    let program = std::env::current_exe().unwrap();
    command.args(["-c", script, "sh"]).arg(program);
    command.args(["--exact", helper, "--nocapture", "--test-threads=1"]);
    command
        .env("LISTENER_TEST_TASK", task)
        .env("LISTENER_TEST_ADDRESS", address);
    command.env("LISTEN_FDS", "1").stdin(Stdio::from(socket));
    command
}

fn options() -> Options {
    let address = std::env::var("LISTENER_TEST_ADDRESS").unwrap();
    let (kind, address) = match address.strip_prefix("records:") {
        Some(address) => (Kind::SeqPacket, address),
        None => (Kind::Stream, &*address),
    };
    let address = match address.parse() {
        Ok(address) => Address::Inet(address),
        Err(_) => Address::Unix(address.parse().unwrap()),
    };
    Options::new(address).kind(kind)
}

/// Takes the socket, serves one byte, and stops. Writes what went wrong to the task's file.
#[test]
fn helper_take() {
    let Some(report) = task() else { return };
    let taken = handed_over()
        .and_then(only)
        .and_then(|socket| Listener::from_systemd(socket.expect("a socket"), &options()));
    let listener = match taken {
        Ok(listener) => listener,
        Err(error) => {
            fs::write(report, format!("{} {}", error.exit_code(), text(&error))).unwrap();
            return;
        }
    };
    assert!(handed_over().unwrap().is_empty(), "taken twice");
    assert!(listener.is_handed_over() && listener.paths_needed().is_none());
    let listener = listener.dangerously_unconfined();
    let mut stream = UnixStream::from(listener.accept().unwrap().socket);
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    stream.write_all(&byte).unwrap();
    assert!(!listener.shut_down().unwrap());
    assert!(matches!(listener.close(), Removal::NotNeeded));
    fs::write(report, "served").unwrap();
}

#[track_caller]
fn refused(socket: impl Into<OwnedFd>, address: &str, expected: &str) {
    let temp = TempDir::new();
    let report = temp.join("report");
    let mut command = activated("helper_take", socket.into(), &report, address);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let found = fs::read_to_string(&report).unwrap();
    assert_eq!(
        found,
        format!("78 socket unknown from the service manager: {expected}")
    );
}

#[test]
fn the_configured_socket_is_taken_and_left() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let report = temp.join("report");
    let socket = UnixListener::bind(&path).unwrap();
    set_mode(&path, 0o600);
    for _ in 0..2 {
        let socket = socket.try_clone().unwrap().into();
        let mut command = activated("helper_take", socket, &report, path.to_str().unwrap());
        let mut server = Reaped(command.stdout(Stdio::null()).spawn().unwrap());
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        assert!(server.0.wait().unwrap().success());
        assert_eq!(fs::read_to_string(&report).unwrap(), "served");
        assert!(path.exists() && !temp.join("a.sock.lock").exists());
    }
}

#[test]
fn another_socket_is_refused_with_the_difference() {
    let temp = TempDir::new();
    let path = temp.join("a.sock");
    let text = path.to_str().unwrap();
    let unix = |path: &Path| {
        let _ = fs::remove_file(path);
        let socket = UnixListener::bind(path).unwrap();
        set_mode(path, 0o600);
        socket
    };
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();

    refused(
        fs::File::open("/dev/null").unwrap(),
        text,
        "expected AF_UNIX, found no socket",
    );
    refused(tcp(), text, "expected AF_UNIX, found AF_INET");
    refused(
        unix(&path),
        "127.0.0.1:1",
        "expected AF_INET, found AF_UNIX",
    );
    refused(unix(&path), "[::1]:1", "expected AF_INET6, found AF_UNIX");
    refused(
        unix(&path),
        &format!("records:{text}"),
        "expected SOCK_SEQPACKET, found SOCK_STREAM",
    );
    let other = temp.join("b.sock");
    refused(
        UnixDatagram::bind(&other).unwrap(),
        text,
        "expected SOCK_STREAM, found SOCK_DGRAM",
    );
    refused(
        unix(&other),
        text,
        &format!(
            "expected it to be bound to {text}, found {}",
            other.display()
        ),
    );
    refused(
        unix(&path),
        "@name",
        &format!("expected it to be bound to @name, found {text}"),
    );
    let socket = tcp();
    let bound = socket.local_addr().unwrap();
    refused(
        socket,
        "127.0.0.1:1",
        &format!("expected it to be bound to 127.0.0.1:1, found {bound}"),
    );
    let (connected, _peer) = UnixStream::pair().unwrap();
    refused(
        connected,
        text,
        "expected a listening socket (Accept=no), found one that does not listen",
    );
    let socket = unix(&path);
    set_mode(&path, 0o666);
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    refused(
        socket,
        text,
        &format!(
            "expected no more rights than 0600, found mode 0666, owner uid {uid}, group gid \
             {gid}; set SocketMode=0600 in its unit"
        ),
    );
    let socket = unix(&path);
    fs::remove_file(&path).unwrap();
    refused(socket, text, "expected a socket at its path, found none");
    let unnamed = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&unnamed, &SocketAddrUnix::new_unnamed()).unwrap();
    rustix::net::listen(&unnamed, 1).unwrap();
    let command = activated("helper_take", unnamed, &temp.join("report"), text)
        .stdout(Stdio::null())
        .status();
    assert!(command.unwrap().success());
    let found = fs::read_to_string(temp.join("report")).unwrap();
    assert!(
        found.contains(&format!("expected it to be bound to {text}, found @")),
        "{found}"
    );
}

#[test]
fn a_socket_in_an_unsafe_directory_is_refused() {
    let temp = TempDir::new();
    let directory = temp.directory("open", 0o777, None);
    let path = directory.join("a.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let report = temp.join("report");
    let mut command = activated(
        "helper_take",
        socket.into(),
        &report,
        path.to_str().unwrap(),
    );
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let found = fs::read_to_string(&report).unwrap();
    assert!(
        found.contains("/open: expected a directory that only its owner can write"),
        "{found}"
    );
}

#[test]
fn helper_several() {
    let Some(report) = task() else { return };
    let mut sockets = match handed_over() {
        Ok(sockets) => sockets,
        Err(error) => return fs::write(report, error.to_string()).unwrap(),
    };
    let names: Vec<_> = sockets
        .iter()
        .map(|socket| socket.name().to_owned())
        .collect();
    let metrics = take_named(&mut sockets, "metrics").is_some();
    let rest = match only(sockets) {
        Ok(rest) => format!("{:?}", rest.map(|socket| socket.name().to_owned())),
        Err(error) => error.to_string(),
    };
    fs::write(report, format!("{names:?} {metrics} {rest}")).unwrap();
}

#[test]
fn several_sockets_are_told_apart_by_name() {
    #[track_caller]
    fn check(count: &str, names: &str, expected: &str) {
        let temp = TempDir::new();
        let report = temp.join("report");
        let socket = UnixListener::bind(temp.join("a.sock")).unwrap();
        let mut command = activated("helper_several", socket.into(), &report, "");
        command
            .env("LISTEN_FDS", count)
            .env("LISTEN_FDNAMES", names)
            .stdout(Stdio::null());
        assert!(command.status().unwrap().success());
        assert_eq!(fs::read_to_string(&report).unwrap(), expected);
    }
    check("0", "", "[] false None");
    check("1", "main", r#"["main"] false Some("main")"#);
    check(
        "2",
        "main:metrics",
        r#"["main", "metrics"] true Some("main")"#,
    );
    check(
        "2",
        "a:b",
        r#"["a", "b"] false expected one socket from the service manager, found 2: a, b"#,
    );
    check(
        "3",
        "a:b",
        "LISTEN_FDNAMES: expected 3 names joined by colons, found \"a:b\"",
    );
    check(
        "60",
        &"n:".repeat(59),
        "LISTEN_FDS: can't take over the sockets of the service manager",
    );
}

#[test]
fn systemd_s_own_activation_works() {
    let temp = TempDir::new();
    let (path, report) = (temp.join("a.sock"), temp.join("report"));
    let mut command = Command::new("systemd-socket-activate");
    command.arg("-l").arg(&path).arg("--fdname=main");
    command
        .arg("-E")
        .arg(format!("LISTENER_TEST_TASK={}", report.display()));
    command
        .arg("-E")
        .arg(format!("LISTENER_TEST_ADDRESS={}", path.display()));
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "helper_take", "--nocapture", "--test-threads=1"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        return skip("systemd-socket-activate");
    };
    let mut server = Reaped(child);
    let begin = Instant::now();
    // The path is there before the socket listens.
    let mut client = loop {
        if path.exists() {
            set_mode(&path, 0o600);
        }
        match UnixStream::connect(&path) {
            Ok(client) => break client,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(10), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    assert!(server.0.wait().unwrap().success());
    assert_eq!(fs::read_to_string(&report).unwrap(), "served");
    assert!(path.exists());
}
