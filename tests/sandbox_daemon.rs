//! The daemon behind its walls, as the kernel shows it: every thread, in each
//! service, under each choice of threads and with each kind of log.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use secure_socket::client::{Client, Event, ServerIdentity, WhenSlow};
use secure_socket::frame::ErrorCode;
use support::{Daemon, TempDir, round_trip};

const WEB: u32 = 33;

/// One thread's status, as far as the walls show in it.
struct Status {
    name: String,
    text: String,
}

impl Status {
    fn field(&self, name: &str) -> &str {
        let line = self
            .text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.text))
            .trim()
    }

    #[track_caller]
    fn check(&self, uid: u32, kept: &[(&str, &str)]) {
        let name = &self.name;
        assert_eq!(self.field("Seccomp"), "2", "{name}");
        assert_eq!(self.field("NoNewPrivs"), "1", "{name}");
        let kept = kept
            .iter()
            .find(|(thread, _)| *thread == name)
            .map(|(_, set)| *set);
        let none = "0000000000000000";
        for set in ["CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(self.field(set), none, "{name} {set}");
        }
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(self.field(set), kept.unwrap_or(none), "{name} {set}");
        }
        let four = format!("{uid}\t{uid}\t{uid}\t{uid}");
        assert_eq!(self.field("Uid"), four, "{name}");
        assert_eq!(self.field("Gid"), four, "{name}");
        // The main thread has what all inherit; a role adds its own; one that
        // keeps a capability has one filter, which is whole.
        let filters: u32 = self.field("Seccomp_filters").parse().unwrap();
        let least = match name.as_str() {
            "secure_socket" => 2,
            "process-check" | "process-digest" | "resolver" => 1,
            "connector" => 2,
            _ => 3,
        };
        assert!(filters >= least, "{name}: {filters} filters");
    }
}

/// A queue that the daemon creates; removed when dropped.
struct Queue(String);

impl Drop for Queue {
    fn drop(&mut self) {
        let name = std::ffi::CString::new(self.0.as_str()).unwrap();
        // SAFETY: a string that ends in NUL.
        unsafe { libc::mq_unlink(name.as_ptr()) };
    }
}

fn statuses(pid: u32) -> Vec<Status> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter_map(|task| {
            let task = task.unwrap().path();
            let text = fs::read_to_string(task.join("status")).ok()?;
            let name = fs::read_to_string(task.join("comm"))
                .ok()?
                .trim_end()
                .to_owned();
            Some(Status { name, text })
        })
        .collect()
}

/// Runs a server as www-data with these options, uses it, disturbs it, stops it.
#[track_caller]
fn check(options: &[&str], kept: &[(&str, &str)], mut talk: impl FnMut(&Daemon)) {
    let own = [
        "run_as_user=www-data",
        "allow=uid:0",
        "seccomp=trap",
        "verbosity=7",
    ];
    let options: Vec<&str> = own.iter().chain(options).copied().collect();
    let daemon = Daemon::start(&options);
    let check_all = || {
        for status in statuses(daemon.pid()) {
            status.check(WEB, kept);
        }
    };
    check_all();
    talk(&daemon);
    assert!(
        !daemon.log().contains("seccomp: thread"),
        "{}",
        daemon.log()
    );
    for signal in ["HUP", "USR1", "STOP", "CONT"] {
        daemon.signal(signal);
        thread::sleep(Duration::from_millis(30));
        assert!(
            !daemon.log().contains("seccomp: thread"),
            "{signal}: {}",
            daemon.log()
        );
    }
    talk(&daemon);
    check_all();
    let mut daemon = daemon;
    daemon.signal("TERM");
    let status: ExitStatus = daemon.wait();
    let log = daemon.log();
    assert!(status.success(), "{options:?}: {status}\n{log}");
    assert!(!log.contains("seccomp: thread"), "{log}");
}

fn echo(daemon: &Daemon) {
    for size in [1, 64, 100_000] {
        let sent = vec![5; size];
        assert_eq!(
            round_trip(&daemon.connect(), &sent[..size.min(50_000)]).len(),
            size.min(50_000)
        );
    }
}

const THREADS: [&str; 3] = ["threads=multi", "threads=single", "threads=2"];

#[test]
fn echo_stands_behind_its_walls() {
    needs!(root, "setpriv");
    for threads in THREADS {
        check(&[threads], &[], echo);
    }
}

#[test]
fn many_loops_have_the_descriptors_that_they_need() {
    needs!(root, "setpriv");
    check(&["threads=100", "max_connections=1"], &[], echo);
}

#[test]
fn deadlines_in_months_need_no_other_call() {
    needs!(root, "setpriv");
    for threads in THREADS {
        let wait = |daemon: &Daemon| {
            let mut stream = daemon.connect();
            let mut byte = [0; 1];
            for _ in 0..2 {
                stream.write_all(b"x").unwrap();
                stream.read_exact(&mut byte).unwrap();
            }
            assert_eq!(byte, *b"x");
        };
        check(
            &[threads, "idle_timeout=1000h", "first_byte_timeout=1000h"],
            &[],
            wait,
        );
    }
}

