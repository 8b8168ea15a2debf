//! The clients: round trips, connections, and where they run.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const SIZE: usize = 64;

/// Connects, as often as it takes: a full backlog is no failure of the server.
pub fn connect(socket: &Path) -> UnixStream {
    for _ in 0..2_000 {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{}: {error}", socket.display()),
        }
    }
    panic!("{}: the backlog stays full", socket.display());
}

fn exchange(stream: &mut UnixStream, buffer: &mut [u8]) {
    stream.write_all(buffer).unwrap();
    stream.read_exact(buffer).unwrap();
}

/// A connection that has been used once.
pub fn used_connection(socket: &Path) -> UnixStream {
    let mut stream = connect(socket);
    exchange(&mut stream, &mut [b'x'; SIZE]);
    stream
}

/// Runs the same at once in so many threads, and gives what each returns.
fn together<T: Send + 'static>(
    clients: usize,
    work: impl Fn(&Barrier) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let barrier = Arc::new(Barrier::new(clients));
    let work = Arc::new(work);
    let run = |_| {
        let (barrier, work) = (Arc::clone(&barrier), Arc::clone(&work));
        thread::spawn(move || work(&barrier))
    };
    let threads: Vec<_> = (0..clients).map(run).collect();
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect()
}

/// Round trips a second over all clients, median and 99th percentile in microseconds.
pub fn round_trips(socket: &Path, clients: usize, span: Duration) -> [f64; 3] {
    let socket = socket.to_owned();
    let all = together(clients, move |barrier| {
        let mut stream = used_connection(&socket);
        let mut buffer = [b'x'; SIZE];
        let mut times = Vec::with_capacity(1 << 16);
        barrier.wait();
        let begin = Instant::now();
        let mut last = begin;
        while last.duration_since(begin) < span {
            exchange(&mut stream, &mut buffer);
            let now = Instant::now();
            times.push(now.duration_since(last).as_nanos() as u64);
            last = now;
        }
        (times, last.duration_since(begin))
    });
    let took = all.iter().map(|(_, took)| *took).max().unwrap();
    summary(all.into_iter().flat_map(|(times, _)| times).collect(), took)
}

/// The same for many connections that one thread drives, as they become ready.
pub fn multiplexed(socket: &Path, clients: usize, span: Duration) -> [f64; 3] {
    let mut streams: Vec<_> = (0..clients).map(|_| used_connection(socket)).collect();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    for (number, stream) in streams.iter().enumerate() {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&epoll, stream, data, epoll::EventFlags::IN).unwrap();
    }
    let mut buffer = [b'x'; SIZE];
    let begin = Instant::now();
    let mut sent: Vec<_> = streams
        .iter_mut()
        .map(|stream| {
            stream.write_all(&buffer).unwrap();
            Instant::now()
        })
        .collect();
    let mut times = Vec::with_capacity(1 << 18);
    let mut events: Vec<epoll::Event> = Vec::with_capacity(clients);
    while begin.elapsed() < span {
        events.clear();
        let spare = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(&epoll, spare, None).unwrap();
        for event in &events {
            let number = event.data.u64() as usize;
            let stream = &mut streams[number];
            stream.read_exact(&mut buffer).unwrap();
            let now = Instant::now();
            times.push(now.duration_since(sent[number]).as_nanos() as u64);
            stream.write_all(&buffer).unwrap();
            sent[number] = now;
        }
    }
    summary(times, begin.elapsed())
}

fn summary(mut times: Vec<u64>, took: Duration) -> [f64; 3] {
    times.sort_unstable();
    let rate = times.len() as f64 / took.as_secs_f64();
    let at = |part: usize| times[times.len() * part / 100] as f64 / 1000.0;
    [rate, at(50), at(99)]
}

/// Connections a second over all clients, each with one byte there and back.
pub fn connections(socket: &Path, clients: usize, span: Duration) -> f64 {
    let socket = socket.to_owned();
    let all = together(clients, move |barrier| {
        barrier.wait();
        let begin = Instant::now();
        let mut made = 0_u64;
        while begin.elapsed() < span {
            exchange(&mut connect(&socket), &mut [b'x']);
            made += 1;
        }
        (made, begin.elapsed())
    });
    let took = all.iter().map(|(_, took)| *took).max().unwrap();
    let made: u64 = all.iter().map(|(made, _)| *made).sum();
    made as f64 / took.as_secs_f64()
}

/// Client and server on one core, until it is dropped: then it doesn't matter
/// where the scheduler happens to place them.
pub struct Pinned {
    before: CpuSet,
    processes: Vec<u32>,
}

impl Pinned {
    pub fn to_one_core(processes: &[u32]) -> Self {
        let before = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU)
            .find(|cpu| before.is_set(*cpu))
            .unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        let pinned = Self {
            before,
            processes: processes.to_vec(),
        };
        pinned.set(&one);
        pinned
    }

    fn set(&self, cpus: &CpuSet) {
        sched_setaffinity(None, cpus).unwrap();
        for pid in &self.processes {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                let number = task.file_name().to_str().unwrap().parse().unwrap();
                let task = rustix::thread::Pid::from_raw(number);
                // One that ends meanwhile is no concern.
                let _ = sched_setaffinity(task, cpus);
            }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.set(&self.before);
    }
}
