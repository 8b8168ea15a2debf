//! A broker behind the library's server, on a socket of its own.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test; each program uses its own part of it"
)]

use std::fs::Permissions;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use secure_socket::admission::Limits as Connections;
use secure_socket::ids::Uid;
use secure_socket::listener::{Address, Listener, Options, SocketPath};
use secure_socket::policy::{Numeric, Policy, Rule};
use secure_socket::server::{Handle, Outcome, Rules, Server, ServerError, Threads};
use secure_socket::service::broker::{Broker, BrokerService, Limits, Permits};

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A directory that goes with the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/ssb-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
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

/// A broker that listens, for everyone.
pub struct Running {
    pub broker: Arc<Broker>,
    pub path: PathBuf,
    handle: Handle,
    thread: Option<JoinHandle<Result<Outcome, ServerError>>>,
    _scratch: Scratch,
}

pub fn multi() -> Threads {
    Threads::Multi
}

pub fn loops(count: usize) -> Threads {
    Threads::Loops(NonZeroUsize::new(count).unwrap())
}

pub fn own_uid() -> Uid {
    Uid::from_raw(rustix::process::geteuid().as_raw()).unwrap()
}

/// Rules that admit whoever meets `text`.
pub fn rules(text: &str) -> Rules {
    let rule = Rule::parse(
        text,
        &Numeric {
            own_user: own_uid(),
        },
    )
    .unwrap();
    Rules::new(Policy::new(vec![rule], Vec::new(), own_uid()))
}

impl Running {
    pub fn new(threads: Threads, limits: Limits, permits: Permits) -> Self {
        let service = BrokerService::new(Broker::new(limits, permits));
        Self::with(threads, service, rules("any"))
    }

    pub fn with(threads: Threads, service: BrokerService, rules: Rules) -> Self {
        let scratch = Scratch::new();
        let path = scratch.path().join("d/s");
        let address = Address::Unix(SocketPath::parse(path.as_os_str()).unwrap());
        let options = Options::new(address).backlog(1024);
        let listener = Listener::bind(&options).unwrap().dangerously_unconfined();
        for (path, mode) in [(path.as_path(), 0o666), (path.parent().unwrap(), 0o711)] {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let broker = Arc::clone(service.broker());
        let connections = Connections {
            max_connections: 2000,
            denials_before_penalty: 0,
            ..Connections::default()
        };
        let server = Server::with_protocol(listener, Arc::new(service), rules)
            .threads(threads)
            .limits(connections)
            .build()
            .unwrap();
        let handle = server.handle();
        let thread = Some(thread::spawn(move || server.run()));
        Self {
            broker,
            path,
            handle,
            thread,
            _scratch: scratch,
        }
    }

    pub fn default() -> Self {
        Self::new(Threads::Multi, Limits::default(), Permits::default())
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
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

    /// Stops it gracefully.
    pub fn stop(mut self, grace: Duration) -> Outcome {
        self.handle.stop(grace);
        self.thread.take().unwrap().join().unwrap().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop_now();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
