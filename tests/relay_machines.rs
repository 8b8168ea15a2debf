//! Two machines, each with its relay in front of one Redis over TCP: clients of
//! both, locked to their local users, share keys and channels through it.
//!
//! The machines are network namespaces, joined by a pair of virtual cables.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod relay_support;
mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use relay_support::{CLIENT, Upstream, client, text, try_client};
use support::{Daemon, PATIENCE, TempDir};

/// Two namespaces with a cable between them, removed at the end.
struct Machines([String; 2]);

fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command
        .args(arguments.split_whitespace())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Machines {
    fn new() -> Option<Self> {
        let id = std::process::id();
        let names = [format!("ssa{id}"), format!("ssb{id}")];
        let [a, b] = &names;
        let made = ip(&format!("netns add {a}")) && ip(&format!("netns add {b}"));
        let machines = Self(names.clone());
        let joined =
            made && ip(&format!(
                "link add va{id} netns {a} type veth peer name vb{id} netns {b}"
            )) && ip(&format!("-n {a} addr add 10.77.0.1/24 dev va{id}"))
                && ip(&format!("-n {b} addr add 10.77.0.2/24 dev vb{id}"))
                && ip(&format!("-n {a} link set va{id} up"))
                && ip(&format!("-n {b} link set vb{id} up"))
                && ip(&format!("-n {a} link set lo up"));
        joined.then_some(machines)
    }

    fn on(&self, machine: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0[machine], program]);
        command
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.0 {
            ip(&format!("netns del {name}"));
        }
    }
}

#[test]
fn clients_of_two_machines_share_one_engine() {
    needs!(root, "redis-server", "redis-cli", "ip");
    let Some(machines) = Machines::new() else {
        return support::skip("network namespaces");
    };
    let dir = TempDir::new();
    let mut command = machines.on(0, "redis-server");
    command
        .args([
            "--bind",
            "10.77.0.1",
            "--port",
            "6379",
            "--protected-mode",
            "no",
        ])
        .args(["--save", "", "--dir"])
        .arg(dir.path());
    let log = dir.join("redis.log");
    command.arg("--logfile").arg(&log);
    let _redis = Upstream::start(&mut command, || {
        text(&log).contains("eady to accept connections")
    });
    let user = format!("authorised_peer_username={CLIENT}");
    let start = |machine: usize, threads: &str| {
        let command = machines.on(machine, env!("CARGO_BIN_EXE_secure_socket"));
        let options = [
            "service=relay",
            "upstream=tcp:10.77.0.1:6379",
            &user,
            threads,
        ];
        let mut relay = Daemon::spawn_by(command, &options);
        relay.wait_until_ready();
        relay
    };
    let relays = [start(0, "threads=multi"), start(1, "threads=2")];
    let sockets = relays
        .each_ref()
        .map(|relay| relay.socket.to_str().unwrap());

    client("redis-cli", &["-s", sockets[0], "set", "shared", "by-both"]);
    let seen = client("redis-cli", &["-s", sockets[1], "get", "shared"]);
    assert_eq!(seen.trim(), "by-both");

    let heard = dir.join("heard");
    let mut listening = support::as_user(CLIENT, CLIENT, "redis-cli")
        .args(["-s", sockets[1], "subscribe", "news"])
        .stdout(fs::File::create(&heard).unwrap())
        .spawn()
        .unwrap();
    let wait_for = |what: &str| {
        let end = Instant::now() + PATIENCE;
        while !text(&heard).contains(what) {
            assert!(
                Instant::now() < end,
                "{what} never came: {}\n{}",
                text(&heard),
                relays[1].log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for("subscribe");
    for number in 0..100 {
        let message = format!("message-{number}-");
        client(
            "redis-cli",
            &["-s", sockets[0], "publish", "news", &message],
        );
    }
    wait_for("message-99-");
    assert_eq!(text(&heard).matches("message-").count(), 100);
    listening.kill().unwrap();
    listening.wait().unwrap();

    // Each door is locked to its own users.
    for socket in sockets {
        let stranger = try_client("nobody", "redis-cli", &["-s", socket, "get", "shared"]);
        assert!(!String::from_utf8_lossy(&stranger.stdout).contains("by-both"));
    }
}
