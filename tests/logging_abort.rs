//! What is lost when the program aborts: a millisecond of lines at most, and
//! nothing that is fatal or an alert. And that an idle writer does not wake.
#![cfg(feature = "logging")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod logging_support;

use logging_support::{Front, TempDir, all_lines, start};
use secure_socket::logging::{Builder, FileSpec, SinkSpec};
use secure_socket::{alert, fatal, info};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The test that is started again as the program that aborts.
const AGAIN: &str = "fatal_and_alert_are_written_before_the_call_returns";

/// That program.
fn child(path: &str) -> ! {
    let _guard = Builder::new()
        .target(SinkSpec::File(FileSpec::new(path)))
        .start()
        .unwrap();
    match std::env::var("CHILD_ENDS").unwrap().as_str() {
        "fatal" => {
            info!("before");
            alert!("alert");
            info!("between");
            fatal!("fatal");
        }
        "quiet" => {
            info!("before");
            // The writer has a millisecond, and a loaded machine.
            std::thread::sleep(Duration::from_millis(20));
        }
        "fork" => {
            info!("before");
            let pid = std::process::id();
            let status = Command::new("true").status().unwrap();
            assert!(status.success());
            info!("after {}", std::process::id() == pid);
            std::thread::sleep(Duration::from_millis(20));
        }
        other => panic!("{other}"),
    }
    std::process::abort();
}

#[track_caller]
fn check(ends: &str, expected: &[&str]) {
    let directory = TempDir::new("abort");
    let path = directory.join("log");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", AGAIN, "--test-threads=1"])
        .env("CHILD_LOG", &path)
        .env("CHILD_ENDS", ends)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
    let lines = all_lines(&path);
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn fatal_and_alert_are_written_before_the_call_returns() {
    if let Ok(path) = std::env::var("CHILD_LOG") {
        child(&path);
    }
    check(
        "fatal",
        &[
            "INFO  before",
            "ALERT alert",
            "INFO  between",
            "FATAL fatal",
        ],
    );
}

#[test]
fn other_lines_are_written_within_a_moment() {
    check("quiet", &["INFO  before"]);
    check("fork", &["INFO  before", "INFO  after true"]);
}

#[test]
fn an_idle_logger_does_not_wake() {
    let directory = TempDir::new("idle");
    let spec = FileSpec::new(directory.join("log"));
    let logger = Builder::new().target(SinkSpec::File(spec)).build().unwrap();
    let guard = start(&logger);
    Front::of(&logger).info("x");
    let switches = || {
        let tasks = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|task| task.unwrap().path());
        let texts = tasks.filter(|task| {
            let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
            name == "log-writer\n" || name == "log-compress\n"
        });
        let texts = texts.map(|task| std::fs::read_to_string(task.join("status")).unwrap());
        let lines = texts.flat_map(|text| {
            let lines = text.lines().filter(|line| line.contains("ctxt_switches"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        });
        lines.collect::<Vec<String>>()
    };
    // On a busy machine it takes a while until both have gone to sleep.
    let sleeps = (0..15).any(|_| {
        let before = switches();
        std::thread::sleep(Duration::from_secs(1));
        before.len() == 4 && switches() == before
    });
    assert!(sleeps, "{:?}", switches());
    drop(guard);
}
