//! What a process sent before it exited reaches the upstream, though the connection ends
//! with the process and the upstream is slow.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod identity_support;
mod support;

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use identity_support::{HELPER_ARGS, prepare, run_script};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen, recv,
    socket_with, sockopt,
};
use support::{Daemon, PATIENCE, TempDir};

const THREADS: [&str; 2] = ["threads=multi", "threads=single"];

#[test]
fn helper() {
    run_script();
}

/// A relay for processes by the name of this program.
fn relay(dir: &TempDir, more: &[&str]) -> Daemon {
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let allow = format!("allow=uid:self,name:{}", name.trim_end());
    let upstream = format!("upstream=unix:{}", dir.join("upstream").display());
    let mut options = vec!["service=relay", "sandbox=enforce", &allow, &upstream];
    options.extend(more);
    Daemon::start(&options)
}

/// Within this the relay has seen that a process exited.
const NOTICED: Duration = Duration::from_millis(500);

/// This program again, which does what the script says.
fn command(script: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(HELPER_ARGS);
    prepare(&mut command, script);
    command
}

#[test]
fn all_that_a_process_sent_before_it_exited_reaches_a_slow_upstream() {
    for threads in THREADS {
        let dir = TempDir::new();
        let upstream = UnixListener::bind(dir.join("upstream")).unwrap();
        let mut relay = relay(&dir, &[threads]);
        let said = dir.join("said");
        let script = format!("connect {};fill {}", relay.socket.display(), said.display());
        assert!(command(&script).status().unwrap().success());
        std::thread::sleep(NOTICED);
        let written: usize = fs::read_to_string(said).unwrap().parse().unwrap();
        let (mut stream, _) = upstream.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), written, "{threads}\n{}", relay.log());
        drop(stream);
        relay.signal("TERM");
        assert!(relay.wait().success());
    }
}

#[test]
fn all_packets_of_a_process_that_exited_reach_a_slow_upstream() {
    // More than one socket takes, and than a session reads in one step.
    const COUNT: u32 = 400;
    for threads in THREADS {
        let dir = TempDir::new();
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let upstream = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        let address = SocketAddrUnix::new(dir.join("upstream")).unwrap();
        bind(&upstream, &address).unwrap();
        listen(&upstream, 16).unwrap();
        let relay = relay(&dir, &["protocol=SOCK_SEQPACKET", threads]);
        let script = format!("packets {COUNT} {}", relay.socket.display());
        assert!(command(&script).status().unwrap().success());
        std::thread::sleep(NOTICED);
        let stream = rustix::net::accept(&upstream).unwrap();
        for number in 0..COUNT {
            assert_eq!(packet(&stream), number.to_ne_bytes(), "{threads}");
        }
        assert_eq!(packet(&stream), [], "{threads}");
    }
}

fn packet(socket: &OwnedFd) -> Vec<u8> {
    let timeout = sockopt::Timeout::Recv;
    sockopt::set_socket_timeout(socket.as_fd(), timeout, Some(PATIENCE)).unwrap();
    let mut bytes = vec![0; 64];
    let (_, length) = recv(socket, bytes.as_mut_slice(), RecvFlags::empty()).unwrap();
    bytes.truncate(length);
    bytes
}
