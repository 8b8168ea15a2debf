//! The attack on process numbers: a process connects and exits, and the trusted
//! program gets its number before the check.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod identity_support;

use std::path::Path;
use std::process::{Command, Stdio};

use identity_support::*;

#[test]
fn helper() {
    run_script();
}

/// Runs a script as the first process of a PID namespace.
fn in_pid_namespace(lab: &Lab, script: &str) -> String {
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--mount-proc", "--"])
        .arg(lab.path("attacker"));
    command.args(HELPER_ARGS);
    prepare(&mut command, script);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let verdict = said_verdict(&mut child);
    child.wait().unwrap();
    verdict
}

#[test]
fn a_recycled_number_is_never_mistaken_for_the_peer() {
    let Some(lab) = Lab::new("reuse") else { return };
    lab.program("attacker");
    copy(Path::new("/bin/sleep"), &lab.path("trusted"));
    let verdict = in_pid_namespace(&lab, &format!("reuse {}", lab.dir.display()));
    println!("{verdict}");
    assert!(verdict.ends_with("{\"peer_gone\": 1000}"), "{verdict}");
    let same = verdict
        .strip_prefix("same=")
        .and_then(|rest| rest.split_once(' '))
        .unwrap()
        .0;
    let same: u32 = same.parse().unwrap();
    assert!(
        same > 900,
        "the attack must succeed in recycling: {verdict}"
    );
}

#[test]
fn a_recycled_number_is_never_mistaken_for_the_process_of_a_rule() {
    let Some(lab) = Lab::new("reuse-pinned") else {
        return;
    };
    lab.program("attacker");
    copy(Path::new("/bin/sleep"), &lab.path("trusted"));
    let verdict = in_pid_namespace(&lab, &format!("reuse-pinned {}", lab.dir.display()));
    println!("{verdict}");
    assert!(verdict.ends_with("{\"no_rule\": 50}"), "{verdict}");
    assert!(!verdict.starts_with("same=0 "), "{verdict}");
}
