//! Upstreams for the tests of the relay: unmodified programs, each in a
//! directory of its own, killed at the end.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part of it"
)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Daemon, PATIENCE, TempDir, as_user, signal};

/// Who the clients are: a user of every Debian, and not the one of the daemon.
pub const CLIENT: &str = "www-data";

/// A program that runs until this is dropped.
pub struct Upstream(Child);

impl Upstream {
    /// Starts it, and waits until it is there.
    #[track_caller]
    pub fn start(command: &mut Command, is_ready: impl Fn() -> bool) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut upstream = Self(child);
        let end = Instant::now() + PATIENCE;
        while !is_ready() {
            let ended = upstream.0.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} ended: {ended:?}");
            assert!(Instant::now() < end, "{command:?} does not serve");
            thread::sleep(Duration::from_millis(10));
        }
        upstream
    }

    pub fn signal(&self, name: &str) {
        signal(&self.0, name);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // First a chance to end what it started itself.
        if matches!(self.0.try_wait(), Ok(None)) {
            signal(&self.0, "CONT");
            signal(&self.0, "TERM");
        }
        let end = Instant::now() + Duration::from_secs(3);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Redis on a socket in the directory, which everyone may reach.
pub fn redis(dir: &TempDir) -> Upstream {
    let socket = dir.join("redis.sock");
    let mut command = Command::new("redis-server");
    command
        .args(["--port", "0", "--save", "", "--appendonly", "no"])
        .args(["--unixsocketperm", "777", "--dir"])
        .arg(dir.path())
        .arg("--unixsocket")
        .arg(&socket);
    Upstream::start(&mut command, || UnixStream::connect(&socket).is_ok())
}

/// A relay to a socket for [`CLIENT`], behind all walls.
#[track_caller]
pub fn relay_to(socket: &Path, more: &[&str]) -> Daemon {
    let upstream = format!("upstream=unix:{}", socket.display());
    let user = format!("authorised_peer_username={CLIENT}");
    let mut options = vec!["service=relay", "sandbox=enforce", &upstream, &user];
    options.extend(more);
    Daemon::start(&options)
}

/// Runs a program as the client, which must end well; gives its output.
#[track_caller]
pub fn client(program: &str, arguments: &[&str]) -> String {
    let output = try_client(CLIENT, program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program as some user.
pub fn try_client(user: &str, program: &str, arguments: &[&str]) -> Output {
    as_user(user, user, program)
        .args(arguments)
        .env("HOME", "/tmp")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A port of the loopback that was free just now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// As many bytes as asked for, different in every block, in a file.
pub fn bytes_in_file(path: &Path, mebibytes: usize) {
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "openssl enc -aes-128-ctr -pass pass:x -nosalt -pbkdf2 </dev/zero 2>/dev/null \
             | head -c {mebibytes}M >{}",
            path.display()
        ))
        .status();
    assert!(status.unwrap().success());
}

pub fn checksum(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Gives a file to a user.
pub fn give(path: &Path, user: &str) {
    let status = Command::new("chown").arg(user).arg(path).status();
    assert!(status.unwrap().success());
}

/// The text of a file, as far as it is there.
pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The size for long tests: all of it only where asked for by `RELAY_LONG`.
pub fn amount(short: usize, long: usize) -> usize {
    if std::env::var_os("RELAY_LONG").is_some() {
        long
    } else {
        short
    }
}