#[test]
fn a_rule_of_processes_keeps_one_capability_in_its_threads() {
    needs!(root);
    let ptrace = "0000000000080000";
    for threads in THREADS {
        // Nobody is that program; the rule of uid admits.
        check(
            &[
                threads,
                "allow=uid:0,exe:/usr/bin/env",
                // Through a link, which a reload follows again.
                "allow=uid:0,exe:/bin/sh",
                "allow=uid:0,name:nobody",
            ],
            &[("process-check", ptrace), ("process-digest", ptrace)],
            echo,
        );
    }
}

fn tcp_upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || copy_back(stream.try_clone().unwrap(), stream));
        }
    });
    port
}

fn copy_back(mut from: impl Read, mut to: impl Write) {
    let _ = std::io::copy(&mut from, &mut to);
}

/// An upstream that returns what it gets.
fn upstream_at(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    support::set_mode(path, 0o666);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || copy_back(stream.try_clone().unwrap(), stream));
        }
    });
}

#[test]
fn relay_stands_behind_its_walls() {
    needs!(root);
    let directory = TempDir::new();
    let path = directory.join("upstream");
    upstream_at(&path);
    let local = format!("upstream=unix:{}", path.display());
    let remote = format!("upstream=tcp:127.0.0.1:{}", tcp_upstream());
    let named = format!("upstream=tcp:localhost:{}", tcp_upstream());
    for threads in THREADS {
        for upstream in [&local, &remote, &named] {
            check(&[threads, "service=relay", upstream], &[], echo);
        }
    }
}

#[test]
fn relay_as_the_peer_keeps_two_capabilities_in_its_connector() {
    needs!(root, "setpriv", "socat");
    let directory = TempDir::new();
    let path = directory.join("upstream");
    upstream_at(&path);
    let local = format!("upstream=unix:{}", path.display());
    for threads in THREADS {
        check(
            &[
                threads,
                "service=relay",
                &local,
                "upstream_identity=peer",
                "allow=user:daemon",
                "socket_group=daemon",
            ],
            &[("connector", "00000000000000c0")],
            |daemon| {
                let mut peer = support::as_user("daemon", "daemon", "sh");
                let line = format!(
                    "echo as daemon | socat -t5 - UNIX-CONNECT:{}",
                    daemon.socket.display()
                );
                let answer = peer.args(["-c", &line]).output().unwrap();
                assert_eq!(answer.stdout, b"as daemon\n", "{}", daemon.log());
            },
        );
    }
}

#[test]
fn relay_with_a_proxy_header_stands_behind_its_walls() {
    needs!(root);
    let remote = format!("upstream=tcp:127.0.0.1:{}", tcp_upstream());
    for threads in THREADS {
        check(
            &[threads, "service=relay", &remote, "proxy_protocol=v2"],
            &[],
            |daemon| {
                let answer = round_trip(&daemon.connect(), b"x");
                assert!(answer.starts_with(b"\r\n\r\n\0\r\nQUIT\n"), "{answer:?}");
            },
        );
    }
}

#[test]
fn broker_stands_behind_its_walls() {
    needs!(root);
    for threads in THREADS {
        check(
            &[threads, "service=broker", "request_timeout=1500ms"],
            &[],
            |daemon| {
                let mut stream = daemon.connect();
                // Greeting, then PING with the id 9.
                stream
                    .write_all(b"SSB1\0\x01\0\0\0\x10\0\0\0\0\0\0")
                    .unwrap();
                stream
                    .write_all(b"\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\x09")
                    .unwrap();
                let mut answer = [0; 32];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(&answer[..4], b"SSB1");
                assert_eq!(answer[20], 0x08);
                messages_of_every_kind(daemon);
            },
        );
    }
}

/// What is large, what waits in a queue and is drained, a request that ends by a reply
/// and one that ends by the clock: each makes system calls of its own.
fn messages_of_every_kind(daemon: &Daemon) {
    let patience = Duration::from_secs(20);
    let client =
        || Client::connect(&daemon.socket, &ServerIdentity::root_or_self(), patience).unwrap();
    let next = |client: &mut Client| client.next(Some(Instant::now() + patience)).unwrap();
    let (mut one, mut other, mut third) = (client(), client(), client());
    for client in [&mut other, &mut third] {
        client.subscribe("a.>", WhenSlow::DropOldest).unwrap();
    }
    // Another number for the same pattern, so that headers differ.
    third.subscribe("a.*", WhenSlow::DropOldest).unwrap();
    for size in [20_000, 900_000] {
        one.publish_confirmed("a.b", &vec![1; size]).unwrap();
    }
    for _ in 0..200 {
        one.publish_later("a.b", &[2; 4000]).unwrap();
    }
    one.sync().unwrap();
    for (client, count) in [(&mut other, 202), (&mut third, 404)] {
        for _ in 0..count {
            assert!(matches!(next(client), Some(Event::Message { .. })));
        }
    }
    let mut responder = client();
    responder.serve("now").unwrap();
    for _ in 0..20 {
        let id = one.ask("now", b"").unwrap();
        let Some(Event::Deliver { id: number, .. }) = next(&mut responder) else {
            panic!("no request");
        };
        responder.reply(number, b"yes").unwrap();
        let answer = next(&mut one);
        assert!(matches!(answer, Some(Event::Answer { id: of, .. }) if of == id));
    }
    // Longer than a receive blocks; then it is polled for.
    let id = one.ask("now", b"").unwrap();
    let end = next(&mut one);
    assert!(
        matches!(end, Some(Event::Error { id: of, code: ErrorCode::Timeout, .. }) if of == id),
        "{end:?}"
    );
}

