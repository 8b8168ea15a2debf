//! A connection as an embedder's blocking service has it: reading and writing, the
//! bounds of time of the server and of the service, clones, and the end by force.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use secure_socket::server::{Acceptor, Outcome, Running};
use secure_socket::service::Timeouts;
use secure_socket::{Connection, Listener, Policy, Server};
use support::{PATIENCE, TempDir};

/// None at all, so that each test sets the one that it is about.
const UNBOUNDED: Timeouts = Timeouts {
    first_byte: None,
    idle: None,
    connect: None,
    write: None,
    half_close: None,
    max_lifetime: None,
};

struct Fixture {
    running: Running,
    path: PathBuf,
    /// What the service ended with.
    ended: Receiver<io::Result<()>>,
    _dir: TempDir,
}

impl Fixture {
    fn start(
        timeouts: Timeouts,
        service: impl Fn(&Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let dir = TempDir::new();
        let path = dir.join("run/a.sock");
        let listener = Listener::builder(&path)
            .unwrap()
            .policy(Policy::parse("uid:self").unwrap())
            .bind()
            .unwrap()
            .dangerously_unconfined();
        let (say, ended): (Sender<io::Result<()>>, _) = channel();
        let service = move |connection: &Connection| {
            let result = service(connection);
            let copy = result
                .as_ref()
                .copied()
                .map_err(|error| io::Error::new(error.kind(), error.to_string()));
            say.send(copy).unwrap();
            result
        };
        let server = Server::builder(listener, service).timeouts(timeouts);
        let running = server.build().unwrap().spawn().unwrap();
        Self {
            running,
            path,
            ended,
            _dir: dir,
        }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    #[track_caller]
    fn ended(&self) -> io::Result<()> {
        self.ended.recv_timeout(PATIENCE).unwrap()
    }

    #[track_caller]
    fn stop(self) -> Outcome {
        self.running.stop(Duration::from_secs(5)).unwrap()
    }
}

/// Reads one byte.
fn byte(mut connection: &Connection) -> io::Result<()> {
    connection.read_exact(&mut [0])
}

#[track_caller]
fn check(timeouts: Timeouts, kind: ErrorKind, send: &[u8]) {
    let server = Fixture::start(timeouts, |connection| {
        loop {
            byte(connection)?;
        }
    });
    let mut client = server.connect();
    client.write_all(send).unwrap();
    assert_eq!(server.ended().unwrap_err().kind(), kind);
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed");
    server.stop();
}

const SOON: Option<Duration> = Some(Duration::from_millis(50));

#[test]
fn the_servers_bounds_hold_while_a_service_waits() {
    let first_byte = Timeouts {
        first_byte: SOON,
        ..UNBOUNDED
    };
    check(first_byte, ErrorKind::TimedOut, b"");
    let idle = Timeouts {
        idle: SOON,
        ..UNBOUNDED
    };
    check(idle, ErrorKind::TimedOut, b"some");
    let max_lifetime = Timeouts {
        max_lifetime: SOON,
        ..UNBOUNDED
    };
    check(max_lifetime, ErrorKind::TimedOut, b"some");
}

#[test]
fn a_peer_that_does_not_read_ends_at_the_write_timeout() {
    let timeouts = Timeouts {
        write: SOON,
        ..UNBOUNDED
    };
    let server = Fixture::start(timeouts, |mut connection| {
        loop {
            connection.write_all(&[0; 65_536])?;
        }
    });
    let _client = server.connect();
    assert_eq!(server.ended().unwrap_err().kind(), ErrorKind::TimedOut);
    server.stop();
}

#[test]
fn a_timeout_of_the_service_leaves_the_connection_open() {
    let server = Fixture::start(UNBOUNDED, |mut connection| {
        let zero = connection.set_read_timeout(Some(Duration::ZERO));
        assert_eq!(zero.unwrap_err().kind(), ErrorKind::InvalidInput);
        connection.set_read_timeout(SOON)?;
        let late = connection.read(&mut [0]).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        connection.set_read_timeout(None)?;
        connection.write_all(b"?")?;
        byte(connection)
    });
    let mut client = server.connect();
    client.read_exact(&mut [0]).unwrap();
    client.write_all(b"!").unwrap();
    server.ended().unwrap();
    assert_eq!(server.stop(), Outcome::Drained);
}

#[test]
fn a_clone_writes_while_the_connection_reads_and_ends_with_it() {
    let (hand_out, take) = channel();
    let server = Fixture::start(UNBOUNDED, move |connection| {
        let clone = connection.try_clone()?;
        let writer = thread::spawn(move || -> io::Result<_> {
            (&*clone).write_all(b"from the clone")?;
            Ok(clone)
        });
        let mut read = Vec::new();
        let mut reader = connection;
        reader.read_to_end(&mut read)?;
        assert_eq!(read, b"to the connection");
        hand_out.send(writer.join().unwrap()?).unwrap();
        Ok(())
    });
    let mut client = server.connect();
    client.write_all(b"to the connection").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    // To the end, though the clone lives on.
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "from the clone");
    server.ended().unwrap();
    let clone = take.recv_timeout(PATIENCE).unwrap();
    assert!((&*clone).write_all(b"more").is_err());
    assert_eq!(
        clone.try_clone().unwrap_err().kind(),
        ErrorKind::NotConnected
    );
    assert_eq!(server.stop(), Outcome::Drained);
}

#[test]
fn an_end_by_the_server_is_no_end_of_data() {
    let (begun, begins) = channel();
    let server = Fixture::start(UNBOUNDED, move |connection| {
        begun.send(()).unwrap();
        byte(connection)
    });
    let mut client = server.connect();
    // One that stands in the registry may be ended before its service has begun.
    begins.recv_timeout(PATIENCE).unwrap();
    server.running.handle().stop_now();
    assert_eq!(
        server.ended().unwrap_err().kind(),
        ErrorKind::ConnectionAborted
    );
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.running.join().unwrap(), Outcome::Forced);
}

