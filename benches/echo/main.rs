//! The echo service beside minimal C servers, tokio, socat and s6-ipcserver.
//!
//!     cargo bench --bench echo [-- SECTION...]
//!
//! Sections: `round-trips`, `churn`, `idle`, `growth`; all without an argument.
//! Every figure is taken in `ECHO_BENCH_ROUNDS` rounds (5) of
//! `ECHO_BENCH_SECONDS` (0.5) each, in which all contestants have their turn;
//! `ECHO_BENCH_ONLY=name,name` takes a part of them. The table goes to the
//! output; with all sections it is also written to `benches/echo/RESULTS.md`.
//! `benches/README.md` says what each figure means.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a benchmark"
)]

mod aims;
mod contestants;
mod growth;
mod idle;
mod load;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use contestants::{ACCEPTERS, Contestant, OURS, PEERS, TALKERS, start};
use table::{Report, Series};

/// How long and how often each figure is taken.
#[derive(Clone, Copy)]
pub struct Effort {
    /// How often.
    pub rounds: usize,
    /// How long each time.
    pub span: Duration,
}

fn main() {
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wants = |section: &str| asked.is_empty() || asked.iter().any(|one| one == section);
    let effort = Effort {
        rounds: setting("ECHO_BENCH_ROUNDS", 5.0) as usize,
        span: Duration::from_secs_f64(setting("ECHO_BENCH_SECONDS", 0.5)),
    };
    raise_descriptor_limit();
    let scratch = Scratch::new();
    let mut report = Report::default();
    if wants("round-trips") {
        round_trips(&scratch.0, effort, &mut report);
    }
    if wants("churn") {
        churn(&scratch.0, effort, &mut report);
    }
    if wants("idle") {
        idle::measure(&scratch.0, effort, &mut report);
    }
    if wants("growth") {
        growth::measure(&scratch.0, effort, &mut report);
    }
    let text = report.finish();
    print!("{text}");
    if asked.is_empty() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/echo/RESULTS.md");
        std::fs::write(path, text).unwrap();
    }
}

fn setting(name: &str, default: f64) -> f64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn raise_descriptor_limit() {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let limit = rustix::process::Rlimit {
        current: hard,
        maximum: hard,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
}

/// All that are there and wanted, each started in a folder of its own.
fn start_all(dir: &Path, names: &[&'static str]) -> Vec<Contestant> {
    let also = contestants::also();
    names
        .iter()
        .filter(|name| is_wanted(name))
        .chain(&also)
        .filter_map(|name| start(name, dir, &[]))
        .collect()
}

fn is_wanted(name: &str) -> bool {
    let only = std::env::var("ECHO_BENCH_ONLY").unwrap_or_default();
    only.is_empty() || only.split(',').any(|one| one == name)
}

/// Clients of a round trip: so many threads, each with one connection; 50 are
/// driven by one thread, as redis-benchmark does.
const CLIENTS: [usize; 4] = [1, 4, 16, 50];

fn round_trips(dir: &Path, effort: Effort, report: &mut Report) {
    let all = start_all(dir, &[&TALKERS[..], &OURS, &PEERS].concat());
    report.heading("Round trips of 64 bytes");
    let names: Vec<_> = all.iter().map(|one| one.name).collect();
    let mut on_one_core = [Series::new(&names), Series::new(&names)];
    for _ in 0..effort.rounds {
        for one in &all {
            let pinned = load::Pinned::to_one_core(&one.processes());
            let [_, p50, p99] = load::round_trips(&one.socket, 1, effort.span);
            drop(pinned);
            on_one_core[0].push(one.name, p50);
            on_one_core[1].push(one.name, p99);
        }
    }
    let [p50, p99] = on_one_core;
    report.row("1 client, on one core: p50, us", &p50);
    report.row("1 client, on one core: p99, us", &p99);
    aims::round_trip(report, &p50, &p99, "1 client on one core");
    for clients in CLIENTS {
        let mut series = [(); 3].map(|()| Series::new(&names));
        for _ in 0..effort.rounds {
            for one in &all {
                let figures = if clients < 50 {
                    load::round_trips(&one.socket, clients, effort.span)
                } else {
                    load::multiplexed(&one.socket, clients, effort.span)
                };
                for (series, figure) in series.iter_mut().zip(figures) {
                    series.push(one.name, figure);
                }
                one.trim_log();
            }
        }
        let [rate, p50, p99] = series;
        report.row(&format!("{clients} clients: round trips/s"), &rate);
        report.row(&format!("{clients} clients: p50, us"), &p50);
        report.row(&format!("{clients} clients: p99, us"), &p99);
        if clients < 50 {
            aims::round_trip(report, &p50, &p99, &format!("{clients} clients"));
        } else {
            aims::busy(report, &rate);
        }
    }
}

fn churn(dir: &Path, effort: Effort, report: &mut Report) {
    let all = start_all(dir, &[&ACCEPTERS[..], &OURS, &PEERS].concat());
    let names: Vec<_> = all.iter().map(|one| one.name).collect();
    report.heading("Connections a second, each with an echo of one byte");
    for clients in [1, 4, 16] {
        let mut series = Series::new(&names);
        for _ in 0..effort.rounds {
            for one in &all {
                let rate = load::connections(&one.socket, clients, effort.span);
                series.push(one.name, rate);
                one.trim_log();
            }
        }
        report.row(&format!("{clients} clients: connections/s"), &series);
        aims::churn(report, &series, clients);
    }
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let name = format!("secure_socket-echo-bench-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
