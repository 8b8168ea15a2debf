//! The daemon as its users meet it: the original's command line, clients in many
//! languages, crowds, limits of the system, and every way to stop.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{Daemon, PATIENCE, TempDir, as_user, is_turned_away, round_trip};

const THREADS: [&str; 3] = ["threads=multi", "threads=single", "threads=2"];

/// Runs a client to its end with this on stdin.
#[track_caller]
fn feed(mut command: Command, text: &[u8]) -> Output {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that is turned away may end before it has read.
    let _ = child.stdin.take().unwrap().write_all(text);
    child.wait_with_output().unwrap()
}

fn socat(socket: &Path) -> Vec<String> {
    vec![
        "-t5".into(),
        "-".into(),
        format!("UNIX-CONNECT:{}", socket.display()),
    ]
}

/// A message queue that is removed at the end; a user may have only a few.
struct Queue(String);

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = nix::mqueue::mq_unlink(self.0.as_str());
    }
}

#[test]
fn the_originals_command_line_works_as_it_stands() {
    needs!(root, "socat", "setpriv");
    let dir = TempDir::new();
    let socket = Path::new("/tmp/sock_secure_socket");
    let log = dir.join("home/log/secure_socket_logs");
    let queue = format!("/secure_socket_MQ_{}", std::process::id());
    let _unlinked = Queue(queue.clone());
    let daemon = Daemon::spawn(&[
        "socket_path=/tmp/sock_secure_socket",
        &format!("mq_name={queue}"),
        &format!("log_file={}", log.display()),
        "domain=AF_UNIX",
        "protocol=SOCK_STREAM",
        "max_connections=200",
        "socket_permissions=0770",
        "authorised_peer_username=www-data",
    ]);
    let end = Instant::now() + PATIENCE;
    while !fs::read_to_string(&log)
        .unwrap_or_default()
        .contains("ready:")
    {
        assert!(Instant::now() < end, "{}", daemon.log());
    }
    let file = fs::symlink_metadata(socket).unwrap();
    let www_data = Command::new("id")
        .args(["-g", "www-data"])
        .output()
        .unwrap()
        .stdout;
    let www_data: u32 = String::from_utf8(www_data).unwrap().trim().parse().unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(
        (file.uid(), file.gid(), file.mode() & 0o7777),
        (0, www_data, 0o770)
    );

    let mut client = as_user("www-data", "www-data", "socat");
    client.args(socat(socket));
    assert_eq!(
        feed(client, b"Hello secure_socket").stdout,
        b"Hello secure_socket"
    );
    let mut nobody = as_user("nobody", "nogroup", "socat");
    nobody.args(socat(socket));
    assert_eq!(feed(nobody, b"Hello").stdout, b"");
    let mut root = Command::new("socat");
    root.args(socat(socket));
    assert_eq!(feed(root, b"Hello").stdout, b"");
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(!socket.exists());

    let lines = fs::read_to_string(&log).unwrap();
    assert!(lines.contains("peer admitted uid=33 gid=33"), "{lines}");
    assert!(
        lines.contains("peer denied uid=0 gid=0") && lines.contains("reason=no_rule"),
        "{lines}"
    );
    let mut mqcat = Command::new(env!("CARGO_BIN_EXE_secure_socketctl"));
    mqcat
        .args(["mqcat", &format!("mq_name={queue}")])
        .stdout(Stdio::piped());
    let mut mqcat = mqcat.spawn().unwrap();
    let mut first = [0; 20];
    mqcat.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let _ = mqcat.kill();
    let _ = mqcat.wait();
    assert!(first.starts_with(b"20"), "a line begins with its time");
}

/// Clients that people really use, each with `@PATH@` for the path.
const CLIENTS: [(&str, &[&str]); 5] = [
    ("socat", &["-t5", "-", "UNIX-CONNECT:@PATH@"]),
    ("nc", &["-N", "-U", "@PATH@"]),
    (
        "python3",
        &[
            "-c",
            "import socket\n\
             s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\n\
             s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)\n\
             s.connect('@PATH@'); s.send(b'Hello secure_socket')\n\
             print(s.recv(1024).decode(), end='')",
        ],
    ),
    (
        "php",
        &[
            "-r",
            "$s = stream_socket_client('unix://@PATH@'); fwrite($s, 'Hello secure_socket');\
             stream_socket_shutdown($s, STREAM_SHUT_WR); echo stream_get_contents($s);",
        ],
    ),
    ("CTL", &["connect", "socket_path=@PATH@"]),
];

