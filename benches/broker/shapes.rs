//! What is measured: fan-out and many-to-many by messages a second, one message at a
//! time by its latency, requests by their round trips.
//!
//! The publisher stays at most a window ahead of the slowest subscriber, so that
//! nobody is cut off; subscribers are all read by one thread, which counts bytes.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::systems::{Server, Stream, System};

/// Bytes that publishers may be ahead of the slowest subscriber.
const WINDOW_BYTES: u64 = 1 << 20;
/// Bytes that are written at once.
const BATCH_BYTES: usize = 64 << 10;
/// Before counting begins.
const WARM_UP: Duration = Duration::from_millis(100);

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    Publish {
        publishers: usize,
        subscribers: usize,
        size: usize,
    },
    Request {
        size: usize,
    },
}

impl Shape {
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for size in [64, 4096] {
            for (publishers, subscribers) in [(1, 1), (1, 10), (1, 16), (1, 100), (4, 4)] {
                all.push(Self::Publish {
                    publishers,
                    subscribers,
                    size,
                });
            }
            all.push(Self::Request { size });
        }
        all
    }

    pub fn measure(self, system: &dyn System, server: &Server, span: Duration) -> Figures {
        match self {
            Self::Publish {
                publishers,
                subscribers,
                size,
            } => publish(system, server, (publishers, subscribers, size), span),
            Self::Request { size } => round_trips(system, server, size, span),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish {
                publishers,
                subscribers,
                size,
            } => write!(f, "{publishers}:{subscribers} {size} B"),
            Self::Request { size } => write!(f, "request {size} B"),
        }
    }
}

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Messages published, or requests answered, in a second.
    pub rate: f64,
    /// From the write of one message to the last subscriber's read, or of one
    /// request to its answer, in microseconds.
    pub p50: f64,
    pub p99: f64,
    /// Whether everything that was published has arrived.
    pub complete: bool,
}

/// What subscribers have received, in bytes.
struct Counts {
    received: Vec<AtomicU64>,
    over: AtomicBool,
}

impl Counts {
    fn slowest(&self) -> u64 {
        let counts = self
            .received
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        counts.min().unwrap_or(0)
    }

    fn total(&self) -> u64 {
        let counts = self
            .received
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        counts.sum()
    }
}

fn publish(
    system: &dyn System,
    server: &Server,
    (publishers, subscribers, size): (usize, usize, usize),
    span: Duration,
) -> Figures {
    let mut sources: Vec<Stream> = (0..publishers).map(|_| system.publisher(server)).collect();
    let mut sinks: Vec<Stream> = (0..subscribers)
        .map(|_| system.subscriber(server))
        .collect();
    let one = system.publish(size);
    let delivered = length_of_one(&mut sources, &mut sinks, &one);
    let (p50, p99) = latencies(&mut sources[0], &mut sinks, &one, delivered, span);

    let received = (0..subscribers).map(|_| AtomicU64::new(0)).collect();
    let counts = Arc::new(Counts {
        received,
        over: AtomicBool::new(false),
    });
    let (sent, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let shared = Arc::clone(&counts);
    let reader = thread::spawn(move || read_all(&sinks, &shared));
    let delivered = delivered as u64;
    let window = (WINDOW_BYTES / delivered).max(16);
    let senders: Vec<_> = sources
        .into_iter()
        .map(|mut source| {
            let batch = (window / publishers as u64 / 4).clamp(1, (BATCH_BYTES / one.len()) as u64);
            let bytes = one.repeat(batch as usize);
            let (counts, sent, stop) = (Arc::clone(&counts), Arc::clone(&sent), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let ahead = sent.load(Ordering::Relaxed) - counts.slowest() / delivered;
                    if ahead + batch > window {
                        thread::sleep(Duration::from_micros(20));
                        continue;
                    }
                    sent.fetch_add(batch, Ordering::Relaxed);
                    source.write_all(&bytes).unwrap();
                }
                // It stays: some forget what they were sent by one who has left.
                source
            })
        })
        .collect();
    thread::sleep(WARM_UP);
    let (begin, before) = (Instant::now(), counts.total());
    thread::sleep(span);
    let (took, after) = (begin.elapsed().as_secs_f64(), counts.total());
    stop.store(true, Ordering::Relaxed);
    let sources: Vec<Stream> = senders.into_iter().map(|s| s.join().unwrap()).collect();
    let all = sent.load(Ordering::Relaxed) * delivered;
    let deadline = Instant::now() + Duration::from_secs(10);
    while counts.slowest() < all && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    let complete = counts.slowest() == all;
    counts.over.store(true, Ordering::Relaxed);
    reader.join().unwrap();
    drop(sources);
    Figures {
        rate: (after - before) as f64 / (delivered * subscribers as u64) as f64 / took,
        p50,
        p99,
        complete,
    }
}

