//! No line is lost, torn or out of order while the file rolls: at a stop, and
//! at a kill no more than what was on its way.
#![cfg(feature = "logging")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod logging_support;

use logging_support::{TempDir, all_lines, files, long, text_of};
use secure_socket::info;
use secure_socket::logging::{Builder, FileSpec, Guard, Overflow, SinkSpec};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn start(path: &Path, max_size: u64) -> Guard {
    let mut spec = FileSpec::new(path);
    spec.max_size = max_size;
    spec.keep = 1_000_000;
    Builder::new()
        .overflow(Overflow::Block)
        .target(SinkSpec::File(spec))
        .start()
        .unwrap()
}

/// The part of a line between the severity and the place.
fn fields(line: &str) -> Option<(u32, u64, u64)> {
    let (_, rest) = line.split_once(" INFO  run ")?;
    let (rest, _) = rest
        .strip_suffix(')')?
        .split_once(" (tests/logging_rolling.rs:")?;
    let mut words = rest.split(' ');
    let run = words.next()?.parse().ok()?;
    let thread = words.next()?.parse().ok()?;
    let number = words.next()?.parse().ok()?;
    (words.next()? == "a-line-of-usual-length-that-a-service-logs").then_some((run, thread, number))
}

fn log(run: u32, thread: u64, number: u64) {
    info!("run {run} {thread} {number} a-line-of-usual-length-that-a-service-logs");
}

static TERMINATED: AtomicBool = AtomicBool::new(false);

/// Takes SIGTERM as a service does that wants to end in order.
#[allow(unsafe_code, reason = "no other way to have a handler")]
fn on_sigterm() {
    extern "C" fn handler(_: libc::c_int) {
        TERMINATED.store(true, Ordering::SeqCst);
    }
    // SAFETY: the handler only stores into an atomic (signal-safety(7)).
    let before = unsafe { libc::signal(libc::SIGTERM, handler as *const () as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR);
}

/// The test that is started again as a program that logs.
const AGAIN: &str = "eight_threads_lose_nothing_while_the_file_rolls";

/// That program. Its arguments come in variables.
fn child(path: &str) {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (threads, lines) = (number("CHILD_THREADS"), number("CHILD_LINES"));
    let run = u32::try_from(number("CHILD_RUN")).unwrap();
    let guard = start(Path::new(path), number("CHILD_MAX_SIZE"));
    let stop = Arc::new(AtomicBool::new(false));
    let stopper = Arc::clone(&stop);
    on_sigterm();
    std::thread::spawn(move || {
        // The parent says stop by SIGTERM, or is gone and has closed our input.
        let input = std::thread::spawn(|| std::io::stdin().read(&mut [0]));
        while !TERMINATED.load(Ordering::SeqCst) && !input.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        stopper.store(true, Ordering::SeqCst);
    });
    let loggers: Vec<_> = (0..threads)
        .map(|thread| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut number = 0;
                while number < lines && !stop.load(Ordering::Relaxed) {
                    log(run, thread, number);
                    number += 1;
                }
                number
            })
        })
        .collect();
    let counts: Vec<u64> = loggers
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert!(guard.shutdown());
    let text: Vec<String> = counts.iter().map(u64::to_string).collect();
    std::fs::write(format!("{path}-counts"), text.join(" ")).unwrap();
}

fn spawn(path: &Path, run: u64, threads: u64, lines: u64, max_size: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", AGAIN, "--test-threads=1"])
        .env("CHILD_LOG", path)
        .env("CHILD_RUN", run.to_string())
        .env("CHILD_THREADS", threads.to_string())
        .env("CHILD_LINES", lines.to_string())
        .env("CHILD_MAX_SIZE", max_size.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets a child come to its own end: `wait` alone would close its input.
fn finish(child: &mut Child) {
    let input = child.stdin.take();
    assert!(child.wait().unwrap().success());
    drop(input);
}

/// Checks that each thread's lines are all there, once, in order.
fn check_whole(path: &Path, expected: &[u64]) {
    let mut next = vec![0; expected.len()];
    for file in files(path) {
        for line in text_of(&file).lines() {
            let (_, thread, number) = fields(line).unwrap_or_else(|| panic!("torn: {line:?}"));
            let next = &mut next[usize::try_from(thread).unwrap()];
            assert_eq!(number, *next, "thread {thread}");
            *next += 1;
        }
    }
    assert_eq!(next, expected);
}

#[test]
fn eight_threads_lose_nothing_while_the_file_rolls() {
    if let Ok(path) = std::env::var("CHILD_LOG") {
        return child(&path);
    }
    let directory = TempDir::new("roll");
    let path = directory.join("log");
    let lines = if long() { 1_000_000 } else { 20_000 };
    let begun = Instant::now();
    finish(&mut spawn(&path, 0, 8, lines, 1 << 20));
    eprintln!(
        "8 x {lines} lines in {:?}, {} files",
        begun.elapsed(),
        files(&path).len()
    );
    assert!(files(&path).len() > 5);
    for file in files(&path)
        .iter()
        .filter(|file| file.extension().is_none_or(|e| e != "gz"))
    {
        assert!(file.metadata().unwrap().len() <= 1 << 20);
    }
    check_whole(&path, &[lines; 8]);
}

#[test]
fn a_sigterm_in_the_middle_loses_nothing() {
    let directory = TempDir::new("stop");
    let path = directory.join("log");
    let mut child = spawn(&path, 0, 8, u64::MAX, 1 << 20);
    std::thread::sleep(Duration::from_millis(if long() { 3000 } else { 300 }));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    finish(&mut child);
    let counts = std::fs::read_to_string(directory.join("log-counts")).unwrap();
    let counts: Vec<u64> = counts
        .split(' ')
        .map(|count| count.parse().unwrap())
        .collect();
    eprintln!("{} lines before the stop", counts.iter().sum::<u64>());
    check_whole(&path, &counts);
}

#[test]
fn kills_tear_no_line_and_spoil_no_archive() {
    let directory = TempDir::new("kill");
    let path = directory.join("log");
    let kills = if long() { 200 } else { 12 };
    let mut seed = u64::from(std::process::id()) | 1;
    for run in 0..kills {
        // Small files, so that kills fall into rolls and compressions as well.
        let mut child = spawn(&path, run, 4, u64::MAX, 128 << 10);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros(5_000 + (seed >> 33) % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // One more start finishes what the last kill left; its own lines end well.
    finish(&mut spawn(&path, kills, 1, 10, 128 << 10));
    let mut position = (0, [0_u64; 4]);
    let (mut seen, mut mended) = (0_u64, 0);
    for file in files(&path) {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(!name.ends_with(".tmp"), "{name}");
        for line in text_of(&file).lines() {
            if line.contains(" a crash tore the last line of the log file") {
                mended += 1;
                continue;
            }
            let (run, thread, number) =
                fields(line).unwrap_or_else(|| panic!("torn in {name}: {line:?}"));
            if run != position.0 {
                assert!(run > position.0, "{name}");
                position = (run, [0; 4]);
            }
            let next = &mut position.1[usize::try_from(thread).unwrap()];
            assert_eq!(number, *next, "run {run}, thread {thread}");
            *next += 1;
            seen += 1;
        }
    }
    assert_eq!(position, (u32::try_from(kills).unwrap(), [10, 0, 0, 0]));
    let files = files(&path).len();
    eprintln!("{kills} kills: {seen} lines in {files} files, {mended} torn tails mended");
    assert!(!all_lines(&path).is_empty());
}
