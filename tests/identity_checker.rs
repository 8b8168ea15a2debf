//! The process checker under load: large executables, full queues, late answers.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod identity_support;

use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use identity_support::*;
use secure_socket::peer::{
    Checker, CheckerConfig, Fact, FactKind, Needs, Peer, PidfdSource, Pins, Unreadable,
};

#[test]
fn helper() {
    run_script();
}

const DIGEST: Needs = Needs::only(FactKind::Sha256);
const EXE: Needs = Needs::only(FactKind::Exe);

/// A program with zeroes behind its end, which take time to digest and no space.
fn large_program(lab: &Lab, name: &str, bytes: u64) -> std::path::PathBuf {
    let path = lab.program(name);
    let mut truncate = Command::new("truncate");
    let truncate = truncate.arg(format!("--size={bytes}")).arg(&path);
    assert!(truncate.status().unwrap().success());
    path
}

fn peer_of(lab: &Lab, program: &Path) -> (Client, Peer) {
    let listener = lab.listener();
    let script = format!("connect {};wait", lab.path("socket").display());
    let client = connect(&listener, command(program, &WEB, &script));
    let peer = Peer::from_socket(client.stream.as_fd(), all_needs(), PidfdSource::Socket);
    (client, peer)
}

fn pins() -> Arc<Pins> {
    Arc::new(Pins::default())
}

#[test]
fn a_large_digest_stalls_nobody_and_late_ones_are_answered() {
    let Some(lab) = Lab::new("large") else { return };
    let (_large, slow) = peer_of(&lab, &large_program(&lab, "large", 64 << 30));
    let (_small, quick) = peer_of(&lab, &lab.program("small"));
    let wait = Duration::from_secs(1);
    let config = CheckerConfig {
        digest_wait: wait,
        digest_max_bytes: u64::MAX,
        ..CheckerConfig::default()
    };
    let checker = Checker::start(config).unwrap();
    let (sender, answers) = mpsc::channel();
    let begun = Instant::now();
    for peer in [&slow, &slow, &quick] {
        let sender = sender.clone();
        checker.submit(
            peer,
            DIGEST,
            &pins(),
            Box::new(move |facts| sender.send((begun.elapsed(), facts.sha256)).unwrap()),
        );
    }
    let mut worst = Duration::ZERO;
    while begun.elapsed() < wait / 2 {
        let asked = Instant::now();
        let facts = checker.read(&quick, EXE, &pins());
        worst = worst.max(asked.elapsed());
        assert!(matches!(facts.exe, Fact::Known(_)));
    }
    println!("slowest exe check beside a digest of 64 GiB: {worst:?}");
    assert!(worst < Duration::from_millis(200), "{worst:?}");
    for _ in 0..3 {
        let (after, digest) = answers.recv_timeout(PATIENCE).unwrap();
        println!("digest answered after {after:?}: {digest:?}");
        assert_eq!(digest, Fact::Unreadable(Unreadable::Busy));
        assert!(after >= wait && after < wait * 2, "{after:?}");
    }
}

#[test]
fn digests_are_bounded_and_remembered() {
    let Some(lab) = Lab::new("bounds") else {
        return;
    };
    let program = lab.program("program");
    let size = std::fs::metadata(&program).unwrap().len();
    let (_client, peer) = peer_of(&lab, &program);
    let digest = |config: CheckerConfig| {
        Checker::start(config)
            .unwrap()
            .read(&peer, DIGEST, &pins())
            .sha256
    };
    let bounded = |digest_max_bytes| CheckerConfig {
        digest_max_bytes,
        ..CheckerConfig::default()
    };
    assert_eq!(
        digest(bounded(size - 1)),
        Fact::Unreadable(Unreadable::TooLarge)
    );
    assert!(matches!(digest(bounded(size)), Fact::Known(_)));
    let at_once = CheckerConfig {
        digest_wait: Duration::ZERO,
        ..CheckerConfig::default()
    };
    assert_eq!(digest(at_once), Fact::Unreadable(Unreadable::Busy));
    let nobody = CheckerConfig {
        digest_threads: 0,
        ..CheckerConfig::default()
    };
    assert_eq!(digest(nobody), Fact::Unreadable(Unreadable::Busy));
    // Only what has not changed for a while is remembered.
    std::thread::sleep(Duration::from_secs(4));
    let checker = Checker::start(CheckerConfig::default()).unwrap();
    let first = Instant::now();
    let digest = checker.read(&peer, DIGEST, &pins()).sha256;
    let first = first.elapsed();
    let second = Instant::now();
    assert_eq!(checker.read(&peer, DIGEST, &pins()).sha256, digest);
    let second = second.elapsed();
    println!("digest of {size} bytes: first {first:?}, then {second:?}");
    assert!(second < first);
}

#[test]
fn a_full_queue_answers_at_once() {
    let Some(lab) = Lab::new("queue") else { return };
    let (_client, peer) = peer_of(&lab, &lab.program("program"));
    let config = CheckerConfig {
        queue: 2,
        ..CheckerConfig::default()
    };
    let (checker, threads) = Checker::new(config).unwrap();
    let (sender, answers) = mpsc::channel();
    for number in 0..3 {
        let sender = sender.clone();
        let on_done = move |facts: secure_socket::peer::ProcessFacts| {
            sender.send((number, facts.exe.known().is_some())).unwrap();
        };
        checker.submit(&peer, EXE, &pins(), Box::new(on_done));
    }
    assert_eq!(answers.try_recv(), Ok((2, false)), "no thread runs yet");
    assert!(answers.try_recv().is_err());
    let threads: Vec<_> = threads
        .into_iter()
        .map(|thread| std::thread::spawn(|| thread.run()))
        .collect();
    assert_eq!(answers.recv_timeout(PATIENCE), Ok((0, true)));
    assert_eq!(answers.recv_timeout(PATIENCE), Ok((1, true)));
    drop(checker);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_panic_in_a_receiver_ends_nothing_else() {
    let Some(lab) = Lab::new("panic") else { return };
    let (_client, peer) = peer_of(&lab, &lab.program("program"));
    let checker = Checker::start(CheckerConfig::default()).unwrap();
    checker.submit(&peer, EXE, &pins(), Box::new(|_| panic!("on purpose")));
    assert!(matches!(
        checker.read(&peer, EXE, &pins()).exe,
        Fact::Known(_)
    ));
}

/// What one check costs, for the report.
#[test]
fn what_a_check_costs() {
    let Some(lab) = Lab::new("cost") else { return };
    let program = lab.program("program");
    let (client, _) = peer_of(&lab, &program);
    let measure = |what: &str, allow: &str| {
        let judge = Judge::new(&[allow], &[]);
        let begun = Instant::now();
        for _ in 0..1_000 {
            assert_eq!(judge.verdict(&client.stream), "rule 1");
        }
        println!("{what}: {:?} each", begun.elapsed() / 1_000);
    };
    measure("uid", "uid:33");
    measure("uid and supplementary group", "uid:33,gid:33");
    measure("exe", &format!("exe:{}", program.display()));
}
