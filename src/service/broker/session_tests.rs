//! One session on a socket, stepped by hand: how long a peer may take to greet.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Broker, BrokerService, Limits, Permits};
use crate::frame::{FrameLimit, Greeting};
use crate::ids::Uid;
use crate::peer::{Needs, Peer, PidfdSource};
use crate::policy::{Numeric, Policy, Rule};
use crate::service::{
    CloseReason, Connection, Kind, Next, Opened, Protocol, Ready, Timeouts, Turn, Waker,
};

const BOUND: Duration = Duration::from_secs(600);

/// A connection from this process whose examination has just ended, after it took so long.
fn admitted(examined: Duration) -> (Arc<Connection>, UnixStream) {
    let (socket, client) = UnixStream::pair().unwrap();
    let names = Numeric {
        own_user: Uid::ROOT,
    };
    let rule = Rule::parse("any", &names).unwrap();
    let policy = Policy::new(vec![rule], Vec::new(), Uid::ROOT);
    let peer = Peer::from_socket(socket.as_fd(), Needs::NONE, PidfdSource::Socket);
    let authorized = policy.check(peer.facts()).unwrap();
    let timeouts = Timeouts {
        first_byte: Some(BOUND),
        ..Timeouts::default()
    };
    let accepted = Instant::now().checked_sub(examined).unwrap();
    let (kind, timeouts) = (Kind::default(), Arc::new(timeouts));
    let connection = Connection::new(1, socket.into(), kind, peer, authorized, timeouts, accepted);
    (Arc::new(connection), client)
}

fn open(connection: &Arc<Connection>) -> Opened {
    let broker = Broker::new(Limits::default(), Permits::default());
    let service = BrokerService::new(broker);
    service.open(connection, Some(Waker::new(|| ()))).unwrap()
}

fn step(session: &mut Opened, connection: &Connection, now: Instant) -> Next {
    let mut turn = Turn {
        now,
        ready: Ready::default(),
        may_block: false,
        buffer: &mut [0; 64 << 10],
        stopping: None,
    };
    session.step(connection, &mut turn)
}

#[test]
fn who_was_examined_for_long_has_its_time_to_greet_still() {
    let (connection, mut client) = admitted(2 * BOUND);
    let mut session = open(&connection);
    let now = Instant::now();
    let next = step(&mut session, &connection, now);
    assert!(matches!(next, Next::Wait(_) | Next::Again), "{next:?}");
    let accepts = FrameLimit::DEFAULT;
    client.write_all(&Greeting { accepts }.encode()).unwrap();
    // Once it has greeted, it may be silent.
    for now in [now, now + 2 * BOUND] {
        let next = step(&mut session, &connection, now);
        assert!(matches!(next, Next::Wait(_) | Next::Again), "{next:?}");
    }
}

#[test]
fn who_does_not_greet_in_time_is_closed() {
    let (connection, _client) = admitted(Duration::ZERO);
    let mut session = open(&connection);
    let begun = connection.admitted();
    let early = begun + BOUND - Duration::from_nanos(1);
    let next = step(&mut session, &connection, early);
    assert!(matches!(next, Next::Wait(_)), "{next:?}");
    let next = step(&mut session, &connection, begun + BOUND);
    assert_eq!(next, Next::Close(CloseReason::FirstByteTimeout));
}
