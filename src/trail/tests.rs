//! The trail on a real file system.

use super::*;
use crate::ids::{Gid, Uid};
use crate::testing::TempDir;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Directory(TempDir);

impl Directory {
    pub(super) fn new() -> Self {
        Self(TempDir::new())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.join("trail.jsonl")
    }

    pub(super) fn options(&self) -> Options {
        Options {
            sync: SyncPolicy::No,
            ..Options::new(self.file())
        }
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        all.filter(|path| !path.to_str().unwrap().contains("lock"))
            .collect()
    }
}

pub(super) fn close(connection: u64) -> Event<'static> {
    Event::Close {
        connection,
        peer: Peer::Who(&"uid=33"),
        reason: "finished",
        received: 1,
        sent: 2,
        duration: Duration::from_millis(5),
    }
}

pub(super) fn write_lines(options: &Options, count: u64) -> Opened {
    let (trail, opened) = Trail::open(options, [7; 32]).unwrap();
    for number in 0..count {
        trail.append(&close(number)).unwrap();
    }
    opened
}

pub(super) fn lines_of(path: &Path) -> Vec<String> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn problem(path: &Path, heads: &[Head]) -> Problem {
    match verify_files(&[path.to_owned()], heads) {
        Err(VerifyError::Problem(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chain_goes_on_over_starts() {
    let directory = Directory::new();
    assert_eq!(write_lines(&directory.options(), 3).head, Head::START);
    assert_eq!(write_lines(&directory.options(), 2).head.sequence, 3);
    let summary = verify_files(&[directory.file()], &[]).unwrap();
    assert_eq!(
        (summary.lines, summary.first, summary.head.sequence),
        (5, 1, 5)
    );
    let mode = fs::metadata(directory.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn what_lies_there_is_examined_before_it_is_changed() {
    for name in ["trail.jsonl", "trail.jsonl.lock"] {
        let directory = Directory::new();
        let precious = directory.0.join("precious");
        fs::write(&precious, "precious\n").unwrap();
        fs::set_permissions(&precious, fs::Permissions::from_mode(0o644)).unwrap();
        fs::hard_link(&precious, directory.0.join(name)).unwrap();
        let before = fs::metadata(&precious).unwrap();
        // As root may: to another user.
        let owner = Some((
            Uid::from_raw(12_345).unwrap(),
            Gid::from_raw(12_345).unwrap(),
        ));
        let options = Options {
            owner: owner.filter(|_| before.uid() == 0),
            ..directory.options()
        };
        let error = Trail::open(&options, [0; 32]).unwrap_err();
        let TrailError::Unfit { path, found } = error else {
            panic!("{error}")
        };
        assert_eq!(path, directory.0.join(name));
        assert!(found.contains("2 names"), "{found}");
        let after = fs::metadata(&precious).unwrap();
        let of = |meta: &fs::Metadata| (meta.mode(), meta.uid(), meta.gid());
        assert_eq!(of(&after), of(&before), "{name}");
    }
}

#[test]
fn a_lock_of_somebody_else_is_none() {
    let directory = Directory::new();
    let lock = directory.0.join("trail.jsonl.lock");
    fs::write(&lock, "").unwrap();
    if std::os::unix::fs::chown(&lock, Some(12_345), None).is_err() {
        return eprintln!("SKIP: needs root");
    }
    let error = Trail::open(&directory.options(), [0; 32]).unwrap_err();
    assert!(matches!(error, TrailError::Unfit { .. }), "{error}");
}

#[test]
fn only_one_process_writes() {
    let directory = Directory::new();
    let _first = Trail::open(&directory.options(), [0; 32]).unwrap();
    assert!(matches!(
        Trail::open(&directory.options(), [0; 32]).unwrap_err(),
        TrailError::Locked { .. }
    ));
}

#[test]
fn a_torn_last_line_is_set_aside() {
    let directory = Directory::new();
    write_lines(&directory.options(), 3);
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(directory.file())
        .unwrap();
    file.write_all(b"{\"seq\":4,\"ti").unwrap();
    assert_eq!(problem(&directory.file(), &[]).kind, ProblemKind::Torn);
    let (aside, length) = write_lines(&directory.options(), 1).torn.unwrap();
    assert_eq!(
        (fs::read(aside).unwrap().as_slice(), length),
        (&b"{\"seq\":4,\"ti"[..], 12)
    );
    assert_eq!(verify_files(&[directory.file()], &[]).unwrap().lines, 4);
}

#[test]
fn a_file_that_is_no_trail_is_left_alone() {
    let directory = Directory::new();
    fs::write(directory.file(), "precious\n").unwrap();
    let error = Trail::open(&directory.options(), [0; 32]).unwrap_err();
    assert!(matches!(error, TrailError::NotATrail { .. }), "{error}");
    assert_eq!(fs::read(directory.file()).unwrap(), b"precious\n");
}

#[test]
fn links_and_open_directories_are_refused() {
    let directory = Directory::new();
    fs::write(directory.0.join("other"), "").unwrap();
    std::os::unix::fs::symlink("other", directory.file()).unwrap();
    assert!(Trail::open(&directory.options(), [0; 32]).is_err());
    fs::remove_file(directory.file()).unwrap();
    fs::hard_link(directory.0.join("other"), directory.file()).unwrap();
    assert!(matches!(
        Trail::open(&directory.options(), [0; 32]),
        Err(TrailError::Unfit { .. })
    ));
    fs::remove_file(directory.file()).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        Trail::open(&directory.options(), [0; 32]),
        Err(TrailError::Unfit { .. })
    ));
}

#[test]
fn a_rolled_trail_is_one_chain() {
    let directory = Directory::new();
    let options = Options {
        max_size: 2_000,
        ..directory.options()
    };
    write_lines(&options, 50);
    write_lines(&options, 50);
    assert!(directory.files().len() > 10);
    let summary = verify_files(&directory.files(), &[]).unwrap();
    assert_eq!(summary.first, 1);
    assert!(
        summary.lines > 110,
        "with the lines that name the file before"
    );
    // Without one in the middle.
    let mut files = directory.files();
    files.sort();
    files.remove(3);
    assert!(matches!(
        verify_files(&files, &[]),
        Err(VerifyError::Problem(_))
    ));
}

#[test]
fn a_crash_between_rename_and_creation_loses_nothing() {
    let directory = Directory::new();
    write_lines(&directory.options(), 5);
    let rolled = directory.0.join("trail.jsonl.20200101-000000.000000");
    fs::rename(directory.file(), rolled).unwrap();
    assert_eq!(write_lines(&directory.options(), 5).head.sequence, 5);
    assert_eq!(verify_files(&directory.files(), &[]).unwrap().lines, 10);
}

/// Leaves a rolled file that a crash of the machine cut short, and an empty one after it.
fn tear_rolled(directory: &Directory, bytes: u64) -> PathBuf {
    let rolled = directory.0.join("trail.jsonl.20200101-000000.000000");
    fs::rename(directory.file(), &rolled).unwrap();
    let length = fs::metadata(&rolled).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&rolled).unwrap();
    file.set_len(length - bytes).unwrap();
    fs::write(directory.file(), "").unwrap();
    rolled
}

#[test]
fn a_torn_end_of_the_file_before_is_set_aside_as_well() {
    let directory = Directory::new();
    write_lines(&directory.options(), 5);
    let rolled = tear_rolled(&directory, 20);
    let size = fs::metadata(&rolled).unwrap().len();
    let opened = write_lines(&directory.options(), 5);
    assert_eq!(opened.head.sequence, 4);
    let (aside, length) = opened.torn.unwrap();
    let name = aside.to_str().unwrap();
    assert!(
        name.contains("trail.jsonl.20200101-000000.000000.torn-"),
        "{name}"
    );
    assert_eq!(fs::metadata(aside).unwrap().len(), length);
    assert_eq!(fs::metadata(&rolled).unwrap().len(), size - length);
    let summary = verify_files(&[rolled, directory.file()], &[]).unwrap();
    assert_eq!(summary.lines, 9);
}

/// As a backup leaves it, and who gives it to an auditor.
#[test]
fn a_file_before_with_a_second_name_or_another_owner_is_gone_on_from() {
    for (is_linked, owner) in [(true, None), (false, Some(12345))] {
        if owner.is_some() && !rustix::process::geteuid().is_root() {
            continue;
        }
        let directory = Directory::new();
        write_lines(&directory.options(), 5);
        let rolled = directory.0.join("trail.jsonl.20200101-000000.000000");
        fs::rename(directory.file(), &rolled).unwrap();
        if is_linked {
            fs::hard_link(&rolled, directory.0.join("backup")).unwrap();
        }
        std::os::unix::fs::chown(&rolled, owner, None).unwrap();
        let opened = write_lines(&directory.options(), 5);
        assert_eq!(
            opened.head.sequence, 5,
            "linked {is_linked} owner {owner:?}"
        );
        let files = [rolled, directory.file()];
        assert_eq!(verify_files(&files, &[]).unwrap().lines, 10);
    }
}

#[test]
fn a_torn_end_is_cut_from_no_file_with_a_second_name() {
    let directory = Directory::new();
    write_lines(&directory.options(), 5);
    let rolled = tear_rolled(&directory, 20);
    let backup = directory.0.join("backup");
    fs::hard_link(rolled, &backup).unwrap();
    let size = fs::metadata(&backup).unwrap().len();
    let error = Trail::open(&directory.options(), [0; 32]).unwrap_err();
    assert!(matches!(error, TrailError::Unfit { .. }), "{error:?}");
    assert_eq!(fs::metadata(&backup).unwrap().len(), size);
}

/// Where others may put files, one of theirs is none of the trail.
#[test]
fn in_a_shared_directory_only_own_files_are_gone_on_from() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = Directory::new();
    write_lines(&directory.options(), 5);
    let rolled = directory.0.join("trail.jsonl.20200101-000000.000000");
    fs::rename(directory.file(), &rolled).unwrap();
    let shared = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(directory.path(), shared).unwrap();
    std::os::unix::fs::chown(&rolled, Some(12345), None).unwrap();
    assert_eq!(write_lines(&directory.options(), 1).head, Head::START);
}

#[test]
fn a_file_before_without_a_whole_line_is_no_reason_not_to_go_on() {
    let directory = Directory::new();
    write_lines(&directory.options(), 1);
    tear_rolled(&directory, 20);
    let opened = write_lines(&directory.options(), 1);
    assert_eq!(opened.head, Head::START);
    assert!(opened.torn.is_some());
}

#[test]
fn old_files_go_and_the_rest_still_verifies() {
    let directory = Directory::new();
    let options = Options {
        max_size: 2_000,
        keep: 2,
        ..directory.options()
    };
    write_lines(&options, 100);
    assert_eq!(directory.files().len(), 3);
    let summary = verify_files(&directory.files(), &[]).unwrap();
    assert!(summary.first > 1);
}

/// Gives rolled files such stamps as a clock gave that was ahead, in their order.
fn stamp_ahead(directory: &Directory) {
    let mut rolled = directory.files();
    rolled.sort();
    rolled.retain(|path| *path != directory.file());
    for (at, path) in rolled.iter().enumerate() {
        let name = format!("trail.jsonl.29991231-235959.99999{at}");
        fs::rename(path, directory.0.join(name)).unwrap();
    }
}

#[test]
fn after_the_clock_was_set_back_the_oldest_files_go_still() {
    let directory = Directory::new();
    let options = |keep| Options {
        max_size: 2_000,
        keep,
        ..directory.options()
    };
    write_lines(&options(3), 50);
    stamp_ahead(&directory);
    write_lines(&options(3), 50);
    assert_eq!(directory.files().len(), 4);
    let last = Trail::open(&options(3), [0; 32]).unwrap().1.head;
    let summary = verify_files(&directory.files(), &[last]).unwrap();
    assert_eq!(summary.head, last);
    let mut by_name = directory.files();
    by_name.sort();
    // The file itself sorts before those that were rolled, and is the newest.
    by_name.rotate_left(1);
    let by_name: Vec<_> = by_name.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(summary.files, by_name);
}

#[test]
fn names_that_others_made_are_no_part_of_a_trail() {
    let directory = Directory::new();
    let options = Options {
        max_size: 2_000,
        keep: 2,
        ..directory.options()
    };
    let link = directory.0.join("trail.jsonl.99999999-999999.999999");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    write_lines(&options, 100);
    assert!(link.is_symlink());
    fs::remove_file(link).unwrap();
    assert_eq!(directory.files().len(), 3);
    verify_files(&directory.files(), &[]).unwrap();
}

#[test]
fn behind_the_last_stamp_a_trail_goes_on_in_its_file() {
    let directory = Directory::new();
    let options = Options {
        max_size: 2_000,
        keep: 1,
        ..directory.options()
    };
    let last = directory.0.join("trail.jsonl.99999999-999999.999999");
    fs::write(&last, "").unwrap();
    write_lines(&options, 50);
    assert_eq!(directory.files().len(), 2);
    assert_eq!(verify_files(&[directory.file()], &[]).unwrap().lines, 50);
}

#[test]
fn what_was_done_to_a_trail_is_named() {
    let directory = Directory::new();
    let path = directory.file();
    write_lines(&directory.options(), 20);
    let good = lines_of(&path);
    let head = verify_files(std::slice::from_ref(&path), &[]).unwrap().head;
    let store = |lines: &[String]| fs::write(&path, lines.join("\n") + "\n").unwrap();

    let mut changed = good.clone();
    changed[9] = changed[9].replace("\"received\":1", "\"received\":9");
    store(&changed);
    let found = problem(&path, &[]);
    assert_eq!(
        (found.line, found.kind),
        (10, ProblemKind::Malformed(Malformed::Changed))
    );

    let mut removed = good.clone();
    removed.remove(9);
    store(&removed);
    let found = problem(&path, &[]);
    assert_eq!(
        (found.line, found.kind),
        (10, ProblemKind::Sequence { expected: 10 })
    );

    let mut swapped = good.clone();
    swapped.swap(9, 10);
    store(&swapped);
    assert_eq!(problem(&path, &[]).line, 10);

    let mut doubled = good.clone();
    doubled.insert(9, good[8].clone());
    store(&doubled);
    assert_eq!(problem(&path, &[]).line, 10);

    store(&good[..15]);
    assert_eq!(
        verify_files(std::slice::from_ref(&path), &[])
            .unwrap()
            .lines,
        15,
        "a chain alone can't tell"
    );
    assert_eq!(problem(&path, &[head]).kind, ProblemKind::MissingHead(head));

    store(&good[5..]);
    assert_eq!(
        verify_files(std::slice::from_ref(&path), &[head])
            .unwrap()
            .first,
        6
    );
}

#[test]
fn heads_that_lie_before_a_trail_vouch_for_nothing() {
    let directory = Directory::new();
    let path = directory.file();
    write_lines(&directory.options(), 20);
    let good = lines_of(&path);
    let store = |lines: &[String]| fs::write(&path, lines.join("\n") + "\n").unwrap();
    let [early, just_before, last] = [5, 10, 20].map(|count| {
        store(&good[..count]);
        let summary = verify_files(std::slice::from_ref(&path), &[]).unwrap();
        summary.head
    });
    store(&good[10..]);
    let found = problem(&path, &[early]);
    assert_eq!((found.line, found.sequence), (1, Some(11)));
    assert_eq!(found.kind, ProblemKind::HeadsBefore(early));
    for heads in [&[early, last][..], &[early, just_before]] {
        let summary = verify_files(std::slice::from_ref(&path), heads).unwrap();
        assert_eq!(summary.first, 11);
    }
}

#[test]
fn a_trail_written_anew_differs_from_its_logged_head() {
    let directory = Directory::new();
    write_lines(&directory.options(), 5);
    let head = verify_files(&[directory.file()], &[]).unwrap().head;
    fs::remove_file(directory.file()).unwrap();
    write_lines(&directory.options(), 6);
    assert!(verify_files(&[directory.file()], &[]).is_ok());
    assert_eq!(
        problem(&directory.file(), &[head]).kind,
        ProblemKind::OtherHead(head)
    );
}

#[test]
fn of_two_heads_with_one_number_none_is_overlooked() {
    let directory = Directory::new();
    let path = directory.file();
    write_lines(&directory.options(), 5);
    let head = verify_files(std::slice::from_ref(&path), &[]).unwrap().head;
    let other = Head {
        digest: [1; 32],
        ..head
    };
    for heads in [[head, other], [other, head]] {
        assert_eq!(problem(&path, &heads).kind, ProblemKind::OtherHead(other));
    }
    // Just before the first line that is there.
    let lines = write_lines(&directory.options(), 2).head;
    let text = lines_of(&path);
    fs::write(&path, format!("{}\n", text[5..].join("\n"))).unwrap();
    assert_eq!(lines, head);
    assert!(verify_files(std::slice::from_ref(&path), &[head, head]).is_ok());
    for heads in [[head, other], [other, head]] {
        assert_eq!(problem(&path, &heads).kind, ProblemKind::Previous);
    }
}

#[test]
fn a_head_of_the_largest_number_is_only_a_missing_one() {
    let directory = Directory::new();
    let path = directory.file();
    write_lines(&directory.options(), 3);
    // Without its first line, so that a head before it is looked for.
    let lines = lines_of(&path);
    fs::write(&path, format!("{}\n", lines[1..].join("\n"))).unwrap();
    let head = Head {
        sequence: u64::MAX,
        digest: [0; 32],
    };
    assert_eq!(problem(&path, &[head]).kind, ProblemKind::MissingHead(head));
}

#[test]
fn many_threads_make_one_chain_whoever_syncs() {
    for sync in [SyncPolicy::No, SyncPolicy::Batch, SyncPolicy::Each] {
        let directory = Directory::new();
        let options = Options {
            sync,
            max_size: 20_000,
            ..directory.options()
        };
        let (trail, _) = Trail::open(&options, [7; 32]).unwrap();
        let trail = Arc::new(trail);
        let keeper = std::thread::spawn({
            let keeper = trail.keeper();
            move || keeper.keep()
        });
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let trail = &trail;
                scope.spawn(move || {
                    for number in 0..50 {
                        trail.append(&close(thread * 1_000 + number)).unwrap();
                    }
                });
            }
        });
        trail.close();
        keeper.join().unwrap();
        let summary = verify_files(&directory.files(), &[trail.head()]).unwrap();
        assert!(summary.lines >= 200, "{sync:?}");
        assert!(directory.files().len() >= 2, "{sync:?}");
    }
}
