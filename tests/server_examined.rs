//! Who is examined for long takes places from his own user's share, not from everybody's.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod server_support;
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Gid, Uid};
use secure_socket::admission::{Exception, Limits, Refusal, Subject};
use secure_socket::peer::{Checker, CheckerConfig, Facts, Inspector, Pins};
use secure_socket::policy::{Denial, Numeric, Rule};
use secure_socket::server::{Choice, Observer, Outcome, Rules};
use secure_socket::service::Echo;
use server_support::{ALL, own_uid, ping, policy, start_by, start_on, until};
use support::{set_mode, skip};

const STRANGER: u32 = 33;
const PLACES: usize = 8;
const SHARE: usize = 4;

#[derive(Default)]
struct Counted {
    refused: AtomicUsize,
    denied: AtomicUsize,
}

impl Observer for Counted {
    fn refused(&self, _id: u64, _subject: &Subject, refusal: &Refusal) {
        assert_eq!(refusal.code(), "uid_connections");
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    fn denied(&self, _id: u64, _facts: &Facts, _denial: &Denial) {
        self.denied.fetch_add(1, Ordering::SeqCst);
    }
}

/// Connections of another user: a thread that has become him makes them.
fn connect_as_stranger(path: &Path, count: usize) -> Vec<UnixStream> {
    let path = path.to_owned();
    let stranger = thread::spawn(move || {
        let (uid, gid) = (Uid::from_raw(STRANGER), Gid::from_raw(STRANGER));
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        (0..count)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect()
    });
    stranger.join().unwrap()
}

#[test]
fn strangers_who_are_examined_for_long_leave_places_for_others() {
    if !support::is_root() {
        return skip("root, to connect as another user");
    }
    for threads in ALL {
        let config = CheckerConfig {
            digest_wait: Duration::from_secs(60),
            ..CheckerConfig::default()
        };
        // Nobody runs its threads yet: it takes as long as it likes.
        let (checker, checking) = Checker::new(config).unwrap();
        let mut rules = Rules::new(policy(&["uid:self", "name:nobody-has-it"]));
        rules.inspector = Inspector::new(Pins::default(), Some(checker));
        let counted = Arc::<Counted>::default();
        let observer = Arc::clone(&counted);
        let limits = Limits {
            max_connections: PLACES,
            per_uid: Some(SHARE),
            ..Limits::default()
        };
        let server = start_by(Arc::new(Echo), rules, |builder| {
            builder.threads(threads()).limits(limits).observer(observer)
        });
        set_mode(server.path.parent().unwrap(), 0o755);
        set_mode(&server.path, 0o666);
        let strangers = connect_as_stranger(&server.path, 3 * PLACES);
        let honest = server.connect();
        ping(&honest);
        let refused = || counted.refused.load(Ordering::SeqCst);
        until("his share is used up", || refused() == 3 * PLACES - SHARE);
        assert_eq!(counted.denied.load(Ordering::SeqCst), 0);
        for part in checking {
            thread::spawn(move || part.run());
        }
        until("those who waited are denied", || {
            counted.denied.load(Ordering::SeqCst) == SHARE
        });
        // They gave their places back.
        let more = connect_as_stranger(&server.path, 1);
        until("one more is examined", || {
            counted.denied.load(Ordering::SeqCst) == SHARE + 1
        });
        drop((strangers, more, honest));
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

/// An exception by what only the checker can tell: it holds though the share is used up.
#[test]
fn a_process_that_is_excepted_is_served_beside_the_share_of_its_user() {
    for threads in ALL {
        std::fs::write("/proc/self/comm", "ordinary").unwrap();
        let own_user = own_uid();
        let batch = Rule::parse("name:batch", &Numeric { own_user }).unwrap();
        let policy = policy(&["uid:self"]).also_learning_for(vec![batch.clone()]);
        let mut rules = Rules::new(policy);
        let checker = Checker::start(CheckerConfig::default()).unwrap();
        rules.inspector = Inspector::new(Pins::default(), Some(checker));
        let limits = Limits {
            max_connections: PLACES,
            per_uid: Some(2),
            exceptions: vec![Exception {
                rule: batch,
                connections: Some(3),
                rate: None,
            }],
            ..Limits::default()
        };
        let counted = Arc::<Counted>::default();
        let observer = Arc::clone(&counted);
        let server = start_by(Arc::new(Echo), rules, |builder| {
            builder.threads(threads()).limits(limits).observer(observer)
        });
        let serve = || {
            let stream = server.connect();
            ping(&stream);
            stream
        };
        let turn_away = || {
            let mut stream = server.connect();
            // Closed, unread.
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
        };
        let mut open = vec![serve(), serve()];
        turn_away();
        std::fs::write("/proc/self/comm", "batch").unwrap();
        open.extend([serve(), serve(), serve()]);
        turn_away();
        assert_eq!(counted.refused.load(Ordering::SeqCst), 2);
        assert_eq!(counted.denied.load(Ordering::SeqCst), 0);
        drop(open);
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

/// Who was admitted and has yet to prove itself is open, and no longer examined.
#[test]
fn who_proves_itself_is_counted_once() {
    for threads in ALL {
        let own = std::env::current_exe().unwrap();
        let mut rules = Rules::new(policy(&[&format!("exe:{}", own.display())]));
        rules.process_proof = Choice::Yes;
        rules.proof_timeout = support::PATIENCE;
        let checker = Checker::start(CheckerConfig::default()).unwrap();
        let pins = Pins::open(&rules.policy.exe_paths(), &rules.policy.pids(), None).unwrap();
        rules.inspector = Inspector::new(pins, Some(checker));
        let limits = Limits {
            max_connections: PLACES,
            per_uid: Some(2),
            ..Limits::default()
        };
        let server = start_on(
            Arc::new(Echo),
            rules,
            |options| options.pass_credentials(true),
            |builder| builder.threads(threads()).limits(limits),
        );
        let challenged = || {
            let mut stream = server.connect();
            let mut challenge = [0; 16];
            stream.read_exact(&mut challenge).unwrap();
            (stream, challenge)
        };
        let mut first = challenged();
        let second = challenged();
        let mut third = server.connect();
        assert_eq!(third.read(&mut [0; 1]).unwrap(), 0);
        drop(second);
        drop(third);
        first.0.write_all(&first.1).unwrap();
        ping(&first.0);
        drop(first);
        assert_eq!(server.stop(), Outcome::Drained);
    }
}
