//! The daemon with peers that press: refusals by the hundred, peers that let the
//! server wait for their proof, and stops in the middle of it.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Daemon, is_turned_away};

const THREADS: [&str; 3] = ["threads=multi", "threads=single", "threads=2"];

/// A client that stays and never answers; killed at the end.
struct Silent(Child);

impl Silent {
    fn new(program: &str, daemon: &Daemon) -> Self {
        let target = format!("UNIX-CONNECT:{}", daemon.socket.display());
        let mut command = Command::new(program);
        command.args(["-u", &target, "STDOUT"]);
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon that asks this program for a proof, for as long as it takes.
fn asks_for_proof(threads: &str) -> (Daemon, String) {
    let program = std::fs::canonicalize("/usr/bin/socat").unwrap();
    let program = program.to_str().unwrap().to_owned();
    let daemon = Daemon::start(&[
        threads,
        &format!("allow=exe:{program}"),
        "process_proof=yes",
        "proof_timeout=60s",
        "stop_timeout=60s",
        "max_connections_per_uid=2",
    ]);
    (daemon, program)
}

#[test]
fn refusals_that_were_passed_over_are_told_while_the_server_runs() {
    for threads in THREADS {
        let mut daemon = Daemon::start(&[threads, "max_connections_per_uid=1"]);
        let mut held = daemon.connect();
        // Served, so that it has the place: those who come at once have no order.
        held.write_all(b"x").unwrap();
        held.read_exact(&mut [0; 1]).unwrap();
        for _ in 0..5 {
            assert!(is_turned_away(&daemon.connect()));
        }
        daemon.wait_for_log("4 more connections of uid=");
        drop(held);
        assert!(daemon.stop().success());
    }
}

#[test]
fn who_lets_the_server_wait_for_a_proof_has_a_place_and_no_more() {
    needs!(root, "socat");
    for threads in THREADS {
        let (mut daemon, program) = asks_for_proof(threads);
        let _held = [0; 3].map(|_| Silent::new(&program, &daemon));
        daemon.wait_for_log("reason=uid_connections");
    }
}

#[test]
fn a_forced_stop_does_not_wait_for_a_proof() {
    needs!(root, "socat");
    for threads in THREADS {
        let (mut daemon, program) = asks_for_proof(threads);
        let _held = [0; 3].map(|_| Silent::new(&program, &daemon));
        daemon.wait_for_log("reason=uid_connections");
        daemon.signal("TERM");
        daemon.wait_for_log("asked to stop by");
        let asked = Instant::now();
        daemon.signal("TERM");
        assert_eq!(daemon.wait().code(), Some(1));
        let lasted = asked.elapsed();
        assert!(lasted < Duration::from_millis(1_800), "{lasted:?}");
        assert!(!daemon.log().contains("did not end in time"));
    }
}

#[test]
fn what_follows_an_empty_message_comes_back_though_the_peer_has_ended() {
    use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketType};
    for threads in THREADS {
        let daemon = Daemon::start(&[threads, "protocol=SOCK_SEQPACKET"]);
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        daemon.signal("STOP");
        rustix::net::connect(&socket, &SocketAddrUnix::new(&daemon.socket).unwrap()).unwrap();
        for message in ["", "abc"] {
            rustix::net::send(&socket, message.as_bytes(), SendFlags::empty()).unwrap();
        }
        rustix::net::shutdown(&socket, Shutdown::Write).unwrap();
        daemon.signal("CONT");
        let mut stream = std::os::unix::net::UnixStream::from(socket);
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let mut answer = [0; 4];
        let lengths = [0; 3].map(|_| stream.read(&mut answer).unwrap());
        assert_eq!(lengths, [0, 3, 0]);
    }
}

/// How many workers the kernel's bound on mappings leaves room for.
fn workers_possible() -> usize {
    let bound = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    (bound.trim().parse::<usize>().unwrap() - 4096) / 7
}

#[test]
fn more_threads_than_there_are_mappings_for_refuse_the_start() {
    let possible = workers_possible();
    if possible >= 65_535 {
        return support::skip("a lower vm.max_map_count");
    }
    let too_many = format!("max_connections={}", possible + 1);
    let mut refused = Daemon::spawn(&[&too_many]);
    assert_eq!(refused.wait().code(), Some(78));
    let said = refused.log();
    for part in [
        too_many.as_str(),
        &format!("expected max_connections={possible} or less"),
        "threads=N",
        "vm.max_map_count",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let checked = Command::new(env!("CARGO_BIN_EXE_secure_socket"))
        .args(["check", &too_many])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        checked.status.success() && said.contains("here it would not start"),
        "{said}"
    );
    let as_many = format!("max_connections={possible}");
    for options in [
        [as_many.as_str(), "threads=multi"],
        [&too_many, "threads=2"],
    ] {
        assert!(Daemon::start(&options).stop().success());
    }
}

#[test]
fn more_threads_than_there_are_mappings_for_refuse_a_reload() {
    let possible = workers_possible();
    if possible >= 65_535 {
        return support::skip("a lower vm.max_map_count");
    }
    let dir = support::TempDir::new();
    let file = dir.join("secure_socket.conf");
    let config = format!("config={}", file.display());
    for (threads, expected) in [
        // What the file says of threads comes too late for the one that runs.
        ("threads=multi", "vm.max_map_count"),
        ("threads=2", "reloaded: "),
    ] {
        std::fs::write(&file, format!("{threads}\nmax_connections=10\n")).unwrap();
        let mut daemon = Daemon::start(&[&config]);
        let text = format!("threads=3\nmax_connections={}\n", possible + 1);
        std::fs::write(&file, text).unwrap();
        daemon.signal("HUP");
        daemon.wait_for_log(expected);
        assert_eq!(support::round_trip(&daemon.connect(), b"x"), b"x");
        assert!(daemon.stop().success());
    }
}

#[test]
fn who_is_not_served_for_want_of_a_descriptor_is_told_so() {
    needs!(root);
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let mut daemon = Daemon::start(&["service=broker", "threads=multi"]);
    let folder = format!("/proc/{}/fd", daemon.pid());
    let is_free = |number: &u64| !std::path::Path::new(&format!("{folder}/{number}")).exists();
    let lowest_free = (0..).find(is_free).unwrap();
    // The connection itself, and nothing to wake it with.
    let limit = Rlimit {
        current: Some(lowest_free + 1),
        maximum: Some(lowest_free + 1),
    };
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    prlimit(pid, Resource::Nofile, limit).unwrap();
    assert!(is_turned_away(&daemon.connect()));
    daemon.wait_for_log("no descriptor to wake its session with: Too many open files");
}
