//! The logger with a sink that is slow or stands still.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod interrupted;
mod stop;
mod urgent;

use super::edition::Edition;
use super::layout::{Layout, Origin, Renderer};
use super::line::{self, Line, NO_SCOPE};
use super::lines::Lines;
use super::logger::Logger;
use super::outlet::Outlet;
use super::queue::Queue;
use super::shared::{Shared, SinkState};
use super::sink::{Backlog, Counters, Sink};
use super::thresholds::Thresholds;
use super::writer::Writer;
use super::{Overflow, Severity, Verbosity};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use std::io::{Read, Seek};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// These tests measure time and memory: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a while for each write, or stands still.
struct Disk {
    write_takes: Duration,
    stalled: Arc<AtomicBool>,
    lines: Arc<AtomicUsize>,
    retries: Arc<AtomicUsize>,
    backlog: Backlog,
}

impl Sink for Disk {
    fn write(&mut self, lines: &Lines, _now: Instant) {
        std::thread::sleep(self.write_takes);
        while self.stalled.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.backlog.count_written(lines.marks.len());
        self.lines.fetch_add(lines.marks.len(), Ordering::Relaxed);
    }

    fn retry(&mut self, _now: Instant) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    fn retry_at(&self) -> Option<Instant> {
        None
    }
}

struct Setup {
    logger: Logger,
    shared: Arc<Shared>,
    stalled: Arc<AtomicBool>,
    lines: Arc<AtomicUsize>,
    /// One for each pass of the writer without a line.
    retries: Arc<AtomicUsize>,
}

fn setup(overflow: Overflow, write_takes: Duration, stalled: bool) -> Setup {
    let stalled = Arc::new(AtomicBool::new(stalled));
    let (lines, retries) = (Arc::default(), Arc::default());
    let disk = Disk {
        write_takes,
        stalled: Arc::clone(&stalled),
        lines: Arc::clone(&lines),
        retries: Arc::clone(&retries),
        backlog: Backlog::default(),
    };
    let (logger, shared) = logger(overflow, Box::new(disk));
    Setup {
        logger,
        shared,
        stalled,
        lines,
        retries,
    }
}

/// A logger with one sink.
fn logger(overflow: Overflow, sink: Box<dyn Sink>) -> (Logger, Arc<Shared>) {
    let state = Arc::new(SinkState {
        name: "disk".into(),
        counters: Counters::default(),
    });
    let outlets = vec![Outlet::new(sink, Arc::clone(&state), 0)];
    let renderer = Renderer::new(Layout::Text, Origin::new("x", "y"));
    let writer = Writer::new(outlets, vec![Edition::new(renderer, None)]);
    let (queue, states) = (Queue::new(8192), vec![state]);
    let thresholds = Thresholds::new(Verbosity::ALL, Vec::new(), vec![None]);
    let shared = Arc::new(Shared::new(queue, overflow, thresholds, states, writer));
    let logger = Logger::new(Arc::clone(&shared), None, vec![], vec![], vec![]);
    (logger, shared)
}

/// A line of now.
fn line(severity: Severity, message: &str) -> Line<'_> {
    let nowhere = line::Origin::Named {
        file: "",
        line: 0,
        module: "",
    };
    Line::new(severity, NO_SCOPE, None, nowhere, message.as_bytes())
}

fn log(logger: &dyn log::Log, number: usize) {
    let arguments = format_args!("peer admitted uid=33 gid=33 pid={number} rule=1");
    logger.log(
        &log::Record::builder()
            .level(log::Level::Info)
            .args(arguments)
            .build(),
    );
}

/// Bytes of this process in memory (proc(5), statm).
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_stop_loses_nothing_on_a_slow_disk() {
    let _alone = alone();
    let setup = setup(Overflow::Block, Duration::from_micros(100), false);
    let guard = setup.logger.start_writer(Arc::new(|_| Ok(()))).unwrap();
    let log_to = setup.logger.as_log();
    (0..60_000).for_each(|number| log(&*log_to, number));
    assert!(guard.shutdown());
    assert_eq!(setup.lines.load(Ordering::Relaxed), 60_000);
}

