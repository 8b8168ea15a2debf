//! The server as a library: echo over every choice of threads, many connections,
//! limits, panics and stops. The daemon has tests of its own.
#![cfg(feature = "daemon")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod server_support;
mod support;

use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl};
use secure_socket::listener::{Address, Listener, Options, SocketPath};
use secure_socket::peer::{Checker, CheckerConfig, Inspector, Pins};
use secure_socket::server::{Choice, Outcome, Overload, Rules, Server, Threads};
use secure_socket::service::{Connection, Echo, Opened, Protocol, Waker};
use server_support::{ALL, Running, limits, loops, ping, policy, start, start_default, start_with};
use support::{PATIENCE, TempDir, is_turned_away, round_trip};

#[test]
fn every_byte_comes_back() {
    for threads in ALL {
        let server = start_default(threads());
        for size in [0, 1, 64, 100_000, 3_000_000] {
            let sent: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8).collect();
            let stream = server.connect();
            let mut writer = stream.try_clone().unwrap();
            let copy = sent.clone();
            let writing = thread::spawn(move || {
                writer.write_all(&copy).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut answer = Vec::new();
            (&stream).read_to_end(&mut answer).unwrap();
            writing.join().unwrap();
            assert!(answer == sent, "{size} bytes");
        }
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn those_who_speak_are_served_while_others_are_silent() {
    for threads in ALL {
        let server = start_default(threads());
        let silent: Vec<_> = (0..199).map(|_| server.connect()).collect();
        let start = Instant::now();
        assert_eq!(round_trip(&server.connect(), b"hello"), b"hello");
        assert!(start.elapsed() < PATIENCE / 4, "waited for the silent ones");
        drop(silent);
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn many_at_once_and_one_after_the_other() {
    for threads in ALL {
        let server = start_default(threads());
        let mut open: Vec<_> = (0..1000).map(|_| server.connect()).collect();
        for (number, stream) in open.iter_mut().enumerate() {
            stream.write_all(&number.to_be_bytes()).unwrap();
        }
        for (number, stream) in open.iter_mut().enumerate() {
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(usize::from_be_bytes(answer), number);
        }
        drop(open);
        for number in 0..1000_u32 {
            let stream = server.connect();
            assert_eq!(
                round_trip(&stream, &number.to_be_bytes()),
                number.to_be_bytes()
            );
        }
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn at_the_bound_newcomers_wait() {
    for threads in ALL {
        let rules = Rules::new(policy(&[]));
        let server = start(threads(), limits(2), Overload::Wait, rules);
        let first = server.connect();
        let second = server.connect();
        assert_eq!((&first).write(b"1").unwrap(), 1);
        assert_eq!((&second).write(b"2").unwrap(), 1);
        let mut byte = [0; 1];
        (&first).read_exact(&mut byte).unwrap();
        (&second).read_exact(&mut byte).unwrap();
        let third = server.connect();
        (&third).write_all(b"3").unwrap();
        third
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        assert!((&third).read(&mut byte).is_err(), "served beyond the bound");
        third.set_read_timeout(Some(PATIENCE)).unwrap();
        drop(first);
        (&third).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"3");
        drop((second, third));
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn at_the_bound_newcomers_are_turned_away() {
    for threads in ALL {
        let rules = Rules::new(policy(&[]));
        let server = start(threads(), limits(1), Overload::Refuse, rules);
        let first = server.connect();
        (&first).write_all(b"1").unwrap();
        let mut byte = [0; 1];
        (&first).read_exact(&mut byte).unwrap();
        for _ in 0..5 {
            assert!(is_turned_away(&server.connect()));
        }
        drop(first);
        let end = Instant::now() + PATIENCE;
        while is_turned_away_now(&server) {
            assert!(Instant::now() < end, "its place was not given back");
        }
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

fn is_turned_away_now(server: &Running) -> bool {
    let stream = server.connect();
    let mut byte = [0; 1];
    (&stream).write_all(b"x").is_err() || (&stream).read_exact(&mut byte).is_err()
}

#[test]
fn nobody_else_is_served() {
    for threads in ALL {
        let rules = Rules::new(policy(&["uid:4294967293"]));
        let server = start(threads(), limits(10), Overload::Wait, rules);
        assert!(is_turned_away(&server.connect()));
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn silence_ends_at_the_first_byte_timeout() {
    for threads in ALL {
        let mut rules = Rules::new(policy(&[]));
        Arc::make_mut(&mut rules.timeouts).first_byte = Some(Duration::from_millis(100));
        let server = start(threads(), limits(10), Overload::Wait, rules);
        let speaks = server.connect();
        (&speaks).write_all(b"x").unwrap();
        assert!(is_turned_away(&server.connect()));
        let mut byte = [0; 1];
        (&speaks).read_exact(&mut byte).unwrap();
        (&speaks).write_all(b"y").unwrap();
        (&speaks).read_exact(&mut byte).unwrap();
        drop(speaks);
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn idle_and_old_connections_end() {
    for threads in ALL {
        for lifetime in [false, true] {
            let mut rules = Rules::new(policy(&[]));
            let timeouts = Arc::make_mut(&mut rules.timeouts);
            let bound = Some(Duration::from_millis(100));
            if lifetime {
                timeouts.max_lifetime = bound
            } else {
                timeouts.idle = bound
            }
            let server = start(threads(), limits(10), Overload::Wait, rules);
            let stream = server.connect();
            (&stream).write_all(b"x").unwrap();
            let mut byte = [0; 1];
            (&stream).read_exact(&mut byte).unwrap();
            assert!(is_turned_away(&stream));
            assert_eq!(server.stop(), Outcome::Drained);
        }
    }
}

#[test]
fn one_who_does_not_read_is_closed() {
    for threads in ALL {
        let mut rules = Rules::new(policy(&[]));
        Arc::make_mut(&mut rules.timeouts).write = Some(Duration::from_millis(200));
        let server = start(threads(), limits(10), Overload::Wait, rules);
        let stream = server.connect();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let chunk = vec![7; 65_536];
        let end = Instant::now() + PATIENCE;
        while (&stream).write_all(&chunk).is_ok() {
            assert!(Instant::now() < end, "never closed");
        }
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn a_forced_stop_closes_what_is_open() {
    for threads in ALL {
        let server = start_default(threads());
        let stream = server.connect();
        (&stream).write_all(b"x").unwrap();
        let mut byte = [0; 1];
        (&stream).read_exact(&mut byte).unwrap();
        server.handle.stop(Duration::from_millis(50));
        assert!(is_turned_away(&stream));
        assert_eq!(server.thread.join().unwrap().unwrap(), Outcome::Forced);
        assert!(UnixStream::connect(&server.path).is_err());
    }
}

#[test]
fn a_stop_turns_those_away_who_wait_in_the_backlog() {
    for threads in ALL {
        let rules = Rules::new(policy(&[]));
        let server = start(threads(), limits(1), Overload::Wait, rules);
        let first = server.connect();
        ping(&first);
        let waiting: Vec<_> = (0..10).map(|_| server.connect()).collect();
        server.handle.stop(PATIENCE * 2);
        assert!(waiting.iter().all(is_turned_away));
        ping(&first);
        drop(first);
        assert_eq!(server.thread.join().unwrap().unwrap(), Outcome::Drained);
    }
}

#[test]
fn a_reload_closes_those_no_longer_admitted() {
    for threads in ALL {
        let server = start_default(threads());
        let stream = server.connect();
        (&stream).write_all(b"x").unwrap();
        let mut byte = [0; 1];
        (&stream).read_exact(&mut byte).unwrap();
        assert_eq!(
            server
                .handle
                .reload(Rules::new(policy(&["any"])), limits(10)),
            0
        );
        (&stream).write_all(b"y").unwrap();
        (&stream).read_exact(&mut byte).unwrap();
        let none = Rules::new(policy(&["uid:4294967293"]));
        assert_eq!(server.handle.reload(none, limits(10)), 1);
        assert!(is_turned_away(&stream));
        assert!(is_turned_away(&server.connect()));
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn a_reload_waits_for_a_checker_that_never_answers_once_and_not_for_each() {
    let server = start_default(Threads::Multi);
    let streams: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for mut stream in &streams {
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
    }
    let config = CheckerConfig {
        digest_wait: Duration::from_millis(50),
        ..CheckerConfig::default()
    };
    // Nobody runs its threads. Asked one after the other, it would hold for ever.
    let (checker, _threads) = Checker::new(config).unwrap();
    let mut rules = Rules::new(policy(&["uid:self,name:somebody"]));
    rules.inspector = Inspector::new(Pins::default(), Some(checker));
    assert_eq!(server.handle.reload(rules, limits(100)), streams.len());
    assert!(streams.iter().all(is_turned_away));
    assert_eq!(server.stop(), Outcome::Drained);
}

/// Says whether the kernel still attaches senders to what it is sent.
fn tell_credentials(connection: &Connection) -> std::io::Result<()> {
    let on = rustix::net::sockopt::socket_passcred(connection)?;
    let mut byte = [0; 1];
    // It gives no room for senders, and looks for descriptors.
    { connection }.read_exact(&mut byte)?;
    { connection }.write_all(if on { b"on " } else { b"off" })
}

#[test]
fn after_the_proof_nobody_asks_who_sent_what() {
    let dir = TempDir::new();
    let path = dir.join("s/proved");
    let address = Address::Unix(SocketPath::parse(path.as_os_str()).unwrap());
    let options = Options::new(address).pass_credentials(true);
    let listener = Listener::bind(&options).unwrap().dangerously_unconfined();
    let own = std::env::current_exe().unwrap();
    let mut rules = Rules::new(policy(&[&format!("exe:{}", own.display())]));
    rules.process_proof = Choice::Yes;
    let checker = Checker::direct(CheckerConfig::default()).unwrap();
    let pins = Pins::open(&rules.policy.exe_paths(), &rules.policy.pids(), None).unwrap();
    rules.inspector = Inspector::new(pins, Some(checker));
    // As before Linux 6.16, where each receive looks for descriptors.
    let server = Server::with_service(listener, tell_credentials, rules)
        .watch_descriptors(true)
        .build()
        .unwrap();
    let handle = server.handle();
    let thread = thread::spawn(move || server.run());
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut challenge = [0; 16];
    stream.read_exact(&mut challenge).unwrap();
    stream.write_all(&challenge).unwrap();
    assert_eq!(round_trip(&stream, b"x"), b"off");
    handle.stop(Duration::from_secs(5));
    assert_eq!(thread.join().unwrap().unwrap(), Outcome::Drained);
}

/// The time to speak runs from admission: here the proof takes longer than all of it.
#[test]
fn who_is_examined_for_long_may_still_be_silent_for_a_while() {
    let bound = Duration::from_secs(3);
    for threads in ALL {
        let dir = TempDir::new();
        let path = dir.join("s/proved");
        let address = Address::Unix(SocketPath::parse(path.as_os_str()).unwrap());
        let options = Options::new(address).pass_credentials(true);
        let listener = Listener::bind(&options).unwrap().dangerously_unconfined();
        let own = std::env::current_exe().unwrap();
        let mut rules = Rules::new(policy(&[&format!("exe:{}", own.display())]));
        rules.process_proof = Choice::Yes;
        rules.proof_timeout = PATIENCE;
        Arc::make_mut(&mut rules.timeouts).first_byte = Some(bound);
        let checker = Checker::direct(CheckerConfig::default()).unwrap();
        let pins = Pins::open(&rules.policy.exe_paths(), &rules.policy.pids(), None).unwrap();
        rules.inspector = Inspector::new(pins, Some(checker));
        let server = Server::with_protocol(listener, Arc::new(Echo), rules)
            .threads(threads())
            .build()
            .unwrap();
        let handle = server.handle();
        let thread = thread::spawn(move || server.run());
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut challenge = [0; 16];
        stream.read_exact(&mut challenge).unwrap();
        thread::sleep(bound + Duration::from_millis(100));
        stream.write_all(&challenge).unwrap();
        // By then it is admitted, and waited for.
        thread::sleep(bound / 3);
        assert_eq!(round_trip(&stream, b"x"), b"x");
        drop(stream);
        handle.stop(Duration::from_secs(5));
        assert_eq!(thread.join().unwrap().unwrap(), Outcome::Drained);
    }
}

fn greet(connection: &Connection) -> std::io::Result<()> {
    let mut line = [0; 5];
    { connection }.read_exact(&mut line)?;
    assert_ne!(&line, b"panic", "as asked");
    { connection }.write_all(b"hello ")?;
    { connection }.write_all(&line)
}

#[test]
fn a_panic_closes_one_connection_only() {
    let dir = TempDir::new();
    let path = dir.join("s/service");
    let address = Address::Unix(SocketPath::parse(path.as_os_str()).unwrap());
    let listener = Listener::bind(&Options::new(address))
        .unwrap()
        .dangerously_unconfined();
    let rules = Rules::new(policy(&[]));
    let server = Server::with_service(listener, greet, rules)
        .build()
        .unwrap();
    let handle = server.handle();
    let thread = thread::spawn(move || server.run());
    for _ in 0..10 {
        let bad = UnixStream::connect(&path).unwrap();
        assert_eq!(round_trip(&bad, b"panic"), b"");
        let good = UnixStream::connect(&path).unwrap();
        assert_eq!(round_trip(&good, b"world"), b"hello world");
    }
    handle.stop(Duration::from_secs(5));
    assert_eq!(thread.join().unwrap().unwrap(), Outcome::Drained);
}

/// Echo, but every other session panics before it stands.
#[derive(Default)]
struct Brittle(AtomicU32);

impl Protocol for Brittle {
    fn name(&self) -> &'static str {
        "brittle"
    }

    fn open(&self, connection: &Arc<Connection>, waker: Option<Waker>) -> std::io::Result<Opened> {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        assert!(number % 2 == 1, "as asked");
        Echo.open(connection, waker)
    }
}

#[test]
fn a_panic_before_the_session_stands_closes_one_connection_only() {
    for threads in ALL {
        let rules = Rules::new(policy(&[]));
        let brittle = Arc::<Brittle>::default();
        let server = start_with(brittle, threads(), limits(10), Overload::Wait, rules);
        for _ in 0..10 {
            assert!(is_turned_away(&server.connect()));
            assert_eq!(round_trip(&server.connect(), b"world"), b"world");
        }
        let end = Instant::now() + PATIENCE;
        while server.handle.state().admission.open > 0 {
            assert!(Instant::now() < end, "a place was never given back");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(server.handle.connections().is_empty());
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn a_lower_bound_lets_newcomers_wait_as_well() {
    let server = start(
        Threads::Multi,
        limits(4),
        Overload::Wait,
        Rules::new(policy(&[])),
    );
    server.handle.reload(Rules::new(policy(&[])), limits(1));
    let end = Instant::now() + PATIENCE;
    while server.handle.state().threads > 1 {
        assert!(Instant::now() < end, "idle workers stayed");
        thread::sleep(Duration::from_millis(1));
    }
    let first = server.connect();
    let mut byte = [0; 1];
    (&first).write_all(b"x").unwrap();
    (&first).read_exact(&mut byte).unwrap();
    let second = server.connect();
    (&second).write_all(b"y").unwrap();
    second
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert!(
        (&second).read(&mut byte).is_err(),
        "neither served nor closed"
    );
    drop(first);
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    (&second).read_exact(&mut byte).unwrap();
    drop(second);
    assert_eq!(server.stop(), Outcome::Drained);
}

/// At the bound newcomers wait, also when several threads have accepted one more each at
/// the same moment.
#[test]
fn who_comes_beyond_the_bound_by_a_hair_is_not_refused() {
    let loops = Threads::Loops(NonZeroUsize::new(4).unwrap());
    let server = start(loops, limits(1), Overload::Wait, Rules::new(policy(&[])));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let stream = server.connect();
                    (&stream).write_all(b"x").unwrap();
                    (&stream).read_exact(&mut [0; 1]).unwrap();
                }
            });
        }
    });
    assert_eq!(server.stop(), Outcome::Drained);
}

/// Echo that notes whether its connections may block.
struct Noting {
    can_block: bool,
    blocks: Mutex<Option<bool>>,
}

impl Protocol for Noting {
    fn name(&self) -> &'static str {
        "noting"
    }

    fn can_block(&self) -> bool {
        self.can_block
    }

    fn open(&self, connection: &Arc<Connection>, waker: Option<Waker>) -> std::io::Result<Opened> {
        *self.blocks.lock().unwrap() = Some(blocks(connection.as_fd()));
        Echo.open(connection, waker)
    }
}

fn blocks(fd: impl AsFd) -> bool {
    !fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

#[test]
fn sockets_block_only_where_a_thread_may_wait_in_them() {
    for (threads, can_block, expected) in [
        (Threads::Multi, true, (true, true)),
        // As splice(2) needs it.
        (Threads::Multi, false, (true, false)),
        (loops(2), true, (false, false)),
        (loops(2), false, (false, false)),
    ] {
        for bound_nonblocking in [false, true] {
            let dir = TempDir::new();
            let path = dir.join("s/socket");
            let address = Address::Unix(SocketPath::parse(path.as_os_str()).unwrap());
            let options = Options::new(address).nonblocking(bound_nonblocking);
            let listener = Listener::bind(&options).unwrap().dangerously_unconfined();
            let socket: OwnedFd = listener.as_fd().try_clone_to_owned().unwrap();
            let noting = Arc::new(Noting {
                can_block,
                blocks: Mutex::new(None),
            });
            let protocol: Arc<dyn Protocol> = Arc::<Noting>::clone(&noting);
            let rules = Rules::new(policy(&[]));
            let server = Server::with_protocol(listener, protocol, rules).threads(threads);
            let running = server.build().unwrap().spawn().unwrap();
            assert_eq!(blocks(&socket), expected.0, "{threads:?}");
            let stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(round_trip(&stream, b"hello"), b"hello");
            let accepted = noting.blocks.lock().unwrap().unwrap();
            let asked_for = expected.1 && !bound_nonblocking;
            assert_eq!(accepted, asked_for, "{threads:?} {can_block}");
            running.stop(Duration::from_secs(5)).unwrap();
        }
    }
}
