//! The message queue: the oldest line makes room, nobody else's is used, and
//! its lines come out as they went in.
#![cfg(feature = "logging")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod logging_support;

use logging_support::{Front, message, start};
use nix::mqueue::{MQ_OFlag, MqAttr, mq_open, mq_unlink};
use nix::sys::stat::Mode;
use secure_socket::logging::{Builder, LoggingError, SinkSpec, mqcat};
use std::time::Duration;

struct Name(String);

impl Name {
    fn new(what: &str) -> Self {
        Self(format!("/secure_socket-test-{what}-{}", std::process::id()))
    }

    fn sink(&self) -> SinkSpec {
        SinkSpec::Mq {
            name: self.0.clone(),
            owner: None,
        }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = mq_unlink(self.0.as_str());
    }
}

fn cat(name: &Name, lines: usize) -> Vec<String> {
    let mut out = Vec::new();
    let mut left = lines;
    let goes_on = || {
        left = left.wrapping_sub(1);
        left != usize::MAX
    };
    mqcat(&name.0, &mut out, goes_on).unwrap();
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_oldest_line_makes_room() {
    let name = Name::new("full");
    let logger = Builder::new().target(name.sink()).build().unwrap();
    let guard = start(&logger);
    let front = Front::of(&logger);
    for number in 0..25 {
        front.info(&format!("line {number}"));
    }
    front.info(&format!("long {}", "x".repeat(10_000)));
    front.info("a\nb\x1b[31m");
    assert!(logger.flush(Duration::from_secs(5)));
    let lines = cat(&name, 10);
    assert_eq!(message(&lines[0]), "line 17");
    assert_eq!(message(&lines[7]), "line 24");
    assert_eq!(lines[8].len(), 8192);
    assert!(lines[8].ends_with("x (cut)"));
    assert_eq!(message(&lines[9]), "a\\nb\\x1b[31m");
    assert_eq!(logger.stats().sinks[0].lost, 0);
    drop(guard);
}

#[test]
fn a_queue_that_others_may_use_is_refused() {
    for mode in [0o666, 0o640] {
        let name = Name::new(&format!("mode{mode:o}"));
        let flags = MQ_OFlag::O_RDWR | MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL;
        let attributes = MqAttr::new(0, 10, 8192, 0);
        let mode = Mode::from_bits_truncate(mode);
        let queue = mq_open(name.0.as_str(), flags, mode, Some(&attributes)).unwrap();
        // The umask may have taken bits away.
        nix::sys::stat::fchmod(&queue, mode).unwrap();
        let error = Builder::new().target(name.sink()).build().unwrap_err();
        assert!(error.to_string().contains("others may use it"), "{error}");
        nix::mqueue::mq_close(queue).unwrap();
    }
}

#[test]
fn names_that_are_none_are_refused_and_a_missing_queue_is_said() {
    for wrong in ["", "/", "queue", "/a/b", &format!("/{}", "x".repeat(255))] {
        let sink = SinkSpec::Mq {
            name: wrong.to_owned(),
            owner: None,
        };
        assert!(matches!(
            Builder::new().target(sink).build(),
            Err(LoggingError::Queue { .. })
        ));
    }
    let error = mqcat("/secure_socket-test-nowhere", &mut Vec::new(), || true).unwrap_err();
    assert!(error.to_string().ends_with("it does not exist"), "{error}");
}
