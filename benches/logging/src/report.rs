//! What was measured, as a table of aims and a table of everything.

use crate::compare::{SCENARIOS, SELDOM};
use crate::contestants::NAMES;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

/// By scenario, index of the logger, and name of the figure.
pub type Figures = BTreeMap<(String, usize, String), Spread>;

#[derive(Clone, Copy)]
pub struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        Self { median: values[values.len() / 2], least, most }
    }
}

struct Aims<'a> {
    figures: &'a Figures,
    text: String,
}

impl Aims<'_> {
    fn median(&self, logger: &str, scenario: &str, key: &str) -> Option<f64> {
        let index = NAMES.iter().position(|name| *name == logger)?;
        Some(self.figures.get(&(scenario.into(), index, key.into()))?.median)
    }

    fn row(&mut self, figure: &str, aim: &str, found: &str, met: bool) {
        let met = if met { "met" } else { "**missed**" };
        writeln!(self.text, "| {figure} | {aim} | {found} | {met} |").unwrap();
    }

    /// Ours divided by another's.
    fn ratio(&mut self, figure: &str, place: (&str, &str), other: &str, at_least: bool, aim: f64) {
        let (scenario, key) = place;
        let ours = self.median("secure_socket", scenario, key);
        let theirs = self.median(other, scenario, key);
        let Some((ours, theirs)) = ours.zip(theirs) else { return };
        let ratio = ours / theirs;
        let (word, met) =
            if at_least { ("at least", ratio >= aim) } else { ("at most", ratio <= aim) };
        let found = format!("{ratio:.2} ({} / {})", short(ours), short(theirs));
        self.row(figure, &format!("{word} {aim} x {other}"), &found, met);
    }

    /// Ours alone.
    fn bound(&mut self, figure: &str, place: (&str, &str), most: f64, unit: &str) {
        let (scenario, key) = place;
        let Some(ours) = self.median("secure_socket", scenario, key) else { return };
        let found = format!("{} {unit}", short(ours));
        self.row(figure, &format!("at most {most} {unit}"), &found, ours <= most);
    }

    fn least_of_all(&mut self, figure: &str, place: (&str, &str)) {
        let (scenario, key) = place;
        let Some(ours) = self.median("secure_socket", scenario, key) else { return };
        let others = NAMES.iter().filter(|name| !name.contains("bare") && **name != "secure_socket");
        let others = others.filter_map(|name| Some((self.median(name, scenario, key)?, *name)));
        let Some((best, name)) = others.min_by(|a, b| a.0.total_cmp(&b.0)) else { return };
        let found = format!("{} (the next: {name}, {})", short(ours), short(best));
        self.row(figure, "lowest of all crates", &found, ours <= best);
    }
}

pub fn report(figures: &Figures, rounds: u64) -> String {
    let mut aims = Aims { figures, text: String::new() };
    for (threads, spdlog, tracing) in [(1, 2.0, 4.0), (4, 1.6, 3.0)] {
        let scenario = format!("throughput {threads}");
        let place = (scenario.as_str(), "lines_per_s");
        let figure = format!("lines a second, flush included, threads: {threads}");
        aims.ratio(&figure, place, "spdlog-rs", true, spdlog);
        aims.ratio(&figure, place, "tracing-appender", true, tracing);
        if threads == 1 {
            aims.ratio(&figure, place, "bare-ring", true, 0.5);
        }
    }
    let place = ("throughput 1", "cpu_ns");
    aims.ratio("processor time for a line, ns", place, "spdlog-rs", false, 0.5);
    aims.ratio("processor time for a line, ns", place, "tracing-appender", false, 0.2);
    for threads in [1, 4] {
        let scenario = format!("burst {threads}");
        let figure = |key: &str| format!("burst of 20 calls, {key}, ns, threads: {threads}");
        let (p50, p99) = ((scenario.as_str(), "p50_ns"), (scenario.as_str(), "p99_ns"));
        aims.ratio(&figure("median"), p50, "spdlog-rs", false, 1.1);
        aims.ratio(&figure("p99"), p99, "spdlog-rs", false, 0.6);
        aims.ratio(&figure("median"), p50, "tracing-appender", false, 0.3);
        aims.ratio(&figure("p99"), p99, "tracing-appender", false, 0.3);
    }
    for threads in [1, 4] {
        let scenario = format!("sparse {threads}");
        let figure = format!("one call each 200 us, median, ns, threads: {threads}");
        aims.ratio(&figure, (&scenario, "p50_ns"), "spdlog-rs", false, 0.3);
    }
    aims.bound("call below the level", ("disabled 1", "ns"), 1.0, "ns");
    let rolling = ("rolling 2", "lines_per_s");
    aims.ratio("rolling and gzip, lines a second, threads: 2", rolling, "flexi-async", true, 3.0);
    let rolling = ("rolling 2", "p99_ns");
    aims.ratio("rolling and gzip, p99, ns, threads: 2", rolling, "flexi-async", false, 0.2);
    let slow = ("slow", "lost");
    aims.bound("disk that takes 100 us more a write, 60,000 lines, stop", slow, 0.0, "lines lost");
    aims.bound("disk that stands still, 300,000 lines", ("stalled", "mib"), 8.0, "MiB more");
    let late = ("stalled", "late_mib");
    aims.bound("the same, of it after the first 100,000", late, 0.0, "MiB more");
    aims.bound("idle", ("idle", "wakeups_per_s"), 0.0, "wake-ups a second");
    aims.bound("abort(3)", ("abort", "lost_ms"), 1.0, "ms of lines lost");
    aims.bound("abort(3) after an alert", ("urgent", "lost"), 0.0, "alerts lost");
    let call = ("burst 1", "p50_ns");
    aims.ratio("a log call, median, ns", call, "bare-ring", false, 1.5);
    aims.ratio("a log call, median, ns", call, "bare-copy", false, 1.5);
    aims.least_of_all("a log call, median, ns", call);

    let mut text = String::from("# Logging\n\n");
    writeln!(text, "Made by `cargo bench --bench logging`; do not edit. {}\n", machine()).unwrap();
    text.push_str(ABOUT);
    writeln!(text, "Medians of {rounds} interleaved rounds.\n").unwrap();
    text.push_str("| figure | aim | found | |\n|---|---|---|---|\n");
    text.push_str(&aims.text);
    text.push_str("\n## Everything that was measured\n");
    let seldom = SELDOM.iter().map(|(name, _)| name.to_string());
    let scenarios = SCENARIOS.iter().map(|(name, threads)| format!("{name} {threads}"));
    for scenario in scenarios.chain(seldom) {
        everything(figures, &scenario, &mut text);
    }
    text
}

