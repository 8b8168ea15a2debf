//! What the attacker on process numbers does, in a PID namespace of his own.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use super::{HELPER_ARGS, Judge, prepare, word};

/// Has a process connect and exit, and the trusted program start under its number,
/// 1,000 times; in a PID namespace of its own. Says how often the number was
/// the same, and which verdicts there were.
pub fn of_the_peer(dir: &Path) {
    let judge = Judge::new(&[&format!("exe:{}", dir.join("trusted").display())], &[]);
    let path = dir.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let (mut same, mut verdicts) = (0, std::collections::BTreeMap::<String, u32>::new());
    for round in 0..1_000 {
        let mut attacker = Command::new(dir.join("attacker"));
        attacker.args(HELPER_ARGS);
        prepare(&mut attacker, &format!("connect {}", path.display()));
        let mut attacker = attacker.spawn().unwrap();
        let (stream, _) = listener.accept().unwrap();
        // The server may have asked before the process exited, or ask after.
        let early = (round % 2 == 0).then(|| judge.peer(&stream));
        attacker.wait().unwrap();
        set_last_pid(attacker.id() - 1);
        let mut trusted = Command::new(dir.join("trusted"));
        let mut trusted = trusted.arg("60").spawn().unwrap();
        same += u32::from(trusted.id() == attacker.id());
        let peer = early.unwrap_or_else(|| judge.peer(&stream));
        *verdicts.entry(word(&judge.judge(&peer))).or_default() += 1;
        trusted.kill().unwrap();
        trusted.wait().unwrap();
    }
    println!("\nVERDICT same={same} {verdicts:?}");
}

/// A rule names a process by number; it exits, and another one gets the number.
pub fn of_the_rules_process(dir: &Path) {
    let path = dir.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let (mut same, mut verdicts) = (0, std::collections::BTreeMap::<String, u32>::new());
    for _ in 0..50 {
        let mut meant = Command::new(dir.join("trusted")).arg("60").spawn().unwrap();
        let judge = Judge::new(&[&format!("pid:{}", meant.id())], &[]);
        meant.kill().unwrap();
        meant.wait().unwrap();
        set_last_pid(meant.id() - 1);
        let mut other = Command::new(dir.join("attacker"));
        other.args(HELPER_ARGS);
        prepare(&mut other, &format!("connect {};forever", path.display()));
        let mut other = other.spawn().unwrap();
        let (stream, _) = listener.accept().unwrap();
        same += u32::from(other.id() == meant.id());
        *verdicts.entry(judge.verdict(&stream)).or_default() += 1;
        other.kill().unwrap();
        other.wait().unwrap();
    }
    println!("\nVERDICT same={same} {verdicts:?}");
}

fn set_last_pid(pid: u32) {
    std::fs::write("/proc/sys/kernel/ns_last_pid", pid.to_string()).unwrap();
}
