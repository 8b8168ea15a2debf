//! The library's server on a socket of its own, for each choice of threads.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test; each program uses its own part of it"
)]

use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use secure_socket::admission::Limits;
use secure_socket::ids::Uid;
use secure_socket::listener::{Address, Listener, Options, Sealed, SocketPath};
use secure_socket::policy::{Numeric, Policy, Rule};
use secure_socket::server::{Builder, Handle, Observer, Outcome, Overload, Rules};
use secure_socket::server::{Server, ServerError, Threads};
use secure_socket::service::{Echo, Protocol, Service};

use crate::support::{PATIENCE, TempDir};

pub struct Running {
    pub path: PathBuf,
    pub handle: Handle,
    pub thread: JoinHandle<Result<Outcome, ServerError>>,
    _dir: TempDir,
}

impl Running {
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn stop(self) -> Outcome {
        self.handle.stop(Duration::from_secs(5));
        self.thread.join().unwrap().unwrap()
    }

    /// Waits until so many connections are open.
    #[track_caller]
    pub fn await_open(&self, count: usize) {
        until("so many are open", || {
            self.handle.state().admission.open == count
        });
    }
}

pub fn own_uid() -> Uid {
    Uid::from_raw(rustix::process::geteuid().as_raw()).unwrap()
}

pub fn policy(allow: &[&str]) -> Policy {
    let names = Numeric {
        own_user: own_uid(),
    };
    let rules = allow
        .iter()
        .map(|text| Rule::parse(text, &names).unwrap())
        .collect();
    Policy::new(rules, Vec::new(), own_uid())
}

pub fn limits(max_connections: usize) -> Limits {
    Limits {
        max_connections,
        ..Limits::default()
    }
}

pub fn loops(count: usize) -> Threads {
    Threads::Loops(NonZeroUsize::new(count).unwrap())
}

pub const ALL: [fn() -> Threads; 3] = [|| Threads::Multi, || loops(1), || loops(2)];

pub fn start(threads: Threads, limits: Limits, overload: Overload, rules: Rules) -> Running {
    start_with(Arc::new(Echo), threads, limits, overload, rules)
}

pub fn start_with(
    protocol: Arc<dyn Protocol>,
    threads: Threads,
    limits: Limits,
    overload: Overload,
    rules: Rules,
) -> Running {
    start_by(protocol, rules, |builder| {
        builder.threads(threads).limits(limits).overload(overload)
    })
}

/// With whatever else is to be said to the builder.
pub fn start_by(
    protocol: Arc<dyn Protocol>,
    rules: Rules,
    further: impl FnOnce(Builder) -> Builder,
) -> Running {
    start_on(protocol, rules, |options| options, further)
}

/// With whatever else is to be said to the listener as well.
pub fn start_on(
    protocol: Arc<dyn Protocol>,
    rules: Rules,
    listening: impl FnOnce(Options) -> Options,
    further: impl FnOnce(Builder) -> Builder,
) -> Running {
    run(listening, |listener| {
        further(Server::with_protocol(listener, protocol, rules))
    })
}

/// A blocking service on the pool.
pub fn start_service(service: impl Service, rules: Rules, observer: Arc<dyn Observer>) -> Running {
    let builder = |listener| {
        Server::builder(listener, service)
            .rules(rules)
            .observer(observer)
    };
    run(|options| options, builder)
}

fn run(
    listening: impl FnOnce(Options) -> Options,
    builder: impl FnOnce(Listener<Sealed>) -> Builder,
) -> Running {
    let dir = TempDir::new();
    let path = dir.join("s/echo");
    let address = Address::Unix(SocketPath::parse(path.as_os_str()).unwrap());
    let options = listening(Options::new(address).backlog(1024));
    let listener = Listener::bind(&options).unwrap().dangerously_unconfined();
    let server = builder(listener).build().unwrap();
    let handle = server.handle();
    let thread = thread::spawn(move || server.run());
    Running {
        path,
        handle,
        thread,
        _dir: dir,
    }
}

pub fn start_default(threads: Threads) -> Running {
    start(
        threads,
        limits(1000),
        Overload::Wait,
        Rules::new(policy(&[])),
    )
}

/// Sends a byte, and gets it back.
#[track_caller]
pub fn ping(mut stream: &UnixStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
}

/// Waits until a condition holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never happened: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
