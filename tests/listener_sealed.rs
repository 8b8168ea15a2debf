//! A listener in a sealed process: it still removes its socket and its lock,
//! and still speaks to the service manager.
//!
//! Without the standard test harness, since that starts threads, and a process
//! is sealed while it has one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod listener_support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use listener_support::*;
use secure_socket::ids::{Gid, Uid};
use secure_socket::listener::{Listener, Notify, Removal, watchdog_timeout};
use secure_socket::sandbox::{self, Access, PathGrant, Plan, Role, RunAs, SeccompAction};

/// Binds at `path` for the service's user, seals the process with or without
/// what the listener needs, and closes.
fn child(path: &Path, granted: bool) {
    let (uid, gid) = (
        Uid::from_raw(SERVICE).unwrap(),
        Gid::from_raw(SERVICE).unwrap(),
    );
    let listener = Listener::bind(&unix(path).run_as(uid, gid)).unwrap();
    let notify = Notify::from_env().unwrap().unwrap();
    let needed = listener.paths_needed().unwrap().path.to_owned();
    let grant = PathGrant {
        path: needed,
        access: Access::Remove,
        roles: vec![Role::Supervisor],
    };
    let plan = Plan {
        run_as: Some(RunAs {
            uid,
            gid,
            groups: Vec::new(),
        }),
        paths: if granted { vec![grant] } else { Vec::new() },
        seccomp: SeccompAction::Trap,
        ..Plan::default()
    };
    let proof = sandbox::enter(plan).unwrap();
    let listener = listener.seal(&proof);
    assert!(listener.walls().is_some());
    notify.ready("").unwrap();
    notify.reloading().unwrap();
    notify.stopping("").unwrap();
    match listener.close() {
        Removal::Removed if granted => {}
        Removal::Failed(error) if !granted => assert_eq!(error.raw_os_error(), Some(13)),
        other => panic!("{other}"),
    }
}

#[track_caller]
fn check(tail: &str, granted: bool, left: usize) {
    let temp = TempDir::new();
    let shared = temp.directory("shared", 0o1777, None);
    let path = shared.join(tail);
    let manager = UnixDatagram::bind(temp.join("notify")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .arg("child")
        .arg(granted.to_string())
        .arg(&path)
        .env_remove("RUST_BACKTRACE");
    let status = command
        .env("NOTIFY_SOCKET", temp.join("notify"))
        .status()
        .unwrap();
    assert!(status.success(), "{tail} {granted}: {status}");
    let mut buffer = [0; 64];
    for text in ["READY=1\n", "RELOADING=1\n", "STOPPING=1\n"] {
        let length = manager.recv(&mut buffer).unwrap();
        let said = buffer.get(..length).unwrap();
        assert!(
            said.starts_with(text.as_bytes()),
            "{}",
            String::from_utf8_lossy(said)
        );
    }
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), left);
    println!("test {tail}, granted: {granted} ... ok");
}

/// What the service manager says in the environment, and what it doesn't.
fn check_environment() {
    for (notify, watchdog, expected) in [
        (Some(""), Some("5000000"), Some(Duration::from_secs(5))),
        (Some(""), Some("0"), None),
        (None, None, None),
    ] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("environment").arg(format!("{expected:?}"));
        for (name, value) in [("NOTIFY_SOCKET", notify), ("WATCHDOG_USEC", watchdog)] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env_remove("WATCHDOG_PID");
        assert!(command.status().unwrap().success(), "{watchdog:?}");
    }
    println!("test environment ... ok");
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if let [_, word, expected] = &words[..]
        && word == "environment"
    {
        assert!(Notify::from_env().unwrap().is_none());
        assert_eq!(*expected, *format!("{:?}", watchdog_timeout()));
        return ExitCode::SUCCESS;
    }
    if let [_, word, granted, path] = &words[..]
        && word == "child"
    {
        child(Path::new(path), granted == "true");
        return ExitCode::SUCCESS;
    }
    check_environment();
    if needs_root() {
        check("a.sock", true, 0);
        check("own/a.sock", true, 0);
        check("own/a.sock", false, 2);
    }
    ExitCode::SUCCESS
}
