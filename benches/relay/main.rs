//! The relay beside a direct connection, a minimal C relay, haproxy, nginx and
//! socat: round trips, bulk, connections, memory, Redis.
//!
//! `cargo bench --bench relay` measures `RELAY_BENCH_ROUNDS` rounds (5), each figure
//! for `RELAY_BENCH_SECONDS` (0.5), one contestant right after the other, prints
//! medians and spread and writes them to `RESULTS.md` in this folder. With
//! `RELAY_BENCH_LIMIT=seconds` no round is begun that would take longer than that.
//! `RELAY_BENCH_ONLY=name,name` takes a part of the contestants and
//! `RELAY_BENCH_FIGURES=word,word` the figures whose titles have one of the words;
//! then nothing is written. Client, relay and upstream share the machine.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    unreachable_pub
)]

mod aims;
mod contestants;
mod figures;
mod report;
mod upstream;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use contestants::{Contestant, NAMES};
use report::Table;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, path] = &arguments[..]
        && mode == "upstream"
    {
        upstream::run(Path::new(path));
    }
    let rounds = setting("RELAY_BENCH_ROUNDS", 5.0) as usize;
    let span = Duration::from_secs_f64(setting("RELAY_BENCH_SECONDS", 0.5));
    let limit = rustix::process::Rlimit {
        current: Some(20_000),
        maximum: Some(20_000),
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);

    let dir = Scratch::new();
    let me = std::env::current_exe().unwrap();
    let echo = Backend::start(Command::new(me).arg("upstream"), &dir.0.join("upstream"));
    let redis = Backend::redis(&dir.0);
    let to_redis = redis.as_ref().map(|redis| redis.socket.as_path());
    let contestants: Vec<Contestant> = NAMES
        .iter()
        .filter(|name| is_wanted("RELAY_BENCH_ONLY", |one| one == **name))
        .filter_map(|name| contestants::start(name, &dir.0, &echo.socket, to_redis))
        .collect();
    let figures: Vec<_> = figures::all(redis.is_some())
        .into_iter()
        .filter(|figure| is_wanted("RELAY_BENCH_FIGURES", |one| figure.title().contains(one)))
        .collect();
    let mut table = Table::new(&contestants);
    let limit = setting("RELAY_BENCH_LIMIT", 3600.0);
    let begin = Instant::now();
    let mut done = 0;
    for round in 0..rounds {
        let each = begin.elapsed().as_secs_f64() / f64::from(done.max(1));
        if done > 0 && begin.elapsed().as_secs_f64() + each > limit {
            break;
        }
        done += 1;
        for figure in &figures {
            eprintln!("round {} of {rounds}: {}", round + 1, figure.title());
            for (place, contestant) in contestants.iter().enumerate() {
                for (title, value) in figure.measure(contestant, span) {
                    table.add(&title, place, value);
                }
            }
        }
    }
    print!("{}", table.text());
    let all = std::env::var_os("RELAY_BENCH_ONLY").is_none()
        && std::env::var_os("RELAY_BENCH_FIGURES").is_none();
    if all {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/relay/RESULTS.md");
        std::fs::write(path, table.markdown(done, span)).unwrap();
    }
}

fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Whether a list in the environment has it, or there is no such list.
fn is_wanted(variable: &str, is_meant: impl Fn(&str) -> bool) -> bool {
    let list = std::env::var(variable).unwrap_or_default();
    list.is_empty() || list.split(',').any(is_meant)
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

/// What stands behind the relays, in a process of its own.
struct Backend {
    socket: PathBuf,
    child: Child,
}

impl Backend {
    fn start(command: &mut Command, socket: &Path) -> Self {
        command.arg(socket).stdout(Stdio::null());
        let backend = Self {
            socket: socket.to_owned(),
            child: command.spawn().unwrap(),
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(Instant::now() < deadline, "{command:?} does not serve");
            thread::sleep(Duration::from_millis(5));
        }
        backend
    }

    fn redis(dir: &Path) -> Option<Self> {
        let mut command = Command::new(contestants::find("redis-server")?);
        contestants::find("redis-benchmark")?;
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(dir).arg("--unixsocket");
        Some(Self::start(&mut command, &dir.join("redis")))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
