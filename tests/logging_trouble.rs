//! The daemon's log where it meets limits: a file that may not grow or be rolled, a disk
//! that is full, a reader that is slow while the daemon ends.
#![cfg(feature = "daemon")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod logging_support;
mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use logging_support::Tmpfs;
use support::{Daemon, PATIENCE, TempDir, round_trip, run, set_mode, signal};

/// Whether a line begins with a time and ends with a place.
fn is_whole(line: &str) -> bool {
    let (time, rest) = line.split_at_checked(27).unwrap_or_default();
    time.starts_with("20") && time.ends_with('Z') && rest.ends_with(')')
}

#[track_caller]
fn all_are_whole(text: &str) {
    assert!(text.ends_with('\n'), "no end: {text}");
    for line in text.lines() {
        assert!(is_whole(line), "{line:?} in\n{text}");
        assert_eq!(line.matches("Z INFO ").count().max(1), 1, "{line:?}");
    }
}

fn admitted(text: &str) -> usize {
    text.matches(" peer admitted ").count()
}

#[test]
fn a_file_that_may_neither_grow_nor_be_rolled_tears_no_line() {
    needs!(root);
    let dir = TempDir::new();
    let file = dir.join("logs/log");
    fs::create_dir(dir.join("logs")).unwrap();
    set_mode(&dir.join("logs"), 0o755);
    let mut command = Command::new("bash");
    let daemon = env!("CARGO_BIN_EXE_secure_socket");
    command.args(["-c", &format!("ulimit -f 8; exec {daemon} \"$@\""), "bash"]);
    let mut daemon = Daemon::spawn_by(
        command,
        &[
            "run_as_user=20100",
            "run_as_group=20100",
            "allow=uid:0",
            "log_rate=0",
            "log_target=file,stdout:4",
            &format!("log_file={}", file.display()),
        ],
    );
    daemon.wait_for_log("can't be rolled, and grows: run_as_user (uid 20100) may not write");
    while !daemon.socket.exists() {
        assert!(!daemon.has_ended());
        thread::sleep(Duration::from_millis(5));
    }
    for number in 0..120 {
        assert_eq!(round_trip(&daemon.connect(), b"x"), b"x");
        if number % 10 == 0 {
            // So that it is tried again now and then.
            thread::sleep(Duration::from_millis(50));
        }
    }
    daemon.wait_for_log("can't be rolled, and grows: Permission denied");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.len() > 6000 && admitted(&text) < 120, "{text}");
    all_are_whole(&text);
    let said = daemon.log().matches("grows: Permission denied").count();
    assert_eq!(said, 1, "{}", daemon.log());
}

#[test]
fn who_may_not_roll_or_shares_the_directory_is_told_at_start_and_by_check() {
    needs!(root);
    let dir = TempDir::new();
    let (rolls, shared) = ("can't be rolled", "is shared with others");
    for (name, owner, mode, expected) in [
        ("own", 20_100, 0o700, &[][..]),
        ("of-root", 0, 0o755, &[rolls]),
        ("group", 0, 0o1775, &[shared]),
        ("sticky", 0, 0o1777, &[shared]),
        ("both", 0, 0o1757, &[shared, rolls]),
    ] {
        let logs = dir.join(name);
        fs::create_dir(&logs).unwrap();
        chown(&logs, Some(owner), Some(20_100)).unwrap();
        set_mode(&logs, mode);
        let file = format!("log_file={}", logs.join("log").display());
        let options = [
            "run_as_user=20100",
            "run_as_group=20100",
            "allow=uid:0",
            "log_target=file,stdout:5",
            &file,
        ];
        let checked = run(&[&["check"], &options[..]].concat());
        assert!(!logs.join("log").exists());
        let checked = String::from_utf8(checked.stderr).unwrap();
        let daemon = Daemon::start(&options);
        let in_file = fs::read_to_string(logs.join("log")).unwrap();
        for said in [&checked, &daemon.log(), &in_file] {
            for part in [rolls, shared] {
                let times = usize::from(expected.contains(&part));
                assert_eq!(said.matches(part).count(), times, "{name}: {part}: {said}");
            }
        }
        assert!(daemon.stop().success());
    }
}

/// A daemon that logs to where the test wants it.
struct Logging {
    child: Child,
    dir: TempDir,
}

