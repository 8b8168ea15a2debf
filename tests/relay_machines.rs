//! Two machines, each with its relay in front of one engine over TCP, Redis or
//! NATS: clients of both, locked to their local users, share keys and channels
//! through it.
//!
//! The machines are network namespaces, joined by a pair of virtual cables.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod relay_support;
mod support;

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
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
    fn new(name: &str) -> Option<Self> {
        let id = format!("{name}{}", std::process::id());
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

    /// A relay on each, to the engine on the first.
    fn relays(&self, port: u16) -> [Daemon; 2] {
        let user = format!("authorised_peer_username={CLIENT}");
        let upstream = format!("upstream=tcp:10.77.0.1:{port}");
        [(0, "threads=multi"), (1, "threads=2")].map(|(machine, threads)| {
            let command = self.on(machine, env!("CARGO_BIN_EXE_secure_socket"));
            let options = ["service=relay", &upstream, &user, threads];
            let mut relay = Daemon::spawn_by(command, &options);
            relay.wait_until_ready();
            relay
        })
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
fn clients_of_two_machines_share_one_redis() {
    needs!(root, "redis-server", "redis-cli", "ip");
    let Some(machines) = Machines::new("r") else {
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
    let relays = machines.relays(6379);
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

/// A client that speaks the protocol of NATS, which is text, as some user.
struct NatsClient {
    socat: Child,
    heard: std::path::PathBuf,
}

impl NatsClient {
    fn new(dir: &TempDir, user: &str, socket: &str) -> Self {
        let heard = dir.join(&format!("heard-{}", dir.path().read_dir().unwrap().count()));
        let mut socat = support::as_user(user, user, "socat");
        socat.arg("-").arg(format!("UNIX-CONNECT:{socket}"));
        socat
            .stdin(Stdio::piped())
            .stdout(fs::File::create(&heard).unwrap());
        socat.stderr(Stdio::null());
        Self {
            socat: socat.spawn().unwrap(),
            heard,
        }
    }

    fn say(&mut self, line: &str) {
        let mut stdin = self.socat.stdin.as_ref().unwrap();
        // One that was turned away hears nothing.
        let _ = stdin.write_all(format!("{line}\r\n").as_bytes());
    }

    fn publish(&mut self, subject: &str, reply: &str, body: &str) {
        self.say(&format!("PUB {subject} {reply} {}\r\n{body}", body.len()));
    }

    #[track_caller]
    fn hears(&self, what: &str) {
        let end = Instant::now() + PATIENCE;
        while !text(&self.heard).contains(what) {
            assert!(
                Instant::now() < end,
                "{what} never came: {}",
                text(&self.heard)
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for NatsClient {
    fn drop(&mut self) {
        let _ = self.socat.kill();
        let _ = self.socat.wait();
    }
}

#[test]
fn clients_of_two_machines_share_one_nats() {
    needs!(root, "nats-server", "socat", "ip");
    let Some(machines) = Machines::new("n") else {
        return support::skip("network namespaces");
    };
    let dir = TempDir::new();
    let mut command = machines.on(0, "nats-server");
    command.args([
        "-a",
        "10.77.0.1",
        "-p",
        "4222",
        "--jetstream",
        "--store_dir",
    ]);
    command.arg(dir.path());
    let log = dir.join("nats.log");
    command.arg("--log").arg(&log);
    let _nats = Upstream::start(&mut command, || text(&log).contains("Server is ready"));
    let relays = machines.relays(4222);
    let sockets = relays
        .each_ref()
        .map(|relay| relay.socket.to_str().unwrap());
    let [mut here, mut there] = sockets.map(|socket| NatsClient::new(&dir, CLIENT, socket));

    // Channels: what one machine publishes, the other hears, in order.
    there.say("SUB news 1\r\nPING");
    there.hears("PONG");
    for number in 0..100 {
        here.publish("news", "", &format!("message-{number}-"));
    }
    there.hears("message-99-");
    assert_eq!(text(&there.heard).matches("message-").count(), 100);

    // Keys: a bucket of JetStream.
    here.say("SUB created 2");
    let bucket = r#"{"name":"KV_shared","subjects":["$KV.shared.>"],"storage":"memory"}"#;
    here.publish("$JS.API.STREAM.CREATE.KV_shared", "created", bucket);
    here.hears("\"did_create\":true");
    here.publish("$KV.shared.colour", "created", "blue");
    here.hears("\"stream\":\"KV_shared\", \"seq\":1");
    there.say("SUB found 3");
    let wanted = r#"{"last_by_subj":"$KV.shared.colour"}"#;
    there.publish("$JS.API.STREAM.MSG.GET.KV_shared", "found", wanted);
    // "blue" in base 64.
    there.hears("\"data\":\"Ymx1ZQ==\"");

    // Each door is locked to its own users: a stranger is not even greeted.
    for socket in sockets {
        let mut stranger = NatsClient::new(&dir, "nobody", socket);
        stranger.say("PING");
        stranger.socat.wait().unwrap();
        assert_eq!(text(&stranger.heard), "");
    }
}
