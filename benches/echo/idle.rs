//! What a connection costs that has been used once and then lies idle.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Effort;
use super::contestants::{Contestant, OURS, PEERS, TALKERS, start};
use super::load;
use super::table::{Report, Series};

/// Connections for everyone, and for those that don't start a process for each.
const COUNTS: [usize; 2] = [1_000, 10_000];
const THOSE_WITH_MANY: [&str; 6] = ["C thread", "C epoll", "multi", "2", "single", "tokio"];
/// Of those, what is opened before memory is looked at for the first time: what they
/// make the server set up is no part of the price. s6 takes no more than 1,000 in all.
const WARM: usize = 8;
/// Of a thread, in the kernel: `THREAD_SIZE` on x86-64 and aarch64, 4 pages.
const KERNEL_STACK_KIB: f64 = 16.0;

/// Room for all of them, and nothing else that is not the default.
pub fn options(name: &str) -> Vec<String> {
    match name {
        "multi" | "2" | "single" => vec!["max_connections=10100".into(), "backlog=4096".into()],
        _ => Vec::new(),
    }
}

pub fn measure(dir: &Path, _: Effort, report: &mut Report) {
    report.heading("Idle connections");
    for count in COUNTS {
        let names: Vec<_> = match count {
            1_000 => [&TALKERS[..], &OURS, &PEERS].concat(),
            _ => THOSE_WITH_MANY.to_vec(),
        };
        let mut series = [(); 3].map(|()| Series::new(&names));
        for name in names.into_iter().filter(|name| super::is_wanted(name)) {
            let Some(one) = start(name, dir, &options(name)) else {
                continue;
            };
            eprintln!("{count} idle: {name}");
            let figures = of_one(&one, count);
            for (series, figure) in series.iter_mut().zip(figures) {
                series.push(name, figure);
            }
        }
        let [memory, stack, took] = series;
        report.row(&format!("{count} idle: resident KiB each"), &memory);
        report.row(&format!("{count} idle: kernel stack KiB each"), &stack);
        report.row(
            &format!("{count} idle: seconds until all are served"),
            &took,
        );
        if count == 10_000 {
            for (name, bound) in [("multi", 12.0), ("2", 2.0)] {
                if let Some(found) = memory.median(name) {
                    report.aim(
                        &format!("idle connection, threads={name}: at most {bound} KiB resident"),
                        &format!("{found:.2} KiB"),
                        found <= bound,
                    );
                }
            }
        }
    }
}

fn of_one(one: &Contestant, count: usize) -> [f64; 3] {
    let warm: Vec<_> = (0..WARM)
        .map(|_| load::used_connection(&one.socket))
        .collect();
    let before = one.footprint();
    let begin = Instant::now();
    let open: Vec<_> = (0..count - WARM)
        .map(|_| load::used_connection(&one.socket))
        .collect();
    let took = begin.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_millis(1_500));
    let after = one.footprint();
    drop((warm, open));
    let each = |before: u64, after: u64| (after as f64 - before as f64) / (count - WARM) as f64;
    let memory = each(before.0, after.0);
    let threads = each(before.1, after.1);
    [memory, threads * KERNEL_STACK_KIB, took]
}
