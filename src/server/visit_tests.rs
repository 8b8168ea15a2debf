//! One connection, driven by hand.

use std::io::Write;
use std::os::unix::net::UnixStream;

use super::super::recheck::tests::{Place, answer, asked};
use super::super::tests::{Bench, connection_running};
use super::*;
use crate::peer::Unreadable;
use crate::service::{Connection, Session};

/// Reads a little in each step.
struct Reader;

impl Session for Reader {
    fn step(&mut self, connection: &Connection, turn: &mut Turn<'_>) -> Next {
        match connection.recv(turn.buffer, false).unwrap() {
            Some(0) => Next::Close(CloseReason::Finished),
            _ => Next::Again,
        }
    }
}

/// A visit of a process whose executable is being asked for, which has sent
/// something and left.
struct Left {
    visit: Visit,
    place: Place,
    _bench: Bench,
}

impl Left {
    fn new() -> Self {
        let bench = Bench::new();
        let _client = UnixStream::connect(&bench.path).unwrap();
        let (accepted, now) = (bench.shared.accept().unwrap(), Instant::now());
        let mut visit = Visit::begin(&bench.shared, accepted, Ok(None), now).unwrap();
        visit.step(Signals::default(), false, now, &mut [0; 64]);
        let Stage::Serving(serving) = &mut visit.stage else {
            panic!("it is served");
        };
        let (connection, mut far) = connection_running();
        connection.end_with_peer();
        far.write_all(b"hello").unwrap();
        serving.connection = Arc::new(connection);
        serving.session = Box::new(Reader);
        let (recheck, place) = asked();
        serving.recheck = Some(Box::new(recheck));
        Self {
            visit,
            place,
            _bench: bench,
        }
    }

    fn step(&mut self, peer_exited: bool) -> Pace {
        let mut signals = Signals::default();
        signals.ready.client = Interest::READ;
        signals.peer_exited = peer_exited;
        self.visit.step(signals, false, Instant::now(), &mut [0; 2])
    }

    fn received(&self) -> u64 {
        let Stage::Serving(serving) = &self.visit.stage else {
            panic!("it is served");
        };
        serving.connection.traffic().0
    }
}

const CHANGED: Pace = Pace::Over(CloseReason::ExecutableChanged);

#[test]
fn a_verdict_that_has_come_outlives_the_process() {
    let mut left = Left::new();
    answer(&left.place, Unreadable::Permission);
    assert_eq!(left.step(true), CHANGED);
    assert_eq!(left.received(), 0);
}

#[test]
fn a_verdict_that_was_awaited_when_the_process_exited_still_counts() {
    let mut left = Left::new();
    assert_eq!(left.step(true), Pace::Again);
    answer(&left.place, Unreadable::Permission);
    assert_eq!(left.step(false), CHANGED);
    assert_eq!(left.received(), 2);
}

#[test]
fn nothing_is_heard_of_a_process_that_runs_another_program() {
    let mut left = Left::new();
    answer(&left.place, Unreadable::Permission);
    assert_eq!(left.step(false), CHANGED);
    assert_eq!(left.received(), 0);
}

#[test]
fn that_the_process_has_exited_takes_nothing_of_what_it_sent() {
    let on_its_way_out = Unreadable::NoMemory;
    let told = [
        (Unreadable::Gone, false),
        (Unreadable::Gone, true),
        (on_its_way_out, true),
    ];
    for (answered, told_by_pidfd) in told {
        let mut left = Left::new();
        answer(&left.place, answered);
        let paces = [left.step(told_by_pidfd), left.step(false), left.step(false)];
        assert_eq!(paces, [Pace::Again; 3]);
        assert_eq!(left.received(), 5);
        assert_eq!(left.step(false), Pace::Over(CloseReason::Finished));
    }
}
