//! One word for tests that this machine can't run: visible, and never where `CI` is set.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part of it"
)]

use std::io::Write;

/// Says that a test is skipped, and fails instead where `CI` is set: what it needs
/// can be had on every machine of ours.
#[track_caller]
pub fn skip(what: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "needs {what}, and in CI nothing is skipped"
    );
    say(what);
}

/// The same for what depends on the kernel alone, which no package provides: visible,
/// and `audit/status` counts the test as not run.
pub fn skip_by_kernel(what: &str) {
    say(what);
}

/// Past the harness, which keeps what a test that passes prints.
fn say(what: &str) {
    let current = std::thread::current();
    let test = current.name().unwrap_or("?");
    let _ = std::io::stderr().write_all(format!("\nSKIP {test}: needs {what}\n").as_bytes());
}
