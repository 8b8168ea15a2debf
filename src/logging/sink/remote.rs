//! A syslog server: UDP, TCP with octet counting (RFC 6587, 3.4.1), or a local
//! socket as `/dev/log`.
//!
//! Never waits: a connection is made in the background, and lines wait in the
//! backlog meanwhile. A line that was being sent when a connection broke is
//! sent again, whole. Each try after a failure comes later, up to 30 s, until a
//! connection has held. Not known are lines that the other side's kernel had
//! taken and its program had not read: plain TCP can't tell, and UDP even less.

use super::super::LoggingError;
use super::super::lines::{Lines, Mark};
use super::{Backlog, Backoff, Sink};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Bytes of the longest datagram over UDP and IPv4.
const LONGEST_DATAGRAM: usize = 65_507;

/// A connection that took lines, and broke this long after the first or later, was
/// one: the next failure is the first again.
const HELD: Duration = Duration::from_secs(1);

/// A server of lines, as it is configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RemoteSpec {
    /// `host:port`, resolved when the logger is built.
    Udp(String),
    /// `host:port`, resolved when the logger is built.
    Tcp(String),
    /// The path of a socket, as `/dev/log`.
    Unix(PathBuf),
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RemoteAddress {
    /// Datagrams to this address.
    Udp(SocketAddr),
    /// A stream to this address.
    Tcp(SocketAddr),
    /// A socket at this path.
    Unix(PathBuf),
}

impl RemoteSpec {
    /// Finds the address.
    pub(in super::super) fn resolve(&self) -> Result<RemoteAddress, LoggingError> {
        match self {
            Self::Udp(server) => resolve(server).map(RemoteAddress::Udp),
            Self::Tcp(server) => resolve(server).map(RemoteAddress::Tcp),
            // The kernel would take an empty path for an abstract name, which anyone may bind.
            Self::Unix(path) if path.is_absolute() => SocketAddrUnix::new(path)
                .map(|_| RemoteAddress::Unix(path.clone()))
                .map_err(|errno| LoggingError::Remote {
                    server: path.display().to_string(),
                    why: "expected a path of at most 108 bytes".into(),
                    source: Some(errno.into()),
                }),
            Self::Unix(path) => Err(LoggingError::Remote {
                server: path.display().to_string(),
                why: "expected an absolute path".into(),
                source: None,
            }),
        }
    }
}

fn resolve(server: &str) -> Result<SocketAddr, LoggingError> {
    let failed = |why: &str, source| LoggingError::Remote {
        server: server.to_owned(),
        why: why.to_owned(),
        source,
    };
    let mut addresses = server
        .to_socket_addrs()
        .map_err(|error| failed("expected host:port of a known host", Some(error)))?;
    addresses
        .next()
        .ok_or_else(|| failed("the host has no address", None))
}

/// The way to a server.
#[derive(Debug)]
pub(in super::super) struct Remote {
    address: RemoteAddress,
    link: Link,
    /// A local socket that turned out to be a stream.
    local_stream: bool,
    backlog: Backlog,
    framed: Lines,
    /// When to connect again.
    backoff: Backoff,
    /// When to look again at a connection that isn't made yet, or takes no lines.
    pause: Backoff,
    /// When this connection took its first line.
    taking_since: Option<Instant>,
}

#[derive(Debug)]
enum Link {
    Down,
    Connecting(OwnedFd),
    Up(OwnedFd),
}

impl Remote {
    pub(in super::super) fn new(address: RemoteAddress) -> Self {
        Self {
            address,
            link: Link::Down,
            local_stream: false,
            backlog: Backlog::default(),
            framed: Lines::default(),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
            pause: Backoff::new(Duration::from_millis(5), Duration::from_millis(500)),
            taking_since: None,
        }
    }

    const fn is_stream(&self) -> bool {
        matches!(self.address, RemoteAddress::Tcp(_)) || self.local_stream
    }

    /// Opens a socket and begins to connect it.
    fn dial(&mut self, now: Instant) {
        match self.try_dial() {
            Ok(link) => {
                self.link = link;
                self.taking_since = None;
                self.pause.succeeded();
            }
            Err(Errno::PROTOTYPE) if !self.local_stream => {
                self.local_stream = true;
                self.dial(now);
            }
            Err(errno) => self.broke(errno, now),
        }
    }

