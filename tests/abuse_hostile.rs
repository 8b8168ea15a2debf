//! Hostile users against one honest one, behind the whole sandbox: he keeps his
//! service, they are recognised and named. And memory with many users.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Daemon, TempDir};

const ROLE: &str = "SECURE_SOCKET_TEST_ROLE";
const SOCKET: &str = "SECURE_SOCKET_TEST_SOCKET";

/// How long the attack lasts; `SECURE_SOCKET_ATTACK_SECONDS=300` for the whole time.
/// `SECURE_SOCKET_ATTACK_OPTIONS` are given to the server as well. To measure:
/// `cargo test --release --test abuse_hostile honest -- --nocapture --test-threads=1`.
fn attack() -> Duration {
    let given = std::env::var("SECURE_SOCKET_ATTACK_SECONDS").ok();
    Duration::from_secs(given.map_or(10, |seconds| seconds.parse().unwrap()))
}

/// One of the hostile users, until killed.
struct Hostile(Child);

impl Hostile {
    /// This program again, in another role, as another user.
    fn start(role: &str, uid: u32, program: &Path, socket: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["--exact", "helper_role", "--nocapture"]);
        command
            .env(ROLE, role)
            .env(SOCKET, socket)
            .uid(uid)
            .gid(uid);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test: what a hostile user does.
#[test]
fn helper_role() {
    let Some(role) = std::env::var_os(ROLE) else {
        return;
    };
    let socket = PathBuf::from(std::env::var_os(SOCKET).unwrap());
    let connect = || UnixStream::connect(&socket);
    match role.to_str().unwrap() {
        // Takes a processor and leaves the server alone.
        "busy" => loop {
            std::hint::spin_loop();
        },
        // Connects as fast as it can.
        "flood" => loop {
            drop(connect());
        },
        // Tries to hold 500 connections and says nothing on any.
        "loris" => loop {
            let mut held = Vec::new();
            for _ in 0..500 {
                held.extend(connect());
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_secs(2));
        },
        // Sends what no protocol has, in large pieces, and never reads.
        "garbage" => loop {
            if let Ok(mut stream) = connect() {
                let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
                let mut noise = vec![0xff; 1 << 20];
                noise[..4].copy_from_slice(b"SSB1");
                while stream.write_all(&noise).is_ok() {}
            }
            std::thread::sleep(Duration::from_millis(1));
        },
        other => panic!("{other}"),
    }
}

/// Round trips of 64 bytes, some on a connection that is kept and some on new ones. And
/// how many find no room in the backlog who would not wait for it.
fn measure(daemon: &Daemon, time: Duration) -> Times {
    let (mut kept, mut fresh) = (Vec::new(), Vec::new());
    let mut impatient = (0, 0);
    let mut connection = daemon.connect();
    let end = Instant::now() + time;
    while Instant::now() < end {
        for _ in 0..20 {
            let began = Instant::now();
            exchange(&mut connection);
            kept.push(began.elapsed());
        }
        let began = Instant::now();
        exchange(&mut daemon.connect());
        fresh.push(began.elapsed());
        impatient.0 += usize::from(!enters_at_once(&daemon.socket));
        impatient.1 += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    kept.sort();
    fresh.sort();
    Times {
        kept,
        fresh,
        impatient,
    }
}

struct Times {
    kept: Vec<Duration>,
    fresh: Vec<Duration>,
    /// Of so many.
    impatient: (usize, usize),
}

/// Whether connect(2) finds room in the backlog, for one who does not wait (`EAGAIN`).
#[track_caller]
fn enters_at_once(socket: &Path) -> bool {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let own =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    match rustix::net::connect(&own, &SocketAddrUnix::new(socket).unwrap()) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error, rustix::io::Errno::AGAIN);
            false
        }
    }
}

fn at(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

#[track_caller]
fn exchange(stream: &mut UnixStream) {
    let mut answer = [0; 64];
    stream.write_all(&[7; 64]).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [7; 64]);
}

