//! Medians and spread, as text while it runs and as Markdown at the end.

use std::fmt::Write;
use std::time::Duration;

use super::shapes::{Figures, Shape};
use super::systems::System;

/// Words of PART that choose rows.
pub const SHAPE_WORDS: [&str; 4] = [":", "request", "64", "4096"];
/// Words of PART that choose systems.
pub const SYSTEM_WORDS: [&str; 7] = [
    "secure",
    "redis",
    "nats",
    "mosquitto",
    "dbus",
    "minimal",
    "multi",
];

/// Whether a name is asked for: all are where no part says anything of its kind.
pub fn is_wanted(name: &str, parts: &[&str], words: &[&str]) -> bool {
    let mut of_kind = parts
        .iter()
        .filter(|part| words.iter().any(|word| part.contains(word)))
        .peekable();
    of_kind.peek().is_none() || of_kind.any(|part| name.contains(part))
}

/// What one system did in one row.
#[derive(Default)]
pub struct Cell(Vec<Figures>);

impl Cell {
    pub fn add(&mut self, figures: Figures) {
        self.0.push(figures);
    }

    fn median(&self, of: impl Fn(&Figures) -> f64) -> f64 {
        let sorted = self.sorted(of);
        sorted[sorted.len() / 2]
    }

    fn sorted(&self, of: impl Fn(&Figures) -> f64) -> Vec<f64> {
        let mut all: Vec<f64> = self.0.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn rate(&self) -> f64 {
        self.median(|figures| figures.rate)
    }

    fn p99(&self) -> f64 {
        self.median(|figures| figures.p99)
    }

    fn is_complete(&self) -> bool {
        self.0.iter().all(|figures| figures.complete)
    }
}

/// One shape, for all systems.
pub struct Row {
    pub shape: Shape,
    pub cells: Vec<Cell>,
}

impl Row {
    fn subscribers(&self) -> usize {
        match self.shape {
            Shape::Publish { subscribers, .. } => subscribers,
            Shape::Request { .. } => 1,
        }
    }
}

pub struct Table {
    names: Vec<&'static str>,
    versions: Vec<String>,
    rounds: usize,
    span: Duration,
    pub rows: Vec<Row>,
}

impl Table {
    pub fn new(systems: &[Box<dyn System>], rounds: usize, span: Duration) -> Self {
        Self {
            names: systems.iter().map(|system| system.name()).collect(),
            versions: systems
                .iter()
                .filter_map(|system| system.version())
                .collect(),
            rounds,
            span,
            rows: Vec::new(),
        }
    }

    /// A row as it is done.
    pub fn text(&self, row: &Row) -> String {
        let mut out = format!("{}\n", row.shape);
        for (name, cell) in self.names.iter().zip(&row.cells) {
            let rates = cell.sorted(|figures| figures.rate);
            let note = if cell.is_complete() {
                ""
            } else {
                "  (not all arrived)"
            };
            let _ = writeln!(
                out,
                "  {name:<20} {:>10.0}/s ({:.0} to {:.0})  p50 {:.0} us  p99 {:.0} us{note}",
                cell.rate(),
                rates[0],
                rates[rates.len() - 1],
                cell.median(|figures| figures.p50),
                cell.p99(),
            );
        }
        out
    }

    pub fn markdown(&self) -> String {
        let mut out = String::from(
            "# The broker beside others\n\n\
             Written by `cargo bench --bench broker`.\n\n",
        );
        let _ = writeln!(out, "- machine: {}", machine());
        let _ = writeln!(out, "- kernel: {}", first("/proc/sys/kernel/osrelease"));
        for (name, version) in self.names.iter().zip(&self.versions) {
            let _ = writeln!(out, "- {name}: {version}");
        }
        let _ = write!(
            out,
            "\n{} rounds of {} s, all systems in turn in each; medians, and in brackets the \
             least and the most.\n\
             Client and broker share the machine: one thread for each publisher, one that \
             reads for all subscribers.\n\
             secure_socket is the daemon as it is installed: sandbox, policy and logging at \
             their defaults.\n\
             redis, mosquitto, both buses and the minimal broker are reached over a \
             Unix-domain socket, nats-server over the\nloopback interface, as it has no other. \
             The minimal broker (`broker.c`) passes bytes on without subjects, stamps,\n\
             rights or bounds, in one thread: it is no peer, but the limit.\n",
            self.rounds,
            self.span.as_secs_f64(),
        );
        self.rates(&mut out);
        self.latencies(&mut out);
        self.aims(&mut out);
        out
    }

    fn heading(&self, out: &mut String) {
        let _ = writeln!(out, "| | {} |", self.names.join(" | "));
        let _ = writeln!(out, "|---|{}", "---|".repeat(self.names.len()));
    }

