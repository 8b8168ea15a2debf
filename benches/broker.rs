//! The broker beside others that pass messages over a Unix-domain socket: redis
//! and mosquitto, as far as this machine has them.
//!
//! One process for the broker under test, one for all of its clients: a thread
//! that publishes, pipelined, and one that reads for all subscribers. The
//! publisher stays at most a window ahead of the slowest subscriber, so that
//! nobody loses anything. Messages are counted by their bytes, the same way for
//! everyone.
//!
//!     cargo bench --bench broker [-- SECONDS]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a benchmark"
)]

#[path = "../tests/broker_support/mod.rs"]
mod broker_support;
#[path = "broker/peers.rs"]
mod peers;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peers::System;
use rustix::event::{PollFd, PollFlags, poll};

/// Messages that the publisher may be ahead of the slowest subscriber.
const WINDOW_BYTES: u64 = 1 << 20;

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some("--serve") {
        return serve(&arguments.next().unwrap());
    }
    let seconds = first.and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let span = Duration::from_secs_f64(seconds);
    println!(
        "{:<14} {:<22} {:>12} {:>12} {:>10} {:>10}",
        "system", "shape", "messages/s", "deliveries/s", "p50 us", "p99 us"
    );
    for size in [64, 4096] {
        for (publishers, subscribers) in [(1, 1), (1, 4), (1, 10), (1, 16), (1, 100), (4, 4)] {
            for system in System::available() {
                throughput(system, publishers, subscribers, size, span);
            }
        }
    }
    for size in [64, 4096] {
        for system in System::available() {
            round_trips(system, size, span);
        }
    }
}

/// The broker, in a process of its own.
fn serve(path: &str) {
    use broker_support::Running;
    let running = Running::default();
    let _ = std::fs::remove_file(path);
    std::os::unix::fs::symlink(&running.path, path).unwrap();
    println!("ready");
    // Until the other side has gone.
    let _ = std::io::stdin().read(&mut [0]);
}