#[test]
fn clients_of_every_kind_get_their_bytes_back() {
    needs!("socat", "nc", "python3", "php");
    for threads in THREADS {
        let daemon = Daemon::start(&[threads]);
        for (program, args) in CLIENTS {
            let ctl = env!("CARGO_BIN_EXE_secure_socketctl");
            let mut client = Command::new(if program == "CTL" { ctl } else { program });
            let socket = daemon.socket.display().to_string();
            client.args(args.iter().map(|arg| arg.replace("@PATH@", &socket)));
            let answer = feed(client, b"Hello secure_socket");
            let text = String::from_utf8_lossy(&answer.stderr).into_owned();
            assert_eq!(
                answer.stdout, b"Hello secure_socket",
                "{program} {threads}: {text}"
            );
        }
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

const C_CLIENT: &str = r#"
#include <string.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    char answer[64];
    if (argc != 2) return 2;
    strncpy(to.sun_path, argv[1], sizeof to.sun_path - 1);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&to, sizeof to)) return 3;
    if (write(s, "Hello secure_socket", 19) != 19) return 4;
    ssize_t n = read(s, answer, sizeof answer);
    if (n < 0) return 5;
    return fwrite(answer, 1, (size_t)n, stdout) == (size_t)n ? 0 : 6;
}
"#;

#[test]
fn a_client_in_c_gets_its_bytes_back() {
    needs!("cc");
    let dir = TempDir::new();
    let (source, program) = (dir.join("client.c"), dir.join("client"));
    fs::write(&source, C_CLIENT).unwrap();
    let built = Command::new("cc")
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .status();
    assert!(built.unwrap().success());
    let daemon = Daemon::start(&[]);
    let answer = Command::new(&program).arg(&daemon.socket).output().unwrap();
    assert_eq!(answer.stdout, b"Hello secure_socket", "{}", answer.status);
}

