//! Every signal in every state, alone and in random order: always an orderly end
//! with the right exit code.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use support::{Daemon, TempDir};

/// How many lives; `SECURE_SOCKET_LIVES=500` for the whole number.
fn lives() -> u64 {
    let given = std::env::var("SECURE_SOCKET_LIVES").ok();
    given.map_or(40, |number| number.parse().unwrap())
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// In what state the signals come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Starting,
    Idle,
    Serving,
    Draining,
}

const HARMLESS: [&str; 4] = ["HUP", "USR1", "PIPE", "HUP"];

fn pause(random: &mut Random, most_ms: u64) {
    std::thread::sleep(Duration::from_micros(random.below(most_ms * 1_000)));
}

fn live(seed: u64) {
    let mut random = Random(seed);
    let states = [
        State::Starting,
        State::Idle,
        State::Serving,
        State::Draining,
    ];
    let state = states[usize::try_from(random.below(4)).unwrap()];
    let threads = ["threads=multi", "threads=single", "threads=2"];
    let threads = threads[usize::try_from(random.below(3)).unwrap()];
    let dir = TempDir::new();
    let config = dir.join("conf");
    std::fs::write(&config, "stop_timeout=20s\n").unwrap();
    let options = [threads, &format!("config={}", config.display())];
    let mut daemon = Daemon::spawn(&options);
    if state == State::Starting {
        // Before it has taken charge of its signals, they end it as they end any.
        pause(&mut random, 30);
        while !daemon.log().contains("sandbox:") {
            if daemon.has_ended() {
                panic!("seed {seed}: {}", daemon.log());
            }
        }
    } else {
        daemon.wait_until_ready();
    }
    let mut held: Option<UnixStream> = None;
    if matches!(state, State::Serving | State::Draining) {
        let mut stream = daemon.connect();
        exchange(&mut stream);
        held = Some(stream);
    }
    let mut stops = 0;
    if state == State::Draining {
        daemon.signal("TERM");
        stops += 1;
    }
    for _ in 0..2 + random.below(4) {
        let signal = HARMLESS[usize::try_from(random.below(4)).unwrap()];
        daemon.signal(signal);
        daemon.signal(signal);
        pause(&mut random, 5);
    }
    if let Some(stream) = &mut held {
        exchange(stream);
    }
    // Half of those with an open connection are forced, the others end in peace.
    let force = held.is_some() && random.below(2) == 0;
    if force {
        while stops < 2 {
            // Two of a kind that come before the first is seen are one (signal(7)).
            if stops > 0 {
                daemon.wait_for_log("asked to stop by");
            }
            daemon.signal(["TERM", "INT"][usize::try_from(random.below(2)).unwrap()]);
            stops += 1;
        }
    } else {
        if stops == 0 {
            daemon.signal(["TERM", "INT"][usize::try_from(random.below(2)).unwrap()]);
        }
        pause(&mut random, 20);
        drop(held.take());
    }
    let began = Instant::now();
    let status = daemon.wait();
    let expected = i32::from(force);
    assert_eq!(
        status.code(),
        Some(expected),
        "seed {seed} {state:?} {threads} signal {:?}:\n{}",
        status.signal(),
        daemon.log()
    );
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "seed {seed}: {:?}",
        began.elapsed()
    );
    assert!(
        !daemon.socket.exists(),
        "seed {seed}: the socket was left behind"
    );
}

#[track_caller]
fn exchange(stream: &mut UnixStream) {
    let mut answer = [0; 16];
    stream.write_all(&[9; 16]).unwrap();
    stream.read_exact(&mut answer).unwrap();
}

#[test]
fn signals_in_any_state_and_order_end_in_order() {
    let first = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    let lives = lives();
    for number in 0..lives {
        live(first.wrapping_add(number.wrapping_mul(0x1000_0000_01b3)));
    }
    println!("{lives} lives, each ended in order");
}

#[test]
fn two_signals_to_who_serves_nobody_force_nothing() {
    let first = u64::from(std::process::id()) | 1;
    for number in 0..lives() {
        let mut random = Random(first.wrapping_add(number.wrapping_mul(0x1000_0000_01b3)));
        let dir = TempDir::new();
        let trail = format!("trail_file={}", dir.join("trail").display());
        let mut daemon = Daemon::start(&[&trail]);
        daemon.signal("TERM");
        pause(&mut random, 6);
        daemon.signal("INT");
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
    }
}
