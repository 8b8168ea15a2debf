//! The relay beside a direct connection, a minimal C relay, haproxy, nginx and
//! socat: round trips, bulk, connections, memory.
//!
//! `cargo bench --bench relay` prints the medians of `RELAY_BENCH_ROUNDS` rounds
//! (3) of `RELAY_BENCH_SECONDS` (1.0) each. `RELAY_BENCH_ONLY=name,name` takes a
//! part of the contestants. Client, relay and upstream share the machine.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    unreachable_pub
)]

mod contestants;
mod upstream;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use contestants::{Contestant, NAMES};

const ROUND_TRIPS: [(usize, usize); 6] =
    [(64, 1), (64, 8), (64, 64), (4096, 1), (4096, 8), (4096, 64)];
const BULK: [usize; 2] = [1, 4];
const IDLE: usize = 1000;

/// All figures of one contestant in one round, in the order of [`titles`].
type Figures = Vec<f64>;

fn titles() -> Vec<String> {
    let mut titles = Vec::new();
    for (size, clients) in ROUND_TRIPS {
        titles.push(format!("{size} B x{clients}: round trips/s"));
        titles.push(format!("{size} B x{clients}: p50 us"));
        titles.push(format!("{size} B x{clients}: p99 us"));
    }
    titles.extend(BULK.map(|clients| format!("bulk x{clients}: MiB/s")));
    titles.push("connections/s".into());
    titles.push(format!("KiB for {IDLE} idle"));
    titles
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, path] = &arguments[..]
        && mode == "upstream"
    {
        upstream::run(Path::new(path));
    }
    let rounds = setting("RELAY_BENCH_ROUNDS", 3.0) as usize;
    let span = Duration::from_secs_f64(setting("RELAY_BENCH_SECONDS", 1.0));
    let only = std::env::var("RELAY_BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &&&str| only.is_empty() || only.split(',').any(|one| one == **name);
    let limit = rustix::process::Rlimit {
        current: Some(20_000),
        maximum: Some(20_000),
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);

    let dir = Scratch::new();
    let backend = Backend::start(&dir.0);
    let mut table: Vec<(&str, Vec<Figures>)> = Vec::new();
    for round in 0..rounds {
        for name in NAMES.iter().filter(wanted) {
            let Some(contestant) = contestants::start(name, &dir.0, &backend.socket) else {
                continue;
            };
            eprintln!("round {}: {name}", round + 1);
            let figures = measure(&contestant, span);
            match table.iter_mut().find(|(known, _)| known == name) {
                Some((_, all)) => all.push(figures),
                None => table.push((contestant.name, vec![figures])),
            }
        }
    }
    print(&table);
}

fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn print(table: &[(&str, Vec<Figures>)]) {
    print!("{:28}", "");
    for (name, _) in table {
        print!(" {name:>14.14}");
    }
    println!();
    for (place, title) in titles().iter().enumerate() {
        print!("{title:28}");
        for (_, rounds) in table {
            let mut all: Vec<f64> = rounds.iter().map(|figures| figures[place]).collect();
            all.sort_by(f64::total_cmp);
            print!(" {:>14.1}", all[all.len() / 2]);
        }
        println!();
    }
}

fn measure(contestant: &Contestant, span: Duration) -> Figures {
    let mut figures = Vec::new();
    for (size, clients) in ROUND_TRIPS {
        figures.extend(round_trips(&contestant.socket, size, clients, span));
    }
    for clients in BULK {
        figures.push(bulk(&contestant.socket, clients, span));
    }
    figures.push(connections(&contestant.socket, span));
    figures.push(idle(contestant));
    figures
}

/// Runs the same at once for so many clients, and gives what each returns.
fn together<T: Send + 'static>(
    clients: usize,
    work: impl Fn(&Barrier) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let barrier = Arc::new(Barrier::new(clients));
    let work = Arc::new(work);
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (barrier, work) = (Arc::clone(&barrier), Arc::clone(&work));
            let run = move || work(&barrier);
            thread::Builder::new()
                .stack_size(128 << 10)
                .spawn(run)
                .unwrap()
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect()
}

/// Round trips a second over all clients, median and 99th percentile in microseconds.
fn round_trips(socket: &Path, size: usize, clients: usize, span: Duration) -> [f64; 3] {
    let socket = socket.to_owned();
    let all = together(clients, move |barrier| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let mut buffer = vec![b'x'; size];
        exchange(&mut stream, &mut buffer);
        barrier.wait();
        let mut times = Vec::with_capacity(1 << 16);
        let begin = Instant::now();
        let mut last = begin;
        while last.duration_since(begin) < span {
            exchange(&mut stream, &mut buffer);
            let now = Instant::now();
            times.push(now.duration_since(last).as_nanos() as u64);
            last = now;
        }
        (times, begin, last)
    });
    let begin = all.iter().map(|(_, begin, _)| *begin).min().unwrap();
    let last = all.iter().map(|(_, _, last)| *last).max().unwrap();
    let mut times: Vec<u64> = all.into_iter().flat_map(|(times, ..)| times).collect();
    times.sort_unstable();
    let rate = times.len() as f64 / last.duration_since(begin).as_secs_f64();
    let at = |part: usize| times[times.len() * part / 100] as f64 / 1000.0;
    [rate, at(50), at(99)]
}

fn exchange(stream: &mut UnixStream, buffer: &mut [u8]) {
    stream.write_all(buffer).unwrap();
    stream.read_exact(buffer).unwrap();
}

/// MiB a second that arrive, over all clients.
fn bulk(socket: &Path, clients: usize, span: Duration) -> f64 {
    let socket = socket.to_owned();
    let all = together(clients, move |barrier| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let block = vec![b'B'; 64 << 10];
        barrier.wait();
        let begin = Instant::now();
        let mut sent = 0_u64;
        while begin.elapsed() < span {
            stream.write_all(&block).unwrap();
            sent += block.len() as u64;
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"all");
        (sent, begin, Instant::now())
    });
    let begin = all.iter().map(|(_, begin, _)| *begin).min().unwrap();
    let last = all.iter().map(|(.., last)| *last).max().unwrap();
    let sent: u64 = all.iter().map(|(sent, ..)| *sent).sum();
    sent as f64 / f64::from(1 << 20) / last.duration_since(begin).as_secs_f64()
}

/// Connections a second by one client, each with one byte there and back.
fn connections(socket: &Path, span: Duration) -> f64 {
    let begin = Instant::now();
    let mut made = 0;
    while begin.elapsed() < span {
        let mut stream = UnixStream::connect(socket).unwrap();
        exchange(&mut stream, &mut [b'x']);
        made += 1;
    }
    f64::from(made) / begin.elapsed().as_secs_f64()
}

/// KiB of the relay while so many connections are open and have been used once.
fn idle(contestant: &Contestant) -> f64 {
    let open = (0..IDLE).map(|_| {
        let mut stream = UnixStream::connect(&contestant.socket).unwrap();
        exchange(&mut stream, &mut [b'x']);
        stream
    });
    let _open: Vec<UnixStream> = open.collect();
    thread::sleep(Duration::from_millis(200));
    contestant.resident_kib() as f64
}

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("relay-bench-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The upstream, in a process of its own.
struct Backend {
    socket: PathBuf,
    child: Child,
}

impl Backend {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("upstream");
        let me = std::env::current_exe().unwrap();
        let child = Command::new(me)
            .arg("upstream")
            .arg(&socket)
            .spawn()
            .unwrap();
        while UnixStream::connect(&socket).is_err() {
            thread::sleep(Duration::from_millis(5));
        }
        Self { socket, child }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
