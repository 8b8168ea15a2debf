//! One attempt to connect, without waiting.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::net::SocketAddr;

/// An address, looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    Unix(SocketAddrUnix),
    Inet(SocketAddr),
}

/// How far an attempt got.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Connected.
    Done(OwnedFd),
    /// Under way: it is writable once it is decided.
    Pending(OwnedFd),
}

/// Starts to connect. `AGAIN` says that the backlog of a Unix upstream is full
/// now; the kernel doesn't report when it no longer is (connect(2)).
pub(super) fn start(address: &Address, kind: SocketType) -> Result<Attempt, Errno> {
    let socket = open(address, kind)?;
    connect(socket, address)
}

/// A socket that suits the address: not blocking, closed on exec.
pub(super) fn open(address: &Address, kind: SocketType) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (domain, kind) = match address {
        Address::Unix(_) => (AddressFamily::UNIX, kind),
        Address::Inet(SocketAddr::V4(_)) => (AddressFamily::INET, SocketType::STREAM),
        Address::Inet(SocketAddr::V6(_)) => (AddressFamily::INET6, SocketType::STREAM),
    };
    let socket = rustix::net::socket_with(domain, kind, flags, None)?;
    if matches!(address, Address::Inet(_)) {
        prepare_tcp(socket.as_fd());
    }
    Ok(socket)
}

/// Small messages must not wait for an acknowledgement of the one before, and a
/// machine that is gone must be found out.
pub(super) fn prepare_tcp(socket: std::os::fd::BorrowedFd<'_>) {
    let _ = sockopt::set_tcp_nodelay(socket, true);
    let _ = sockopt::set_socket_keepalive(socket, true);
}

pub(super) fn connect(socket: OwnedFd, address: &Address) -> Result<Attempt, Errno> {
    loop {
        let result = match address {
            Address::Unix(address) => rustix::net::connect(&socket, address),
            Address::Inet(address) => rustix::net::connect(&socket, address),
        };
        match result {
            Ok(()) => return Ok(Attempt::Done(socket)),
            // A TCP connect goes on after an interruption: asking again tells.
            Err(Errno::INTR) => {}
            Err(Errno::ISCONN) => return Ok(Attempt::Done(socket)),
            Err(Errno::INPROGRESS | Errno::ALREADY) => return Ok(Attempt::Pending(socket)),
            Err(error) => return Err(error),
        }
    }
}

/// What became of an attempt that was under way.
pub(super) fn outcome(socket: impl AsFd) -> Result<(), Errno> {
    sockopt::socket_error(socket)?
}
