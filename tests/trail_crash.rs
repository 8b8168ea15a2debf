//! The trail under SIGKILL, full disks and tampering, and two verifiers that agree.
//!
//! The writer runs in a child process: this test program, started again with its
//! place in the environment.

#![cfg(feature = "trail")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/skip.rs"]
mod skipping;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use secure_socket::trail::{
    Event, Head, Options, Peer, ProblemKind, SyncPolicy, Trail, VerifyError, verify_files,
};

const PLACE: &str = "SECURE_SOCKET_TRAIL_TEST";

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("trail-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Self(path)
    }

    fn trail(&self) -> PathBuf {
        self.0.join("trail.jsonl")
    }

    fn files(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let is_part = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            name == "trail.jsonl" || name.starts_with("trail.jsonl.2")
        };
        all.filter(is_part).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn decision(connection: u64) -> Event<'static> {
    Event::Deny {
        connection: Some(connection),
        peer: Peer::Who(&"uid=33 pid=812"),
        rule: None,
        reason: "no_rule",
        detail: None,
        others: 0,
    }
}

/// This program again, as the writer.
fn writer(place: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_writer", "--nocapture"])
        .env(PLACE, place);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Not a test: what the writer does. It appends until it is killed, or until a
/// line is refused; after each line it notes its number in `acknowledged`.
#[test]
fn child_writer() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else {
        return;
    };
    let options = Options {
        max_size: 256 * 1024,
        sync: SyncPolicy::No,
        ..Options::new(place.join("trail.jsonl"))
    };
    let trail = Arc::new(Trail::open(&options, [1; 32]).unwrap().0);
    let keeper = std::thread::spawn({
        let keeper = trail.keeper();
        move || keeper.keep()
    });
    let note = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(place.join("acknowledged"))
        .unwrap();
    let mut refused = 0;
    for number in 0.. {
        match trail.append(&decision(number)) {
            Ok(()) => {
                note.write_all_at(&trail.head().sequence.to_le_bytes(), 0)
                    .unwrap();
                if refused > 0 {
                    fs::write(place.join("recovered"), refused.to_string()).unwrap();
                    break;
                }
            }
            Err(error) => {
                refused += 1;
                let _ = fs::write(place.join("refused"), error.to_string());
                std::thread::sleep(Duration::from_millis(5));
                if refused > 400 {
                    break;
                }
            }
        }
    }
    trail.close();
    keeper.join().unwrap();
}

fn acknowledged(directory: &Directory) -> u64 {
    let bytes = fs::read(directory.0.join("acknowledged")).unwrap_or_default();
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// Says so where there is none, and the test is left out; in CI nothing is.
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    if !found {
        skipping::skip("python3");
    }
    found
}

fn by_python(directory: &Directory, heads: &[Head]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("audit/verify_trail.py");
    let heads = heads.iter().map(|head| format!("head={head}"));
    Command::new("python3")
        .arg(script)
        .args(heads)
        .args(directory.files())
        .output()
        .unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_hundred_kills_lose_no_line_that_was_acknowledged() {
    if !has_python() {
        return;
    }
    let directory = Directory::new("kill");
    let mut state = u64::from(std::process::id()) | 1 << 40;
    let (mut kills, mut torn) = (0, 0);
    while kills < 100 || acknowledged(&directory) < 100_000 {
        let child = writer(&directory.0).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(5_000 + random(&mut state) % 60_000));
        kill(child);
        kills += 1;
        torn += match verify_files(&[directory.trail()], &[]) {
            // The very moment between two files leaves none.
            Ok(_) | Err(VerifyError::Empty | VerifyError::Read(..)) => 0,
            // What the next start sets aside.
            Err(VerifyError::Problem(problem)) => {
                assert_eq!(problem.kind, ProblemKind::Torn, "{problem}");
                1
            }
            Err(error) => panic!("{error}"),
        };
        assert!(
            kills < 2_000,
            "too slow: {} lines",
            acknowledged(&directory)
        );
    }
    let noted = acknowledged(&directory);
    let options = Options::new(directory.trail());
    let (trail, _) = Trail::open(&options, [1; 32]).unwrap();
    trail.append(&Event::Stop { code: 0 }).unwrap();
    let head = trail.head();
    let summary = verify_files(&directory.files(), &[head]).unwrap();
    assert_eq!(summary.first, 1);
    assert!(
        summary.head.sequence > noted,
        "{} after {noted}",
        summary.head.sequence
    );
    let python = by_python(&directory, &[head]);
    assert!(
        python.status.success(),
        "{}",
        String::from_utf8_lossy(&python.stderr)
    );
    println!(
        "{kills} kills, {noted} acknowledged, {} lines in {} files, {torn} torn",
        summary.lines,
        summary.files.len()
    );
}

