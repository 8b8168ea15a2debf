//! Compares loggers: each measurement is a process of its own, all loggers in
//! turn, several rounds, medians.
//!
//! `cargo bench --bench logging` in the parent directory starts it. With
//! `one LOGGER SCENARIO THREADS` it measures once. `BENCH_ROUNDS` (7),
//! `BENCH_LINES` (1,000,000), `BENCH_DIR` (the temporary directory).

mod contestants;

use contestants::{Emit, NAMES, ROLLING, start};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const SCENARIOS: [(&str, usize); 8] = [
    ("throughput", 1),
    ("throughput", 4),
    ("burst", 1),
    ("burst", 4),
    ("sparse", 1),
    ("sparse", 4),
    ("disabled", 1),
    ("rolling", 2),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    match args.as_slice() {
        [one, logger, scenario, threads] if one == "one" => {
            measure(logger, scenario, threads.parse().unwrap());
        }
        only => compare(only),
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn compare(only: &[String]) {
    let program = std::env::current_exe().unwrap();
    let mut figures: BTreeMap<(usize, usize, String), Vec<f64>> = BTreeMap::new();
    for round in 1..=setting("BENCH_ROUNDS", 7) {
        for (at, (scenario, threads)) in SCENARIOS.iter().enumerate() {
            if !only.is_empty() && !only.iter().any(|name| name == scenario) {
                continue;
            }
            for (index, logger) in NAMES.iter().enumerate() {
                if *scenario == "rolling" && !ROLLING.contains(logger) {
                    continue;
                }
                let threads = threads.to_string();
                let output =
                    Command::new(&program).args(["one", logger, scenario, &threads]).output();
                let output = output.unwrap();
                if !output.status.success() {
                    eprintln!("{logger} {scenario}: {}", String::from_utf8_lossy(&output.stderr));
                }
                for line in String::from_utf8_lossy(&output.stdout).lines() {
                    if let Some((key, value)) = line.split_once('=') {
                        let key = (at, index, key.to_string());
                        figures.entry(key).or_default().push(value.parse().unwrap());
                    }
                }
            }
        }
        eprintln!("round {round} done");
    }
    let mut last = None;
    for ((at, index, key), mut values) in figures {
        let (scenario, threads) = SCENARIOS[at];
        if last != Some(at) {
            println!("\n{scenario}, {threads} threads");
            last = Some(at);
        }
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[0], values[values.len() - 1]);
        let median = values[values.len() / 2];
        println!("  {:18} {key:14} {median:12.1}   ({low:.1} to {high:.1})", NAMES[index]);
    }
}

fn directory() -> PathBuf {
    let base = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = base.join(format!("logging-bench-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn measure(logger: &str, scenario: &str, threads: usize) {
    let directory = directory();
    let (emit, finish) = start(logger, &directory, scenario == "rolling");
    let lines = setting("BENCH_LINES", 1_000_000);
    match scenario {
        "throughput" | "rolling" => {
            let latency = scenario == "rolling";
            let before = cpu();
            let begun = Instant::now();
            let latencies = in_threads(threads, move |_| {
                let mut latencies = Vec::new();
                for i in 0..lines / threads as u64 {
                    if latency && i % 8 == 0 {
                        latencies.push(timed(emit, i));
                    } else {
                        emit(i);
                    }
                }
                latencies
            });
            finish();
            let seconds = begun.elapsed().as_secs_f64();
            println!("lines_per_s={}", lines as f64 / seconds);
            println!("cpu_ns={}", (cpu() - before).as_nanos() as f64 / lines as f64);
            if latency {
                percentiles(latencies);
            }
        }
        "burst" => {
            percentiles(in_threads(threads, move |_| {
                let mut latencies = Vec::new();
                for i in 0..1000 {
                    latencies.extend((0..20).map(|j| timed(emit, i * 20 + j)));
                    std::thread::sleep(Duration::from_millis(1));
                }
                latencies
            }));
            finish();
        }
        "sparse" => {
            percentiles(in_threads(threads, move |_| {
                let mut next = Instant::now();
                let mut latencies = Vec::new();
                for i in 0..5000 {
                    latencies.push(timed(emit, i));
                    next += Duration::from_micros(200);
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                latencies
            }));
            finish();
        }
        "disabled" => {
            let calls = 100_000_000_u64;
            let begun = Instant::now();
            disabled(logger, calls);
            println!("ns={}", begun.elapsed().as_nanos() as f64 / calls as f64);
            finish();
        }
        other => panic!("unknown scenario {other}"),
    }
    std::fs::remove_dir_all(directory).unwrap();
}

fn disabled(logger: &str, calls: u64) {
    let call: fn(u64) = match logger {
        "secure_socket" => |calls| {
            for i in 0..calls {
                secure_socket::debug!("pid={}", std::hint::black_box(i));
            }
        },
        "spdlog-rs" => |calls| {
            for i in 0..calls {
                spdlog::debug!("pid={}", std::hint::black_box(i));
            }
        },
        "tracing-appender" => |calls| {
            for i in 0..calls {
                tracing::debug!("pid={}", std::hint::black_box(i));
            }
        },
        _ => |calls| {
            for i in 0..calls {
                log::debug!("pid={}", std::hint::black_box(i));
            }
        },
    };
    call(calls);
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
