//! What is measured, once, in a process of its own. Figures are printed as
//! `name=value` lines.

use crate::contestants::{Emit, Logger, Mode, start};
use crate::setting;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Lines that a sudden end comes after, and the time between two of them.
pub const ABORT_LINES: u64 = 2000;
pub const ABORT_PACE: Duration = Duration::from_micros(20);
/// Lines before a stop on a slow disk, and onto one that stands still.
pub const SLOW_LINES: u64 = 60_000;
pub const STALLED_LINES: u64 = 300_000;

pub fn measure(name: &str, scenario: &str, threads: usize) {
    let directory = PathBuf::from(std::env::var_os("BENCH_CHILD_DIR").unwrap());
    let mode = match scenario {
        "rolling" => Mode::Rolling,
        "stalled" => Mode::Lossy,
        _ => Mode::Lossless,
    };
    let logger = start(name, &directory, mode);
    let emit = logger.emit;
    match scenario {
        "throughput" | "rolling" => throughput(logger, threads, scenario == "rolling"),
        "burst" => {
            percentiles(in_threads(threads, move |_| {
                let mut latencies = Vec::new();
                for i in 0..400 {
                    latencies.extend((0..20).map(|j| timed(emit, i * 20 + j)));
                    std::thread::sleep(Duration::from_millis(1));
                }
                latencies
            }));
            (logger.finish)();
        }
        "sparse" => {
            percentiles(in_threads(threads, move |_| {
                let mut next = Instant::now();
                let mut latencies = Vec::new();
                for i in 0..2000 {
                    latencies.push(timed(emit, i));
                    next += Duration::from_micros(200);
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                latencies
            }));
            (logger.finish)();
        }
        "disabled" => {
            let calls = 100_000_000_u64;
            let begun = Instant::now();
            (logger.disabled)(calls);
            println!("ns={}", begun.elapsed().as_nanos() as f64 / calls as f64);
            (logger.finish)();
        }
        "slow" => {
            (0..SLOW_LINES).for_each(emit);
            (logger.finish)();
        }
        "stalled" => stalled(emit),
        "idle" => {
            emit(0);
            // Long enough for naps to end.
            std::thread::sleep(Duration::from_millis(500));
            let before = switches();
            std::thread::sleep(Duration::from_secs(2));
            println!("wakeups_per_s={}", (switches() - before) as f64 / 2.0);
            (logger.finish)();
        }
        "abort" => abort(logger),
        other => panic!("unknown scenario {other}"),
    }
}

fn throughput(logger: Logger, threads: usize, rolling: bool) {
    let (emit, lines) = (logger.emit, setting("BENCH_LINES", 200_000));
    let before = cpu();
    let begun = Instant::now();
    let latencies = in_threads(threads, move |_| {
        let mut latencies = Vec::new();
        for i in 0..lines / threads as u64 {
            if rolling && i % 8 == 0 {
                latencies.push(timed(emit, i));
            } else {
                emit(i);
            }
        }
        latencies
    });
    (logger.finish)();
    let seconds = begun.elapsed().as_secs_f64();
    println!("lines_per_s={}", lines as f64 / seconds);
    println!("cpu_ns={}", (cpu() - before).as_nanos() as f64 / lines as f64);
    if rolling {
        percentiles(latencies);
    }
}

/// The disk takes no line; what does the program take?
fn stalled(emit: Emit) {
    let before = resident();
    let mut slowest = Duration::ZERO;
    let mut after_a_third = 0;
    for i in 0..STALLED_LINES {
        let begun = Instant::now();
        emit(i);
        slowest = slowest.max(begun.elapsed());
        if i == STALLED_LINES / 3 {
            after_a_third = resident();
        }
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("mib={}", mib(resident().saturating_sub(before)));
    println!("late_mib={}", mib(resident().saturating_sub(after_a_third)));
    println!("slowest_ms={}", slowest.as_secs_f64() * 1000.0);
    // The writer stands in a write that will not end.
    // SAFETY: _exit(2) takes a number and does not come back.
    unsafe { libc::_exit(0) };
}

/// Lines at a steady pace, one of the highest severity, and a sudden end.
fn abort(logger: Logger) {
    let mut next = Instant::now();
    for i in 0..ABORT_LINES {
        (logger.emit)(i);
        next += ABORT_PACE;
        while Instant::now() < next {}
    }
    if std::env::var_os("BENCH_URGENT").is_some() {
        (logger.urgent)(ABORT_LINES);
    }
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit(2) reads one rlimit from the place that it is given.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
    std::process::abort();
}

fn timed(emit: Emit, i: u64) -> u64 {
    let begun = Instant::now();
    emit(i);
    u64::try_from(begun.elapsed().as_nanos()).unwrap()
}

fn in_threads(
    threads: usize,
    body: impl Fn(usize) -> Vec<u64> + Send + Clone + 'static,
) -> Vec<u64> {
    let spawned: Vec<_> = (0..threads)
        .map(|thread| {
            let body = body.clone();
            std::thread::spawn(move || body(thread))
        })
        .collect();
    spawned.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

fn percentiles(mut latencies: Vec<u64>) {
    latencies.sort_unstable();
    for (name, share) in [("p50_ns", 0.5), ("p99_ns", 0.99), ("p999_ns", 0.999)] {
        println!("{name}={}", latencies[(latencies.len() as f64 * share) as usize]);
    }
}

/// The time that all threads of this process took on a processor.
fn cpu() -> Duration {
    // SAFETY: an all-zero rusage is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: getrusage(2) writes one rusage to the place that it is given.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let time = |t: libc::timeval| {
        Duration::new(t.tv_sec as u64, 0) + Duration::from_micros(t.tv_usec as u64)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Bytes of this process in memory (proc(5), statm).
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// How often other threads of this process were switched to.
fn switches() -> u64 {
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let others = threads
        .map(|thread| thread.unwrap().path())
        .filter(|thread| thread.file_name() != Path::new(&own).file_name());
    let switches = others.map(|thread| {
        let status = std::fs::read_to_string(thread.join("status")).unwrap();
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        let counts = counts.map(|line| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap());
        counts.sum::<u64>()
    });
    switches.sum()
}
