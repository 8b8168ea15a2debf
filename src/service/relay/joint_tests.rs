//! Random schedules of what two sides do, against a model of what must arrive.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;

use super::flow::{Passing, Shape, Tools};
use super::joint::{End, Events, Joint, Outcome, Side};
use super::pipes::Pipes;

/// A repeatable source of numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.next() % bound).unwrap()
    }
}

/// The program at one side.
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn pair(tcp: bool) -> (Self, OwnedFd) {
        if tcp {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (far, _) = listener.accept().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            near.set_nodelay(true).unwrap();
            (Self::Tcp(near), far.into())
        } else {
            let (near, far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            (Self::Unix(near), far.into())
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(buffer),
            Self::Tcp(socket) => socket.read(buffer),
        }
    }

    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(buffer),
            Self::Tcp(socket) => socket.write(buffer),
        }
    }

    fn shut_down_writing(&self) {
        let _ = match self {
            Self::Unix(socket) => socket.shutdown(Shutdown::Write),
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write),
        };
    }
}

/// How a program found its input to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Open,
    End,
    Reset,
}

/// One program and its model.
struct Program {
    socket: Option<Socket>,
    tcp: bool,
    sent: u64,
    received: u64,
    shut: bool,
    /// It closed with a reset, or with data unread.
    reset: bool,
    closed: bool,
    seen: Seen,
    /// A write of its own failed.
    refused: bool,
    salt: u8,
}

thread_local! {
    static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; 1 << 20]);
}

/// Bytes that tell their place: the period is no multiple of any buffer.
const PERIOD: usize = 65_521;

/// What one side sends, from any place in the period on.
fn pattern(salt: u8) -> &'static [u8] {
    static PATTERNS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let all = PATTERNS.get_or_init(|| {
        [11_u64, 77].map(|salt| {
            let byte = |place: u64| (place % PERIOD as u64).wrapping_mul(salt * 2 + 1) >> 5;
            (0..PERIOD as u64 + (1 << 20))
                .map(|place| byte(place).to_le_bytes()[0])
                .collect()
        })
    });
    &all[usize::from(salt)]
}

fn part(salt: u8, from: u64, length: usize) -> &'static [u8] {
    let start = usize::try_from(from % PERIOD as u64).unwrap();
    &pattern(salt)[start..start + length]
}

impl Program {
    fn new(socket: Socket, tcp: bool, salt: u8) -> Self {
        Self {
            socket: Some(socket),
            tcp,
            sent: 0,
            received: 0,
            shut: false,
            reset: false,
            closed: false,
            seen: Seen::Open,
            refused: false,
            salt,
        }
    }

    fn write(&mut self, length: usize) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        if self.shut || self.refused {
            return;
        }
        match socket.write(part(self.salt, self.sent, length)) {
            Ok(sent) => self.sent += sent as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.refused = true,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        if self.seen != Seen::Open {
            return;
        }
        match socket.read(buffer) {
            Ok(0) => self.seen = Seen::End,
            Ok(read) => {
                let expected = part(1 - self.salt, self.received, read);
                assert!(buffer[..read] == *expected, "after byte {}", self.received);
                self.received += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.seen = Seen::Reset,
        }
    }

    fn shut_down(&mut self) {
        if let Some(socket) = &self.socket {
            socket.shut_down_writing();
            self.shut = true;
        }
    }

    fn close(&mut self, reset: bool) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        self.closed = true;
        if let Socket::Tcp(socket) = &socket
            && reset
        {
            self.reset = true;
            sockopt::set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
        }
    }
}

/// Steps a joint as a driver does, with a poll before each step.
pub(super) struct Bench {
    client: OwnedFd,
    pub(super) joint: Option<Joint>,
    pub(super) wait: Option<(Events, Events)>,
    pub(super) until: Option<Instant>,
    pub(super) now: Instant,
    told: (bool, bool),
    pipes: Pipes,
    scratch: Vec<u8>,
    pub(super) end: Option<End>,
}

pub(super) const PLAIN: Shape = Shape {
    packets: false,
    descriptors: Passing::Ignored,
    write_timeout: None,
};

impl Bench {
    fn new(client: OwnedFd, upstream: OwnedFd, scratch: usize) -> Self {
        let joint = Joint::new(upstream, (PLAIN, PLAIN), None, Vec::new());
        Self::of(client, joint, scratch)
    }

    pub(super) fn of(client: OwnedFd, joint: Joint, scratch: usize) -> Self {
        Self {
            client,
            joint: Some(joint),
            wait: None,
            until: None,
            now: Instant::now(),
            told: (false, false),
            pipes: Pipes::default(),
            scratch: vec![0; scratch],
            end: None,
        }
    }

    /// One step, unless nothing came that it waits for.
    pub(super) fn step(&mut self) {
        let Some(joint) = &mut self.joint else { return };
        let mut events = (Events::default(), Events::default());
        if let Some((client, upstream)) = self.wait {
            let polled = poll(
                (&self.client, client, self.told.0),
                (joint.upstream(), upstream, self.told.1),
            );
            let late = self.until.is_some_and(|until| self.now >= until);
            let Some(polled) = polled.or(late.then_some(events)) else {
                return;
            };
            events = polled;
            self.told.0 |= events.0.hangup;
            self.told.1 |= events.1.hangup;
        }
        let mut tools = Tools {
            scratch: &mut self.scratch,
            pipes: &self.pipes,
            now: self.now,
            cut: &|| false,
        };
        match joint.step(self.client.as_fd(), events, &mut tools) {
            Outcome::More => self.wait = None,
            Outcome::Wait {
                client,
                upstream,
                until,
            } => {
                self.until = until;
                let before = self.wait.replace((client, upstream));
                if before.is_none_or(|before| before.0 != client) {
                    self.told.0 = false;
                }
                if before.is_none_or(|before| before.1 != upstream) {
                    self.told.1 = false;
                }
            }
            Outcome::Over(end) => {
                self.end = Some(end);
                self.joint = None;
                let (other, _) = UnixStream::pair().unwrap();
                self.client = other.into();
            }
        }
    }
}

