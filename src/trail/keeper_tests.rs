//! What a keeper does, and what nobody does in its place; disks that fail.

use super::tests::{Directory, close, write_lines};
use super::*;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What a disk answers to the syncs, in their order; from then on that all is well.
struct Answers(Mutex<Vec<bool>>);

impl Answers {
    fn of(answers: &[bool]) -> Arc<Self> {
        let mut answers = answers.to_vec();
        answers.reverse();
        Arc::new(Self(Mutex::new(answers)))
    }

    fn next(&self) -> io::Result<()> {
        match self.0.lock().unwrap().pop() {
            Some(false) => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }
}

fn open(options: &Options) -> Trail {
    Trail::open(options, [7; 32]).unwrap().0
}

fn each(directory: &Directory) -> Options {
    Options {
        sync: SyncPolicy::Each,
        ..directory.options()
    }
}

/// Appends in a thread of its own.
fn append(trail: &Arc<Trail>, number: u64) -> thread::JoinHandle<Result<(), TrailError>> {
    let trail = Arc::clone(trail);
    thread::spawn(move || trail.append(&close(number)))
}

fn keep(trail: &Arc<Trail>) -> thread::JoinHandle<()> {
    let keeper = trail.keeper();
    thread::spawn(move || keeper.keep())
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "not yet: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn is_not_synced(result: Result<(), TrailError>) {
    match result {
        Err(TrailError::Sync(error)) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_line_whose_sync_failed_is_not_recorded() {
    for is_kept in [false, true] {
        let directory = Directory::new();
        let mut trail = open(&each(&directory));
        let answers = Answers::of(&[true, false, false, true]);
        trail.disk = Box::new(move |_| answers.next());
        let trail = Arc::new(trail);
        let keeper = is_kept.then(|| keep(&trail));
        trail.append(&close(1)).unwrap();
        is_not_synced(trail.append(&close(2)));
        is_not_synced(trail.append(&close(3)));
        trail.append(&close(4)).unwrap();
        trail.close();
        if let Some(keeper) = keeper {
            keeper.join().unwrap();
        }
        assert_eq!(verify_files(&[directory.file()], &[]).unwrap().lines, 4);
    }
}

/// A trail with a keeper, whose first sync waits for a second line and whose syncs end
/// as told. How both appends ended, and a third.
fn second_line_while_syncing(options: &Options, answers: &[bool]) -> [Result<(), TrailError>; 3] {
    let answers = Answers::of(answers);
    let mut trail = open(options);
    let (began, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    trail.disk = Box::new(move |_| {
        if began.send(()).is_ok() {
            let _ = may_go_on.lock().unwrap().recv();
        }
        answers.next()
    });
    let trail = Arc::new(trail);
    let keeper = keep(&trail);
    let first = append(&trail, 1);
    has_begun.recv().unwrap();
    let second = append(&trail, 2);
    until("both are written", || trail.head().sequence == 2);
    drop((has_begun, go_on));
    let first = first.join().unwrap();
    let second = second.join().unwrap();
    let third = trail.append(&close(3));
    trail.close();
    keeper.join().unwrap();
    [first, second, third]
}

#[test]
fn the_kernel_tells_a_failure_once_and_it_is_that_of_all_lines_there() {
    let directory = Directory::new();
    let [first, second, third] = second_line_while_syncing(&each(&directory), &[false]);
    is_not_synced(first);
    is_not_synced(second);
    third.unwrap();
}

#[test]
fn a_failure_that_a_roll_is_told_is_that_of_the_lines_as_well() {
    let directory = Directory::new();
    let options = Options {
        max_size: 1,
        ..each(&directory)
    };
    let [first, second, _] = second_line_while_syncing(&options, &[true, false]);
    first.unwrap();
    is_not_synced(second);
    assert_eq!(directory.files().len(), 1, "not rolled");
}

#[test]
fn of_two_who_sync_at_once_none_hides_the_failure_of_the_other() {
    let directory = Directory::new();
    let mut trail = open(&each(&directory));
    let inside = Arc::new(AtomicUsize::new(0));
    trail.disk = Box::new(move |_| {
        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
        thread::sleep(Duration::from_millis(1));
        inside.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    });
    let trail = Arc::new(trail);
    let all: Vec<_> = (0..16).map(|number| append(&trail, number)).collect();
    for one in all {
        one.join().unwrap().unwrap();
    }
}

#[test]
fn who_appends_never_does_what_a_keeper_is_for() {
    for sync in [SyncPolicy::No, SyncPolicy::Batch] {
        let directory = Directory::new();
        let mut trail = open(&Options {
            sync,
            max_size: 2_000,
            ..directory.options()
        });
        let own = thread::current().id();
        trail.disk = Box::new(move |_| {
            assert_ne!(thread::current().id(), own, "not here");
            Ok(())
        });
        let trail = Arc::new(trail);
        let keeper = trail.keeper();
        (0..20).for_each(|number| trail.append(&close(number)).unwrap());
        assert_eq!(directory.files().len(), 1, "before it runs");
        let keeper = thread::spawn(move || keeper.keep());
        until("it rolls", || directory.files().len() > 1);
        trail.close();
        keeper.join().unwrap();
        let rolled = directory.files().len();
        (0..20).for_each(|number| trail.append(&close(number)).unwrap());
        assert_eq!(directory.files().len(), rolled, "after its end");
    }
}

#[test]
fn without_its_keeper_no_line_counts_as_synced() {
    let directory = Directory::new();
    let trail = Arc::new(open(&each(&directory)));
    let keeper = trail.keeper();
    let waiting = append(&trail, 1);
    until("it is written", || trail.head().sequence == 1);
    drop(keeper);
    for result in [waiting.join().unwrap(), trail.append(&close(2))] {
        assert!(matches!(result, Err(TrailError::Sync(_))), "{result:?}");
    }
}

#[test]
fn what_gets_a_final_name_is_on_the_disk_whatever_the_policy() {
    for (answer, files) in [(true, 2), (false, 1)] {
        let directory = Directory::new();
        let mut trail = open(&Options {
            max_size: 1,
            ..directory.options()
        });
        let (there, syncs) = (directory.path().to_owned(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&syncs);
        trail.disk = Box::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            assert_eq!(
                std::fs::read_dir(&there).unwrap().count(),
                2,
                "and the lock"
            );
            Answers::of(&[answer]).next()
        });
        trail.append(&close(1)).unwrap();
        assert!(syncs.load(Ordering::SeqCst) > 0);
        assert_eq!(directory.files().len(), files);
    }
}

#[test]
fn the_head_is_logged_while_lines_are_added_whatever_the_policy() {
    for sync in [SyncPolicy::No, SyncPolicy::Batch, SyncPolicy::Each] {
        let directory = Directory::new();
        write_lines(&directory.options(), 3);
        let mut trail = open(&Options {
            sync,
            ..directory.options()
        });
        trail.head_every = Duration::from_millis(20);
        let trail = Arc::new(trail);
        let keeper = keep(&trail);
        for number in 4..7 {
            trail.append(&close(number)).unwrap();
            until("the head is logged", || trail.state().said.1 == number);
        }
        trail.close();
        keeper.join().unwrap();
    }
}

#[test]
fn the_sync_before_a_roll_keeps_nobody_from_the_trail() {
    let (directory, other) = (Directory::new(), Directory::new());
    write_lines(&other.options(), 1);
    let mut trail = open(&Options {
        // One line, which is longer than what a new file begins with.
        max_size: std::fs::metadata(other.file()).unwrap().len(),
        ..directory.options()
    });
    let (began, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    trail.disk = Box::new(move |_| {
        if began.send(()).is_ok() {
            let _ = may_go_on.lock().unwrap().recv();
        }
        Ok(())
    });
    let trail = Arc::new(trail);
    let keeper = keep(&trail);
    trail.append(&close(1)).unwrap();
    has_begun.recv().unwrap();
    // The file may not be rolled before this one is on the disk as well.
    trail.append(&close(2)).unwrap();
    go_on.send(()).unwrap();
    has_begun.recv().unwrap();
    let is_free = trail.state.try_lock().is_ok();
    drop((has_begun, go_on));
    assert!(is_free, "the disk is waited for with the lock held");
    until("it is rolled", || directory.files().len() == 2);
    trail.close();
    keeper.join().unwrap();
}

/// The last line is that of the keeper, whoever holds the lock when the end is asked for.
#[test]
#[cfg(feature = "daemon")]
fn the_stop_is_asked_for_without_a_wait_and_is_the_last_line() {
    for sync in [SyncPolicy::No, SyncPolicy::Batch, SyncPolicy::Each] {
        let directory = Directory::new();
        let trail = Arc::new(open(&Options {
            sync,
            ..directory.options()
        }));
        let keeper = keep(&trail);
        trail.append(&close(1)).unwrap();
        let locked = trail.state();
        let (done, is_done) = mpsc::channel();
        let asking = Arc::clone(&trail);
        thread::spawn(move || {
            asking.close_with_stop(3);
            done.send(()).unwrap();
        });
        is_done
            .recv_timeout(Duration::from_secs(30))
            .expect("it waits for the lock");
        drop(locked);
        until("the keeper ends", || {
            trail.close_with_stop(3);
            keeper.is_finished()
        });
        keeper.join().unwrap();
        let text = std::fs::read_to_string(directory.file()).unwrap();
        let last = text.lines().last().unwrap();
        assert!(last.contains(r#""event":"stop""#), "{last}");
        assert_eq!(text.matches(r#""event":"stop""#).count(), 1, "{text}");
        assert_eq!(verify_files(&[directory.file()], &[]).unwrap().lines, 2);
    }
}
