//! Medians and spread, for the terminal and for `RESULTS.md`.

use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::aims;
use crate::contestants::{self, Contestant};

/// All values of all contestants.
pub struct Table {
    names: Vec<&'static str>,
    rows: Vec<Row>,
}

struct Row {
    title: String,
    /// For each contestant, one value a round.
    cells: Vec<Vec<f64>>,
}

/// Median, lowest and highest.
fn summary(values: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (*sorted.first()?, *sorted.last()?);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some([f64::midpoint(lower, upper), low, high])
}

/// Three digits that count, and no more.
fn short(value: f64) -> String {
    match value {
        value if value >= 100_000.0 => format!("{:.0}k", value / 1000.0),
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

impl Table {
    pub fn new(contestants: &[Contestant]) -> Self {
        Self {
            names: contestants.iter().map(|one| one.name).collect(),
            rows: Vec::new(),
        }
    }

    pub fn add(&mut self, title: &str, place: usize, value: f64) {
        if !self.rows.iter().any(|row| row.title == title) {
            self.rows.push(Row {
                title: title.to_owned(),
                cells: vec![Vec::new(); self.names.len()],
            });
        }
        let row = self.rows.iter_mut().find(|row| row.title == title);
        row.unwrap().cells[place].push(value);
    }

    /// For the terminal: medians, with lowest and highest below.
    pub fn text(&self) -> String {
        let mut text = format!("{:34}", "");
        for name in &self.names {
            let _ = write!(text, " {name:>15.15}");
        }
        text.push('\n');
        for row in &self.rows {
            let mut spread = String::new();
            let _ = write!(text, "{:34}", row.title);
            for cell in &row.cells {
                let (median, range) = summary(cell).map_or_else(
                    || ("-".to_owned(), String::new()),
                    |[median, low, high]| {
                        (short(median), format!("{}..{}", short(low), short(high)))
                    },
                );
                let _ = write!(text, " {median:>15}");
                let _ = write!(spread, " {range:>15}");
            }
            let _ = writeln!(text, "\n{:34}{spread}", "");
        }
        text
    }

    pub fn markdown(&self, rounds: u32, span: Duration) -> String {
        let mut text = format!(
            "# Figures of the relay\n\n\
             Made by `cargo bench --bench relay`: medians of {rounds} rounds of {} s for each \
             figure, in brackets the lowest and the highest. All contestants are measured right \
             after each other in each round; client, relay and upstream share the machine. \
             secure_socket runs as it does by default: policy, sandbox and log in force.\n\n{}\n",
            span.as_secs_f64(),
            machine()
        );
        let _ = writeln!(text, "| | {} |", self.names.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(self.names.len()));
        for row in &self.rows {
            let _ = write!(text, "| {} |", row.title);
            for cell in &row.cells {
                let cell = summary(cell).map_or_else(String::new, |[median, low, high]| {
                    format!(" {} ({}..{})", short(median), short(low), short(high))
                });
                let _ = write!(text, "{cell} |");
            }
            text.push('\n');
        }
        text.push_str(&aims::page(|title, name| self.median(title, name)));
        text
    }

    fn median(&self, title: &str, name: &str) -> Option<f64> {
        let place = self.names.iter().position(|one| *one == name)?;
        let row = self.rows.iter().find(|row| row.title == title)?;
        summary(row.cells.get(place)?).map(|[median, ..]| median)
    }
}

/// The machine, its kernel, and the versions of all programs.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(0, |kib| kib >> 20);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let setting = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
        text.trim().to_owned()
    };
    let mut text = format!(
        "- machine: {model}, {cores} cores, {memory} GiB\n- kernel: Linux {}, wmem_max {}\n\
         - secure_socket {}\n",
        kernel.trim(),
        setting("net/core/wmem_max"),
        env!("CARGO_PKG_VERSION")
    );
    for (program, flag) in [
        ("haproxy", "-v"),
        ("nginx", "-v"),
        ("socat", "-V"),
        ("redis-server", "--version"),
        ("cc", "--version"),
    ] {
        let Some(path) = contestants::find(program) else {
            continue;
        };
        let Ok(output) = Command::new(path).arg(flag).output() else {
            continue;
        };
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let line = said
            .lines()
            .find(|line| line.contains(|c: char| c.is_ascii_digit()));
        let _ = writeln!(text, "- {program}: {}", line.unwrap_or_default().trim());
    }
    text
}