#[test]
fn every_log_stands_behind_its_walls() {
    needs!(root);
    let directory = TempDir::new();
    let syslog = directory.join("syslog");
    let socket = UnixDatagram::bind(&syslog).unwrap();
    support::set_mode(&syslog, 0o666);
    thread::spawn(move || while socket.recv(&mut [0; 4096]).is_ok() {});
    let file = format!("log_file={}", directory.join("log/file").display());
    let trails = directory.join("trail");
    fs::create_dir(&trails).unwrap();
    std::os::unix::fs::chown(&trails, Some(WEB), Some(WEB)).unwrap();
    let trail = format!("trail_file={}", directory.join("trail/file").display());
    let owned = Queue(format!("/sandbox_daemon.{}", std::process::id()));
    let queue = format!("mq_name={}", owned.0);
    let local = format!("log_remote=unix:{}", syslog.display());
    let tcp = format!("log_remote=tcp:127.0.0.1:{}", tcp_upstream());
    let logs: [&[&str]; 6] = [
        &["log_format=json"],
        &[
            &file,
            "log_target=stdout,file:10",
            "log_max_size=64K",
            "log_sync=yes",
        ],
        &[&trail],
        &[&queue, "log_target=stdout,mq"],
        &[&local, "log_target=stdout,remote"],
        &[&tcp, "log_target=stdout,remote"],
    ];
    for log in logs {
        check(log, &[], |daemon| (0..30).for_each(|_| echo(daemon)));
    }
}

#[test]
fn metrics_stand_behind_their_walls() {
    needs!(root, "setpriv", "socat");
    let directory = TempDir::new();
    let path = directory.join("metrics/socket");
    let option = format!("metrics_socket={}", path.display());
    let request = format!(
        r"printf 'GET /metrics HTTP/1.0\r\n\r\n' | socat -t5 - UNIX-CONNECT:{}",
        path.display()
    );
    check(&[&option], &[], |daemon| {
        echo(daemon);
        // Only the server's own user may read them.
        let mut reader = support::as_user("www-data", "www-data", "sh");
        let answer = reader.args(["-c", &request]).output().unwrap();
        let text = String::from_utf8_lossy(&answer.stdout);
        assert!(text.starts_with("HTTP/1.0 200"), "{text}\n{}", daemon.log());
    });
}

/// Puts a link in the place of another at once.
fn switch(link: &Path, target: impl AsRef<Path>) {
    let aside = link.with_file_name("aside");
    std::os::unix::fs::symlink(target, &aside).unwrap();
    fs::rename(aside, link).unwrap();
}

/// As a volume of Kubernetes changes: its `..data` leads to another directory.
#[test]
fn a_configuration_behind_links_that_are_switched_is_read_again() {
    needs!(root);
    let directory = TempDir::new();
    let volume = directory.join("volume");
    for (version, backlog) in [("..2026_x", 10), ("..2026_y", 20), ("../out", 30)] {
        fs::create_dir_all(volume.join(version)).unwrap();
        let text = format!("allow=uid:0\nbacklog={backlog}\n");
        fs::write(volume.join(version).join("app.conf"), text).unwrap();
    }
    let (data, file) = (volume.join("..data"), volume.join("app.conf"));
    switch(&data, "..2026_x");
    switch(&file, "..data/app.conf");
    let config = format!("config={}", file.display());
    let mut daemon = Daemon::start(&[&config, "sandbox=enforce"]);
    switch(&data, "..2026_y");
    fs::remove_dir_all(volume.join("..2026_x")).unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("reloaded:");
    let told = "reload: backlog stays as it was until a restart";
    assert!(daemon.log().contains(told), "{}", daemon.log());
    // Out of the volume the walls hold it up, and that is said.
    switch(&data, "../out");
    daemon.signal("HUP");
    daemon.wait_for_log("the configuration was not reloaded");
    let told = "behind the walls the file must stay";
    assert!(daemon.log().contains(told), "{}", daemon.log());
    echo(&daemon);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_wall_that_is_missing_is_named() {
    let output = support::run(&["check", "sandbox=off"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("landlock: off"), "{text}");
    let output = support::run(&["check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("landlock: enforced"), "{text}");
}
