//! What a session does on its way to an upstream, with a test in the connector's place.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::connector::{Refusal, connector};
use super::proxy::UnixName;
use super::targets::Targets;
use super::{Common, Pipes, RelaySession};
use crate::ids::Uid;
use crate::peer::{Needs, Peer, PidfdSource};
use crate::policy::{Numeric, Policy, Rule};
use crate::service::{Connection, Kind, Next, Ready, Session, Timeouts, Turn, Waker};

/// The server's side of a connection from this process.
fn admitted(socket: UnixStream, timeouts: Timeouts) -> Connection {
    let names = Numeric {
        own_user: Uid::ROOT,
    };
    let rule = Rule::parse("any", &names).unwrap();
    let policy = Policy::new(vec![rule], Vec::new(), Uid::ROOT);
    let peer = Peer::from_socket(socket.as_fd(), Needs::NONE, PidfdSource::Socket);
    let authorized = policy.check(peer.facts()).unwrap();
    Connection::new(
        1,
        socket.into(),
        Kind::default(),
        peer,
        authorized,
        Arc::new(timeouts),
        Instant::now(),
    )
}

fn step(session: &mut RelaySession, connection: &Connection, now: Instant) -> Next {
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
fn pauses_grow_while_the_connector_finds_the_backlog_full() {
    let (socket, _client) = UnixStream::pair().unwrap();
    let no_bound = Timeouts {
        connect: None,
        ..Timeouts::default()
    };
    let connection = admitted(socket, no_bound);
    let upstream = "unix:/nonexistent/socket".parse().unwrap();
    let (connector, body) = connector(1);
    let common = Common {
        targets: Arc::new(Targets::resolve(vec![upstream]).unwrap()),
        pipes: Pipes::default(),
        proxy: false,
        descriptors: 0,
        socket: UnixName::default(),
        connector: Some(connector),
    };
    let waker = Some(Waker::new(|| ()));
    let mut session = RelaySession::open(Arc::new(common), &connection, waker).unwrap();
    let mut now = Instant::now();
    for expect_ms in [1, 2, 4, 8, 16, 32, 50, 50] {
        // It asks, and waits for the answer.
        assert!(matches!(
            step(&mut session, &connection, now),
            Next::Wait(_)
        ));
        assert!(body.answer(Err(Refusal::Connect(Errno::AGAIN))));
        let Next::Wait(wait) = step(&mut session, &connection, now) else {
            panic!("it gave up");
        };
        let pause = wait.until.unwrap() - now;
        assert_eq!(pause, Duration::from_millis(expect_ms));
        now += pause;
    }
}