/// A system under test.
struct Started {
    child: Child,
    path: String,
    _scratch: broker_support::Scratch,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(system: System) -> Started {
    let scratch = broker_support::Scratch::new();
    let path = scratch.path().join("s").to_str().unwrap().to_owned();
    let mut command = match system.command(&path) {
        Some(command) => command,
        None => {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--serve", &path]).stdin(Stdio::piped());
            command
        }
    };
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Started {
        child,
        path,
        _scratch: scratch,
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(&started.path).is_err() {
        assert!(Instant::now() < deadline, "{system:?} doesn't start");
        thread::sleep(Duration::from_millis(10));
    }
    started
}

/// What subscribers have received, in bytes.
struct Counts {
    received: Vec<AtomicU64>,
    over: AtomicBool,
}

impl Counts {
    fn slowest(&self) -> u64 {
        self.received
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .min()
            .unwrap_or(0)
    }
}

fn throughput(system: System, publishers: usize, subscribers: usize, size: usize, span: Duration) {
    let started = start(system);
    let sockets: Vec<_> = (0..subscribers)
        .map(|n| system.subscriber(&started.path, n))
        .collect();
    let received = (0..subscribers).map(|_| AtomicU64::new(0)).collect();
    let counts = Arc::new(Counts {
        received,
        over: AtomicBool::new(false),
    });
    let shared = Arc::clone(&counts);
    let reader = thread::spawn(move || read_all(&sockets, &shared));
    let delivered = system.delivered_bytes(size);
    let window = (WINDOW_BYTES / delivered).max(16) / publishers as u64;
    let sent = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let senders: Vec<_> = (0..publishers)
        .map(|_| {
            let (path, counts, sent) =
                (started.path.clone(), Arc::clone(&counts), Arc::clone(&sent));
            thread::spawn(move || {
                let mut publisher = system.publisher(&path);
                let one = system.publish_frame(size);
                let batch_count = (window / 4).clamp(1, (64 << 10) / one.len() as u64 + 1);
                let batch = one.repeat(batch_count as usize);
                let limit = window * publishers as u64;
                let mut buffer = vec![0; 64 << 10];
                let mut drain = |publisher: &mut UnixStream| {
                    if system.answers_publishers() {
                        read_what_is_there(publisher, &mut buffer);
                    }
                };
                while begin.elapsed() < span {
                    let ahead = sent.load(Ordering::Relaxed) - counts.slowest() / delivered;
                    if ahead + batch_count > limit {
                        thread::yield_now();
                        continue;
                    }
                    sent.fetch_add(batch_count, Ordering::Relaxed);
                    publisher.write_all(&batch).unwrap();
                    drain(&mut publisher);
                }
                // Some forget what they were sent by one who has left.
                let deadline = Instant::now() + Duration::from_secs(5);
                let all = || sent.load(Ordering::Relaxed) * delivered;
                while counts.slowest() < all() && Instant::now() < deadline {
                    drain(&mut publisher);
                    thread::sleep(Duration::from_micros(100));
                }
            })
        })
        .collect();
    senders
        .into_iter()
        .for_each(|sender| sender.join().unwrap());
    let all = sent.load(Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(10);
    while counts.slowest() < all * delivered && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    let took = begin.elapsed().as_secs_f64();
    counts.over.store(true, Ordering::Relaxed);
    reader.join().unwrap();
    let complete = counts.slowest() == all * delivered;
    let latency = latencies(system, subscribers.min(16), size);
    let shape = format!("{publishers}:{subscribers} {size} B");
    let note = if complete { "" } else { "  (incomplete)" };
    println!(
        "{:<14} {shape:<22} {:>12.0} {:>12.0} {:>10.0} {:>10.0}{note}",
        system.name(),
        all as f64 / took,
        (all * subscribers as u64) as f64 / took,
        latency.0,
        latency.1
    );
}

fn read_all(sockets: &[UnixStream], counts: &Counts) {
    let mut buffer = vec![0; 256 << 10];
    while !counts.over.load(Ordering::Relaxed) {
        let mut fds: Vec<_> = sockets
            .iter()
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        let wait = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        let _ = poll(&mut fds, Some(&wait));
        for (number, mut socket) in sockets.iter().enumerate() {
            if fds[number].revents().is_empty() {
                continue;
            }
            match socket.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    counts.received[number].fetch_add(count as u64, Ordering::Relaxed);
                }
            }
        }
    }
}

fn read_what_is_there(socket: &mut UnixStream, buffer: &mut [u8]) {
    use rustix::net::{RecvFlags, recv};
    while let Ok((_, count)) = recv(&*socket, &mut *buffer, RecvFlags::DONTWAIT) {
        if count < buffer.len() {
            break;
        }
    }
}

/// One message at a time to all subscribers, paced: from write to the last read.
fn latencies(system: System, subscribers: usize, size: usize) -> (f64, f64) {
    let started = start(system);
    let mut sockets: Vec<_> = (0..subscribers)
        .map(|n| system.subscriber(&started.path, n))
        .collect();
    let mut publisher = system.publisher(&started.path);
    let frame = system.publish_frame(size);
    let mut buffer = vec![0; system.delivered_bytes(size) as usize];
    let mut drain = vec![0; 4096];
    let mut taken = Vec::new();
    for _ in 0..2000 {
        let begin = Instant::now();
        publisher.write_all(&frame).unwrap();
        for socket in &mut sockets {
            socket.read_exact(&mut buffer).unwrap();
        }
        taken.push(begin.elapsed().as_nanos() as f64 / 1000.0);
        read_what_is_there(&mut publisher, &mut drain);
    }
    percentiles(taken)
}

fn percentiles(mut taken: Vec<f64>) -> (f64, f64) {
    taken.sort_by(f64::total_cmp);
    (taken[taken.len() / 2], taken[taken.len() * 99 / 100])
}

fn round_trips(system: System, size: usize, span: Duration) {
    let started = start(system);
    let (mut asker, mut server) = system.request_pair(&started.path);
    let (ask, answer_bytes) = system.ask(size);
    let path = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&path);
    let serving = thread::spawn(move || system.answer_all(&mut server, size, &over));
    let mut buffer = vec![0; answer_bytes];
    let mut taken = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < span {
        let sent = Instant::now();
        asker.write_all(&ask).unwrap();
        asker.read_exact(&mut buffer).unwrap();
        taken.push(sent.elapsed().as_nanos() as f64 / 1000.0);
    }
    let count = taken.len() as f64;
    let took = begin.elapsed().as_secs_f64();
    let (p50, p99) = percentiles(taken);
    path.store(true, Ordering::Relaxed);
    drop((asker, started));
    let _ = serving.join();
    println!(
        "{:<14} {:<22} {:>12.0} {:>12} {p50:>10.0} {p99:>10.0}",
        system.name(),
        format!("request {size} B"),
        count / took,
        ""
    );
}