#[test]
fn it_knows_its_peer() {
    let server = Fixture::start(UNBOUNDED, |connection| {
        let credentials = connection.credentials();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(credentials.pid().map(|pid| pid.as_raw()), Some(own));
        assert_eq!(connection.peer().credentials(), Some(credentials));
        assert_eq!(connection.authorized().rule_number(), 1);
        assert!(rustix::net::getsockname(connection.as_fd()).is_ok());
        connection.shutdown(Shutdown::Write)?;
        byte(connection)
    });
    let mut client = server.connect();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "half-closed");
    client.write_all(b"x").unwrap();
    server.ended().unwrap();
    assert_eq!(server.stop(), Outcome::Drained);
}

#[test]
fn an_acceptor_gives_those_who_are_admitted_and_none_in_time() {
    let dir = TempDir::new();
    let path = dir.join("run/a.sock");
    let bind = |rule: &str| {
        let options = Listener::builder(&path).unwrap();
        let listener = options.policy(Policy::parse(rule).unwrap()).bind().unwrap();
        Acceptor::new(listener.dangerously_unconfined()).unwrap()
    };
    let acceptor = bind("uid:self");
    assert!(acceptor.accept(Some(Duration::ZERO)).unwrap().is_none());
    assert!(acceptor.accept(SOON).unwrap().is_none());
    let mut client = UnixStream::connect(&path).unwrap();
    let connection = acceptor.accept(Some(PATIENCE)).unwrap().unwrap();
    (&*connection).write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    acceptor.close();
    assert!(!path.exists());
    // Somebody else's: this process is turned away.
    let acceptor = bind("uid:self,gid:65533");
    let mut client = UnixStream::connect(&path).unwrap();
    assert!(acceptor.accept(SOON).unwrap().is_none());
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
}
