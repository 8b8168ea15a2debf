//! What a log file may be, and what happens when it is moved, removed, locked,
//! full, or too old.
#![cfg(feature = "logging")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod logging_support;
#[path = "support/skip.rs"]
mod skipping;

use rustix::fs::inotify::{self, ReadFlags};
use rustix::io::Errno;

use logging_support::{Front, TempDir, Tmpfs, all_lines, files, message, start};
use secure_socket::logging::{Builder, FileSpec, Logger, LoggingError, SinkSpec};
use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn build(spec: FileSpec) -> Result<Logger, LoggingError> {
    Builder::new().target(SinkSpec::File(spec)).build()
}

#[track_caller]
fn refused(path: &Path, part: &str) {
    let error = build(FileSpec::new(path))
        .expect_err("expected a refusal")
        .to_string();
    assert!(error.contains(part), "{error}");
}

const DIRECTORY: &str = "LOGGING_FILES_DIRECTORY";
const UMASK: &str = "LOGGING_FILES_UMASK";

/// In a process of its own, since the umask is the whole process's.
fn under_a_umask(umask: &str, directory: &Path) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "helper_umask", "--nocapture"]);
    command.env(DIRECTORY, directory).env(UMASK, umask);
    assert!(command.status().unwrap().success(), "umask {umask}");
}

#[test]
fn a_missing_directory_is_created_for_its_owner_only() {
    for umask in ["000", "022", "777"] {
        let directory = TempDir::new(&format!("create{umask}"));
        under_a_umask(umask, directory.path());
    }
}

/// Makes the directories and the file, and rolls it: nothing gets a name with other rights
/// than it is to have, or is protected afterwards.
#[test]
fn helper_umask() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let umask = std::env::var(UMASK).unwrap();
    let umask = u32::from_str_radix(&umask, 8).unwrap();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
    let directory = Path::new(&directory);
    let path = directory.join("a/b/log");
    let mut spec = FileSpec::new(&path);
    (spec.max_size, spec.keep) = (1000, 100);
    let logger = build(spec).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&directory.join("a")), 0o700);
    assert_eq!(mode(&directory.join("a/b")), 0o700);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(logger.paths_needed()[0].path, directory.join("a/b"));
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let what =
        inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ATTRIB;
    inotify::add_watch(&watch, directory.join("a/b"), what).unwrap();
    let guard = start(&logger);
    let front = Front::of(&logger);
    for number in 0..50 {
        front.info(&format!("line {number} of a file that is rolled often"));
        assert!(logger.flush(Duration::from_secs(5)));
    }
    let is_archive = |file: &Path| file.extension().is_some_and(|ending| ending == "gz");
    for _ in 0..500 {
        if files(&path).iter().filter(|file| is_archive(file)).count() >= 3 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(guard);
    let told = told(&watch);
    let archives = told.iter().filter(|(name, _)| name.ends_with(".gz"));
    assert!(archives.clone().count() >= 3, "{told:?}");
    for (name, events) in archives {
        assert_eq!(events[..], [ReadFlags::MOVED_TO], "{name}");
    }
    // Only what such a umask took away is given afterwards.
    let changed = told.values().flatten().any(|one| *one == ReadFlags::ATTRIB);
    assert_eq!(changed, umask == 0o777, "{told:?}");
    for file in files(&path) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

/// What inotify(7) tells, for each name.
fn told(watch: impl AsFd) -> BTreeMap<String, Vec<ReadFlags>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    let mut told = BTreeMap::<_, Vec<_>>::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().unwrap().to_str().unwrap();
                told.entry(name.to_owned())
                    .or_default()
                    .push(event.events());
            }
            Err(Errno::AGAIN) => return told,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn links_and_what_is_no_file_are_refused() {
    let directory = TempDir::new("refuse");
    let target = directory.join("target");
    fs::write(&target, "precious\n").unwrap();
    symlink(&target, directory.join("link")).unwrap();
    refused(&directory.join("link"), "it is a symbolic link");
    symlink(directory.join("nowhere"), directory.join("dangling")).unwrap();
    refused(&directory.join("dangling"), "it is a symbolic link");
    assert!(!directory.join("nowhere").exists());
    fs::create_dir(directory.join("real")).unwrap();
    symlink(directory.join("real"), directory.join("linked")).unwrap();
    refused(&directory.join("linked/log"), "is a symbolic link to ");
    fs::create_dir(directory.join("directory")).unwrap();
    refused(&directory.join("directory"), "expected a regular file");
    assert!(
        Command::new("mkfifo")
            .arg(directory.join("fifo"))
            .status()
            .unwrap()
            .success()
    );
    refused(&directory.join("fifo"), "expected a regular file");
    fs::hard_link(&target, directory.join("hard")).unwrap();
    refused(&directory.join("hard"), "it has 2 names, expected one");
    refused(&directory.join("a/../log"), "expected a path without ..");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious\n");
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let directory = TempDir::new("others");
    for (mode, fine) in [
        (0o777, false),
        (0o775, false),
        (0o757, false),
        (0o1777, true),
        (0o755, true),
    ] {
        let inner = directory.join(&format!("{mode:o}"));
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(mode)).unwrap();
        match fine {
            true => drop(build(FileSpec::new(inner.join("log"))).unwrap()),
            false => refused(&inner.join("log"), "others can write it"),
        }
    }
}

