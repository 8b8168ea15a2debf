//! `secure_socketctl connect`: all of stdin is sent, or the exit code says that it was not.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs::{self, File};
use std::process::{Command, Output};

use support::{Daemon, TempDir};

fn connect(daemon: &Daemon, options: &[&str], stdin: File) -> Output {
    Command::new(env!("CARGO_BIN_EXE_secure_socketctl"))
        .arg("connect")
        .arg(format!("socket_path={}", daemon.socket.display()))
        .args(options)
        .stdin(stdin)
        .output()
        .unwrap()
}

#[test]
fn a_file_larger_than_a_record_is_sent_whole() {
    let dir = TempDir::new();
    let bytes: Vec<u8> = (0_u32..75_000).flat_map(u32::to_be_bytes).collect();
    fs::write(dir.join("file"), &bytes).unwrap();
    for kind in ["protocol=SOCK_SEQPACKET", "protocol=SOCK_STREAM"] {
        let daemon = Daemon::start(&[kind]);
        let output = connect(&daemon, &[kind], File::open(dir.join("file")).unwrap());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{kind}: {said}");
        assert!(
            output.stdout == bytes,
            "{kind}: {} of {} bytes came back",
            output.stdout.len(),
            bytes.len()
        );
    }
}

#[test]
fn stdin_that_can_not_be_read_is_no_end_of_it() {
    let daemon = Daemon::start(&[]);
    let dir = TempDir::new();
    let output = connect(&daemon, &[], File::open(dir.path()).unwrap());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("stdin: Is a directory"), "{said}");
}
