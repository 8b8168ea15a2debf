//! A program's own view of the logger: one line for one call, on every sink.
#![cfg(feature = "logging")]

use secure_socket::logging::{Builder, FileSpec, SinkSpec, Verbosity};
use secure_socket::{debug, fatal, info, warning};
use std::time::Duration;

/// One logger for one program: all that needs it installed is in one test.
#[test]
fn lines_reach_the_file_in_their_order() {
    let directory = std::env::temp_dir().join(format!("ss-log-basic-{}", std::process::id()));
    let path = directory.join("log");
    let guard = Builder::new()
        .verbosity("6".parse::<Verbosity>().unwrap())
        .verbosity_for("quiet", Verbosity::OFF)
        .target(SinkSpec::File(FileSpec::new(&path)))
        .start()
        .unwrap();
    info!(conn = 17; "hello {}", "world");
    debug!("not this");
    warning!("a\nb");
    log::info!("from the log crate");
    log::info!(target: "quiet::part", "not this either");
    assert!(guard.logger().flush(Duration::from_secs(5)));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains(" INFO  [conn 17] hello world (tests/logging_basic.rs:"));
    assert!(lines[0].ends_with(" lines_reach_the_file_in_their_order)"));
    assert!(lines[1].contains(" WARNING a\\nb ("));
    assert!(lines[2].contains(" INFO  from the log crate (tests/logging_basic.rs:"));
    fatal!("at once");
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 4);
    assert_eq!(guard.logger().stats().sinks[0].written, 4);
    info!("last");
    assert!(guard.shutdown());
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 5);
    std::fs::remove_dir_all(directory).unwrap();
}