/// Runs a test again in a process of its own, where nobody else takes memory or
/// writes to stderr, of which it gives the lines. `None` in that process.
fn in_own_process(name: &str) -> Option<Vec<String>> {
    const MARK: &str = "SECURE_SOCKET_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return None;
    }
    // A file takes every line; what a pipe has no room for is not waited for.
    // Threads that write to this kind at once share no offset but the end.
    let stderr = memfd_create("stderr", MemfdFlags::CLOEXEC).unwrap();
    fcntl_setfl(&stderr, OFlags::APPEND).unwrap();
    let mut stderr = std::fs::File::from(stderr);
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([&format!("logging::tests::{name}"), "--exact", "--nocapture"])
        .env(MARK, "1")
        .stderr(stderr.try_clone().unwrap())
        .output()
        .unwrap();
    let mut said = String::new();
    stderr.rewind().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{said}");
    assert!(stdout.contains("1 passed"), "{stdout}");
    Some(said.lines().map(str::to_owned).collect())
}

#[test]
fn a_stalled_disk_takes_no_memory_and_no_time() {
    if let Some(said) = in_own_process("a_stalled_disk_takes_no_memory_and_no_time") {
        return eprintln!("{said:?}");
    }
    let setup = setup(Overflow::Drop, Duration::ZERO, true);
    let guard = setup.logger.start_writer(Arc::new(|_| Ok(()))).unwrap();
    let log_to = setup.logger.as_log();
    let before = resident();
    let mut slowest = Duration::ZERO;
    let mut after_first_third = 0;
    for number in 0..300_000 {
        let begun = Instant::now();
        log(&*log_to, number);
        slowest = slowest.max(begun.elapsed());
        if number == 100_000 {
            after_first_third = resident();
        }
    }
    let grown = resident().saturating_sub(before);
    let late = resident().saturating_sub(after_first_third);
    eprintln!(
        "{} KiB more, {} KiB of it late, slowest call {slowest:?}",
        grown >> 10,
        late >> 10
    );
    assert!(grown <= 8 << 20, "{grown}");
    assert!(late <= 1 << 20, "{late}");
    setup.stalled.store(false, Ordering::Relaxed);
    assert!(guard.shutdown());
    let dropped: u64 = setup.logger.stats().dropped.iter().sum();
    let written = setup.lines.load(Ordering::Relaxed) as u64;
    // Two of the lines written say what was lost.
    assert_eq!(written - 2 + dropped, 300_000);
}

#[test]
fn a_hook_that_fails_starts_nothing_and_lines_can_still_be_written() {
    let setup = setup(Overflow::Drop, Duration::ZERO, false);
    log(&*setup.logger.as_log(), 0);
    let failed = setup
        .logger
        .start_writer(Arc::new(|_| Err(std::io::Error::other("no"))));
    assert!(failed.is_err());
    setup.logger.drain_blocking();
    assert_eq!(setup.lines.load(Ordering::Relaxed), 1);
    let guard = setup.logger.start_writer(Arc::new(|_| Ok(()))).unwrap();
    log(&*setup.logger.as_log(), 1);
    drop(guard);
    assert_eq!(setup.lines.load(Ordering::Relaxed), 2);
}

#[test]
fn more_lines_than_the_queue_holds_are_written_before_the_writer_starts() {
    let setup = setup(Overflow::Drop, Duration::ZERO, false);
    let log_to = setup.logger.as_log();
    (0..20_000).for_each(|number| log(&*log_to, number));
    drop(setup.logger.start_writer(Arc::new(|_| Ok(()))).unwrap());
    assert_eq!(setup.lines.load(Ordering::Relaxed), 20_000);
}

/// Logging inside a Display, from within a logged message.
struct Nested<'a>(&'a dyn log::Log);

impl std::fmt::Display for Nested<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        log(self.0, 1);
        f.write_str("outer")
    }
}

#[test]
fn logging_inside_logging_logs_both() {
    let setup = setup(Overflow::Drop, Duration::ZERO, false);
    let log_to = setup.logger.as_log();
    let nested = Nested(&*log_to);
    let arguments = format_args!("{nested}");
    log_to.log(
        &log::Record::builder()
            .level(log::Level::Info)
            .args(arguments)
            .build(),
    );
    setup.logger.drain_blocking();
    assert_eq!(setup.lines.load(Ordering::Relaxed), 2);
}
