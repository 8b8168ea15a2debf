//! Starts all measurements, in turn, and gathers what they print.

use crate::contestants::{NAMES, ROLLING, THREADED};
use crate::report::{self, Figures, Spread};
use crate::scenarios::{ABORT_LINES, ABORT_PACE, SLOW_LINES};
use crate::setting;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What is measured in each round, and with how many threads.
pub const SCENARIOS: [(&str, usize); 8] = [
    ("throughput", 1),
    ("throughput", 4),
    ("burst", 1),
    ("burst", 4),
    ("sparse", 1),
    ("sparse", 4),
    ("disabled", 1),
    ("rolling", 2),
];

/// What is measured in the first rounds only, and in how many.
pub const SELDOM: [(&str, u64); 5] =
    [("idle", 3), ("abort", 7), ("urgent", 7), ("slow", 1), ("stalled", 1)];

/// The longest that a measurement may take before it counts as waiting.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn compare(only: &[String]) {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let mut found: BTreeMap<(String, usize, String), Vec<f64>> = BTreeMap::new();
    let mut take = |scenario: String, index: usize, values: Vec<(String, f64)>| {
        for (key, value) in values {
            found.entry((scenario.clone(), index, key)).or_default().push(value);
        }
    };
    let rounds = setting("BENCH_ROUNDS", 7);
    for round in 1..=rounds {
        for (scenario, threads) in SCENARIOS.iter().filter(|(name, _)| wanted(name)) {
            for (index, logger) in NAMES.iter().enumerate() {
                if *scenario == "rolling" && !ROLLING.contains(logger) {
                    continue;
                }
                if *logger == "bare-copy" && *scenario != "burst" {
                    continue;
                }
                let values = once(logger, scenario, *threads);
                take(format!("{scenario} {threads}"), index, values);
            }
        }
        for (scenario, times) in SELDOM.iter().filter(|(name, _)| wanted(name)) {
            for (index, logger) in NAMES.iter().enumerate() {
                if round <= *times && THREADED.contains(logger) {
                    take(scenario.to_string(), index, once(logger, scenario, 1));
                }
            }
        }
        eprintln!("round {round} of {rounds} done");
    }
    let figures: Figures =
        found.into_iter().map(|(key, values)| (key, Spread::of(values))).collect();
    let text = report::report(&figures, rounds);
    print!("{text}");
    if only.is_empty() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("RESULTS.md");
        std::fs::write(path, text).unwrap();
    }
}

/// A directory of its own for one measurement.
fn directory() -> PathBuf {
    let base = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let base = base.canonicalize().unwrap();
    let path = base.join(format!("logging-bench-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn once(logger: &str, scenario: &str, threads: usize) -> Vec<(String, f64)> {
    let directory = directory();
    let mut command = match scenario {
        "slow" => slowed(&directory, "100"),
        "stalled" => slowed(&directory, "60000000"),
        _ => Command::new(std::env::current_exe().unwrap()),
    };
    let name = if scenario == "urgent" { "abort" } else { scenario };
    command.args(["one", logger, name, &threads.to_string()]);
    command.env("BENCH_CHILD_DIR", &directory);
    if scenario == "urgent" {
        command.env("BENCH_URGENT", "1");
    }
    let printed = run(command, scenario == "stalled");
    let mut values: Vec<(String, f64)> = printed
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.parse().unwrap()))
        .collect();
    match printed {
        None => values.push(("waits".into(), 1.0)),
        Some(_) => values.extend(look(&directory, scenario)),
    }
    std::fs::remove_dir_all(directory).unwrap();
    values
}

/// The program under strace(1), which holds each write to the log up, in
/// microseconds.
fn slowed(directory: &Path, delay: &str) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-q", "--seccomp-bpf", "-o", "/dev/null"]);
    command.args(["-e", "trace=write,writev"]);
    command.arg("-e").arg(format!("inject=write,writev:delay_enter={delay}"));
    for name in ["log", "log.log"] {
        command.arg("-P").arg(directory.join(name));
    }
    command.arg(std::env::current_exe().unwrap());
    command
}

/// What it printed; `None` if it took too long, and was ended. One that stands
/// still is ended when it has printed.
fn run(mut command: Command, stalls: bool) -> Option<String> {
    let stdout = std::env::temp_dir().join(format!("logging-bench-{}.out", std::process::id()));
    let file = std::fs::File::create(&stdout).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
    let begun = Instant::now();
    let ended = loop {
        if child.try_wait().unwrap().is_some() {
            break true;
        }
        let printed = || std::fs::read_to_string(&stdout).unwrap().ends_with('\n');
        let is_done = stalls && printed();
        if is_done || begun.elapsed() > PATIENCE {
            // What else it prints comes at once.
            std::thread::sleep(Duration::from_millis(50));
            let group = i32::try_from(child.id()).unwrap();
            // SAFETY: kill(2) takes numbers; the group is that of our child.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            child.wait().unwrap();
            break is_done;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = std::fs::read_to_string(&stdout).unwrap();
    std::fs::remove_file(stdout).unwrap();
    ended.then_some(text)
}

/// What the log itself says: how many lines are there, and how long they are.
fn look(directory: &Path, scenario: &str) -> Vec<(String, f64)> {
    let text = ["log", "log.log"].iter().find_map(|name| {
        std::fs::read_to_string(directory.join(name)).ok()
    });
    let text = text.unwrap_or_default();
    let ours = text.lines().filter(|line| line.contains("peer admitted"));
    let lines = ours.clone().count() as f64;
    let lost = |of: u64| vec![("lost".to_owned(), of as f64 - lines)];
    match scenario {
        "throughput" => {
            let missing = setting("BENCH_LINES", 200_000) as f64 - lines;
            let bytes = text.len() as f64 / lines.max(1.0);
            vec![("missing".into(), missing), ("bytes".into(), bytes)]
        }
        "slow" => lost(SLOW_LINES),
        "abort" => {
            let lost = ABORT_LINES as f64 - lines;
            vec![("lost_ms".into(), lost * ABORT_PACE.as_secs_f64() * 1000.0)]
        }
        "urgent" => {
            let last = format!(" pid={ABORT_LINES} ");
            let there = text.lines().any(|line| line.contains(&last));
            vec![("lost".into(), if there { 0.0 } else { 1.0 })]
        }
        _ => Vec::new(),
    }
}