fn flags(events: Events) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, events.read);
    flags.set(PollFlags::OUT, events.write);
    flags
}

fn poll(
    client: (impl AsFd, Events, bool),
    upstream: (impl AsFd, Events, bool),
) -> Option<(Events, Events)> {
    let mut fds = [
        PollFd::from_borrowed_fd(client.0.as_fd(), flags(client.1)),
        PollFd::from_borrowed_fd(upstream.0.as_fd(), flags(upstream.1)),
    ];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut fds, Some(&now)).unwrap();
    let read = |revents: PollFlags, wanted: Events, told: bool| {
        let broken = revents.intersects(PollFlags::ERR | PollFlags::HUP);
        let idle = !wanted.read && !wanted.write;
        Events {
            read: revents.contains(PollFlags::IN) || (broken && !idle),
            write: revents.contains(PollFlags::OUT) || (broken && !idle),
            hangup: broken && idle && !told,
        }
    };
    let events = (
        read(fds[0].revents(), client.1, client.2),
        read(fds[1].revents(), upstream.1, upstream.2),
    );
    (events != (Events::default(), Events::default())).then_some(events)
}

fn run(seed: u64, buffer: &mut [u8]) {
    let mut dice = Dice(seed);
    let (client_tcp, upstream_tcp) = (dice.below(2) == 0, dice.below(2) == 0);
    let (near, far) = Socket::pair(client_tcp);
    let mut client = Program::new(near, client_tcp, 0);
    let (near, up) = Socket::pair(upstream_tcp);
    let mut server = Program::new(near, upstream_tcp, 1);
    // A small buffer makes bulk of little.
    let scratch = [64, 1024, 64 << 10][dice.below(3)];
    let mut bench = Bench::new(far, up, scratch);
    let largest = [100, 5_000, 300_000][dice.below(3)];
    let some = |dice: &mut Dice| 1 + dice.below(largest);
    let ends = dice.below(4);
    for _ in 0..dice.below(60) {
        match dice.below(20) {
            0..=3 => client.write(some(&mut dice)),
            4..=7 => server.write(some(&mut dice)),
            8..=9 => client.read(&mut buffer[..some(&mut dice)]),
            10..=11 => server.read(&mut buffer[..some(&mut dice)]),
            12 if ends & 1 == 1 && dice.below(3) == 0 => client.shut_down(),
            13 if ends & 1 == 1 && dice.below(3) == 0 => server.shut_down(),
            14 if ends & 2 == 2 && dice.below(4) == 0 => client.close(dice.below(2) == 0),
            15 if ends & 2 == 2 && dice.below(4) == 0 => server.close(dice.below(2) == 0),
            _ => (0..dice.below(4)).for_each(|_| bench.step()),
        }
    }
    // Then both finish in order, as far as they still can, and read what comes.
    client.shut_down();
    server.shut_down();
    let until = Instant::now() + Duration::from_secs(10);
    while bench.joint.is_some()
        || [&client, &server]
            .iter()
            .any(|side| side.socket.is_some() && side.seen == Seen::Open)
    {
        bench.step();
        client.read(buffer);
        server.read(buffer);
        assert!(Instant::now() < until, "never ends: {:?}", bench.wait);
    }
    check(&client, &server, bench.end.unwrap());
    assert!(bench.pipes.made() <= 2);
}

fn check(client: &Program, server: &Program, end: End) {
    assert!(client.received <= server.sent && server.received <= client.sent);
    if !client.closed && !server.closed {
        assert_eq!(
            (client.received, server.received),
            (server.sent, client.sent)
        );
        assert_eq!(
            (client.seen, server.seen, end),
            (Seen::End, Seen::End, End::Finished)
        );
        return;
    }
    // A Unix socket that was closed, even with data unread, has delivered all.
    for (one, other) in [(client, server), (server, client)] {
        if one.closed && !other.closed && !one.tcp && !other.tcp {
            assert_eq!(
                other.received, one.sent,
                "all that was sent before a close arrives"
            );
        }
        // A reset is a reset at the other side, unless the end had been passed on before.
        if one.reset && !one.shut && one.tcp && other.tcp && !other.closed {
            // The kernel says it once: to a write, if that came first.
            assert!(
                other.seen == Seen::Reset || other.refused,
                "a reset looks like an end"
            );
        }
    }
}

#[test]
fn random_schedules_arrive_as_sent_and_end_as_they_ended() {
    let schedules = std::env::var("RELAY_SCHEDULES")
        .ok()
        .and_then(|text| text.parse().ok());
    let start = std::env::var("RELAY_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    for seed in start..start + schedules.unwrap_or(10_000) {
        if let Err(panic) =
            std::panic::catch_unwind(|| BUFFER.with_borrow_mut(|buffer| run(seed, buffer)))
        {
            eprintln!("RELAY_SEED={seed} RELAY_SCHEDULES=1");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_side_names_itself() {
    assert_ne!(End::Reset(Side::Client), End::Reset(Side::Upstream));
}