#[test]
fn a_second_logger_cant_have_the_file() {
    let directory = TempDir::new("second");
    let path = directory.join("log");
    let mut spec = FileSpec::new(&path);
    spec.max_size = 100;
    let logger = build(spec).unwrap();
    let guard = start(&logger);
    refused(&path, "another process logs to it");
    let front = Front::of(&logger);
    for _ in 0..10 {
        front.info("a line that fills the file, so that it is rolled soon enough");
    }
    assert!(guard.logger().flush(Duration::from_secs(5)));
    refused(&path, "another process logs to it");
    drop((guard, logger, front));
    build(FileSpec::new(&path)).unwrap();
}

#[test]
fn a_file_that_is_moved_or_removed_is_followed() {
    let directory = TempDir::new("moved");
    let path = directory.join("log");
    let logger = build(FileSpec::new(&path)).unwrap();
    let guard = start(&logger);
    let front = Front::of(&logger);
    front.info("first");
    assert!(logger.flush(Duration::from_secs(5)));
    fs::rename(&path, directory.join("log.1")).unwrap();
    logger.reopen();
    front.info("second");
    assert!(logger.flush(Duration::from_secs(5)));
    assert_eq!(
        message(fs::read_to_string(directory.join("log.1")).unwrap().trim()),
        "first"
    );
    assert_eq!(message(fs::read_to_string(&path).unwrap().trim()), "second");
    fs::remove_file(&path).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    front.info("third, without being told");
    drop(guard);
    assert!(fs::read_to_string(&path).unwrap().contains("third"));
}

#[test]
fn archives_beyond_what_is_kept_go_and_others_stay() {
    let directory = TempDir::new("keep");
    let path = directory.join("log");
    let strangers = ["log.1", "log.20261123-102030.123456.gz.bak", "log.20261123"];
    for stranger in strangers {
        fs::write(directory.join(stranger), "not ours\n").unwrap();
    }
    fs::write(directory.join("log.20200101-000000.000000.gz.tmp"), "half").unwrap();
    let link = directory.join("log.20200101-000000.000001");
    symlink("/etc/passwd", &link).unwrap();
    let mut spec = FileSpec::new(&path);
    (spec.max_size, spec.keep) = (2000, 3);
    let logger = build(spec).unwrap();
    let guard = start(&logger);
    let front = Front::of(&logger);
    for number in 0..200 {
        front.info(&format!(
            "line {number} of a file that is rolled every few lines"
        ));
        std::thread::sleep(Duration::from_micros(200));
    }
    assert!(logger.flush(Duration::from_secs(5)));
    let ours = || {
        let archives = files(&path).into_iter().filter(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name.len() == "log.20261123-102030.123456.gz".len() && name.ends_with(".gz")
        });
        archives.count()
    };
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(20));
        if ours() == 3 && files(&path).len() == 3 + strangers.len() + 2 {
            break;
        }
    }
    drop(guard);
    let names = files(&path);
    assert_eq!(ours(), 3, "{names:?}");
    assert!(
        strangers
            .iter()
            .all(|stranger| directory.join(stranger).exists())
    );
    assert!(!directory.join("log.20200101-000000.000000.gz.tmp").exists());
    assert!(fs::symlink_metadata(link).is_ok());
    assert!(fs::metadata("/etc/passwd").unwrap().len() > 0);
    for name in names
        .iter()
        .filter(|name| name.extension().is_some_and(|e| e == "gz"))
    {
        assert_eq!(fs::metadata(name).unwrap().mode() & 0o7777, 0o600);
    }
}

