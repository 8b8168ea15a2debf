//! Bounds of time: kept by the clock, however long a thread has waited before; for
//! ever where that is asked for; and for whatever is waited for.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[cfg(all(feature = "broker", feature = "client"))]
mod broker_support;
mod server_support;
mod support;

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use secure_socket::Connection;
use secure_socket::peer::{Checker, CheckerConfig, Inspector, Pins};
use secure_socket::server::{Outcome, Overload, Rules, Threads};
use secure_socket::service::{
    CloseReason, Next, Opened, Protocol, Session, Timeouts, Turn, Wait, Waker,
};
use server_support::{ALL, limits, ping, policy, start, start_with};
use support::{PATIENCE, is_turned_away, round_trip};

/// A bound that is kept, and how long a thread is silent in a receive before: were the
/// silence added to it, the end would come after [`LATE`].
const BOUND: Duration = Duration::from_millis(1_500);
const SILENCE: Duration = Duration::from_secs(3);
const LATE: Duration = Duration::from_secs(4);

#[track_caller]
fn check_kept(begin: Instant) {
    let took = begin.elapsed();
    assert!(took >= BOUND.mul_f64(0.9), "too early: {took:?}");
    assert!(took < LATE, "late: {took:?}");
}

#[test]
fn the_write_timeout_of_one_who_was_long_silent_is_no_longer() {
    let mut rules = Rules::new(policy(&[]));
    Arc::make_mut(&mut rules.timeouts).write = Some(BOUND);
    let server = start(Threads::Multi, limits(10), Overload::Wait, rules);
    let stream = server.connect();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    ping(&stream);
    thread::sleep(SILENCE);
    let begin = Instant::now();
    while (&stream).write_all(&[7; 65_536]).is_ok() {}
    check_kept(begin);
    assert_eq!(server.stop(), Outcome::Drained);
}

#[test]
#[cfg(all(feature = "broker", feature = "client"))]
fn the_request_of_one_who_was_long_silent_ends_no_later() {
    use broker_support::Running;
    use secure_socket::client::{Client, Event, ServerIdentity};
    use secure_socket::frame::ErrorCode;
    use secure_socket::service::broker::{Limits, Permits};

    let limits = Limits {
        request_timeout: BOUND,
        ..Limits::default()
    };
    let broker = Running::new(Threads::Multi, limits, Permits::default());
    let client =
        || Client::connect(&broker.path, &ServerIdentity::root_or_self(), PATIENCE).unwrap();
    let (mut asker, mut server) = (client(), client());
    server.serve("never.answered").unwrap();
    asker.sync().unwrap();
    thread::sleep(SILENCE);
    let begin = Instant::now();
    let id = asker.ask("never.answered", b"?").unwrap();
    let end = asker.next(Some(begin + PATIENCE)).unwrap().unwrap();
    check_kept(begin);
    let Event::Error { id: of, code, .. } = end else {
        panic!("{end:?}")
    };
    assert_eq!((of, code), (id, ErrorCode::Timeout));
}

/// Waits for the same span again and again, and says how long that took in all.
struct Metronome {
    begin: Instant,
    left: u32,
}

const BEAT: Duration = Duration::from_millis(1_050);
const BEATS: u32 = 6;

impl Session for Metronome {
    fn step(&mut self, connection: &Connection, turn: &mut Turn<'_>) -> Next {
        self.left -= u32::from(turn.ready.expired);
        if self.left == 0 {
            let took = u64::try_from(self.begin.elapsed().as_millis()).unwrap();
            connection.send(&took.to_be_bytes()).unwrap();
            return Next::Close(CloseReason::Finished);
        }
        Next::Wait(Wait {
            until: Some(Instant::now() + BEAT),
            ..Wait::default()
        })
    }
}

struct Beats;

impl Protocol for Beats {
    fn name(&self) -> &'static str {
        "beats"
    }

    fn open(&self, _connection: &Arc<Connection>, _waker: Option<Waker>) -> io::Result<Opened> {
        Ok(Box::new(Metronome {
            begin: Instant::now(),
            left: BEATS,
        }))
    }
}

/// A worker gives its pages back after a second, in the middle of such a wait. Were
/// that second not taken off, this would take twice as long.
#[test]
fn a_wait_is_as_long_as_it_is_though_pages_are_given_back_meanwhile() {
    let mut rules = Rules::new(policy(&[]));
    Arc::make_mut(&mut rules.timeouts).first_byte = None;
    let server = start_with(
        Arc::new(Beats),
        Threads::Multi,
        limits(10),
        Overload::Wait,
        rules,
    );
    let stream = server.connect();
    let took = round_trip(&stream, b"");
    let took = Duration::from_millis(u64::from_be_bytes(took.try_into().unwrap()));
    assert!(took >= BEAT * BEATS, "too early: {took:?}");
    assert!(
        took < BEAT * BEATS + Duration::from_secs(4),
        "late: {took:?}"
    );
    assert_eq!(server.stop(), Outcome::Drained);
}

#[test]
fn a_bound_of_for_ever_is_none() {
    let ever = Some(Duration::MAX);
    for threads in ALL {
        let mut rules = Rules::new(policy(&[]));
        rules.timeouts = Arc::new(Timeouts {
            first_byte: ever,
            idle: ever,
            connect: ever,
            write: ever,
            half_close: ever,
            max_lifetime: ever,
        });
        let server = start(threads(), limits(10), Overload::Wait, rules);
        let stream = server.connect();
        ping(&stream);
        // More than is taken at once, so that the write timeout begins.
        let mut writer = stream.try_clone().unwrap();
        let writing = thread::spawn(move || writer.write_all(&vec![7; 3_000_000]));
        thread::sleep(Duration::from_millis(50));
        let mut answer = vec![0; 3_000_000];
        io::Read::read_exact(&mut &stream, &mut answer).unwrap();
        writing.join().unwrap().unwrap();
        drop(stream);
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn a_stop_that_waits_for_ever_closes_nobody() {
    for threads in ALL {
        let server = start(
            threads(),
            limits(10),
            Overload::Wait,
            Rules::new(policy(&[])),
        );
        let stream = server.connect();
        ping(&stream);
        server.handle.stop(Duration::MAX);
        thread::sleep(Duration::from_millis(50));
        ping(&stream);
        drop(stream);
        assert_eq!(server.thread.join().unwrap().unwrap(), Outcome::Drained);
    }
}

#[test]
fn a_checker_that_never_answers_is_waited_for_no_longer_than_it_may_take() {
    for threads in ALL {
        let config = CheckerConfig {
            digest_wait: Duration::from_millis(50),
            ..CheckerConfig::default()
        };
        // Nobody runs its threads.
        let (checker, _threads) = Checker::new(config).unwrap();
        let mut rules = Rules::new(policy(&["uid:self,name:somebody"]));
        rules.inspector = Inspector::new(Pins::default(), Some(checker));
        let server = start(threads(), limits(10), Overload::Wait, rules);
        // More than would be punished, were they to blame for it.
        for _ in 0..2 {
            let streams: Vec<_> = (0..5).map(|_| server.connect()).collect();
            assert!(streams.iter().all(is_turned_away));
        }
        assert_eq!(server.handle.state().admission.under_penalty, 0);
        assert_eq!(server.stop(), Outcome::Drained);
    }
}
