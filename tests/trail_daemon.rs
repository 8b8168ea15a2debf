//! The trail of a running daemon: every decision is in it, and who can't be
//! recorded is not served.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::{Daemon, TempDir, as_user, is_turned_away, round_trip};

fn verify(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_secure_socketctl"))
        .arg("verify-trail")
        .args(arguments)
        .output()
        .unwrap()
}

fn trail_in(dir: &TempDir) -> (PathBuf, String) {
    let path = dir.join("trail.jsonl");
    let option = format!("trail_file={}", path.display());
    (path, option)
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn each_decision_is_one_line() {
    needs!(root, "socat", "setpriv");
    let dir = TempDir::new();
    let (path, option) = trail_in(&dir);
    let config = dir.join("conf");
    fs::write(&config, "allow=uid:0\n").unwrap();
    let socket = dir.join("sock");
    let mut daemon = Daemon::start(&[
        &format!("config={}", config.display()),
        &format!("socket_path={}", socket.display()),
        "socket_permissions=0666",
        "denials_before_penalty=2",
        &option,
    ]);
    assert_eq!(round_trip(&daemon.connect(), b"hello"), b"hello");
    for _ in 0..3 {
        let mut guest = as_user("12345", "12345", "socat");
        guest.args(["-", &format!("UNIX-CONNECT:{}", socket.display())]);
        guest.stdin(Stdio::null()).output().unwrap();
    }
    fs::write(&config, "allow=uid:0\nverbosity=7\n").unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("reloaded");
    let log = daemon.log();
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));

    let lines = lines(&path);
    let events: Vec<_> = lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    // When a connection is closed is up to its thread.
    let others: Vec<_> = events
        .iter()
        .copied()
        .filter(|event| *event != "close")
        .collect();
    // The third guest was refused unread; the end of the server tells how many there were.
    assert_eq!(
        others,
        [
            "start", "admit", "deny", "deny", "penalty", "reload", "deny", "stop"
        ],
        "{log}"
    );
    let of = |name: &str| lines.iter().find(|line| line["event"] == name).unwrap();
    assert_eq!(of("admit")["uid"], 0);
    assert_eq!(of("admit")["rule_text"], "uid:0");
    assert_eq!(of("deny")["uid"], 12345);
    assert_eq!(of("deny")["reason"], "no_rule");
    assert_eq!(of("close")["received"], 5);
    assert_eq!(of("penalty")["who"], "uid=12345");
    assert_ne!(
        of("start")["config"],
        of("stop")["config"],
        "another configuration"
    );

    let good = verify(&[path.to_str().unwrap()]);
    assert_eq!(
        good.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&good.stderr)
    );
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"received\":5", "\"received\":6")).unwrap();
    let bad = verify(&[path.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(65));
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(said.contains("trail.jsonl:"), "{said}");
}

#[test]
fn who_cannot_be_recorded_is_not_served() {
    needs!(root);
    let dir = TempDir::new();
    let (path, option) = trail_in(&dir);
    // The file may not grow beyond 4 KiB; the log goes to a pipe, which has no such
    // limit. The shell becomes the daemon, so that nobody is left behind.
    let mut command = Command::new("bash");
    let script = "exec > >(cat); ulimit -f 4; exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_secure_socket")]);
    let mut daemon = Daemon::spawn_by(command, &[&option, "trail_sync=no"]);
    daemon.wait_until_ready();
    let mut served = 0;
    while round_trip_or_nothing(&daemon) {
        served += 1;
        assert!(served < 100, "served without a line");
    }
    daemon.wait_for_log("reason=not_recorded");
    assert!(is_turned_away(&daemon.connect()));
    let text = fs::read_to_string(&path).unwrap();
    let admitted = text.matches("\"event\":\"admit\"").count();
    assert!(
        admitted >= served && served > 2,
        "{served} served, {admitted} recorded"
    );
}

fn round_trip_or_nothing(daemon: &Daemon) -> bool {
    is_served(&daemon.connect())
}

fn is_served(mut stream: &UnixStream) -> bool {
    let mut answer = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut answer).is_ok()
}

#[test]
fn a_server_of_another_user_keeps_its_trail_and_rolls_it() {
    needs!(root);
    let dir = TempDir::new();
    let home = dir.join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(20_100), Some(20_100)).unwrap();
    let path = home.join("trail.jsonl");
    let daemon = Daemon::start(&[
        &format!("trail_file={}", path.display()),
        "trail_max_size=64K",
        "run_as_user=20100",
        "run_as_group=20100",
        "allow=uid:0",
    ]);
    for _ in 0..150 {
        assert_eq!(round_trip(&daemon.connect(), b"x"), b"x");
    }
    assert_eq!(daemon.stop().code(), Some(0));
    let all = fs::read_dir(&home)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let all: Vec<_> = all.map(|path| path.to_str().unwrap().to_owned()).collect();
    let parts: Vec<_> = all.iter().filter(|path| !path.ends_with(".lock")).collect();
    assert!(parts.len() >= 2, "{all:?}");
    let arguments: Vec<&str> = parts.iter().map(|path| path.as_str()).collect();
    let good = verify(&arguments);
    assert_eq!(
        good.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&good.stderr)
    );
}

