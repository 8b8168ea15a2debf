//! What a reload can't put in force: it is said at each reload for as long as it differs
//! from what runs, and log, trail and service manager tell of what runs.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use support::{Daemon, PATIENCE, TempDir, is_turned_away, round_trip};

/// A daemon with a configuration file that changes.
struct Reloaded {
    daemon: Daemon,
    file: PathBuf,
    reloads: usize,
    notify: UnixDatagram,
    dir: TempDir,
}

impl Reloaded {
    #[track_caller]
    fn start(text: &str) -> Self {
        let dir = TempDir::new();
        let (file, notify) = (dir.join("conf"), dir.join("notify"));
        fs::write(&file, text).unwrap();
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_secure_socket"));
        command.env("NOTIFY_SOCKET", &notify);
        let config = format!("config={}", file.display());
        let trail = format!("trail_file={}", dir.join("trail").display());
        let mut daemon = Daemon::spawn_by(command, &[&config, &trail]);
        daemon.wait_until_ready();
        Self {
            daemon,
            file,
            reloads: 0,
            notify: socket,
            dir,
        }
    }

    /// Puts another text in the file, and has it read again; gives what was logged.
    #[track_caller]
    fn reload(&mut self, text: &str) -> String {
        let before = self.daemon.log().len();
        fs::write(&self.file, text).unwrap();
        self.daemon.signal("HUP");
        self.reloads += 1;
        let end = Instant::now() + PATIENCE;
        loop {
            let log = self.daemon.log();
            let done = log.matches("reloaded: ").count()
                + log.matches("was not reloaded; everything stays").count();
            if done == self.reloads {
                return log[before..].to_owned();
            }
            assert!(Instant::now() < end, "no reload in:\n{log}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Configuration and detail of each line of the trail.
    fn trail(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.dir.join("trail")).unwrap();
        let lines = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            (text("config"), text("detail"))
        });
        lines.collect()
    }

    /// What the service manager was told of the state, up to the end of the reload that
    /// was the last.
    fn states(&self) -> Vec<String> {
        let (mut states, mut ready) = (Vec::new(), 0);
        while ready <= self.reloads {
            let mut buffer = [0; 4096];
            let length = self.notify.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            ready += text.lines().filter(|line| *line == "READY=1").count();
            states.extend(
                text.lines()
                    .filter_map(|line| line.strip_prefix("STATUS="))
                    .map(str::to_owned),
            );
        }
        states
    }
}

const SERVICE: &str = "reload: service stays as it was until a restart";

#[test]
fn what_takes_a_restart_counts_as_it_runs() {
    let mut server = Reloaded::start("service=broker\n");
    let told = [
        server.reload("service=echo\n"),
        server.reload("service=echo\n"),
        server.reload("service=broker\n"),
    ];
    let said = told.each_ref().map(|log| log.contains(SERVICE));
    assert_eq!(said, [true, true, false], "{}", told.concat());
    let trail = server.trail();
    assert_eq!(trail.len(), 4, "{trail:?}");
    for (config, _) in &trail {
        assert_eq!(*config, trail[0].0, "nothing of it came into force");
    }
    for (_, detail) in &trail[1..] {
        assert!(detail.ends_with(", nothing changed"), "{detail}");
    }
    let states = server.states();
    assert!(
        states.iter().all(|state| state.starts_with("broker on ")),
        "{states:?}"
    );
}