    fn rates(&self, out: &mut String) {
        out.push_str(
            "\n## Messages a second\n\nPublished and delivered to every subscriber; for \
             requests, round trips one after the other. Thousands.\n\n",
        );
        self.heading(out);
        for row in &self.rows {
            let _ = write!(out, "| {} |", row.shape);
            for cell in &row.cells {
                let rates = cell.sorted(|figures| figures.rate);
                let thousands = |rate: f64| format!("{:.1}", rate / 1000.0);
                let (least, most) = (rates[0], rates[rates.len() - 1]);
                let note = if cell.is_complete() { "" } else { " *" };
                let _ = write!(
                    out,
                    " {} ({} to {}){note} |",
                    thousands(cell.rate()),
                    thousands(least),
                    thousands(most)
                );
            }
            out.push('\n');
        }
        out.push_str("\n`*`: not everything that was published arrived.\n");
    }

    fn latencies(&self, out: &mut String) {
        out.push_str(
            "\n## Latency\n\nOne message at a time, from its write to the read of the last \
             subscriber, or from request to answer: p50 / p99 in\nmicroseconds, medians of \
             the rounds.\n\n",
        );
        self.heading(out);
        for row in &self.rows {
            let _ = write!(out, "| {} |", row.shape);
            for cell in &row.cells {
                let p50 = cell.median(|figures| figures.p50);
                let _ = write!(out, " {p50:.0} / {:.0} |", cell.p99());
            }
            out.push('\n');
        }
    }

    /// Places of ours, and of those that it is compared with.
    fn sides(&self) -> (Vec<usize>, Vec<usize>) {
        let all = 0..self.names.len();
        let is_ours = |place: &usize| self.names[*place].starts_with("secure_socket");
        let is_peer = |place: &usize| !is_ours(place) && !self.names[*place].starts_with("minimal");
        (
            all.clone().filter(is_ours).collect(),
            all.filter(is_peer).collect(),
        )
    }

    fn aims(&self, out: &mut String) {
        out.push_str(
            "\n## Aims\n\nAhead of every peer on messages a second and on p99; with 4 and more \
             subscribers at least 1.5 x redis; at 1:100\n2 x the best peer. Figures are ratios: \
             of rates to the best peer's (and to redis's), of p99 to the lowest peer's\n\
             (below 1 is ahead).\n\n\
             | | ours | rate / best peer | rate / redis | p99 / best peer | |\n\
             |---|---|---|---|---|---|\n",
        );
        let (ours, peers) = self.sides();
        for row in &self.rows {
            for our in &ours {
                let _ = writeln!(out, "{}", self.aim(row, *our, &peers));
            }
        }
    }

    fn aim(&self, row: &Row, our: usize, peers: &[usize]) -> String {
        let mine = &row.cells[our];
        let best = |better: fn(f64, f64) -> bool, of: fn(&Cell) -> f64| {
            let mut all = peers.iter().copied();
            let first = all.next();
            all.fold(first, |best, place| {
                let is_better =
                    best.is_none_or(|best| better(of(&row.cells[place]), of(&row.cells[best])));
                if is_better { Some(place) } else { best }
            })
        };
        let quickest = best(|a, b| a > b, Cell::rate);
        let calmest = best(|a, b| a < b, Cell::p99);
        let (Some(quickest), Some(calmest)) = (quickest, calmest) else {
            return format!("| {} | {} | | | | no peer |", row.shape, self.names[our]);
        };
        let rate = mine.rate() / row.cells[quickest].rate();
        let p99 = mine.p99() / row.cells[calmest].p99();
        let redis = peers.iter().find(|place| self.names[**place] == "redis");
        let to_redis = redis.map(|place| mine.rate() / row.cells[*place].rate());
        let mut missed = Vec::new();
        let subscribers = row.subscribers();
        let wanted = if subscribers >= 100 { 2.0 } else { 1.0 };
        if rate < wanted {
            missed.push(format!("rate {wanted} x"));
        }
        if subscribers >= 4 && to_redis.is_some_and(|ratio| ratio < 1.5) {
            missed.push("1.5 x redis".into());
        }
        if p99 > 1.0 {
            missed.push("p99".into());
        }
        let verdict = if missed.is_empty() {
            "met".into()
        } else {
            format!("missed: {}", missed.join(", "))
        };
        format!(
            "| {} | {} | {rate:.2} ({}) | {} | {p99:.2} ({}) | {verdict} |",
            row.shape,
            self.names[our],
            self.names[quickest],
            to_redis.map_or(String::new(), |ratio| format!("{ratio:.2}")),
            self.names[calmest],
        )
    }
}

fn first(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("", |rest| rest.trim_start_matches(['\t', ' ', ':']));
    let count = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = first("/proc/meminfo");
    let kib: f64 = memory
        .split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0);
    format!("{count} x {model}, {:.0} GiB", kib / f64::from(1 << 20))
}