#[test]
fn a_file_that_may_not_grow_denies_and_stays_whole() {
    let directory = Directory::new("limit");
    let exe = std::env::current_exe().unwrap();
    let script = "trap '' XFSZ; ulimit -f 24; exec \"$0\" --exact child_writer";
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(exe)
        .env(PLACE, &directory.0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(directory.0.join("refused").exists());
    let noted = acknowledged(&directory);
    let summary = verify_files(&directory.files(), &[]).unwrap();
    assert_eq!(
        summary.head.sequence, noted,
        "each line that was acknowledged, and no other"
    );
}

#[test]
fn a_full_disk_denies_until_there_is_room_again() {
    if !has_python() {
        return;
    }
    let directory = Directory::new("full");
    let exe = std::env::current_exe().unwrap();
    // A file system of its own, which vanishes with the shell; the filler goes
    // once a line was refused.
    let script = "mount -t tmpfs -o size=128k,mode=0700 none \"$1\" || exit 99
        head -c 90000 /dev/zero >\"$1/filler\"
        \"$0\" --exact child_writer >/dev/null 2>&1 &
        for try in $(seq 1 200); do [ -s \"$1/refused\" ] || [ -e \"$1/refused\" ] && break; sleep 0.05; done
        sleep 0.2; rm \"$1/filler\"; wait
        [ -e \"$1/recovered\" ] || exit 98
        python3 \"$2\" \"$1/trail.jsonl\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(exe)
        .arg(&directory.0)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("audit/verify_trail.py"))
        .env(PLACE, &directory.0)
        .output();
    let Ok(output) = output else {
        return skipping::skip("unshare");
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(99) || said.contains("unshare failed") {
        return skipping::skip(&format!("a mount namespace: {said}"));
    }
    assert!(
        output.status.success(),
        "{:?}: {said}",
        output.status.code()
    );
}

#[test]
fn every_flipped_bit_is_found_by_both() {
    if !has_python() {
        return;
    }
    let directory = Directory::new("flip");
    let (trail, _) = Trail::open(&Options::new(directory.trail()), [1; 32]).unwrap();
    (0..4).for_each(|number| trail.append(&decision(number)).unwrap());
    let good = fs::read(directory.trail()).unwrap();
    let mut state = 7;
    for place in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[place / 8] ^= 1 << (place % 8);
        fs::write(directory.trail(), &bad).unwrap();
        let found = verify_files(&directory.files(), &[]);
        let Err(VerifyError::Problem(problem)) = found else {
            panic!("bit {place}: {found:?}")
        };
        let line = good[..place / 8]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count() as u64
            + 1;
        assert_eq!(problem.line, line, "bit {place}: {problem}");
        if random(&mut state).is_multiple_of(150) {
            let python = by_python(&directory, &[]);
            let said = String::from_utf8_lossy(&python.stderr).into_owned();
            assert!(!python.status.success(), "bit {place}");
            assert!(
                said.contains(&format!("jsonl:{line}:")),
                "bit {place}, line {line}: {said}"
            );
        }
    }
}

#[test]
fn what_is_appended_at_once_by_many_is_fast_enough_to_say() {
    let directory = Directory::new("speed");
    for sync in [SyncPolicy::No, SyncPolicy::Batch, SyncPolicy::Each] {
        let options = Options {
            sync,
            ..Options::new(directory.0.join(format!("{sync:?}")))
        };
        let trail = Arc::new(Trail::open(&options, [1; 32]).unwrap().0);
        let keeper = std::thread::spawn({
            let keeper = trail.keeper();
            move || keeper.keep()
        });
        let count = if sync == SyncPolicy::Each {
            200
        } else {
            20_000
        };
        let began = std::time::Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..count).for_each(|n| trail.append(&decision(n)).unwrap()));
            }
        });
        let each = began.elapsed() / u32::try_from(4 * count).unwrap();
        println!("trail_sync={sync:?}: {each:?} for each line, four threads");
        trail.close();
        keeper.join().unwrap();
    }
}

#[test]
fn both_refuse_a_trail_after_the_last_head() {
    if !has_python() {
        return;
    }
    let directory = Directory::new("before");
    let (trail, _) = Trail::open(&Options::new(directory.trail()), [1; 32]).unwrap();
    let mut heads = Vec::new();
    for number in 0..6 {
        trail.append(&decision(number)).unwrap();
        heads.push(trail.head());
    }
    let text = fs::read_to_string(directory.trail()).unwrap();
    let later: Vec<&str> = text.split_inclusive('\n').skip(4).collect();
    fs::write(directory.trail(), later.concat()).unwrap();
    for (given, good) in [
        (&heads[..3], false),
        (&heads[..4], true),
        (&heads[..], true),
    ] {
        let found = verify_files(&directory.files(), given);
        assert_eq!(found.is_ok(), good, "{found:?}");
        let python = by_python(&directory, given);
        let said = String::from_utf8_lossy(&python.stderr);
        assert_eq!(python.status.success(), good, "{said}");
    }
    // Just before it: the first line says which line came before.
    let other = Head {
        digest: heads[0].digest,
        ..heads[3]
    };
    assert!(verify_files(&directory.files(), &[other]).is_err());
    assert!(!by_python(&directory, &[other]).status.success());
}

#[test]
fn both_compare_every_head_of_a_number() {
    if !has_python() {
        return;
    }
    let directory = Directory::new("heads");
    let (trail, _) = Trail::open(&Options::new(directory.trail()), [1; 32]).unwrap();
    let mut heads = Vec::new();
    for number in 0..6 {
        trail.append(&decision(number)).unwrap();
        heads.push(trail.head());
    }
    let other = |head: Head| Head {
        digest: [1; 32],
        ..head
    };
    let check = |head: Head| {
        for (given, good) in [
            ([head, head], true),
            ([head, other(head)], false),
            ([other(head), head], false),
        ] {
            let found = verify_files(&directory.files(), &given);
            assert_eq!(found.is_ok(), good, "{given:?}: {found:?}");
            let python = by_python(&directory, &given);
            let said = String::from_utf8_lossy(&python.stderr);
            assert_eq!(python.status.success(), good, "{given:?}: {said}");
        }
    };
    check(heads[2]);
    check(heads[5]);
    // The line before the first that is there.
    let text = fs::read_to_string(directory.trail()).unwrap();
    let later: Vec<&str> = text.split_inclusive('\n').skip(3).collect();
    fs::write(directory.trail(), later.concat()).unwrap();
    check(heads[2]);
}
