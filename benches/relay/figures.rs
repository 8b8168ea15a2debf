//! What is measured of each contestant.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::contestants::{self, Contestant};

/// Connections that are open at once for the figure of memory.
const IDLE: usize = 1000;

/// One measurement, which may give several values.
pub enum Figure {
    /// Bytes there and back, by so many clients.
    RoundTrips { size: usize, clients: usize },
    /// A stream one way, by so many clients.
    Bulk { clients: usize },
    /// One client after the other, or so many at once, a byte each.
    Connections { clients: usize },
    /// Connections that were used once.
    Idle,
    /// redis-benchmark.
    Redis { pipeline: usize, clients: usize },
}

/// All, in the order of the table.
pub fn all(with_redis: bool) -> Vec<Figure> {
    let mut all = Vec::new();
    for size in [64, 4096] {
        for clients in [1, 8, 64] {
            all.push(Figure::RoundTrips { size, clients });
        }
    }
    all.extend([1, 4].map(|clients| Figure::Bulk { clients }));
    all.extend([1, 8].map(|clients| Figure::Connections { clients }));
    if with_redis {
        for pipeline in [1, 16] {
            all.extend([1, 50].map(|clients| Figure::Redis { pipeline, clients }));
        }
    }
    all.push(Figure::Idle);
    all
}

impl Figure {
    pub fn title(&self) -> String {
        match self {
            Self::RoundTrips { size, clients } => format!("{size} B x{clients}"),
            Self::Bulk { clients } => format!("bulk x{clients}"),
            Self::Connections { clients } => format!("connections x{clients}"),
            Self::Idle => format!("{IDLE} idle"),
            Self::Redis { pipeline, clients } => format!("redis-benchmark P {pipeline} x{clients}"),
        }
    }

    /// Names with their units, and values.
    pub fn measure(&self, contestant: &Contestant, span: Duration) -> Vec<(String, f64)> {
        let title = self.title();
        let named = |what: &str, value: f64| (format!("{title}, {what}"), value);
        match *self {
            Self::RoundTrips { size, clients } => {
                let [rate, p50, p99] = round_trips(&contestant.socket, size, clients, span);
                vec![
                    named("round trips/s", rate),
                    named("p50 us", p50),
                    named("p99 us", p99),
                ]
            }
            Self::Bulk { clients } => {
                vec![named("MiB/s", bulk(&contestant.socket, clients, span))]
            }
            Self::Connections { clients } => {
                vec![named(
                    "a second",
                    connections(&contestant.socket, clients, span),
                )]
            }
            Self::Idle => vec![named("KiB each", idle(contestant))],
            Self::Redis { pipeline, clients } => match &contestant.redis {
                Some(socket) => redis(socket, pipeline, clients, span)
                    .into_iter()
                    .map(|(command, rate)| named(&format!("{command}/s"), rate))
                    .collect(),
                None => Vec::new(),
            },
        }
    }
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

/// Connections a second over all clients, each with one byte there and back.
fn connections(socket: &Path, clients: usize, span: Duration) -> f64 {
    let socket = socket.to_owned();
    let rates = together(clients, move |barrier| {
        barrier.wait();
        let begin = Instant::now();
        let mut made = 0;
        while begin.elapsed() < span {
            let mut stream = UnixStream::connect(&socket).unwrap();
            exchange(&mut stream, &mut [b'x']);
            made += 1;
        }
        f64::from(made) / begin.elapsed().as_secs_f64()
    });
    rates.iter().sum()
}

/// KiB that the relay needs more than when it was started, for each of many
/// connections which are open and have been used once.
fn idle(contestant: &Contestant) -> f64 {
    let open = (0..IDLE).map(|_| {
        let mut stream = UnixStream::connect(&contestant.socket).unwrap();
        exchange(&mut stream, &mut [b'x']);
        stream
    });
    let open: Vec<UnixStream> = open.collect();
    // Those that give memory back when idle do so within a second or so.
    thread::sleep(Duration::from_millis(1500));
    let more = contestant
        .resident_kib()
        .saturating_sub(contestant.fresh_kib);
    drop(open);
    // So that nobody is measured while those are taken down.
    thread::sleep(Duration::from_millis(500));
    more as f64 / IDLE as f64
}

/// Requests a second of each command, as redis-benchmark reports them.
fn redis(socket: &Path, pipeline: usize, clients: usize, span: Duration) -> Vec<(String, f64)> {
    let Some(program) = contestants::find("redis-benchmark") else {
        return Vec::new();
    };
    // As many as take about that long on a machine of two cores.
    let rate = match (pipeline, clients) {
        (1, 1) => 12_000.0,
        (1, _) => 30_000.0,
        _ => 200_000.0,
    };
    let count = (rate * span.as_secs_f64()) as usize;
    let output = Command::new(program)
        .arg("-s")
        .arg(socket)
        .args(["-t", "set,get", "--csv"])
        .args(["-n", &count.to_string(), "-c", &clients.to_string()])
        .args(["-P", &pipeline.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |line: &str| {
        let mut words = line.split(',').map(|word| word.trim_matches('"'));
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(value).collect()
}