/// Logs 200 lines into a file that is rolled every tenth, and waits until so many rolled
/// files are there that are no links.
fn roll_often(path: &Path, keep: u32, expect: usize) {
    let mut spec = FileSpec::new(path);
    (spec.max_size, spec.keep, spec.compress) = (1000, keep, false);
    let logger = build(spec).unwrap();
    let guard = start(&logger);
    let front = Front::of(&logger);
    for number in 0..200 {
        front.info(&format!("line {number} of a file that is rolled often"));
        assert!(logger.flush(Duration::from_secs(5)));
    }
    let rolled = || {
        let mut files = files(path);
        files.pop();
        files.retain(|file| !file.is_symlink());
        files.len()
    };
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(10));
        if rolled() == expect {
            break;
        }
    }
    drop(guard);
    assert_eq!(rolled(), expect, "{:?}", files(path));
}

/// Checks that the lines are the last ones, without a gap and in order.
#[track_caller]
fn are_the_last(lines: &[String]) {
    let first = 200 - lines.len();
    for (at, line) in lines.iter().enumerate() {
        let expect = format!("line {} of", first + at);
        assert!(line.contains(&expect), "{expect}: {line}");
    }
}

#[test]
fn after_the_clock_was_set_back_the_oldest_files_go_still() {
    let directory = TempDir::new("back");
    let path = directory.join("log");
    for micros in 7..10 {
        let name = format!("log.29991231-235959.99999{micros}");
        fs::write(
            directory.join(&name),
            "from before the clock was set back\n",
        )
        .unwrap();
    }
    roll_often(&path, 3, 3);
    let lines = all_lines(&path);
    assert!(lines.len() > 20, "{}", lines.len());
    are_the_last(&lines);
    // A start later goes on in that order.
    fs::write(&path, "the last before the start\n".repeat(50)).unwrap();
    let mut spec = FileSpec::new(&path);
    (spec.max_size, spec.compress) = (1000, false);
    drop(build(spec).unwrap());
    let rolled = files(&path);
    let newest = fs::read_to_string(&rolled[rolled.len() - 2]).unwrap();
    assert!(newest.starts_with("the last"), "{rolled:?}");
}

#[test]
fn names_that_others_made_push_no_rolled_file_out() {
    let directory = TempDir::new("pushed");
    let path = directory.join("log");
    for micros in 7..10 {
        let name = directory.join(&format!("log.99999999-999999.99999{micros}"));
        symlink("/etc/passwd", name).unwrap();
    }
    roll_often(&path, 3, 3);
    let mut lines = Vec::new();
    for file in files(&path).iter().filter(|file| !file.is_symlink()) {
        let text = fs::read_to_string(file).unwrap();
        lines.extend(text.lines().map(str::to_owned));
    }
    assert!(lines.len() > 20, "{}", lines.len());
    are_the_last(&lines);
}

#[test]
fn a_file_over_its_size_or_age_is_rolled_at_start() {
    let directory = TempDir::new("over");
    let path = directory.join("log");
    fs::write(&path, "old line\n".repeat(100)).unwrap();
    let mut spec = FileSpec::new(&path);
    (spec.max_size, spec.compress) = (900, false);
    drop(build(spec.clone()).unwrap());
    assert_eq!(files(&path).len(), 2);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    fs::write(&path, "old line\n").unwrap();
    (spec.max_size, spec.max_age) = (0, Some(Duration::from_secs(3600)));
    drop(build(spec.clone()).unwrap());
    assert_eq!(files(&path).len(), 2);
    spec.max_age = Some(Duration::from_millis(1));
    std::thread::sleep(Duration::from_millis(2));
    drop(build(spec).unwrap());
    assert_eq!(files(&path).len(), 3);
}

#[test]
fn rolled_files_are_kept_up_to_so_many_bytes() {
    let directory = TempDir::new("bytes");
    let path = directory.join("log");
    let mut spec = FileSpec::new(&path);
    (spec.max_size, spec.keep_bytes, spec.compress) = (1000, Some(2500), false);
    let logger = build(spec).unwrap();
    let guard = start(&logger);
    let front = Front::of(&logger);
    for number in 0..100 {
        front.info(&format!(
            "line {number} of a file that is rolled at every tenth"
        ));
        assert!(logger.flush(Duration::from_secs(5)));
    }
    let sizes = || {
        let mut files = files(&path);
        files.pop();
        let sizes = files
            .iter()
            .map(|file| file.metadata().map_or(0, |m| m.len()));
        sizes.collect::<Vec<u64>>()
    };
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(10));
        if sizes().len() == 2 {
            break;
        }
    }
    drop(guard);
    assert_eq!(sizes().len(), 2, "{:?}", sizes());
    assert!(sizes().iter().sum::<u64>() <= 2500);
    assert!(all_lines(&path).last().unwrap().contains("line 99 "));
}

