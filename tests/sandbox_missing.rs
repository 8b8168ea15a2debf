//! The daemon on a kernel that lacks a wall, or only says that it stands. A filter that
//! it inherits plays that kernel.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use support::{Daemon, is_turned_away};

const PROGRAM: &str = env!("CARGO_BIN_EXE_secure_socket");
/// SECCOMP_SET_MODE_FILTER (linux/seccomp.h).
const SET_MODE_FILTER: u64 = 1;

/// A call, maybe with this first argument, that is not made but answered.
#[derive(Clone, Copy)]
struct Answer {
    call: i64,
    first: Option<u64>,
    /// 0 says that it was done.
    errno: i32,
}

const fn answer(call: i64, errno: i32) -> Answer {
    let first = None;
    Answer { call, first, errno }
}

/// The daemon behind a filter that gives this answer.
fn behind(answer: Answer) -> Command {
    let is = |value| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    let rules = answer
        .first
        .map(|value| SeccompRule::new(vec![is(value).unwrap()]).unwrap());
    let filter = SeccompFilter::new(
        [(answer.call, rules.into_iter().collect())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(answer.errno.unsigned_abs()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    let mut command = Command::new(PROGRAM);
    let install = move || seccompiler::apply_filter(&program).map_err(io::Error::other);
    // SAFETY: two system calls on what was made before, which is safe after fork(2).
    unsafe { command.pre_exec(install) };
    command
}

/// Connects again and again until told to stop. Whoever gets through is turned away.
fn nobody_is_served(socket: &Path, ended: &AtomicBool) {
    while !ended.load(Ordering::SeqCst) {
        if let Ok(mut stream) = UnixStream::connect(socket) {
            stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
            let _ = stream.write_all(b"x");
            assert!(is_turned_away(&stream));
        }
    }
}

/// The start ends with this code and these words, and leaves no socket.
#[track_caller]
fn refused(answer: Answer, code: i32, words: &[&str]) {
    let mut daemon = Daemon::spawn_by(behind(answer), &["sandbox=enforce"]);
    let socket = daemon.socket.clone();
    let ended = AtomicBool::new(false);
    let status = thread::scope(|scope| {
        scope.spawn(|| nobody_is_served(&socket, &ended));
        let status = daemon.wait();
        ended.store(true, Ordering::SeqCst);
        status
    });
    let log = daemon.log();
    assert_eq!(status.code(), Some(code), "{log}");
    for word in words {
        assert!(log.contains(word), "no {word:?} in:\n{log}");
    }
    assert!(!log.contains("ready:"), "{log}");
    let left = fs::read_dir(socket.parent().unwrap()).map_or(0, Iterator::count);
    assert_eq!(left, 0, "left behind {}", socket.display());
}

const NO_LANDLOCK: &str = "the kernel lacks CONFIG_SECURITY_LANDLOCK (Linux 5.13)";
const NO_SECCOMP: &str = "the kernel lacks CONFIG_SECCOMP_FILTER, or the action (Linux 4.14)";

#[test]
fn a_start_without_a_wall_is_refused_by_name() {
    let landlock = libc::SYS_landlock_create_ruleset;
    refused(
        answer(landlock, libc::ENOSYS),
        77,
        &["landlock can't be enforced", NO_LANDLOCK],
    );
    let not_listed = "landlock is not in the kernel's lsm= list";
    refused(answer(landlock, libc::EOPNOTSUPP), 77, &[not_listed]);
    refused(
        answer(libc::SYS_seccomp, libc::ENOSYS),
        77,
        &["seccomp can't be enforced", NO_SECCOMP],
    );
}

/// Those that are known to the kernel, and then fail.
#[test]
fn a_wall_that_can_not_be_put_up_refuses_the_start() {
    let install = Answer {
        first: Some(SET_MODE_FILTER),
        ..answer(libc::SYS_seccomp, libc::EPERM)
    };
    refused(install, 77, &["can't install a seccomp filter"]);
    let enter = answer(libc::SYS_landlock_restrict_self, libc::EPERM);
    refused(enter, 77, &["can't enter a Landlock domain"]);
    refused(
        answer(libc::SYS_capset, libc::EPERM),
        77,
        &["can't set capabilities"],
    );
}

/// The kernel says yes to each step and does nothing.
#[test]
fn a_wall_that_only_seems_to_stand_refuses_the_start() {
    let enter = answer(libc::SYS_landlock_restrict_self, 0);
    refused(
        enter,
        77,
        &["landlock can't be enforced: the root directory can still be listed"],
    );
    let install = Answer {
        first: Some(SET_MODE_FILTER),
        ..answer(libc::SYS_seccomp, 0)
    };
    // The one that plays the kernel is not taken for one of ours.
    refused(install, 77, &["1 seccomp filters, expected 3 or more"]);
    needs!(root);
    refused(
        answer(libc::SYS_capset, 0),
        77,
        &["capabilities", "are left"],
    );
}

#[test]
fn check_and_a_start_at_best_effort_name_the_wall_that_is_missing() {
    let walls = [
        (libc::SYS_landlock_create_ruleset, "landlock", NO_LANDLOCK),
        (libc::SYS_seccomp, "seccomp", NO_SECCOMP),
    ];
    for (call, wall, why) in walls {
        let missing = answer(call, libc::ENOSYS);
        let output = behind(missing).arg("check").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains(&format!("# sandbox: {wall}: off ({why})")),
            "{text}"
        );
        let mut daemon = Daemon::spawn_by(behind(missing), &["sandbox=best_effort"]);
        daemon.wait_until_ready();
        let told = format!("{wall} off ({why})");
        assert!(daemon.log().contains(&told), "{}", daemon.log());
        assert_eq!(daemon.stop().code(), Some(0));
    }
}
