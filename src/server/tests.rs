//! A server of which a test drives the parts, and connections for it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::*;
use crate::listener::{Address, Options, SocketPath};
use crate::peer::{Exe, Fact, Needs, Peer, PidfdSource};
use crate::policy::{Numeric, Policy, Rule, describe};
use crate::service::{Connection, Echo};

/// A server that nobody runs.
pub(super) struct Bench {
    pub(super) shared: Arc<Shared>,
    pub(super) path: PathBuf,
    directory: PathBuf,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Arc::new(Echo), Arc::new(()))
    }

    fn with(protocol: Arc<dyn Protocol>, observer: Arc<dyn Observer>) -> Self {
        let rules = Rules::new(policy("uid:self"));
        Self::by(protocol, rules, |builder| builder.observer(observer))
    }

    /// With whatever else is to be said to the builder.
    fn by(
        protocol: Arc<dyn Protocol>,
        rules: Rules,
        further: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let (listener, path, directory) = listener();
        let server = further(Server::with_protocol(listener, protocol, rules));
        let shared = Arc::clone(&server.build().unwrap().shared);
        Self {
            shared,
            path,
            directory,
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A listener, its path, and the directory to be removed at the end.
pub(super) fn listener() -> (Listener<Sealed>, PathBuf, PathBuf) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("ss-server-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("s/socket");
    let address = Address::Unix(SocketPath::parse(path.as_os_str()).unwrap());
    let listener = Listener::bind(&Options::new(address)).unwrap();
    (listener.dangerously_unconfined(), path, directory)
}

pub(super) fn policy(rule: &str) -> Policy {
    let own_user = rustix::process::geteuid().as_raw();
    let own_user = crate::ids::Uid::from_raw(own_user).unwrap();
    let rule = Rule::parse(rule, &Numeric { own_user }).unwrap();
    Policy::new(vec![rule], Vec::new(), own_user)
}

/// A connection that was admitted, and its other end.
pub(super) fn connection() -> (Connection, UnixStream) {
    connection_with(Fact::Unasked)
}

/// The same by the executable of its process.
pub(super) fn connection_running() -> (Connection, UnixStream) {
    let names = Numeric {
        own_user: crate::ids::Uid::ROOT,
    };
    connection_with(describe("uid:0,exe:/bin/cat", &names).unwrap().exe)
}

fn connection_with(exe: Fact<Exe>) -> (Connection, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    let peer = Peer::from_socket(near.as_fd(), Needs::PROCESS, PidfdSource::Socket);
    let mut facts = peer.facts().clone();
    facts.exe = exe;
    let authorized = policy("uid:self").check(&facts).unwrap();
    let (socket, timeouts) = (OwnedFd::from(near), Arc::default());
    let kind = Kind::default();
    let connection = Connection::new(1, socket, kind, peer, authorized, timeouts, Instant::now());
    (connection, far)
}

#[test]
fn the_pool_admits_no_more_than_there_can_be_threads_for() {
    let possible = connections_possible(Threads::Multi, Overload::Refuse);
    let (listener, _, directory) = listener();
    let rules = Rules::new(policy("uid:self"));
    let limits = || Limits {
        max_connections: usize::MAX,
        ..Limits::default()
    };
    let server = Server::with_protocol(listener, Arc::new(Echo), rules)
        .limits(limits())
        .overload(Overload::Refuse)
        .build()
        .unwrap();
    let handle = server.handle();
    assert_eq!(handle.state().admission.max_connections, possible);
    handle.reload(Rules::new(policy("uid:self")), limits());
    assert_eq!(handle.state().admission.max_connections, possible);
    let _ = std::fs::remove_dir_all(directory);
}

/// Several loops may accept at the same moment, more than there are places for.
#[test]
fn who_is_one_too_many_for_a_moment_waits_and_is_served() {
    use crate::peer::{Checker, CheckerConfig, Inspector, Pins};
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    let mut rules = Rules::new(policy(&format!("name:{}", comm.trim_end())));
    // Nobody runs its threads yet.
    let (checker, checking) = Checker::new(CheckerConfig::default()).unwrap();
    rules.inspector = Inspector::new(Pins::default(), Some(checker));
    let limits = Limits {
        max_connections: 1,
        per_uid: Some(1),
        ..Limits::default()
    };
    let bench = Bench::by(Arc::new(Echo), rules, |builder| builder.limits(limits));
    let step = |visit: &mut visit::Visit| {
        visit.step(
            visit::Signals::default(),
            false,
            Instant::now(),
            &mut [0; 64],
        )
    };
    let begin = || {
        let client = UnixStream::connect(&bench.path).unwrap();
        let accepted = bench.shared.accept().unwrap();
        let visit = visit::Visit::begin(&bench.shared, accepted, Ok(None), Instant::now());
        (visit.unwrap(), client)
    };
    let [(mut first, _one), (mut second, _two)] = [begin(), begin()];
    assert_eq!(step(&mut first), visit::Pace::Wait);
    assert_eq!(step(&mut second), visit::Pace::Wait);
    for part in checking {
        std::thread::spawn(move || part.run());
    }
    while bench.shared.admission.open() == 0 {
        assert_eq!(step(&mut first), visit::Pace::Wait);
    }
    // This one has not been asked about yet, and is full before it is.
    let (mut third, _three) = begin();
    for _ in 0..100 {
        assert_eq!(step(&mut second), visit::Pace::Wait);
        assert_eq!(step(&mut third), visit::Pace::Wait);
    }
    let mut before = first;
    for mut next in [second, third] {
        drop(before);
        while bench.shared.admission.open() == 0 {
            assert_eq!(step(&mut next), visit::Pace::Wait);
        }
        before = next;
    }
}

/// Remembers who was not served, and why.
#[derive(Default)]
struct NotServed(Mutex<Vec<String>>);

impl Observer for NotServed {
    fn not_served(&self, _id: u64, _facts: &crate::peer::Facts, why: &io::Error) {
        self.0.lock().unwrap().push(why.to_string());
    }
}

/// Echo that is woken by other threads.
struct Woken;

impl Protocol for Woken {
    fn name(&self) -> &'static str {
        "woken"
    }

    fn needs_waker(&self) -> bool {
        true
    }

    fn open(
        &self,
        connection: &Arc<Connection>,
        waker: Option<crate::service::Waker>,
    ) -> io::Result<crate::service::Opened> {
        Echo.open(connection, waker)
    }
}

/// What is said of a peer for whom the system gave no waker.
#[track_caller]
fn check_without_waker(protocol: Arc<dyn Protocol>, expected: &[&str]) {
    let seen = Arc::<NotServed>::default();
    let observer = Arc::clone(&seen);
    let bench = Bench::with(protocol, observer);
    let _client = UnixStream::connect(&bench.path).unwrap();
    let accepted = bench.shared.accept().unwrap();
    let waker = Err(rustix::io::Errno::MFILE.into());
    let mut visit = visit::Visit::begin(&bench.shared, accepted, waker, Instant::now()).unwrap();
    let pace = visit.step(
        visit::Signals::default(),
        false,
        Instant::now(),
        &mut [0; 64],
    );
    let is_over = pace == visit::Pace::Over(crate::service::CloseReason::ServiceError);
    assert_eq!(is_over, !expected.is_empty(), "{pace:?}");
    assert_eq!(*seen.0.lock().unwrap(), expected);
}

#[test]
fn who_can_not_be_served_without_a_waker_is_told_why_there_is_none() {
    check_without_waker(Arc::new(Woken), &["Too many open files (os error 24)"]);
    check_without_waker(Arc::new(Echo), &[]);
}
