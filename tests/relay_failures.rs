//! What goes wrong around a relay, and what it keeps through it: workers,
//! descriptors, and the bound of what it holds.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod relay_support;
mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use relay_support::{Upstream, amount};
use support::{Daemon, PATIENCE, TempDir, is_turned_away, round_trip};

fn relay(options: &[&str]) -> Daemon {
    let all = [&["service=relay", "sandbox=enforce"], options].concat();
    Daemon::start(&all)
}

fn echo_server(socket: &Path) -> Upstream {
    let _ = fs::remove_file(socket);
    let mut command = Command::new("socat");
    command
        .arg(format!(
            "UNIX-LISTEN:{},fork,backlog=1024",
            socket.display()
        ))
        .arg("PIPE");
    Upstream::start(&mut command, || UnixStream::connect(socket).is_ok())
}

/// Waits until the daemon has as many threads and descriptors as before.
#[track_caller]
fn back_to(relay: &Daemon, before: (usize, usize)) {
    let end = Instant::now() + PATIENCE;
    // Idle pipes may stay.
    while relay.resources().1 > before.1 + 32 {
        assert!(
            Instant::now() < end,
            "{before:?} is now {:?}",
            relay.resources()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_upstream_that_is_down_closes_clients_at_once_with_one_line_for_many() {
    let dir = TempDir::new();
    let socket = dir.join("upstream");
    let option = format!("upstream=unix:{}", socket.display());
    for threads in ["threads=multi", "threads=single"] {
        let mut relay = relay(&[&option, threads]);
        for _ in 0..50 {
            assert!(is_turned_away(&relay.connect()));
        }
        let lines = relay.log().matches("is down: No such file").count();
        assert_eq!(lines, 1, "{}", relay.log());
        let listener = UnixListener::bind(&socket).unwrap();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"here").unwrap();
        });
        let mut answer = String::new();
        relay.connect().read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "here");
        serving.join().unwrap();
        fs::remove_file(&socket).unwrap();
        relay.wait_for_log("is up again after 50 failed connections");
        assert!(relay.stop().success());
    }
}

#[test]
fn the_first_that_is_available_serves() {
    let dir = TempDir::new();
    let (first, second) = (dir.join("first"), dir.join("second"));
    let options = [
        format!("upstream=unix:{}", first.display()),
        "upstream=tcp:127.0.0.1:1".to_owned(),
        format!("upstream=unix:{}", second.display()),
    ];
    let serve = |path: &Path, text: &'static str| {
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(text.as_bytes());
            }
        });
    };
    serve(&second, "second");
    let relay = relay(&[&options[0], &options[1], &options[2]]);
    let ask = || {
        let mut answer = String::new();
        relay.connect().read_to_string(&mut answer).unwrap();
        answer
    };
    assert_eq!(ask(), "second");
    serve(&first, "first");
    // The failure is remembered for three seconds.
    assert_eq!(ask(), "second");
    thread::sleep(Duration::from_millis(3200));
    assert_eq!(ask(), "first");
}

