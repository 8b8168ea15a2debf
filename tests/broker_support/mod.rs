//! A broker on a socket of its own, a thread for each connection; and connections
//! to it that tests steer by hand.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use secure_socket::frame::Stamp;
use secure_socket::peer::{Needs, Peer, PidfdSource};
use secure_socket::service::broker::{Broker, Identity, Limits, Link, Permits, Step};

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A directory that goes with the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("broker-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker that listens.
pub struct Running {
    pub broker: Arc<Broker>,
    pub path: PathBuf,
    _scratch: Scratch,
}

impl Running {
    pub fn new(limits: Limits, permits: Permits) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new();
        let path = scratch.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&path, mode.clone()).unwrap();
        std::fs::set_permissions(scratch.path(), mode).unwrap();
        let broker = Broker::new(limits, permits);
        let shared = Arc::clone(&broker);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let broker = Arc::clone(&shared);
                thread::spawn(move || serve(&broker, stream.unwrap()));
            }
        });
        Self {
            broker,
            path,
            _scratch: scratch,
        }
    }

    pub fn default() -> Self {
        Self::new(Limits::default(), Permits::default())
    }

    /// Waits until so many connections have joined.
    pub fn await_connections(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.broker.connections() != count {
            assert!(
                Instant::now() < deadline,
                "{} joined",
                self.broker.connections()
            );
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Drives one connection to its end.
pub fn serve(broker: &Arc<Broker>, stream: UnixStream) {
    let peer = Peer::from_socket(stream.as_fd(), Needs::NONE, PidfdSource::Socket);
    let credentials = peer.credentials().unwrap();
    let identity = Identity {
        connection: NUMBER.fetch_add(1, Ordering::Relaxed),
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid(),
        flags: Stamp::PIDFD_HELD,
    };
    let socket = Arc::new(OwnedFd::from(stream));
    let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap());
    let ring = Arc::clone(&bell);
    let wake = Arc::new(move || {
        let _ = rustix::io::write(&*ring, &1_u64.to_ne_bytes());
    });
    let facts = peer.facts().clone();
    let timeout = Duration::from_secs(1);
    let mut link = Link::new(
        Arc::clone(broker),
        Arc::clone(&socket),
        identity,
        facts,
        wake,
        timeout,
    );
    while let Step::Wait(waiting) = link.step(Instant::now()) {
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, waiting.read);
        events.set(PollFlags::OUT, waiting.write);
        let mut fds = [
            PollFd::new(&*socket, events),
            PollFd::new(&*bell, PollFlags::IN),
        ];
        let left = waiting.until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec::try_from(left + Duration::from_millis(1)).unwrap()
        });
        let _ = poll(&mut fds, left.as_ref());
        if fds[1].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(&*bell, &mut [0; 8]);
        }
    }
}
