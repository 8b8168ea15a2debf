//! The completions do their work in bash, zsh and fish: each is loaded by the shell
//! itself, and TAB is typed behind the beginnings of words.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "daemon")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What is typed, and what it becomes.
const LINES: [(&str, &str); 13] = [
    ("secure_socket expl", "secure_socket explain"),
    ("secure_socket dom", "secure_socket domain="),
    ("secure_socket --dom", "secure_socket --domain="),
    ("secure_socket check sandb", "secure_socket check sandbox="),
    ("secure_socket domain=AF_UN", "secure_socket domain=AF_UNIX"),
    (
        "secure_socket --service=bro",
        "secure_socket --service=broker",
    ),
    (
        "secure_socket run_as_user=daem",
        "secure_socket run_as_user=daemon",
    ),
    (
        "secure_socket authorised_peer_username=root,daem",
        "secure_socket authorised_peer_username=root,daemon",
    ),
    (
        "secure_socket allow=uid:0,lab",
        "secure_socket allow=uid:0,label:",
    ),
    (
        "secure_socket config=/etc/os-rel",
        "secure_socket config=/etc/os-release",
    ),
    ("secure_socket help sandb", "secure_socket help sandbox"),
    ("secure_socketctl subs", "secure_socketctl subscribe"),
    (
        "secure_socketctl framing=len",
        "secure_socketctl framing=length",
    ),
];

fn folder() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("packaging/completions").display().to_string()
}

/// Types all lines into such a shell.
#[track_caller]
fn check(shell: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/completions_support/type.py");
    let mut child = Command::new("python3")
        .arg(script)
        .args([shell, &folder()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let typed: String = LINES
        .iter()
        .map(|(typed, _)| format!("{typed}\n"))
        .collect();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(typed.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    let found: Vec<_> = found.lines().collect();
    let expected: Vec<_> = LINES
        .iter()
        .map(|(_, becomes)| becomes.split_once(' ').unwrap().1)
        .collect();
    assert_eq!(
        found,
        expected,
        "{shell}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn bash_completes() {
    needs!("bash", "python3");
    check("bash");
}

#[test]
fn zsh_completes() {
    needs!("zsh", "python3");
    check("zsh");
}

/// fish answers without a terminal, and finds the files by the name of a program
/// that it finds.
#[test]
fn fish_completes() {
    needs!("fish");
    let programs = Path::new(env!("CARGO_BIN_EXE_secure_socket"))
        .parent()
        .unwrap();
    for (typed, becomes) in LINES {
        let script = format!(
            "set -p fish_complete_path {}; set -p PATH {}; complete -C {typed:?}",
            folder(),
            programs.display()
        );
        let output = Command::new("fish")
            .args(["--no-config", "-c", &script])
            .output()
            .unwrap();
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let offered: Vec<_> = text
            .lines()
            .filter_map(|line| line.split('\t').next())
            .collect();
        let expected = becomes.rsplit(' ').next().unwrap();
        assert_eq!(offered, [expected], "{typed}");
    }
}
