//! What a relay carries besides a stream of a pipe's worth: packets that keep their
//! bounds, empty ones among them, and bulk where its user may grow no pipe.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod relay_support;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind,
    connect, listen, recv, send, shutdown, socket_with, sockopt,
};

use support::{Daemon, PATIENCE, TempDir, as_user, set_mode};

fn packets() -> OwnedFd {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    let timeout = sockopt::Timeout::Recv;
    sockopt::set_socket_timeout(&socket, timeout, Some(PATIENCE)).unwrap();
    socket
}

fn address(path: &Path) -> SocketAddrUnix {
    SocketAddrUnix::new(path).unwrap()
}

/// One packet, which may be empty.
fn packet(socket: impl AsFd) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let (_, length) = recv(socket, bytes.as_mut_slice(), RecvFlags::empty()).unwrap();
    bytes.truncate(length);
    bytes
}

#[test]
fn packets_keep_their_bounds_and_empty_ones_are_no_end() {
    let dir = TempDir::new();
    let path = dir.join("upstream");
    let upstream = packets();
    bind(&upstream, &address(&path)).unwrap();
    listen(&upstream, 16).unwrap();
    let option = format!("upstream=unix:{}", path.display());
    for threads in ["threads=multi", "threads=single"] {
        let relay = Daemon::start(&[
            "service=relay",
            "sandbox=enforce",
            "protocol=SOCK_SEQPACKET",
            &option,
            threads,
        ]);
        let client = packets();
        connect(&client, &address(&relay.socket)).unwrap();
        // All is there, and the end behind it, before the relay reads the first.
        let sent: [&[u8]; 4] = [b"one", b"", b"and another", b"x"];
        for bytes in sent {
            assert_eq!(send(&client, bytes, SendFlags::NOSIGNAL), Ok(bytes.len()));
        }
        shutdown(&client, rustix::net::Shutdown::Write).unwrap();
        let server = accept(&upstream).unwrap();
        sockopt::set_socket_timeout(&server, sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
        for bytes in sent {
            assert_eq!(packet(&server), bytes, "{threads}");
        }
        // The end; and the way back is still open.
        assert_eq!(packet(&server), b"");
        send(&server, b"answer", SendFlags::NOSIGNAL).unwrap();
        drop(server);
        assert_eq!(packet(&client), b"answer");
        assert_eq!(packet(&client), b"");
        assert!(relay.stop().success());
    }
}

/// Who is behind a relay answers for his own messages, and not for those of the upstream.
#[test]
fn what_the_upstream_sends_is_not_held_against_the_client() {
    let dir = TempDir::new();
    let path = dir.join("upstream");
    let upstream = packets();
    bind(&upstream, &address(&path)).unwrap();
    listen(&upstream, 16).unwrap();
    let option = format!("upstream=unix:{}", path.display());
    for threads in ["threads=multi", "threads=single"] {
        let mut relay = Daemon::start(&[
            "service=relay",
            "protocol=SOCK_SEQPACKET",
            "denials_before_penalty=5",
            &option,
            threads,
        ]);
        let exchange = |answer: &[u8]| {
            let client = packets();
            connect(&client, &address(&relay.socket)).unwrap();
            send(&client, b"question", SendFlags::NOSIGNAL).unwrap();
            let server = accept(&upstream).unwrap();
            assert_eq!(packet(&server), b"question");
            // The kernel doubles it (socket(7)).
            sockopt::set_socket_send_buffer_size(&server, 200 << 10).unwrap();
            send(&server, answer, SendFlags::NOSIGNAL).unwrap();
            packet(&client)
        };
        // More than the relay takes, or than its socket to the client does.
        for _ in 0..6 {
            assert!(exchange(&[1; 300 << 10]).is_empty());
        }
        assert_eq!(exchange(b"answer"), b"answer", "{threads}");
        relay.wait_for_log("too large to be passed on");
    }
}

/// A user's pipes, as many as leave room for small ones only (pipe(7),
/// `pipe-user-pages-soft`).
struct Hoard(Child);

impl Hoard {
    fn of(user: &str) -> Self {
        let soft = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").unwrap();
        let pages: usize = soft.trim().parse().unwrap();
        // Sixteen pages each, and room for a few more of those.
        let pipes = (pages / 16).saturating_sub(8);
        let script = format!(
            "import os, resource, sys\n\
             resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}))\n\
             pipes = [os.pipe() for _ in range({pipes})]\n\
             print('held', flush=True)\n\
             sys.stdin.read()\n",
            2 * pipes + 64
        );
        let mut child = as_user(user, user, "/usr/bin/python3")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }
}

impl Drop for Hoard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn bulk_goes_through_where_no_pipe_may_grow() {
    needs!(root, "setpriv", "python3");
    // A user of every Debian, which no other test runs anything as.
    let user = "games";
    let dir = TempDir::new();
    let path = dir.join("upstream");
    let listener = UnixListener::bind(&path).unwrap();
    set_mode(&path, 0o777);
    let _hoard = Hoard::of(user);
    let option = format!("upstream=unix:{}", path.display());
    let relay = Daemon::start(&[
        "service=relay",
        "sandbox=enforce",
        "allow=uid:0",
        &format!("run_as_user={user}"),
        &option,
    ]);
    let total = 64 << 20;
    let client = relay.connect();
    let (mut server, _) = listener.accept().unwrap();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        server.read_to_end(&mut all).unwrap();
        all
    });
    let block: Vec<u8> = (0..(1 << 20) - 7).map(|n: u32| (n % 251) as u8).collect();
    let sent: Vec<u8> = block.iter().copied().cycle().take(total).collect();
    (&client).write_all(&sent).unwrap();
    UnixStream::shutdown(&client, Shutdown::Write).unwrap();
    assert!(reader.join().unwrap() == sent, "other bytes came out");
    assert!(relay.stop().success());
}