/// The remedy for what a chain alone can't show: heads that left the machine.
#[test]
fn the_head_goes_to_another_machine_and_shows_a_cut_end() {
    needs!("python3");
    let dir = TempDir::new();
    let (path, option) = trail_in(&dir);
    let syslog = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    syslog.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let remote = format!("log_remote=udp:{}", syslog.local_addr().unwrap());
    let daemon = Daemon::start(&[&option, &remote, "log_target=stdout,remote"]);
    assert_eq!(round_trip(&daemon.connect(), b"hello"), b"hello");
    assert_eq!(daemon.stop().code(), Some(0));
    // At start, and at the end.
    let mut heads = Vec::new();
    let mut room = [0; 4096];
    while heads.len() < 2 {
        let length = syslog.recv(&mut room).unwrap();
        let line = String::from_utf8_lossy(&room[..length]).into_owned();
        if let Some((_, head)) = line.split_once("head ").filter(|_| line.contains("trail")) {
            heads.push(format!("head={}", head.split_whitespace().next().unwrap()));
        }
    }
    heads.push(path.to_str().unwrap().to_owned());
    let arguments: Vec<&str> = heads.iter().map(String::as_str).collect();
    let by_python = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("audit/verify_trail.py");
        let mut command = Command::new("python3");
        command.arg(script).args(&arguments).output().unwrap()
    };
    let (good, other) = (verify(&arguments), by_python());
    assert!(
        good.status.success() && other.status.success(),
        "{good:?} {other:?}"
    );
    let text = fs::read_to_string(&path).unwrap();
    let end = text.trim_end().rfind('\n').unwrap() + 1;
    fs::write(&path, &text[..end]).unwrap();
    let chain_alone = verify(&[path.to_str().unwrap()]);
    assert!(chain_alone.status.success(), "{chain_alone:?}");
    let (cut, other) = (verify(&arguments), by_python());
    assert_eq!(cut.status.code(), Some(65), "{cut:?}");
    assert!(!other.status.success(), "{other:?}");
}

/// Stands before the C library: so many calls of fdatasync(2) succeed, later ones take so
/// long, where that is given, or fail.
const FAILING_DISK: &str = r#"
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static int left, seconds;
__attribute__((constructor)) static void start(void) {
    left = atoi(getenv("SYNCS"));
    seconds = atoi(getenv("SECONDS"));
}
static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}
int fdatasync(int fd) {
    if (__atomic_fetch_sub(&left, 1, __ATOMIC_SEQ_CST) > 0) return syscall(SYS_fdatasync, fd);
    if (seconds > 0) {
        for (long end = now() + seconds; now() < end;) {}
        return syscall(SYS_fdatasync, fd);
    }
    errno = EIO;
    return -1;
}
"#;

fn daemon_on_failing_disk(dir: &TempDir, syncs: &str) -> Daemon {
    daemon_on_disk(dir, syncs, "0", "each")
}

fn daemon_on_disk(dir: &TempDir, syncs: &str, seconds: &str, policy: &str) -> Daemon {
    let (source, library) = (dir.join("disk.c"), dir.join("disk.so"));
    fs::write(&source, FAILING_DISK).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]);
    let built = compiler.arg(&library).arg(&source).status().unwrap();
    assert!(built.success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_secure_socket"));
    command.env("LD_PRELOAD", library);
    command.env("SYNCS", syncs).env("SECONDS", seconds);
    let (_, option) = trail_in(dir);
    Daemon::spawn_by(command, &[&option, &format!("trail_sync={policy}")])
}

#[test]
fn who_is_not_on_the_disk_is_not_served() {
    needs!("cc");
    let dir = TempDir::new();
    let mut daemon = daemon_on_failing_disk(&dir, "2");
    daemon.wait_until_ready();
    assert!(round_trip_or_nothing(&daemon), "while the disk is well");
    for _ in 0..2 {
        assert!(!round_trip_or_nothing(&daemon));
    }
    daemon.wait_for_log("may not be on the disk");
    daemon.wait_for_log("reason=not_recorded");
    assert_eq!(daemon.log().matches("peer admitted").count(), 1);
}

#[test]
fn a_start_that_is_not_on_the_disk_is_none() {
    needs!("cc");
    let dir = TempDir::new();
    let mut daemon = daemon_on_failing_disk(&dir, "0");
    assert_eq!(daemon.wait().code(), Some(73));
    let log = daemon.log();
    assert!(log.contains("can't be synced to the disk"), "{log}");
    assert!(!log.contains("ready: "), "{log}");
}

