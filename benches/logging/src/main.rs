//! Compares loggers: each measurement is a process of its own, all loggers in
//! turn, several rounds, medians; then one table of aims.
//!
//! `cargo bench --bench logging` in the parent directory starts it, and writes
//! `RESULTS.md` here; with names of scenarios it measures those and only prints.
//! `one LOGGER SCENARIO THREADS` measures once. `BENCH_ROUNDS` (7),
//! `BENCH_LINES` (200,000), `BENCH_DIR` (the temporary directory).

mod compare;
mod contestants;
mod report;
mod scenarios;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    match args.as_slice() {
        [one, logger, scenario, threads] if one == "one" => {
            scenarios::measure(logger, scenario, threads.parse().unwrap());
        }
        only => compare::compare(only),
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