#[test]
fn records_keep_their_bounds() {
    needs!("python3");
    let client = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
        s.connect(sys.argv[1])\n\
        for m in (b'one', b'', b'three' * 20000):\n\
        \x20   s.send(m); assert s.recv(200000) == m, m[:9]\n\
        s.send(b''); s.send(b'last'); s.shutdown(socket.SHUT_WR)\n\
        assert (s.recv(9), s.recv(9)) == (b'', b'last')\n\
        print('same')";
    for threads in THREADS {
        let daemon = Daemon::start(&[threads, "protocol=SOCK_SEQPACKET"]);
        let run = Command::new("python3")
            .args(["-c", client])
            .arg(&daemon.socket)
            .output();
        let run = run.unwrap();
        let (out, errors) = (
            run.stdout,
            String::from_utf8_lossy(&run.stderr).into_owned(),
        );
        assert_eq!(out, b"same\n", "{threads}: {errors}\n{}", daemon.log());
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

/// It has no permissions: anybody reaches it, and who is served is for the rules.
#[test]
fn an_abstract_name_serves_whom_the_rules_name() {
    needs!(root, "setpriv", "socat");
    for (rule, served) in [(None, false), (Some("allow=user:daemon"), true)] {
        let name = format!("sst-{}-{served}", std::process::id());
        let path = format!("socket_path=@{name}");
        let options: Vec<&str> = [path.as_str()].into_iter().chain(rule).collect();
        let mut daemon = Daemon::start(&options);
        let place = format!("ABSTRACT-CONNECT:{name}");
        for (user, is_served) in [("daemon", served), ("root", !served)] {
            let mut command = as_user(user, user, "socat");
            command.args(["-t5", "-", &place]);
            let answer = feed(command, b"hello").stdout;
            let expected: &[u8] = if is_served { b"hello" } else { b"" };
            assert_eq!(answer, expected, "{user}, {rule:?}: {}", daemon.log());
        }
        daemon.wait_for_log("denied");
        let denied = format!("uid={}", u32::from(!served));
        let log = daemon.log();
        let mut lines = log.lines();
        assert!(
            lines.any(|line| line.contains("denied") && line.contains(&denied)),
            "{log}"
        );
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

/// More than the client's socket holds of them: it reads only once all are sent.
#[test]
fn no_empty_record_is_lost_where_nobody_reads_yet() {
    needs!("python3");
    let client = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
        s.connect(sys.argv[1])\n\
        for _ in range(400): s.send(b'')\n\
        s.send(b'end')\n\
        got = [s.recv(9)]\n\
        while got[-1] == b'' and len(got) < 999: got.append(s.recv(9))\n\
        print(len(got), got[-1])";
    for threads in THREADS {
        let daemon = Daemon::start(&[threads, "protocol=SOCK_SEQPACKET"]);
        let run = Command::new("python3")
            .args(["-c", client])
            .arg(&daemon.socket)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.stdout, b"401 b'end'\n", "{threads}: {errors}");
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

#[test]
fn loopback_serves_whom_the_rules_name() {
    for (domain, address) in [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")] {
        // Below the ports that the kernel lends to clients (ip_local_port_range).
        let port = 10_000 + std::process::id() % 20_000;
        let port = format!("port={port}");
        let daemon = Daemon::start(&[
            &format!("domain={domain}"),
            &format!("address={address}"),
            &port,
            "allow=address:127.0.0.0/8|address:::1/128",
        ]);
        let port: u16 = port[5..].parse().unwrap();
        let mut stream = std::net::TcpStream::connect((address, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        drop(stream);
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

#[test]
fn crowds_leave_nothing_behind() {
    for threads in THREADS {
        let daemon = Daemon::start(&[
            threads,
            "max_connections=1000",
            "max_connections_per_uid=1000",
            "backlog=1024",
            "verbosity=5",
        ]);
        let before = daemon.resources();
        for number in 0..10_000_u32 {
            let mut stream = daemon.connect();
            let mut answer = [0; 4];
            stream.write_all(&number.to_be_bytes()).unwrap();
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, number.to_be_bytes());
        }
        let open: Vec<UnixStream> = (0..1000).map(|_| daemon.connect()).collect();
        for (number, mut stream) in open.iter().enumerate() {
            stream.write_all(&number.to_be_bytes()).unwrap();
        }
        for (number, mut stream) in open.iter().enumerate() {
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(usize::from_be_bytes(answer), number);
        }
        drop(open);
        // Surplus workers leave after ten seconds of idleness.
        let end = Instant::now() + 2 * PATIENCE;
        loop {
            let (threads, descriptors) = daemon.resources();
            if threads <= before.0 + 2 && descriptors <= before.1 + 1 {
                break;
            }
            assert!(
                Instant::now() < end,
                "{before:?} became {:?}",
                daemon.resources()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

#[test]
fn the_one_who_speaks_is_served_among_the_silent() {
    for threads in THREADS {
        let daemon = Daemon::start(&[threads, "max_connections=200"]);
        let silent: Vec<UnixStream> = (0..199).map(|_| daemon.connect()).collect();
        assert_eq!(round_trip(&daemon.connect(), b"hello"), b"hello");
        drop(silent);
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

/// CPU time of a process in clock ticks, proc_pid_stat(5).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_descriptors_it_waits_recovers_and_says_so_once_a_second() {
    for threads in THREADS {
        let mut command = Command::new("sh");
        let daemon = env!("CARGO_BIN_EXE_secure_socket");
        command.args(["-c", &format!("ulimit -n 64; exec {daemon} \"$@\""), "sh"]);
        let options = [
            threads,
            "max_connections=500",
            "sandbox=best_effort",
            "backlog=500",
        ];
        let mut daemon = Daemon::spawn_by(command, &options);
        daemon.wait_until_ready();
        let start = Instant::now();
        let clients: Vec<UnixStream> = (0..200).map(|_| daemon.connect()).collect();
        for mut client in &clients {
            client.write_all(b"x").unwrap();
        }
        let ticks = cpu_ticks(daemon.pid());
        std::thread::sleep(Duration::from_millis(1500));
        let used = cpu_ticks(daemon.pid()) - ticks;
        assert!(used < 30, "{used} ticks of CPU while nothing could be done");
        // Each that is served and closes makes room for another.
        for mut client in clients {
            let mut byte = [0; 1];
            client.read_exact(&mut byte).unwrap();
        }
        let lines = daemon.log().matches("accept: ").count();
        let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();
        assert!(
            lines >= 1 && lines <= seconds + 2,
            "{lines} lines in {seconds} s"
        );
        // What a worker needs one for as it begins, there is for it.
        let log = daemon.log();
        assert!(!log.contains("can't enter its role"), "{log}");
        assert_eq!(round_trip(&daemon.connect(), b"again"), b"again");
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

#[test]
fn after_sigkill_it_starts_again_at_once() {
    let dir = TempDir::new();
    let socket = format!("socket_path={}", dir.join("run/s").display());
    for _ in 0..5 {
        let mut daemon = Daemon::spawn(&[&socket]);
        daemon.wait_until_ready();
        assert_eq!(round_trip(&daemon.connect(), b"x"), b"x");
        daemon.signal("KILL");
        daemon.wait();
        assert!(dir.join("run/s").exists());
    }
    let mut daemon = Daemon::spawn(&[&socket]);
    daemon.wait_until_ready();
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(!dir.join("run/s").exists());
}

#[test]
fn of_two_starts_at_once_exactly_one_wins() {
    let dir = TempDir::new();
    let socket = format!("socket_path={}", dir.join("run/s").display());
    for round in 0..20 {
        let mut both = [Daemon::spawn(&[&socket]), Daemon::spawn(&[&socket])];
        let end = Instant::now() + PATIENCE;
        let loser = loop {
            let logs = [both[0].log(), both[1].log()];
            if let Some(loser) = logs.iter().position(|log| log.contains("secure_socket: ")) {
                break loser;
            }
            assert!(Instant::now() < end, "round {round}: {logs:?}");
        };
        assert_eq!(both[loser].wait().code(), Some(73), "{}", both[loser].log());
        let winner = &mut both[1 - loser];
        winner.wait_until_ready();
        let pid = winner.pid().to_string();
        assert_eq!(round_trip(&winner.connect(), b"x"), b"x");
        assert!(
            both[loser].log().contains(&pid),
            "the pid of the first is named: {}",
            both[loser].log()
        );
        both[1 - loser].signal("TERM");
        assert_eq!(both[1 - loser].wait().code(), Some(0));
    }
}

#[test]
fn a_stop_lets_open_connections_finish() {
    for threads in THREADS {
        let daemon = Daemon::start(&[threads, "stop_timeout=10s"]);
        let mut stream = daemon.connect();
        stream.write_all(b"before").unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).unwrap();
        daemon.signal("TERM");
        let end = Instant::now() + PATIENCE;
        while UnixStream::connect(&daemon.socket).is_ok() {
            assert!(Instant::now() < end, "newcomers are still taken");
        }
        assert_eq!(round_trip(&stream, b"after"), b"after");
        let mut daemon = daemon;
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
    }
}

#[test]
fn a_stop_whose_time_is_over_and_a_second_one_force_the_end() {
    for threads in THREADS {
        for second in [false, true] {
            let timeout = if second {
                "stop_timeout=1h"
            } else {
                "stop_timeout=100ms"
            };
            let mut daemon = Daemon::start(&[threads, timeout]);
            let mut stream = daemon.connect();
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
            daemon.signal("INT");
            if second {
                daemon.wait_for_log("asked to stop by");
                daemon.signal("TERM");
            }
            assert!(is_turned_away(&stream));
            assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log());
            assert!(!daemon.socket.exists());
        }
    }
}

#[test]
fn what_cargo_run_starts_is_locked_down() {
    needs!(root, "socat", "setpriv");
    // Without options: the default path, for root only.
    let socket = Path::new("/run/secure_socket/secure_socket.sock");
    if socket.exists() {
        return support::skip("the default socket, which another server holds");
    }
    let mut daemon = Daemon::spawn(&[&format!("socket_path={}", socket.display())]);
    daemon.wait_until_ready();
    let directory = fs::metadata("/run/secure_socket").unwrap();
    assert_eq!((directory.uid(), directory.mode() & 0o7777), (0, 0o700));
    assert_eq!(fs::symlink_metadata(socket).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(round_trip(&daemon.connect(), b"x"), b"x");
    let mut nobody = as_user("nobody", "nogroup", "socat");
    nobody.args(socat(socket));
    assert_eq!(feed(nobody, b"x").stdout, b"");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_limit_on_file_sizes_stops_the_log_and_not_the_service() {
    let dir = TempDir::new();
    let log = dir.join("logs/log");
    let mut command = Command::new("sh");
    let daemon = env!("CARGO_BIN_EXE_secure_socket");
    // In blocks of 512 bytes: 4 KiB.
    command.args(["-c", &format!("ulimit -f 8; exec {daemon} \"$@\""), "sh"]);
    let file = format!("log_file={}", log.display());
    let mut daemon = Daemon::spawn_by(command, &[&file, "log_target=file", "verbosity=10"]);
    let end = Instant::now() + PATIENCE;
    while !daemon.socket.exists() {
        assert!(Instant::now() < end, "{}", daemon.log());
    }
    for _ in 0..100 {
        assert_eq!(round_trip(&daemon.connect(), b"hello"), b"hello");
    }
    // While it rolls there is no file of that name for a moment.
    let file = loop {
        match fs::metadata(&log) {
            Ok(file) => break file,
            Err(error) => assert!(Instant::now() < end, "{error}: {}", daemon.log()),
        }
    };
    assert!(file.len() <= 4096);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
}

#[test]
fn every_denial_is_told_or_counted_before_the_end() {
    let daemon = Daemon::start(&["allow=uid:4294967293", "denials_before_penalty=0"]);
    for _ in 0..500 {
        assert!(is_turned_away(&daemon.connect()));
    }
    let pid = daemon.pid();
    daemon.signal("TERM");
    let mut daemon = daemon;
    assert_eq!(daemon.wait().code(), Some(0));
    let log = daemon.log();
    let told = log.matches("peer denied").count();
    let counted: usize = log
        .lines()
        .filter_map(|line| line.split_once(" more lines like this suppressed"))
        .filter_map(|(before, _)| before.rsplit(' ').next()?.parse::<usize>().ok())
        .sum();
    assert!(told < 500, "told all of {pid}'s");
    assert_eq!(told + counted, 500, "{log}");
}
