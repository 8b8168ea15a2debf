//! The daemon's log as its options ask for it: how much peers can make it say,
//! levels of modules, priorities for the journal, colours for a terminal.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Daemon, PATIENCE, TempDir, is_turned_away};

/// Denials that have a line of their own, and those that were summed up.
fn denials(log: &str) -> (u64, u64) {
    let own = log.lines().filter(|line| line.contains(" peer denied "));
    let summed = log.lines().filter_map(|line| {
        let (before, _) = line.split_once(" more lines like this suppressed")?;
        before.rsplit(' ').next()?.parse::<u64>().ok()
    });
    (own.count() as u64, summed.sum())
}

#[test]
fn what_peers_cause_is_limited_as_log_rate_says() {
    let dir = TempDir::new();
    let file = dir.join("conf");
    let with_rate = |rate: u32| {
        let text = format!("allow=uid:65533\ndenials_before_penalty=0\nlog_rate={rate}\n");
        fs::write(&file, text).unwrap();
    };
    with_rate(3);
    let mut daemon = Daemon::start(&[&format!("config={}", file.display())]);
    for _ in 0..30 {
        assert!(is_turned_away(&daemon.connect()));
    }
    daemon.wait_for_log("more lines like this suppressed");
    with_rate(0);
    daemon.signal("HUP");
    daemon.wait_for_log("reloaded:");
    let before = denials(&daemon.log());
    for _ in 0..30 {
        assert!(is_turned_away(&daemon.connect()));
    }
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    let (own, summed) = denials(&daemon.log());
    // At least one second had more than it may; how many seconds it took is
    // the machine's affair.
    assert!(before.0 < 30, "{before:?}");
    assert_eq!(own + summed, 60, "{}", daemon.log());
    assert!(own >= before.0 + 30, "{before:?}, then {own}");
}

#[test]
fn a_module_has_a_level_of_its_own() {
    let own = format!("allow=uid:{}", rustix::process::geteuid().as_raw());
    let module = "verbosity_for=secure_socket::server::journal:6";
    let mut daemon = Daemon::start(&[&own, "verbosity=5", module]);
    drop(daemon.connect());
    daemon.wait_for_log("connection closed");
    assert!(
        !daemon.log().contains(" INFO  sandbox:"),
        "{}",
        daemon.log()
    );
    assert!(daemon.log().contains(" INFO  [conn "));
    assert!(daemon.stop().success());
}

/// Runs the daemon with its stdout in a file, which is the journal's stream as
/// `told` says, until it serves. Gives what it wrote.
fn written_to_stream(told: impl Fn(&fs::Metadata) -> String) -> String {
    let dir = TempDir::new();
    let path = dir.join("stdout");
    let stdout = fs::File::create(&path).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_secure_socket"))
        .arg(format!("socket_path={}", dir.join("run/s").display()))
        .env("JOURNAL_STREAM", told(&stdout.metadata().unwrap()))
        .stdin(Stdio::null())
        .stdout(stdout)
        .spawn()
        .unwrap();
    let end = Instant::now() + PATIENCE;
    while !fs::read_to_string(&path).unwrap().contains("ready:") {
        assert!(
            Instant::now() < end,
            "{}",
            fs::read_to_string(&path).unwrap()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    fs::read_to_string(&path).unwrap()
}

#[test]
fn the_journal_gets_priorities_and_nobody_else() {
    let text = written_to_stream(|file| format!("{}:{}", file.dev(), file.ino()));
    for line in text.lines() {
        let (priority, rest) = line.split_at(3);
        let severity = rest.split(' ').nth(1).unwrap();
        let expected = match severity {
            "WARNING" => "<4>",
            "NOTICE" => "<5>",
            "INFO" => "<6>",
            other => panic!("{other} in {line}"),
        };
        assert_eq!(priority, expected, "{line}");
    }
    assert!(text.contains("<5>"), "{text}");
    let text = written_to_stream(|file| format!("{}:{}", file.dev(), file.ino() + 1));
    assert!(text.lines().all(|line| line.starts_with("20")), "{text}");
}

#[test]
fn a_terminal_gets_colours_unless_it_wants_none() {
    needs!("script", "timeout");
    for (variable, value, coloured) in [
        ("TERM", "xterm", true),
        ("TERM", "dumb", false),
        ("NO_COLOR", "1", false),
    ] {
        let dir = TempDir::new();
        let program = env!("CARGO_BIN_EXE_secure_socket");
        let socket = dir.join("run/s");
        // The other end of the terminal is `script`, which writes down what comes.
        let command = format!(
            "timeout --foreground -s TERM 2 {program} socket_path={}",
            socket.display()
        );
        let typescript = dir.join("typescript");
        let status = Command::new("script")
            .args(["-q", "-e", "-c", &command])
            .arg(&typescript)
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .env(variable, value)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        let _ = status.unwrap();
        let text = String::from_utf8(fs::read(typescript).unwrap()).unwrap();
        assert!(text.contains("ready:"), "{text}");
        assert_eq!(
            text.contains("\u{1b}[36mNOTICE\u{1b}[0m "),
            coloured,
            "{text}"
        );
    }
}