impl Logging {
    fn start(stdout: impl Into<Stdio>, stderr: impl Into<Stdio>, options: &[&str]) -> Self {
        let dir = TempDir::new();
        let child = Command::new(env!("CARGO_BIN_EXE_secure_socket"))
            .arg(format!("socket_path={}", dir.join("run/s").display()))
            .args(["log_rate=0", "verbosity=10", "stop_timeout=1s"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let daemon = Self { child, dir };
        wait_until(|| UnixStream::connect(daemon.socket()).is_ok());
        daemon
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.join("run/s")
    }

    /// Serves one connection.
    fn serve(&self) {
        let stream = UnixStream::connect(self.socket()).unwrap();
        assert_eq!(round_trip(&stream, b"x"), b"x");
    }

    fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_until(|| {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn wait_until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Serves until the disk under this log is full and takes nothing any more: its last page
/// is taken before it is filled. Gives how often that was.
#[track_caller]
fn fill(daemon: &Logging, log: &Path) -> usize {
    let length = || fs::metadata(log).unwrap().len();
    let (mut served, mut unchanged) = (0, 0);
    while unchanged < 2 {
        let before = length();
        for _ in 0..50 {
            daemon.serve();
        }
        served += 50;
        assert!(served < 10_000);
        let is_full = rustix::fs::statvfs(log).unwrap().f_bavail == 0;
        unchanged = if is_full && length() == before {
            unchanged + 1
        } else {
            0
        };
    }
    served
}

#[test]
fn a_stream_into_a_file_goes_on_where_a_full_disk_stopped_it() {
    needs!(root);
    let Some(disk) = Tmpfs::mount() else {
        return support::skip("mount");
    };
    fs::write(disk.0.join("ballast"), vec![b'x'; 900 << 10]).unwrap();
    let out = disk.0.join("out");
    let mut daemon = Logging::start(fs::File::create(&out).unwrap(), Stdio::null(), &[]);
    let mut served = fill(&daemon, &out);
    let full = fs::metadata(&out).unwrap().len();
    for _ in 0..50 {
        daemon.serve();
        served += 1;
    }
    assert_eq!(fs::metadata(&out).unwrap().len(), full);
    fs::remove_file(disk.0.join("ballast")).unwrap();
    signal(&daemon.child, "TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    let text = fs::read_to_string(&out).unwrap();
    all_are_whole(&text);
    // And those that asked whether it serves.
    assert!(admitted(&text) > served, "{served} served in\n{text}");
    assert!(!text.contains(": lost "), "{text}");
    assert!(text.contains("stdout: No space left on device"), "{text}");
}

/// What a daemon that had much to say left when it ended.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// Ends a daemon that served so many times to somebody who reads its stdout like this, until
/// it is over. The second signal of two comes after this time. No line begins in another.
#[track_caller]
fn end_with_a_reader(
    served: usize,
    second: Option<Duration>,
    reads: impl FnOnce(&mut ChildStdout, &AtomicBool) -> Vec<u8> + Send,
) -> Ended {
    let mut daemon = Logging::start(Stdio::piped(), Stdio::piped(), &[]);
    let mut stdout: ChildStdout = daemon.child.stdout.take().unwrap();
    let over = AtomicBool::new(false);
    let (status, mut read) = thread::scope(|scope| {
        for _ in 0..served {
            daemon.serve();
        }
        let reader = scope.spawn(|| reads(&mut stdout, &over));
        signal(&daemon.child, "TERM");
        wait_until(|| !daemon.socket().exists());
        if let Some(later) = second {
            thread::sleep(later);
            signal(&daemon.child, "TERM");
        }
        let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| daemon.wait()));
        over.store(true, Ordering::Relaxed);
        (status, reader.join().unwrap())
    });
    let status = status.expect("it goes on");
    stdout.read_to_end(&mut read).unwrap();
    let stdout = String::from_utf8(read).unwrap();
    let (whole, _) = stdout.rsplit_once('\n').unwrap();
    all_are_whole(&format!("{whole}\n"));
    let mut stderr = String::new();
    let mut said = daemon.child.stderr.take().unwrap();
    said.read_to_string(&mut stderr).unwrap();
    Ended {
        status,
        stdout,
        stderr,
    }
}

/// Reads a little at a time, at most so often.
fn read_slowly(stdout: &mut ChildStdout, over: &AtomicBool, every: Duration) -> Vec<u8> {
    let mut read = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let mut some = [0; 4096];
        let length = stdout.read(&mut some).unwrap();
        read.extend_from_slice(&some[..length]);
        thread::sleep(every);
    }
    read
}

#[test]
fn a_reader_that_is_slow_but_reads_gets_every_line() {
    let begun = Instant::now();
    let ended = end_with_a_reader(800, None, |stdout, over| {
        read_slowly(stdout, over, Duration::from_millis(250))
    });
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr, "");
    assert!(admitted(&ended.stdout) > 800, "{}", ended.stdout);
    assert!(
        ended.stdout.contains(" stopped, exit code 0 "),
        "{}",
        ended.stdout
    );
    // Longer than one who does not read is waited for.
    assert!(begun.elapsed() > Duration::from_secs(7));
}

#[test]
fn a_reader_that_does_not_read_does_not_hold_up_the_end() {
    let ended = end_with_a_reader(800, None, |_, _| Vec::new());
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("lost in all "), "{}", ended.stderr);
}

#[test]
fn a_second_signal_ends_what_waits_for_a_slow_reader() {
    // The later one when the end has been put off.
    for later in [Duration::ZERO, Duration::from_secs(2)] {
        // Much more than a pipe holds, and than is read until the test gives up.
        let ended = end_with_a_reader(1500, Some(later), |stdout, over| {
            read_slowly(stdout, over, Duration::from_millis(500))
        });
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("lost in all "), "{}", ended.stderr);
    }
}

#[test]
fn the_total_counts_every_line_that_a_full_disk_did_not_take() {
    needs!(root);
    let Some(disk) = Tmpfs::mount() else {
        return support::skip("mount");
    };
    fs::write(disk.0.join("ballast"), vec![b'x'; 900 << 10]).unwrap();
    let dir = TempDir::new();
    let (full, all) = (disk.0.join("log"), dir.join("all"));
    let mut daemon = Logging::start(
        fs::File::create(&all).unwrap(),
        Stdio::piped(),
        &[
            "log_target=file,stdout",
            &format!("log_file={}", full.display()),
        ],
    );
    fill(&daemon, &full);
    signal(&daemon.child, "TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    let all = fs::read_to_string(all).unwrap();
    let written = fs::read_to_string(&full).unwrap().matches('\n').count();
    let mut said = String::new();
    let mut stderr = daemon.child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    let (_, lost) = said.split_once(" lost in all ").expect(&said);
    let (lost, _) = lost.split_once(' ').unwrap();
    let (before, _) = all.split_once(" lost in all ").expect(&all);
    assert_eq!(
        written + lost.parse::<usize>().unwrap(),
        before.matches('\n').count()
    );
}
