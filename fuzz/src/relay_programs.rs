//! The programs at the two ends of a relay, and the model of what reaches them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::joint::Events;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unix,
    Tcp,
    /// `SOCK_SEQPACKET`, over a Unix socket.
    Packets,
}

impl Kind {
    pub(super) fn tcp(yes: bool) -> Self {
        if yes { Self::Tcp } else { Self::Unix }
    }
}

pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// No buffer of a socket is too small for a message of these bytes.
const LONGEST_MESSAGE: usize = 100_000;

/// A program's socket, and the relay's end of it. `None` where the machine has no
/// free port left.
pub(super) fn pair(kind: Kind) -> Option<(Socket, OwnedFd)> {
    // The Rust runtime, which ignores it, is not what starts a target.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGPIPE);
    signals.thread_block().ok()?;
    if kind == Kind::Packets {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (unix, packets) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (near, far) = rustix::net::socketpair(unix, packets, flags, None).ok()?;
        return Some((Socket::Unix(near.into()), far));
    }
    if kind == Kind::Unix {
        let (near, far) = UnixStream::pair().ok()?;
        near.set_nonblocking(true).ok()?;
        far.set_nonblocking(true).ok()?;
        return Some((Socket::Unix(near), far.into()));
    }
    static LISTENER: LazyLock<Option<TcpListener>> =
        LazyLock::new(|| TcpListener::bind("127.0.0.1:0").ok());
    let listener = LISTENER.as_ref()?;
    let near = TcpStream::connect(listener.local_addr().ok()?).ok()?;
    let (far, _) = listener.accept().ok()?;
    near.set_nonblocking(true).ok()?;
    far.set_nonblocking(true).ok()?;
    near.set_nodelay(true).ok()?;
    Some((Socket::Tcp(near), far.into()))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    Open,
    End,
    Reset,
}

pub(super) struct Program {
    socket: Option<Socket>,
    pub(super) tcp: bool,
    pub(super) packets: bool,
    pub(super) sent: usize,
    pub(super) received: usize,
    pub(super) shut: bool,
    pub(super) reset: bool,
    pub(super) closed: bool,
    pub(super) seen: Seen,
    pub(super) refused: bool,
    number: usize,
    buffer: Vec<u8>,
}

/// A byte tells its place: no buffer's size divides the period.
const PERIOD: usize = 65_521;

fn part(number: usize, from: usize, length: usize) -> &'static [u8] {
    static PATTERNS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
        [23_usize, 155].map(|factor| {
            (0..PERIOD + (1 << 20))
                .map(|place| ((place % PERIOD).wrapping_mul(factor) >> 5).to_le_bytes()[0])
                .collect()
        })
    });
    &PATTERNS[number][from % PERIOD..][..length]
}

/// Large buffers outlive an execution: to get and to clear them was most of its time.
static BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(mut free) = BUFFERS.lock() {
            free.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl Program {
    pub(super) fn new(socket: Socket, kind: Kind, number: usize) -> Self {
        Self {
            socket: Some(socket),
            tcp: kind == Kind::Tcp,
            packets: kind == Kind::Packets,
            sent: 0,
            received: 0,
            shut: false,
            reset: false,
            closed: false,
            seen: Seen::Open,
            refused: false,
            number,
            buffer: BUFFERS
                .lock()
                .ok()
                .and_then(|mut free| free.pop())
                .unwrap_or_else(|| vec![0; 1 << 20]),
        }
    }

    /// What went on before the relay got the connection.
    pub(super) fn said_before(&mut self, length: usize) -> Vec<u8> {
        self.sent = length;
        part(self.number, 0, length).to_vec()
    }

    pub(super) fn is_reading(&self) -> bool {
        self.socket.is_some() && self.seen == Seen::Open
    }

    pub(super) fn write(&mut self, length: usize) {
        let Some(socket) = self.socket.as_mut().filter(|_| !self.shut && !self.refused) else {
            return;
        };
        let most = if self.packets {
            LONGEST_MESSAGE
        } else {
            length
        };
        let bytes = part(self.number, self.sent, length.min(most));
        let result = match socket {
            Socket::Unix(socket) => socket.write(bytes),
            Socket::Tcp(socket) => socket.write(bytes),
        };
        match result {
            Ok(sent) => self.sent += sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.refused = true,
        }
    }

    pub(super) fn read(&mut self, most: usize) {
        let Some(socket) = self.socket.as_mut().filter(|_| self.seen == Seen::Open) else {
            return;
        };
        // What of a message isn't taken is lost.
        let most = if self.packets { 1 << 20 } else { most };
        let buffer = &mut self.buffer[..most.min(1 << 20)];
        let mut result = match socket {
            Socket::Unix(socket) => socket.read(buffer),
            Socket::Tcp(socket) => socket.read(buffer),
        };
        // Of messages the kernel tells a reset first, and then what was sent before it.
        if let (true, Err(error), Socket::Unix(socket)) = (self.packets, &result, socket)
            && error.kind() == ErrorKind::ConnectionReset
        {
            result = match socket.read(buffer) {
                Ok(0) => Err(ErrorKind::ConnectionReset.into()),
                other => other,
            };
        }
        match result {
            Ok(0) => self.seen = Seen::End,
            Ok(read) => {
                let expected = part(1 - self.number, self.received, read);
                assert!(buffer[..read] == *expected, "after byte {}", self.received);
                self.received += read;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.seen = Seen::Reset,
        }
    }

    pub(super) fn shut_down(&mut self) {
        match &self.socket {
            Some(Socket::Unix(socket)) => drop(socket.shutdown(Shutdown::Write)),
            Some(Socket::Tcp(socket)) => drop(socket.shutdown(Shutdown::Write)),
            None => return,
        }
        self.shut = true;
    }

    pub(super) fn close(&mut self, reset: bool) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        self.closed = true;
        if let Socket::Tcp(socket) = &socket
            && reset
        {
            self.reset = true;
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}

type Watched<'a> = (BorrowedFd<'a>, Events, bool);

/// What a driver would report now, if anything.
pub(super) fn poll(client: Watched<'_>, upstream: Watched<'_>) -> Option<(Events, Events)> {
    let flags = |events: Events| {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, events.read);
        flags.set(PollFlags::OUT, events.write);
        flags
    };
    let mut fds =
        [client, upstream].map(|(fd, wanted, _)| PollFd::from_borrowed_fd(fd, flags(wanted)));
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut fds, Some(&now)).expect("poll");
    let read = |revents: PollFlags, (_, wanted, told): Watched<'_>| {
        let broken = revents.intersects(PollFlags::ERR | PollFlags::HUP);
        let idle = !wanted.read && !wanted.write;
        Events {
            read: revents.contains(PollFlags::IN) || broken && !idle,
            write: revents.contains(PollFlags::OUT) || broken && !idle,
            hangup: broken && idle && !told,
        }
    };
    let events = (
        read(fds[0].revents(), client),
        read(fds[1].revents(), upstream),
    );
    (events != (Events::default(), Events::default())).then_some(events)
}
