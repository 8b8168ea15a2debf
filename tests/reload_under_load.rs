//! Reloads while it serves: whoever is still admitted notices nothing, whoever is
//! not is closed, and nothing is left behind.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use support::{Daemon, PATIENCE, TempDir, as_user};

/// The user whose right comes and goes.
const GUEST: &str = "12345";

/// How many reloads; the whole number with `SECURE_SOCKET_RELOADS=1000`.
fn reloads() -> usize {
    let given = std::env::var("SECURE_SOCKET_RELOADS").ok();
    given.map_or(100, |number| number.parse().unwrap())
}

/// A client of another user that keeps its connection.
struct Guest {
    child: Child,
}

impl Guest {
    fn connect(socket: &Path) -> Self {
        let mut command = as_user(GUEST, GUEST, "socat");
        command.args(["-", &format!("UNIX-CONNECT:{}", socket.display())]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Self {
            child: command.spawn().unwrap(),
        }
    }

    /// Whether it still gets its bytes back.
    fn is_served(&mut self) -> bool {
        let mut answer = [0; 4];
        let sent = self.child.stdin.as_mut().unwrap().write_all(b"ping");
        sent.is_ok()
            && self
                .child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut answer)
                .is_ok()
    }

    /// Waits until the server has closed it.
    #[track_caller]
    fn is_closed(&mut self) {
        let mut rest = Vec::new();
        self.child
            .stdout
            .as_mut()
            .unwrap()
            .read_to_end(&mut rest)
            .unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a reload as the service manager sees it.
fn reload(daemon: &Daemon, manager: &UnixDatagram) {
    daemon.signal("HUP");
    let mut room = [0; 1024];
    let mut next = || {
        let length = manager.recv(&mut room).unwrap();
        String::from_utf8_lossy(&room[..length]).into_owned()
    };
    assert!(next().contains("RELOADING=1"));
    assert!(next().contains("READY=1"));
}

fn reload_under_load(threads: &str) {
    needs!(root, "setpriv", "socat");
    let dir = TempDir::new();
    let (config, socket) = (dir.join("conf"), dir.join("sock"));
    let (open, shut) = (
        "allow=uid:0\nallow=uid:12345\nsocket_permissions=0666\n",
        "allow=uid:0\nsocket_permissions=0666\n",
    );
    let bad = [
        "allow=nonsense\n",
        "max_connections=2OO\n",
        "no_such_option=1\n",
    ];
    fs::write(&config, open).unwrap();
    let manager = UnixDatagram::bind(dir.join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_secure_socket"));
    command.env("NOTIFY_SOCKET", dir.join("notify"));
    let options = [
        format!("config={}", config.display()),
        format!("socket_path={}", socket.display()),
        "log_target=stdout:4".to_owned(),
        // The guest is denied so often that it would be punished.
        "penalty=0".to_owned(),
        threads.to_owned(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let daemon = Daemon::spawn_by(command, &options);
    let mut room = [0; 1024];
    manager.recv(&mut room).unwrap();

    let (over, trips) = (AtomicBool::new(false), AtomicU64::new(0));
    let count = reloads();
    let mut before = (0, 0);
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for _ in 0..3 {
            scope.spawn(|| {
                let mut kept = daemon.connect();
                while !over.load(Ordering::Relaxed) {
                    exchange(&mut kept);
                    exchange(&mut daemon.connect());
                    trips.fetch_add(2, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        for round in 0..count / 4 {
            let mut guest = Guest::connect(&socket);
            assert!(guest.is_served(), "round {round}");
            fs::write(&config, bad[round % bad.len()]).unwrap();
            reload(&daemon, &manager);
            assert!(
                guest.is_served(),
                "a bad file changes nothing, round {round}"
            );
            fs::write(&config, shut).unwrap();
            reload(&daemon, &manager);
            guest.is_closed();
            assert!(!Guest::connect(&socket).is_served(), "round {round}");
            fs::write(&config, bad[(round + 1) % bad.len()]).unwrap();
            reload(&daemon, &manager);
            fs::write(&config, open).unwrap();
            reload(&daemon, &manager);
            if round == 5 {
                before = (daemon.resources().1, resident(daemon.pid()));
            }
        }
    });
    let after = (daemon.resources().1, resident(daemon.pid()));
    println!(
        "{threads}: {count} reloads, {} round trips without a failure; descriptors {} then {}, \
         resident {} KiB then {} KiB",
        trips.load(Ordering::Relaxed),
        before.0,
        after.0,
        before.1,
        after.1
    );
    assert!(
        after.0 <= before.0 + 4,
        "descriptors {} then {}",
        before.0,
        after.0
    );
    assert!(
        after.1 <= before.1 + 4_096,
        "KiB {} then {}",
        before.1,
        after.1
    );
    assert_eq!(daemon.stop().code(), Some(0));
}

/// Ends the clients, also if the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[track_caller]
fn exchange(stream: &mut UnixStream) {
    let mut answer = [0; 64];
    stream.write_all(&[7; 64]).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [7; 64]);
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn reload_under_load_on_the_pool() {
    reload_under_load("threads=multi");
}

#[test]
fn reload_under_load_on_one_thread() {
    reload_under_load("threads=single");
}