#[test]
fn a_file_is_rolled_at_its_age_with_the_next_line() {
    let directory = TempDir::new("age");
    let path = directory.join("log");
    let mut spec = FileSpec::new(&path);
    (spec.max_age, spec.compress) = (Some(Duration::from_secs(1)), false);
    let logger = build(spec).unwrap();
    let guard = start(&logger);
    let front = Front::of(&logger);
    front.info("first");
    assert!(logger.flush(Duration::from_secs(5)));
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(files(&path).len(), 1);
    front.info("second");
    drop(guard);
    let files = files(&path);
    assert_eq!(files.len(), 2);
    assert!(fs::read_to_string(&files[0]).unwrap().contains("first"));
    assert!(fs::read_to_string(&path).unwrap().contains("second"));
}

#[test]
fn a_torn_last_line_is_taken_out_and_shown() {
    let directory = TempDir::new("torn");
    let path = directory.join("log");
    fs::write(&path, "whole\nhal\x1bf").unwrap();
    let logger = build(FileSpec::new(&path)).unwrap();
    let guard = start(&logger);
    Front::of(&logger).info("next");
    drop(guard);
    let lines = all_lines(&path);
    assert_eq!(lines[0], "whole");
    let shown = |line: &String| {
        line.contains("a crash tore the last line of the log file, it began: hal\\x1bf")
    };
    assert!(lines.iter().any(shown), "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with("next")));
}

#[test]
fn a_full_disk_stops_nobody_and_the_loss_is_stated() {
    let Some(disk) = Tmpfs::mount() else {
        return skipping::skip("root, to mount");
    };
    let path = disk.0.join("log");
    fs::write(disk.0.join("ballast"), vec![b'x'; 300 << 10]).unwrap();
    let mut spec = FileSpec::new(&path);
    spec.max_size = 0;
    let logger = Builder::new()
        .queue(1 << 16)
        .target(SinkSpec::File(spec))
        .build()
        .unwrap();
    let guard = start(&logger);
    let front = Front::of(&logger);
    let (lines, padding) = (40_000, "x".repeat(60));
    let mut slowest = Duration::ZERO;
    for number in 0..lines {
        let begun = Instant::now();
        front.info(&format!("line {number} {padding}"));
        slowest = slowest.max(begun.elapsed());
        if number % 500 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    logger.flush(Duration::from_secs(5));
    let full = logger.stats();
    assert!(
        full.sinks[0].lost > 0 && full.sinks[0].waiting > 0,
        "{full:?}"
    );
    fs::remove_file(disk.0.join("ballast")).unwrap();
    // What waits is more than the disk has room for: it is emptied meanwhile,
    // by others, as logrotate would.
    let (moved, mut text) = (disk.0.join("moved"), String::new());
    while logger.stats().sinks[0].waiting > 0 {
        fs::rename(&path, &moved).unwrap();
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(100));
            if path.exists() {
                break;
            }
        }
        text += &fs::read_to_string(&moved).unwrap();
        fs::remove_file(&moved).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
    }
    front.info("after");
    assert!(guard.shutdown());
    text += &fs::read_to_string(&path).unwrap();
    let (mut written, mut lost, mut last) = (0, 0, -1);
    for line in text.lines() {
        if let Some(rest) = message(line).strip_prefix("line ") {
            let (number, rest) = rest.split_once(' ').unwrap();
            assert_eq!(rest, padding);
            let number = number.parse::<i64>().unwrap();
            assert!(number > last);
            (written, last) = (written + 1, number);
        } else if line.contains(": lost ") {
            let (_, rest) = line.split_once("(info ").unwrap();
            lost += rest
                .split([',', ')'])
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap();
            assert!(line.contains("No space left on device"), "{line}");
        }
    }
    eprintln!("{written} written, {lost} stated as lost, slowest call {slowest:?}");
    assert_eq!(written + lost, lines);
    assert!(text.contains(" after\n"));
    assert!(
        text.lines()
            .last()
            .unwrap()
            .contains(&format!(" lost in all {lost} lines"))
    );
}
