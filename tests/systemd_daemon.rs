//! The daemon under a service manager: its units, activation, notifications,
//! watchdog. No manager runs here; its side is played by systemd's own tools and
//! by a socket that receives what the daemon tells it.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Daemon, PATIENCE, TempDir, round_trip};

/// Where the daemon's notifications arrive.
struct Manager(UnixDatagram);

impl Manager {
    fn new(dir: &TempDir) -> Self {
        let socket = UnixDatagram::bind(dir.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next one that is not just a sign of life, or another status.
    #[track_caller]
    fn next(&self) -> String {
        loop {
            let text = self.any();
            if text != "WATCHDOG=1" && !text.starts_with("STATUS=") {
                return text;
            }
        }
    }

    #[track_caller]
    fn any(&self) -> String {
        let mut room = [0; 4096];
        let length = self.0.recv(&mut room).unwrap();
        String::from_utf8_lossy(&room[..length])
            .trim_end()
            .to_owned()
    }
}

fn under(dir: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secure_socket"));
    command.env("NOTIFY_SOCKET", dir.join("notify"));
    command
}

#[test]
fn the_units_are_valid_and_expose_little() {
    needs!("systemd-analyze");
    let dir = TempDir::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    for unit in ["secure_socket.service", "secure_socket.socket"] {
        let text = fs::read_to_string(source.join(unit)).unwrap();
        let here = text.replace(
            "/usr/bin/secure_socket",
            env!("CARGO_BIN_EXE_secure_socket"),
        );
        fs::write(dir.join(unit), here).unwrap();
    }
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args([
            dir.join("secure_socket.service"),
            dir.join("secure_socket.socket"),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(
        verify.status.success() && !said.contains("secure_socket"),
        "{said}"
    );
    let security = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--threshold=10"])
        .arg(dir.join("secure_socket.service"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&security.stdout);
    // In tenths: what is left are the things that a server for local peers is for.
    assert!(security.status.success(), "{said}");
}

#[test]
fn the_configuration_of_the_units_is_good() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd/secure_socket.conf");
    let output = support::run(&["check", &format!("config={}", source.display())]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn each_step_of_its_life_is_told() {
    let dir = TempDir::new();
    let manager = Manager::new(&dir);
    let config = dir.join("conf");
    fs::write(&config, "verbosity=7\n").unwrap();
    let daemon = Daemon::spawn_by(under(&dir), &[&format!("config={}", config.display())]);
    let ready = manager.next();
    let status = format!(
        "STATUS=echo on {}: 0 of 200 connections open, 0 under a penalty",
        daemon.socket.display()
    );
    assert!(
        ready.contains("READY=1") && ready.contains(&status),
        "{ready}"
    );
    assert_eq!(round_trip(&daemon.connect(), b"hello"), b"hello");

    for content in ["verbosity=6\n", "verbosity=nonsense\n"] {
        fs::write(&config, content).unwrap();
        daemon.signal("HUP");
        let reloading = manager.next();
        assert!(reloading.contains("RELOADING=1"), "{reloading}");
        let stamp = reloading
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(stamp.unwrap().parse::<u64>().unwrap() > 0);
        assert!(
            manager.next().contains("READY=1"),
            "good or bad, it is done"
        );
    }

    daemon.signal("TERM");
    let stopping = manager.next();
    assert!(
        stopping.contains("STOPPING=1") && stopping.contains("STATUS=stopping: echo on"),
        "{stopping}"
    );
    let mut daemon = daemon;
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn the_watchdog_hears_of_it_twice_as_often_as_it_asks() {
    let dir = TempDir::new();
    let manager = Manager::new(&dir);
    let mut command = under(&dir);
    command.env("WATCHDOG_USEC", "400000");
    let daemon = Daemon::spawn_by(command, &[]);
    while !manager.any().contains("READY=1") {}
    let began = Instant::now();
    let mut last = began;
    let mut gaps = Vec::new();
    for _ in 0..5 {
        assert!(manager.any().contains("WATCHDOG=1"));
        gaps.push(last.elapsed());
        last = Instant::now();
    }
    let took = began.elapsed();
    // What has changed since is told along with it.
    let open = daemon.connect();
    while !manager.any().starts_with("STATUS=echo") {}
    // A busy machine makes gaps longer, and some of those that follow shorter.
    gaps.sort();
    assert!(
        gaps[2] < Duration::from_millis(400),
        "{gaps:?} for a watchdog of 400 ms"
    );
    assert!(
        took > Duration::from_millis(600),
        "{took:?} for five of 200 ms"
    );
    drop(open);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn nothing_is_told_where_nobody_listens() {
    let daemon = Daemon::start(&[]);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_socket_that_was_handed_over_is_served_and_left_in_place() {
    needs!("systemd-socket-activate");
    let dir = TempDir::new();
    let manager = Manager::new(&dir);
    let socket = dir.join("given.sock");
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(&socket);
    command.arg(format!(
        "--setenv=NOTIFY_SOCKET={}",
        dir.join("notify").display()
    ));
    command.arg(env!("CARGO_BIN_EXE_secure_socket"));
    let option = format!("socket_path={}", socket.display());
    let mut daemon = Daemon::spawn_by(command, &[&option, "socket_permissions=0755"]);
    let end = Instant::now() + PATIENCE;
    let stream = loop {
        match std::os::unix::net::UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < end, "{error}: {}", daemon.log()),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(round_trip(&stream, b"hello"), b"hello", "{}", daemon.log());
    assert!(manager.next().contains("READY=1"));
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(socket.exists(), "it is the manager's");
}

#[test]
fn several_sockets_are_refused_by_name() {
    needs!("systemd-socket-activate");
    let dir = TempDir::new();
    let mut command = Command::new("systemd-socket-activate");
    let first = dir.join("one.sock");
    command.arg("--listen").arg(&first);
    command.arg("--listen").arg(dir.join("two.sock"));
    command
        .arg("--fdname=one:two")
        .arg(env!("CARGO_BIN_EXE_secure_socket"));
    let option = format!("socket_path={}", first.display());
    let mut daemon = Daemon::spawn_by(command, &[&option]);
    let end = Instant::now() + PATIENCE;
    while std::os::unix::net::UnixStream::connect(&first).is_err() {
        assert!(Instant::now() < end, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = daemon.wait();
    let log = daemon.log();
    assert_ne!(status.code(), Some(0));
    assert!(log.contains("one") && log.contains("two"), "{log}");
}