fn hostile_users(threads: &str) {
    needs!(root);
    let dir = TempDir::new();
    let socket = dir.join("sock");
    // Where every user may run it from.
    let program = dir.join("hostile");
    support::copy_program(std::env::current_exe().unwrap(), &program);
    let more = std::env::var("SECURE_SOCKET_ATTACK_OPTIONS").unwrap_or_default();
    let (path, metrics) = (
        format!("socket_path={}", socket.display()),
        format!(
            "metrics_socket=@sst-hostile-{}-{threads}",
            std::process::id()
        ),
    );
    let mut options = vec![
        path.as_str(),
        "allow=any",
        "socket_permissions=0666",
        "max_connections=400",
        "max_connections_per_uid=100",
        "connection_rate_per_uid=100/1s",
        "limit=uid:0:connections=50,rate=1000/1s",
        "penalty_for=denial,protocol,flood,slow_sender,slow_reader",
        "denials_before_penalty=200",
        "penalty=2s",
        "overload=refuse",
        "first_byte_timeout=1s",
        "write_timeout=1s",
        &metrics,
        threads,
    ];
    options.extend(more.split_whitespace());
    let mut daemon = Daemon::start(&options);
    let quiet = measure(&daemon, attack() / 5);
    // What the machine alone takes from him, when so many others want its processors.
    let others = [20_001, 20_002, 20_003].map(|uid| Hostile::start("busy", uid, &program, &socket));
    let busy = measure(&daemon, attack() / 5);
    drop(others);
    let roles = ["flood", "loris", "garbage"];
    let hostile = [(0, 20_001), (1, 20_002), (2, 20_003)]
        .map(|(role, uid)| Hostile::start(roles[role], uid, &program, &socket));
    std::thread::sleep(Duration::from_secs(1));
    let loud = measure(&daemon, attack());
    drop(hostile);
    let show = |times: &[Duration]| {
        format!(
            "p50 {:?} p99 {:?} max {:?}",
            at(times, 50),
            at(times, 99),
            at(times, 100)
        )
    };
    println!("{threads}: kept, quiet: {}", show(&quiet.kept));
    println!("{threads}: kept, busy machine: {}", show(&busy.kept));
    println!("{threads}: kept, under attack: {}", show(&loud.kept));
    println!("{threads}: new, quiet: {}", show(&quiet.fresh));
    println!("{threads}: new, busy machine: {}", show(&busy.fresh));
    println!("{threads}: new, under attack: {}", show(&loud.fresh));
    let times = |one: &[Duration], other: &[Duration]| {
        at(one, 99).as_secs_f64() / at(other, 99).as_secs_f64()
    };
    println!(
        "{threads}: p99 under attack: kept {:.2} times that of the quiet machine, {:.2} times \
         that of the busy one; new {:.2} and {:.2} times",
        times(&loud.kept, &quiet.kept),
        times(&loud.kept, &busy.kept),
        times(&loud.fresh, &quiet.fresh),
        times(&loud.fresh, &busy.fresh),
    );
    let (without, of) = loud.impatient;
    println!("{threads}: connect without waiting, under attack: {without} of {of} found no room");
    println!(
        "{threads}: {} and {} round trips, none failed",
        loud.kept.len(),
        loud.fresh.len()
    );
    daemon.signal("USR1");
    daemon.wait_for_log("state: admitted=");
    let log = daemon.log();
    for line in log.lines().filter(|line| line.contains("state: a")) {
        println!("{threads}: {line}");
    }
    println!("{threads}: {} lines in the log", log.lines().count());
    let flood = log
        .lines()
        .filter(|line| line.contains("pattern=flood") && line.contains("uid=20001"));
    assert!(
        (1..=8).contains(&flood.count()),
        "recognised, and told once while it lasts"
    );
    assert!(log.contains("penalty for uid=20001"));
    assert!(!log.contains("refused uid=0"));
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn hostile_users_take_nothing_from_an_honest_one_on_the_pool() {
    hostile_users("threads=multi");
}

#[test]
fn hostile_users_take_nothing_from_an_honest_one_on_one_thread() {
    hostile_users("threads=single");
}

/// He is denied once and then under a penalty, and asks for thirty connections one after
/// the other; then two of him come as fast as they can, until the server has stopped.
#[track_caller]
fn paced(threads: &str) {
    needs!(root);
    for (rate, least) in [
        ("penalty_rate=100/1s", Duration::from_millis(270)),
        ("penalty_rate=5000/1s", Duration::from_micros(5_300)),
    ] {
        let dir = TempDir::new();
        let path = dir.join("sock");
        let mut daemon = Daemon::start(&[
            &format!("socket_path={}", path.display()),
            "allow=uid:12345",
            "denials_before_penalty=1",
            rate,
            threads,
        ]);
        let began = Instant::now();
        for _ in 0..30 {
            assert!(support::is_turned_away(&daemon.connect()));
        }
        // The second is the first who pays for it: 28 times the time between two.
        let took = began.elapsed();
        assert!(took >= least, "{rate} {threads}: in {took:?}");
        daemon.signal("USR1");
        daemon.wait_for_log("state: admitted=0 denied=1 refused=29");
        let floods = [(); 2].map(|()| {
            let path = path.clone();
            std::thread::spawn(move || while UnixStream::connect(&path).is_ok() {})
        });
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(daemon.stop().code(), Some(0));
        for flood in floods {
            flood.join().unwrap();
        }
    }
}

#[test]
fn who_is_under_a_penalty_is_turned_away_at_its_pace_by_the_pool() {
    paced("threads=multi");
}

#[test]
fn who_is_under_a_penalty_is_turned_away_at_its_pace_by_one_thread() {
    paced("threads=single");
}

#[test]
fn who_is_under_a_penalty_is_turned_away_at_its_pace_by_two_threads() {
    paced("threads=2");
}

/// A crowd leaves many idle workers, which all turn one away as a flood begins, and are let
/// go meanwhile: others are served, by those who take turns now.
#[test]
fn others_are_served_while_a_pool_keeps_a_pace() {
    needs!(root);
    let dir = TempDir::new();
    let (path, config) = (dir.join("sock"), dir.join("conf"));
    fs::write(&config, "max_connections=300\n").unwrap();
    let mut daemon = Daemon::start(&[
        &format!("socket_path={}", path.display()),
        &format!("config={}", config.display()),
        "socket_permissions=0666",
        "allow=uid:0",
        "denials_before_penalty=1",
        "penalty_rate=100/1s",
        "backlog=4",
    ]);
    let crowd: Vec<UnixStream> = (0..200)
        .map(|_| {
            let mut stream = daemon.connect();
            exchange(&mut stream);
            stream
        })
        .collect();
    drop(crowd);
    let program = dir.join("hostile");
    support::copy_program(std::env::current_exe().unwrap(), &program);
    let flood = Hostile::start("flood", 20_001, &program, &path);
    // A lower bound lets all but a few of the workers go.
    for number in 0..60 {
        exchange(&mut daemon.connect());
        if number == 20 {
            fs::write(&config, "max_connections=6\n").unwrap();
            daemon.signal("HUP");
            daemon.wait_for_log("reload");
        }
    }
    drop(flood);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn ten_thousand_users_take_bounded_memory() {
    needs!(root);
    let dir = TempDir::new();
    let socket = dir.join("sock");
    let daemon = Daemon::start(&[
        &format!("socket_path={}", socket.display()),
        "allow=uid:0",
        "socket_permissions=0666",
        "peers_remembered=2000",
        "log_target=stdout:5",
    ]);
    exchange(&mut daemon.connect());
    let before = resident(daemon.pid());
    // A thread may have a user of its own for its system calls, and connect as that.
    let target = socket.clone();
    std::thread::spawn(move || {
        for uid in 30_000..40_000 {
            let uid = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(None, Some(uid), None).unwrap();
            if let Ok(mut stream) = UnixStream::connect(&target) {
                assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
            }
            let root = rustix::process::Uid::ROOT;
            rustix::thread::set_thread_res_uid(None, Some(root), None).unwrap();
        }
    })
    .join()
    .unwrap();
    let after = resident(daemon.pid());
    println!("10000 users denied: resident {before} KiB, then {after} KiB");
    // 2000 accounts of half a KiB.
    assert!(after < before + 4_096, "{before} KiB, then {after} KiB");
    assert_eq!(daemon.stop().code(), Some(0));
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
