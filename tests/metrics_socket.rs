//! The metrics as a monitoring program reads them.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Daemon, PATIENCE, TempDir, as_user, is_turned_away, round_trip};

fn start(dir: &TempDir, more: &[&str]) -> (Daemon, PathBuf) {
    let socket = dir.join("metrics");
    let option = format!("metrics_socket={}", socket.display());
    let mut options = vec![option.as_str()];
    options.extend(more);
    (Daemon::start(&options), socket)
}

fn ask(socket: &Path, request: &str) -> String {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    String::from_utf8(round_trip(&stream, request.as_bytes())).unwrap()
}

/// The value of one sample.
#[track_caller]
fn value(text: &str, sample: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{sample} ")));
    line.unwrap_or_else(|| panic!("no {sample} in:\n{text}"))
        .parse()
        .unwrap()
}

#[test]
fn what_happened_is_counted() {
    let dir = TempDir::new();
    let (daemon, socket) = start(&dir, &["deny=uid:4294967294", "max_connections=7"]);
    assert_eq!(round_trip(&daemon.connect(), b"hello"), b"hello");
    let open = daemon.connect();
    (&open).write_all(b"1234").unwrap();
    (&open).read_exact(&mut [0; 4]).unwrap();
    let get = || ask(&socket, "GET /metrics HTTP/1.0\r\n\r\n");
    // A place is free a moment after its client has seen the end, and bytes are counted a
    // moment after they have come.
    let end = Instant::now() + PATIENCE;
    let is_told = |text: &str| {
        value(text, "secure_socket_connections_open") == 1.0
            && value(text, "secure_socket_sent_bytes_total") == 9.0
    };
    while !is_told(&get()) {
        assert!(Instant::now() < end);
    }
    let text = get();
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
    assert!(text.contains("Content-Type: application/openmetrics-text; version=1.0.0"));
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(
        value(&text, "secure_socket_connections_admitted_total"),
        2.0
    );
    assert_eq!(value(&text, "secure_socket_connections_open"), 1.0);
    assert_eq!(value(&text, "secure_socket_connections_max"), 7.0);
    assert_eq!(value(&text, "secure_socket_received_bytes_total"), 9.0);
    assert_eq!(value(&text, "secure_socket_sent_bytes_total"), 9.0);
    assert_eq!(value(&text, "secure_socket_connection_seconds_count"), 1.0);
    assert_eq!(
        value(
            &text,
            "secure_socket_connections_closed_total{reason=\"finished\"}"
        ),
        1.0
    );
    let build = format!(
        "secure_socket_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(value(&text, &build), 1.0);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert!(value(&text, "process_open_fds") > 5.0);
    let length = text
        .split("\r\n")
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let body = text.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(length.unwrap().parse::<usize>().unwrap(), body.len());
    drop(open);
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn whoever_says_nothing_gets_the_metrics_and_nonsense_a_refusal() {
    let dir = TempDir::new();
    let (_daemon, socket) = start(&dir, &[]);
    assert!(ask(&socket, "").contains("# EOF"));
    assert!(ask(&socket, "POST / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 405 "));
    assert!(ask(&socket, "GET /secret HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 404 "));
}

#[test]
fn only_those_whom_its_own_rules_admit_may_read() {
    needs!(root, "socat", "setpriv");
    let dir = TempDir::new();
    let (mut daemon, socket) = start(
        &dir,
        &["metrics_allow=uid:12345", "metrics_permissions=0666"],
    );
    let read_as = |user: &str| {
        let mut command = as_user(user, user, "socat");
        command.args(["-t5", "-", &format!("UNIX-CONNECT:{}", socket.display())]);
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(read_as("12345").ends_with("# EOF\n"));
    assert_eq!(read_as("12346"), "");
    assert_eq!(read_as("0"), "", "root is not exempt");
    daemon.wait_for_log("metrics: peer denied uid=12346");
}

#[test]
fn its_rules_may_name_an_executable() {
    needs!(root, "curl");
    let dir = TempDir::new();
    let (mut daemon, socket) = start(&dir, &["metrics_allow=exe:/usr/bin/curl"]);
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--unix-socket"])
        .arg(&socket)
        .arg("http://localhost/metrics")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("# EOF\n"), "{output:?}\n{}", daemon.log());
    assert_eq!(ask(&socket, ""), "", "the same user by another program");
    daemon.wait_for_log("metrics: peer denied uid=0");
    assert!(daemon.stop().success());
}

#[test]
fn those_who_dawdle_hold_nobody_up() {
    let dir = TempDir::new();
    let (mut daemon, socket) = start(&dir, &[]);
    let connect = || UnixStream::connect(&socket).unwrap();
    // More than are read for at once, so that the first are given up for the last.
    let mut slow: Vec<_> = (0..40).map(|_| connect()).collect();
    for stream in &mut slow {
        let _ = stream.write_all(b"GET");
    }
    let last = slow.last().unwrap();
    let began = Instant::now();
    assert!(ask(&socket, "GET / HTTP/1.0\r\n\r\n").contains("# EOF"));
    // Unless the machine took all of its time from it.
    last.set_nonblocking(true).unwrap();
    let read = { last }.read(&mut [0; 1]);
    if began.elapsed() < Duration::from_secs(1) {
        let error = read.unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::WouldBlock,
            "it is still there"
        );
    }
    let first = slow.first().unwrap();
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(is_turned_away(first));
    daemon.wait_for_log("metrics: too many readers: uid=");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn one_that_does_not_finish_its_request_is_given_up() {
    let dir = TempDir::new();
    let (mut daemon, socket) = start(&dir, &[]);
    let slow = UnixStream::connect(&socket).unwrap();
    (&slow).write_all(b"GE").unwrap();
    daemon.wait_for_log("took too long and got no answer");
    assert!(is_turned_away(&slow));
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn prometheus_own_check_passes() {
    needs!("promtool");
    let dir = TempDir::new();
    let (_daemon, socket) = start(&dir, &[]);
    let text = ask(
        &socket,
        "GET /metrics HTTP/1.0\r\nAccept: text/plain\r\n\r\n",
    );
    let body = text.split_once("\r\n\r\n").unwrap().1;
    let mut command = Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(body.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_broker_tells_what_it_holds() {
    let dir = TempDir::new();
    let (daemon, socket) = start(&dir, &["service=broker"]);
    let text = ask(&socket, "GET / HTTP/1.0\r\n\r\n");
    for name in [
        "members",
        "pending_bytes",
        "subscriptions",
        "registrations",
        "requests",
    ] {
        assert_eq!(value(&text, &format!("secure_socket_broker_{name}")), 0.0);
    }
    assert_eq!(value(&text, "secure_socket_broker_frames_total"), 0.0);
    assert_eq!(daemon.stop().code(), Some(0));
}