/// One table, a row for each logger, a column for each figure.
fn everything(figures: &Figures, scenario: &str, text: &mut String) {
    let here = figures.iter().filter(|((one, ..), _)| one == scenario);
    let mut keys: Vec<&str> = here.map(|((_, _, key), _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() {
        return;
    }
    let dashes = "---|".repeat(keys.len());
    writeln!(text, "\n### {scenario}\n\n| | {} |\n|---|{dashes}", keys.join(" | ")).unwrap();
    for (index, name) in NAMES.iter().enumerate() {
        let cells = keys.iter().map(|key| figures.get(&(scenario.into(), index, key.to_string())));
        let cells: Vec<Option<&Spread>> = cells.collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells = cells.iter().map(|cell| cell.map_or("-".into(), shown));
        writeln!(text, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | ")).unwrap();
    }
}

fn shown(spread: &Spread) -> String {
    if spread.least == spread.most {
        return short(spread.median);
    }
    format!("{} ({} to {})", short(spread.median), short(spread.least), short(spread.most))
}

fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        small if small < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

/// Processor, kernel, compiler, and the versions of all that is compared.
fn machine() -> String {
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        output.map_or_else(|_| "unknown".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = cpuinfo.lines().filter_map(|line| line.strip_prefix("model name"));
    let models: Vec<&str> = models.map(|line| line.trim_start_matches(['\t', ' ', ':'])).collect();
    let lock = include_str!("../Cargo.lock");
    let version = |name: &str| {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).unwrap();
        format!("{name} {}", rest.split('"').next().unwrap())
    };
    let crates = [
        "spdlog-rs", "tracing-appender", "tracing-subscriber", "flexi_logger", "log4rs", "slog-async",
        "slog-term", "ftlog", "fast_log", "fern", "crossbeam-queue",
    ];
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    format!(
        "{}: {} processors ({}), load average at the end {}, Linux {}, {}; {}.",
        output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        models.len(),
        models.first().unwrap_or(&"unknown"),
        load.join(" "),
        output("uname", &["-r"]),
        output("rustc", &["--version"]),
        crates.map(version).join(", ")
    )
}

const ABOUT: &str = "\
Each measurement is a process of its own; each logger writes lines of the same
content (time, severity, message with four numbers, file and line; `bytes` is the
length of a line) to one file. Those with a thread have a queue of 8192 lines and
wait for room, where they can; `missing` counts lines that were not in the file
after the logger had ended. Times of calls contain one reading of the clock.
`bare-ring` is the limit: the caller formats the line and copies it into a
crossbeam `ArrayQueue`, from which a thread that never sleeps writes; `bare-copy`
copies a text that is there already. The slow and the stalled disk are made by
strace(1), which holds each write to the log up by 100 us, or for ever; in the
latter case loggers drop what finds no room, where they can, and `waits` marks
those whose callers wait.

";
