//! Who is examined for long takes places from his own user's share, not from everybody's.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod server_support;
mod support;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Gid, Uid};
use secure_socket::admission::{Limits, Refusal, Subject};
use secure_socket::peer::{Checker, CheckerConfig, Facts, Inspector, Pins};
use secure_socket::policy::Denial;
use secure_socket::server::{Observer, Outcome, Rules};
use secure_socket::service::Echo;
use server_support::{ALL, ping, policy, start_by, until};
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