/// The rest is as if the options that stay had never been touched, also where its defaults
/// follow them.
#[test]
fn the_rest_comes_into_force_beside_what_takes_a_restart() {
    let mut server = Reloaded::start("service=broker\n");
    server.reload("service=echo\nbroker_subscriptions=7\nmax_connections=7\nbacklog=9\n");
    server.reload("service=broker\nbroker_subscriptions=7\nmax_connections=7\n");
    server.reload(
        "service=relay\nupstream=unix:/run/none\nbroker_subscriptions=7\nmax_connections=7\n",
    );
    server.reload("service=broker\nbroker_subscriptions=8\nmax_connections=7\n");
    let trail = server.trail();
    let configs: Vec<_> = trail.iter().map(|(config, _)| config.as_str()).collect();
    assert_ne!(configs[0], configs[1]);
    assert_eq!([configs[2], configs[3]], [configs[1]; 2]);
    assert_ne!(configs[3], configs[4]);
    // Rules that admit others change what socket_permissions is by default.
    let log = server.reload("service=broker\nallow=any\n");
    let told = "reload: socket_permissions stays as it was until a restart";
    assert!(log.contains(told), "{log}");
}

/// What the broker says in its greeting that it accepts.
fn accepted(daemon: &Daemon) -> u32 {
    let mut stream = daemon.connect();
    let own = [&b"SSB1"[..], &[0, 1, 0, 0], &[0, 1, 0, 0], &[0; 4]].concat();
    stream.write_all(&own).unwrap();
    let mut greeting = [0; 16];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting[..4], *b"SSB1");
    u32::from_be_bytes(greeting[8..12].try_into().unwrap())
}

#[test]
fn the_largest_frame_stays_as_the_log_says() {
    let mut server = Reloaded::start("service=broker\nmax_frame_size=64K\n");
    assert_eq!(accepted(&server.daemon), 64 << 10);
    let log = server.reload("service=broker\nmax_frame_size=128K\n");
    let told = "reload: max_frame_size stays as it was until a restart";
    assert!(log.contains(told), "{log}");
    assert_eq!(accepted(&server.daemon), 64 << 10);
}

/// The file is good by itself, but not with the frames that the running broker accepts.
#[test]
fn what_does_not_fit_what_takes_a_restart_is_refused() {
    let mut server = Reloaded::start("service=broker\nmax_frame_size=64K\n");
    let log = server.reload("service=broker\nmax_frame_size=32K\nbroker_pending=48K\n");
    for told in [
        "reload: max_frame_size stays as it was until a restart",
        "broker_pending: expected at least max_frame_size, which is 64K",
        "the configuration was not reloaded",
    ] {
        assert!(log.contains(told), "no {told:?} in:\n{log}");
    }
    assert_eq!(accepted(&server.daemon), 64 << 10);
}

#[test]
fn a_process_that_may_read_the_metrics_is_held_once_for_all() {
    let dir = TempDir::new();
    let metrics = format!("metrics_socket={}", dir.join("metrics").display());
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let text = format!("{metrics}\nmetrics_allow=pid:{}\n", child.id());
    let mut server = Reloaded::start(&text);
    child.kill().unwrap();
    child.wait().unwrap();
    let log = server.reload(&format!("{text}max_connections=7\n"));
    assert!(log.contains("reloaded: 0 connections"), "{log}");
    // Another one that is not there is refused still.
    let log = server.reload(&format!("{metrics}\nmetrics_allow=pid:4194304\n"));
    assert!(log.contains("pid:4194304 can not be held"), "{log}");
}

/// A limit that asks for what no rule asks for, at the start.
#[test]
fn a_limit_holds_for_a_process_that_no_rule_names() {
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let own = [
        format!("name:{}", name.trim_end()),
        format!("pid:{}", std::process::id()),
    ];
    for criterion in own {
        let limit = format!("limit=uid:self,{criterion}:connections=1");
        let daemon = Daemon::start(&[&limit]);
        let first = daemon.connect();
        (&first).write_all(b"x").unwrap();
        (&first).read_exact(&mut [0]).unwrap();
        let second = daemon.connect();
        let _ = (&second).write_all(b"x");
        assert!(is_turned_away(&second), "{criterion}");
        let other = Daemon::start(&[&limit.replace(&criterion, "name:nobody,pid:1")]);
        let first = other.connect();
        (&first).write_all(b"x").unwrap();
        (&first).read_exact(&mut [0]).unwrap();
        assert_eq!(round_trip(&other.connect(), b"y"), b"y");
    }
}