#[test]
fn an_upstream_killed_stopped_and_restarted_under_load_costs_nothing() {
    needs!("socat");
    let dir = TempDir::new();
    let socket = dir.join("upstream");
    let option = format!("upstream=unix:{}", socket.display());
    for threads in ["threads=multi", "threads=2"] {
        let mut upstream = echo_server(&socket);
        let relay = relay(&[&option, threads]);
        assert_eq!(round_trip(&relay.connect(), b"warm"), b"warm");
        let before = relay.resources();
        let ends = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let (path, ends) = (relay.socket.clone(), Arc::clone(&ends));
                let served = Arc::clone(&served);
                thread::spawn(move || {
                    while !ends.load(Ordering::Relaxed) {
                        let Ok(mut stream) = UnixStream::connect(&path) else {
                            continue;
                        };
                        stream.set_read_timeout(Some(PATIENCE)).unwrap();
                        let mut byte = [b'x'];
                        for _ in 0..20 {
                            if stream.write_all(&byte).is_err()
                                || stream.read_exact(&mut byte).is_err()
                            {
                                break;
                            }
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        for _ in 0..amount(2, 20) {
            thread::sleep(Duration::from_millis(300));
            upstream.signal("STOP");
            thread::sleep(Duration::from_millis(300));
            upstream.signal("CONT");
            upstream.signal("KILL");
            thread::sleep(Duration::from_millis(200));
            drop(upstream);
            upstream = echo_server(&socket);
        }
        thread::sleep(Duration::from_millis(300));
        ends.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        assert!(served.load(Ordering::Relaxed) > 100);
        assert_eq!(round_trip(&relay.connect(), b"still"), b"still");
        back_to(&relay, before);
        assert!(!relay.log().contains("panicked"), "{}", relay.log());
        assert!(relay.stop().success());
    }
}

fn resident_kib(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn a_client_that_does_not_read_holds_no_more_than_is_said() {
    let dir = TempDir::new();
    let socket = dir.join("upstream");
    let option = format!("upstream=unix:{}", socket.display());
    let listener = UnixListener::bind(&socket).unwrap();
    for threads in ["threads=multi", "threads=single"] {
        let relay = relay(&[&option, threads, "write_timeout=0"]);
        let client = relay.connect();
        let (mut server, _) = listener.accept().unwrap();
        let before = resident_kib(relay.pid());
        server
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let mut taken = 0;
        let end = Instant::now() + Duration::from_secs(amount(3, 60) as u64);
        while Instant::now() < end {
            match server.write(&[7; 64 << 10]) {
                Ok(length) => taken += length,
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
                    "{error}"
                ),
            }
        }
        // A pipe of 1 MiB, the send buffer of 1 MiB that the kernel counts
        // twice, and the upstream's own send buffer.
        assert!(taken < (4 << 20), "{taken} bytes were taken");
        let grown = resident_kib(relay.pid()).saturating_sub(before);
        assert!(grown < 1024, "the process grew by {grown} KiB");
        // Nothing of it is lost.
        server.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        (&client).read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), taken);
    }
}

#[test]
fn a_stalled_client_is_cut_off_after_the_write_timeout() {
    let dir = TempDir::new();
    let socket = dir.join("upstream");
    let option = format!("upstream=unix:{}", socket.display());
    let listener = UnixListener::bind(&socket).unwrap();
    let relay = relay(&[&option, "write_timeout=1s"]);
    let _client = relay.connect();
    let (mut server, _) = listener.accept().unwrap();
    let begin = Instant::now();
    server.set_write_timeout(Some(PATIENCE)).unwrap();
    while server.write_all(&[7; 64 << 10]).is_ok() {}
    let took = begin.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_secs(8),
        "{took:?}"
    );
}

/// What a client has sent counts as its first byte, though the relay has nowhere to put it.
#[test]
fn who_has_spoken_is_not_silent_while_the_upstream_is_busy() {
    let dir = TempDir::new();
    let socket = dir.join("upstream");
    let option = format!("upstream=unix:{}", socket.display());
    for threads in ["threads=multi", "threads=2"] {
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        // Of an accept, too (socket(7)).
        let timeout = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&listener, timeout, Some(PATIENCE)).unwrap();
        let options = ["connect_timeout=20s", "first_byte_timeout=500ms", threads];
        let mut relay = relay(&[&[&option[..]], &options[..]].concat());
        let clients: Vec<UnixStream> = (0..4).map(|_| relay.connect()).collect();
        for mut client in &clients {
            client.write_all(b"early").unwrap();
        }
        // Nothing can reach the upstream of this one, so it is closed when the bound is over
        // for all.
        let mut silent = relay.connect();
        assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
        relay.wait_for_log("reason=first_byte_timeout");
        thread::sleep(Duration::from_millis(600));
        for _ in &clients {
            let (mut stream, _) = listener.accept().unwrap();
            let mut said = [0; 5];
            stream.read_exact(&mut said).unwrap();
            assert_eq!(&said, b"early", "{threads}");
            stream.write_all(b"at last").unwrap();
        }
        for mut client in clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "at last");
        }
    }
}

#[test]
fn a_full_backlog_is_waited_out() {
    let dir = TempDir::new();
    let socket = dir.join("upstream");
    let option = format!("upstream=unix:{}", socket.display());
    let listener = UnixListener::bind(&socket).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let relay = relay(&[&option, "connect_timeout=5s"]);
    // One waits in the backlog, the others find it full.
    let clients: Vec<UnixStream> = (0..4).map(|_| relay.connect()).collect();
    thread::sleep(Duration::from_millis(300));
    for _ in &clients {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"at last").unwrap();
    }
    for mut client in clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "at last");
    }
    drop(listener);
}