    fn try_dial(&self) -> Result<Link, Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let kind = if self.is_stream() {
            SocketType::STREAM
        } else {
            SocketType::DGRAM
        };
        let (socket, connected) = match &self.address {
            RemoteAddress::Udp(address) | RemoteAddress::Tcp(address) => {
                let family = if address.is_ipv4() {
                    AddressFamily::INET
                } else {
                    AddressFamily::INET6
                };
                let socket = socket_with(family, kind, flags, None)?;
                let connected = connect(&socket, address);
                (socket, connected)
            }
            RemoteAddress::Unix(path) => {
                let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
                let connected = connect(&socket, &SocketAddrUnix::new(path)?);
                (socket, connected)
            }
        };
        match connected {
            Ok(()) => Ok(Link::Up(socket)),
            Err(Errno::INPROGRESS) => Ok(Link::Connecting(socket)),
            Err(errno) => Err(errno),
        }
    }

    /// The connection is gone: what was not sent whole is sent again.
    fn broke(&mut self, errno: Errno, now: Instant) {
        self.link = Link::Down;
        self.backlog.rewind_line();
        self.backlog.set_cause(io::Error::from(errno));
        let held = |since| now.saturating_duration_since(since) >= HELD;
        if self.taking_since.take().is_some_and(held) {
            self.backoff.succeeded();
        }
        self.backoff.failed(now);
    }

    /// Whether a connection that was begun is made.
    fn settle(&mut self, now: Instant) {
        let Link::Connecting(socket) = std::mem::replace(&mut self.link, Link::Down) else {
            return;
        };
        match is_connected(&socket) {
            Ok(true) => {
                self.link = Link::Up(socket);
                self.pause.succeeded();
            }
            Ok(false) => {
                self.link = Link::Connecting(socket);
                self.pause.failed(now);
            }
            Err(errno) => self.broke(errno, now),
        }
    }

    /// Sends what there is room for. With `fresh` lines a connection is tried in any
    /// case: it may have taken a few and have room for more long before the pause is over.
    fn flush(&mut self, fresh: bool, now: Instant) {
        if matches!(self.link, Link::Down) && self.backoff.is_over(now) {
            self.dial(now);
        }
        let is_tried = fresh && matches!(self.link, Link::Up(_));
        if !is_tried && !self.pause.is_over(now) {
            return;
        }
        self.settle_if_connecting(now);
        while let Link::Up(socket) = &self.link {
            let sent = if self.is_stream() {
                send_stream(socket, self.backlog.unsent())
            } else {
                let udp = matches!(self.address, RemoteAddress::Udp(_));
                self.backlog
                    .next_line()
                    .map_or(Ok(0), |line| send_datagram(socket, line, udp))
            };
            match sent {
                Ok(0) => return,
                Ok(bytes) => {
                    self.backlog.advance(bytes);
                    self.taking_since.get_or_insert(now);
                    self.pause.succeeded();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    if self.pause.is_over(now) {
                        self.pause.failed(now);
                    }
                    return;
                }
                Err(Errno::MSGSIZE) => self.backlog.lose_next("a line is longer than a datagram"),
                Err(errno) => self.broke(errno, now),
            }
            if self.backlog.is_empty() {
                return;
            }
        }
    }

    fn settle_if_connecting(&mut self, now: Instant) {
        if matches!(self.link, Link::Connecting(_)) {
            self.settle(now);
        }
    }
}

impl Sink for Remote {
    fn write(&mut self, lines: &Lines, now: Instant) {
        let mut framed = std::mem::take(&mut self.framed);
        framed.clear();
        let counts = matches!(self.address, RemoteAddress::Tcp(_));
        for (line, mark) in lines.iter_from(0) {
            frame(line, counts, self.local_stream, &mut framed, mark);
        }
        self.backlog.take(&framed);
        self.framed = framed;
        if !self.backlog.is_empty() {
            self.flush(true, now);
        }
    }

    fn retry(&mut self, now: Instant) {
        if !self.backlog.is_empty() {
            self.flush(false, now);
        }
    }

    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    /// The server may be there again, whenever it was to be asked next.
    fn try_at_last(&mut self) {
        self.backoff.is_over_now();
        self.pause.is_over_now();
    }

    fn is_local(&self) -> bool {
        false
    }

    fn retry_at(&self) -> Option<Instant> {
        if self.backlog.is_empty() {
            return None;
        }
        match &self.link {
            Link::Down => self.backoff.until(),
            Link::Connecting(_) | Link::Up(_) => self.pause.until(),
        }
    }
}

/// A line as it goes over the wire, without its line feed.
fn frame(line: &[u8], counts: bool, terminated: bool, framed: &mut Lines, mark: &Mark) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if counts {
        super::super::layout::time::push_number(
            u64::try_from(line.len()).unwrap_or(0),
            &mut framed.bytes,
        );
        framed.bytes.push(b' ');
    }
    framed.bytes.extend_from_slice(line);
    if terminated {
        framed.bytes.push(0);
    }
    framed.push(&[], mark);
}

fn is_connected(socket: &OwnedFd) -> Result<bool, Errno> {
    let mut asked = [PollFd::new(socket, PollFlags::OUT)];
    if poll(
        &mut asked,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )? == 0
    {
        return Ok(false);
    }
    socket_error(socket)?.map(|()| true)
}

/// Sends what there is room for. A server that is gone says so by an end of
/// file, before the first line is lost to it.
fn send_stream(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match recv(socket, &mut [0; 64], RecvFlags::DONTWAIT) {
        Ok((0, _)) => return Err(Errno::PIPE),
        Ok(_) | Err(Errno::AGAIN) => {}
        Err(errno) => return Err(errno),
    }
    send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

/// Sends one datagram. On UDP the refusal of the one just sent is asked for at
/// once: on the same host it is known by then.
fn send_datagram(socket: &OwnedFd, line: &[u8], udp: bool) -> Result<usize, Errno> {
    let most = if udp { LONGEST_DATAGRAM } else { usize::MAX };
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    send(socket, line.get(..most).unwrap_or(line), flags)?;
    if udp {
        socket_error(socket)??;
    }
    Ok(line.len())
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