/// Asks for the end twice, the second time while the disk is at the last line.
fn stop_twice(daemon: &mut Daemon) -> Option<i32> {
    daemon.wait_until_ready();
    // So that the line of the start is on the disk, whatever the policy.
    std::thread::sleep(std::time::Duration::from_millis(500));
    daemon.signal("TERM");
    while daemon.socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    daemon.signal("TERM");
    let code = daemon.wait().code();
    let log = daemon.log();
    assert!(log.contains("not waiting any more"), "{log}");
    code
}

#[test]
fn a_second_signal_ends_what_waits_for_a_disk_that_hangs() {
    needs!("cc");
    for policy in ["each", "batch"] {
        let dir = TempDir::new();
        let mut daemon = daemon_on_disk(&dir, "1", "1000000", policy);
        assert_eq!(stop_twice(&mut daemon), Some(1), "{}", daemon.log());
        let log = daemon.log();
        assert!(log.contains("hangs and is left"), "{log}");
        assert!(log.contains("stopped, exit code 1"), "{log}");
    }
}

#[test]
fn a_second_signal_that_cuts_nothing_off_is_no_failure() {
    needs!("cc");
    let dir = TempDir::new();
    let mut daemon = daemon_on_disk(&dir, "1", "2", "each");
    assert_eq!(stop_twice(&mut daemon), Some(0), "{}", daemon.log());
    let lines = lines(&dir.join("trail.jsonl"));
    assert_eq!(lines.last().unwrap()["event"], "stop");
}

/// Somebody took the right to write a file away once it was rolled.
#[test]
fn a_server_goes_on_behind_a_rolled_file_that_it_may_only_read() {
    needs!(root, "setpriv");
    let dir = TempDir::new();
    support::set_mode(dir.path(), 0o755);
    let place = dir.join("trail");
    fs::create_dir(&place).unwrap();
    chown(&place, Some(12345), Some(12345)).unwrap();
    let (path, rolled) = (
        place.join("trail.jsonl"),
        place.join("trail.jsonl.20200101-000000.000000"),
    );
    let program = place.join("secure_socket");
    support::copy_program(env!("CARGO_BIN_EXE_secure_socket"), &program);
    let start = || {
        let command = as_user("12345", "12345", program.to_str().unwrap());
        let socket = format!("socket_path={}", place.join("run/s").display());
        let trail = format!("trail_file={}", path.display());
        let mut daemon = Daemon::spawn_by(command, &[&socket, &trail]);
        daemon.wait_until_ready();
        daemon
    };
    assert_eq!(start().stop().code(), Some(0));
    fs::rename(&path, &rolled).unwrap();
    support::set_mode(&rolled, 0o400);
    assert_eq!(start().stop().code(), Some(0));
    let good = verify(&[rolled.to_str().unwrap(), path.to_str().unwrap()]);
    assert!(good.status.success(), "{good:?}");
}

/// As a crash of the machine may leave it, right after a roll.
#[test]
fn a_server_goes_on_behind_a_rolled_file_that_is_torn() {
    let dir = TempDir::new();
    let (path, option) = trail_in(&dir);
    let daemon = Daemon::start(&[&option]);
    assert_eq!(round_trip(&daemon.connect(), b"hello"), b"hello");
    assert_eq!(daemon.stop().code(), Some(0));
    let rolled = dir.join("trail.jsonl.20200101-000000.000000");
    fs::rename(&path, &rolled).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&rolled).unwrap();
    file.set_len(file.metadata().unwrap().len() - 20).unwrap();
    fs::write(&path, "").unwrap();
    let mut daemon = Daemon::start(&[&option]);
    daemon.wait_for_log("was torn");
    assert_eq!(round_trip(&daemon.connect(), b"hello"), b"hello");
    assert_eq!(daemon.stop().code(), Some(0));
    let good = verify(&[rolled.to_str().unwrap(), path.to_str().unwrap()]);
    assert!(good.status.success(), "{good:?}");
}

#[test]
fn lines_of_a_reload_name_the_configuration_that_they_follow_from() {
    needs!(root);
    let dir = TempDir::new();
    let (path, option) = trail_in(&dir);
    let config = dir.join("conf");
    fs::write(&config, "allow=uid:0\n").unwrap();
    let mut daemon = Daemon::start(&[
        &format!("config={}", config.display()),
        "max_connections_per_uid=200",
        &option,
    ]);
    let clients: Vec<_> = (0..100).map(|_| daemon.connect()).collect();
    assert!(clients.iter().all(is_served));
    fs::write(&config, "allow=uid:12345\n").unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("reloaded: 100");
    assert_eq!(daemon.stop().code(), Some(0));
    let lines = lines(&path);
    let of = |event| -> Vec<_> { lines.iter().filter(|line| line["event"] == event).collect() };
    let after = &of("stop")[0]["config"];
    let closed = of("close");
    assert_eq!(closed.len(), 100);
    for line in closed {
        assert_eq!(&line["config"], after, "{line}");
    }
    assert_ne!(&of("start")[0]["config"], after);
}
