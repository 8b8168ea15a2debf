//! Upstreams that have a name: looked up at the start, and again after a failure,
//! by files and by name servers, behind all walls.
//!
//! Each test has a network namespace of its own, and binds files of its own over
//! `/etc/hosts` and `/etc/resolv.conf`.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod relay_support;
mod support;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use relay_support::{Upstream, text};
use support::{Daemon, PATIENCE, TempDir};

/// A name server that gives the address in a file, over UDP, or, where the file
/// says so, only over TCP. No address: the name does not exist.
const NAME_SERVER: &str = r#"
import socket, sys, threading
def answer(question, over):
    words = open(sys.argv[1]).read().split()
    end = question.index(b"\0", 12) + 5
    flags, found = b"\x81\x80", b""
    if not words:
        flags = b"\x81\x83"
    elif over == "udp" and words[0] == "tcp":
        flags = b"\x83\x80"
    elif question[end - 4:end - 2] == b"\0\1":
        found = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(words[-1])
    count = b"\0\1" if found else b"\0\0"
    return question[:2] + flags + b"\0\1" + count + b"\0\0\0\0" + question[12:end] + found
def serve(stream):
    while length := stream.recv(2, socket.MSG_WAITALL):
        reply = answer(stream.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL), "tcp")
        stream.sendall(len(reply).to_bytes(2, "big") + reply)
def streams(listener):
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],)).start()
listener = socket.create_server(("127.0.0.1", 53))
threading.Thread(target=streams, args=(listener,)).start()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", 53))
open(sys.argv[2], "w").write("ready")
while True:
    question, sender = datagrams.recvfrom(512)
    datagrams.sendto(answer(question, "udp"), sender)
"#;

/// A network namespace with a loopback, and what names mean there.
struct Place {
    name: String,
    dir: TempDir,
    servers: Vec<Upstream>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.servers.clear();
        let mut command = Command::new("ip");
        let _ = command.args(["netns", "del", &self.name]).status();
    }
}

impl Place {
    fn new(name: &str) -> Option<Self> {
        let name = format!("ss{name}{}", std::process::id());
        let run = |arguments: &[&str]| {
            let mut command = Command::new("ip");
            let status = command.args(arguments).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let made = run(&["netns", "add", &name]);
        let place = Self {
            dir: TempDir::new(),
            servers: Vec::new(),
            name,
        };
        let up = made && run(&["-n", &place.name, "link", "set", "lo", "up"]);
        place.write("hosts", "127.0.0.1 localhost\n");
        place.write(
            "resolv.conf",
            "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        );
        up.then_some(place)
    }

    /// Rewrites a file where it is.
    fn write(&self, file: &str, contents: &str) {
        fs::write(self.dir.join(file), contents).unwrap();
        support::set_mode(&self.dir.join(file), 0o644);
    }

    fn on(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    fn serve_names(&mut self, address: &str) {
        self.write("address", address);
        let mut command = self.on("python3");
        command.args(["-c", NAME_SERVER]);
        command
            .arg(self.dir.join("address"))
            .arg(self.dir.join("ready"));
        let ready = self.dir.join("ready");
        let server = Upstream::start(&mut command, || text(&ready) == "ready");
        self.servers.push(server);
    }

    /// Something that says where it is to whoever connects.
    fn upstream(&self, address: &str) -> Killed {
        let mut command = self.on("socat");
        command.arg(format!("TCP-LISTEN:7000,bind={address},fork,reuseaddr"));
        command.arg(format!("SYSTEM:echo here is {address}"));
        Killed(command.stdin(Stdio::null()).spawn().unwrap())
    }

    #[track_caller]
    fn relay(&self, options: &[&str]) -> Daemon {
        let mut command = self.on("unshare");
        let script = "mount --bind \"$0/hosts\" /etc/hosts && \
                      mount --bind \"$0/resolv.conf\" /etc/resolv.conf && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script]);
        command.arg(self.dir.path()).arg(program());
        let all: [&[&str]; 3] = [
            &[
                "service=relay",
                "sandbox=enforce",
                "upstream=tcp:engine.test:7000",
            ],
            &["allow=uid:0"],
            options,
        ];
        let mut relay = Daemon::spawn_by(command, &all.concat());
        relay.wait_until_ready();
        relay
    }
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_secure_socket")).to_owned()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connects until the relay leads to that address.
#[track_caller]
fn leads_to(relay: &Daemon, address: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut answer = String::new();
        let _ = relay.connect().read_to_string(&mut answer);
        if answer == format!("here is {address}\n") {
            return;
        }
        assert!(
            Instant::now() < end,
            "{answer:?} is not of {address}:\n{}",
            relay.log()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

const RUN_AS: [&[&str]; 2] = [&["threads=multi"], &["threads=2", "run_as_user=www-data"]];

#[test]
fn an_engine_that_moved_is_found_by_hosts() {
    needs!(root, "ip", "unshare", "socat", "python3");
    let Some(mut place) = Place::new("h") else {
        return support::skip("network namespaces");
    };
    place.serve_names("");
    for options in RUN_AS {
        place.write("hosts", "127.0.0.2 engine.test\n");
        let before = place.upstream("127.0.0.2");
        let mut relay = place.relay(options);
        leads_to(&relay, "127.0.0.2");
        drop(before);
        // Neither a name that is gone for a while costs more than a line.
        place.write("hosts", "127.0.0.1 localhost\n");
        let closed = || {
            let mut answer = String::new();
            relay.connect().read_to_string(&mut answer).map(|_| answer)
        };
        assert!(closed().is_ok_and(|answer| answer.is_empty()));
        relay.wait_for_log("its addresses stay as they were");
        place.write("hosts", "127.0.0.3 engine.test\n");
        let _after = place.upstream("127.0.0.3");
        leads_to(&relay, "127.0.0.3");
        relay.wait_for_log("upstream tcp:engine.test:7000 now leads to 127.0.0.3:7000");
        assert!(relay.stop().success());
    }
}

#[test]
fn an_engine_that_moved_is_found_by_name_servers() {
    needs!(root, "ip", "unshare", "socat", "python3");
    let Some(mut place) = Place::new("d") else {
        return support::skip("network namespaces");
    };
    place.serve_names("127.0.0.2");
    for options in RUN_AS {
        place.write("address", "127.0.0.2");
        let before = place.upstream("127.0.0.2");
        let relay = place.relay(options);
        leads_to(&relay, "127.0.0.2");
        drop(before);
        place.write("address", "127.0.0.3");
        let before = place.upstream("127.0.0.3");
        leads_to(&relay, "127.0.0.3");
        drop(before);
        // An answer that does not fit a datagram comes over TCP.
        place.write("address", "tcp 127.0.0.4");
        let _after = place.upstream("127.0.0.4");
        leads_to(&relay, "127.0.0.4");
        assert!(relay.stop().success());
    }
}

#[test]
fn a_name_that_does_not_exist_refuses_the_start() {
    needs!(root, "ip", "unshare", "python3");
    let Some(mut place) = Place::new("n") else {
        return support::skip("network namespaces");
    };
    place.serve_names("");
    let mut command = place.on("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.arg("mount --bind \"$0/resolv.conf\" /etc/resolv.conf && exec \"$@\"");
    command.arg(place.dir.path()).arg(program());
    let mut relay = Daemon::spawn_by(command, &["service=relay", "upstream=tcp:engine.test:7000"]);
    assert_eq!(relay.wait().code(), Some(69), "{}", relay.log());
    assert!(
        relay
            .log()
            .contains("can't look up the host of tcp:engine.test:7000")
    );
}