/// Publishes one message from each source, and finds how long one is as it arrives.
fn length_of_one(sources: &mut [Stream], sinks: &mut [Stream], one: &[u8]) -> usize {
    for source in &mut *sources {
        source.write_all(one).unwrap();
    }
    let length = sinks
        .first_mut()
        .map_or(0, |sink| read_until_quiet(sink).len());
    assert!(length > 0 && length.is_multiple_of(sources.len()));
    let mut buffer = vec![0; length];
    for sink in sinks.iter_mut().skip(1) {
        sink.read_exact(&mut buffer).unwrap();
    }
    length / sources.len()
}

fn is_readable(stream: &Stream, within_ms: i64) -> bool {
    let within = Timespec {
        tv_sec: within_ms / 1000,
        tv_nsec: within_ms % 1000 * 1_000_000,
    };
    let mut fds = [PollFd::new(stream, PollFlags::IN)];
    poll(&mut fds, Some(&within)).unwrap() == 1
}

fn read_all(sinks: &[Stream], counts: &Counts) {
    let mut buffer = vec![0; 256 << 10];
    let wait = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    while !counts.over.load(Ordering::Relaxed) {
        let mut fds: Vec<_> = sinks
            .iter()
            .map(|sink| PollFd::new(sink, PollFlags::IN))
            .collect();
        let _ = poll(&mut fds, Some(&wait));
        for (number, mut sink) in sinks.iter().enumerate() {
            if fds[number].revents().is_empty() {
                continue;
            }
            match sink.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    counts.received[number].fetch_add(count as u64, Ordering::Relaxed);
                }
            }
        }
    }
}

/// One message at a time to all subscribers: from its write to the last read.
fn latencies(
    source: &mut Stream,
    sinks: &mut [Stream],
    one: &[u8],
    delivered: usize,
    span: Duration,
) -> (f64, f64) {
    let mut buffer = vec![0; delivered];
    let mut taken = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < span || taken.len() < 200 {
        let sent = Instant::now();
        source.write_all(one).unwrap();
        for sink in &mut *sinks {
            sink.read_exact(&mut buffer).unwrap();
        }
        taken.push(sent.elapsed().as_nanos() as f64 / 1000.0);
    }
    percentiles(taken)
}

fn percentiles(mut taken: Vec<f64>) -> (f64, f64) {
    taken.sort_by(f64::total_cmp);
    (taken[taken.len() / 2], taken[taken.len() * 99 / 100])
}

fn round_trips(system: &dyn System, server: &Server, size: usize, span: Duration) -> Figures {
    let mut pair = system.pair(server, size);
    pair.asker.output.write_all(&pair.request).unwrap();
    let request = read_until_quiet(&mut pair.responder.input);
    let answer = (pair.answer)(&request, size);
    pair.responder.output.write_all(&answer).unwrap();
    let answer_bytes = read_until_quiet(&mut pair.asker.input).len();

    let (mut responder, answer) = (pair.responder, pair.answer);
    let mut request = request;
    // It ends when the server does.
    thread::spawn(move || {
        while responder.input.read_exact(&mut request).is_ok() {
            let answer = answer(&request, size);
            if responder.output.write_all(&answer).is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; answer_bytes];
    let mut taken = Vec::new();
    let mut begin = Instant::now();
    let mut warm = false;
    while !warm || begin.elapsed() < span {
        if !warm && begin.elapsed() > WARM_UP {
            (warm, begin) = (true, Instant::now());
            taken.clear();
        }
        let sent = Instant::now();
        pair.asker.output.write_all(&pair.request).unwrap();
        pair.asker.input.read_exact(&mut buffer).unwrap();
        taken.push(sent.elapsed().as_nanos() as f64 / 1000.0);
    }
    let rate = taken.len() as f64 / begin.elapsed().as_secs_f64();
    let (p50, p99) = percentiles(taken);
    Figures {
        rate,
        p50,
        p99,
        complete: true,
    }
}

fn read_until_quiet(stream: &mut Stream) -> Vec<u8> {
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let mut quiet_ms = 5000;
    while is_readable(stream, quiet_ms) {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "it was closed");
        found.extend_from_slice(&buffer[..count]);
        quiet_ms = 100;
    }
    found
}
