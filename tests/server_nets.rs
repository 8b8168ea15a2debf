//! An observer that panics harms the connection that it is told of, and no thread; a
//! thread that can't begin harms nobody.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod server_support;
mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use secure_socket::Connection;
use secure_socket::admission::{Abuse, AbuseNoticed, Limits, PenaltyStarted, Refusal, Subject};
use secure_socket::server::{Observer, Outcome, Rules, Threads};
use secure_socket::service::{CloseReason, Echo};
use server_support::{ALL, Running, limits, ping, policy, start_by, until};
use support::{is_turned_away, round_trip};

/// Panics at whatever it is told of, but for admissions and denials.
#[derive(Default)]
struct Touchy {
    told: AtomicU32,
}

impl Touchy {
    fn panic(&self, what: &str) {
        self.told.fetch_add(1, Ordering::SeqCst);
        panic!("{what}, as asked");
    }
}

impl Observer for Touchy {
    fn penalty(&self, _subject: &Subject, _penalty: &PenaltyStarted) {
        self.panic("penalty");
    }

    fn refused(&self, _id: u64, _subject: &Subject, _refusal: &Refusal) {
        self.panic("refused");
    }

    fn abused(&self, _subject: &Subject, _abuse: Abuse, _noticed: &AbuseNoticed) {
        self.panic("abused");
    }

    fn closed(&self, _connection: &Connection, _reason: CloseReason, _lasted: Duration) {
        self.panic("closed");
    }
}

fn start_touchy(threads: Threads, limits: Limits, rules: Rules) -> (Running, Arc<Touchy>) {
    let touchy = Arc::<Touchy>::default();
    let observer = Arc::clone(&touchy);
    let server = start_by(Arc::new(Echo), rules, |builder| {
        builder.threads(threads).limits(limits).observer(observer)
    });
    (server, touchy)
}

#[test]
fn an_observer_that_panics_at_an_end_costs_no_thread() {
    for threads in ALL {
        let (server, touchy) = start_touchy(threads(), limits(10), Rules::new(policy(&[])));
        for _ in 0..10 {
            // One without a byte is a sign of abuse as well.
            assert_eq!(round_trip(&server.connect(), b""), b"");
            assert_eq!(round_trip(&server.connect(), b"hello"), b"hello");
        }
        server.await_open(0);
        assert!(server.handle.connections().is_empty());
        until("all was told", || touchy.told.load(Ordering::SeqCst) == 30);
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn an_observer_that_panics_at_a_refusal_costs_no_thread() {
    for threads in ALL {
        let few = Limits {
            denials_before_penalty: 1,
            penalty: Duration::from_secs(60),
            ..limits(10)
        };
        let rules = Rules::new(policy(&["uid:4294967293"]));
        let (server, touchy) = start_touchy(threads(), few, rules);
        // The first is denied and punished, the others are refused.
        for _ in 0..10 {
            assert!(is_turned_away(&server.connect()));
        }
        until("all was told", || touchy.told.load(Ordering::SeqCst) == 10);
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

/// Every other admission can't be recorded, by a panic.
#[derive(Default)]
struct Forgetful {
    admitted: AtomicU32,
    closed: AtomicU32,
}

impl Observer for Forgetful {
    fn admitted(&self, _connection: &Connection) -> io::Result<()> {
        let number = self.admitted.fetch_add(1, Ordering::SeqCst);
        assert!(number % 2 == 1, "as asked");
        Ok(())
    }

    fn closed(&self, _connection: &Connection, _reason: CloseReason, _lasted: Duration) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn one_whose_admission_panicked_was_never_here() {
    for threads in ALL {
        let forgetful = Arc::<Forgetful>::default();
        let observer = Arc::clone(&forgetful);
        let rules = Rules::new(policy(&[]));
        let server = start_by(Arc::new(Echo), rules, |builder| {
            builder.threads(threads()).observer(observer)
        });
        for _ in 0..5 {
            assert!(is_turned_away(&server.connect()));
            assert_eq!(round_trip(&server.connect(), b"hello"), b"hello");
        }
        server.await_open(0);
        assert!(server.handle.connections().is_empty());
        until("all have ended", || {
            forgetful.closed.load(Ordering::SeqCst) == 5
        });
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn workers_that_can_not_enter_their_role_are_followed_by_others_after_a_pause() {
    let (begun, fails) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (counted, failing) = (Arc::clone(&begun), Arc::clone(&fails));
    let hook = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        match failing.load(Ordering::SeqCst) {
            true => Err(io::Error::from(io::ErrorKind::OutOfMemory)),
            false => Ok(()),
        }
    };
    let server = start_by(Arc::new(Echo), Rules::new(policy(&[])), |builder| {
        builder.limits(limits(1000)).on_thread_start(Box::new(hook))
    });
    // Each has a worker of its own, until some are waited for that can't begin.
    let mut clients = vec![server.connect()];
    ping(&clients[0]);
    fails.store(true, Ordering::SeqCst);
    let before = begun.load(Ordering::SeqCst);
    while begun.load(Ordering::SeqCst) == before {
        clients.push(server.connect());
        thread::sleep(Duration::from_millis(5));
    }
    // Bursts of at most 32, after pauses of 0.1, 0.2, 0.4 s and so on; without a pause a
    // burst whenever the supervisor is woken.
    let start = std::time::Instant::now();
    for _ in 0..200 {
        server.handle.reload(Rules::new(policy(&[])), limits(1000));
        thread::sleep(Duration::from_millis(5));
    }
    let tries = begun.load(Ordering::SeqCst) - before;
    let (mut pauses, mut pause, mut end) = (0, 100, 100);
    while end <= start.elapsed().as_millis() {
        pauses += 1;
        pause = (2 * pause).min(5_000);
        end += pause;
    }
    assert!(tries <= 32 * (pauses + 2), "{tries} with {pauses} pauses");
    fails.store(false, Ordering::SeqCst);
    clients.iter().for_each(ping);
    drop(clients);
    assert_eq!(server.stop(), Outcome::Drained);
}
