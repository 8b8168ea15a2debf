//! Binds a TCP socket, to loopback unless exposing it was asked for.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::address::Kind;
use super::error::BindError;
use super::notice::Notice;
use super::options::Options;

pub(super) fn bind(
    address: SocketAddr,
    options: &Options,
    notices: &mut Vec<Notice>,
) -> Result<OwnedFd, BindError> {
    check(address, options, notices)?;
    let object = PathBuf::from(address.to_string());
    let refuse = |error: Errno| BindError::system("bind", &object, error);
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let mut flags = SocketFlags::CLOEXEC;
    flags.set(SocketFlags::NONBLOCK, options.nonblocking);
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))
        .map_err(refuse)?;
    // Connections of an earlier server in TIME_WAIT must not keep the port (socket(7)).
    sockopt::set_socket_reuseaddr(&socket, true).map_err(refuse)?;
    // Inherited by what is accepted: answers are written whole, and none may wait
    // for an acknowledgement of the one before (tcp(7)).
    sockopt::set_tcp_nodelay(&socket, true).map_err(refuse)?;
    if address.is_ipv6() {
        // An IPv4 peer would otherwise come in under a mapped address.
        sockopt::set_ipv6_v6only(&socket, true).map_err(refuse)?;
    }
    match rustix::net::bind(&socket, &address) {
        Ok(()) => {}
        Err(Errno::ADDRINUSE) => return Err(BindError::PortInUse { address }),
        Err(error) => return Err(refuse(error)),
    }
    match rustix::net::listen(&socket, options.backlog_for_listen()) {
        Ok(()) => Ok(socket),
        Err(Errno::ADDRINUSE) => Err(BindError::PortInUse { address }),
        Err(error) => Err(refuse(error)),
    }
}

/// Refuses records, and addresses that are not to be exposed.
pub(super) fn check(
    address: SocketAddr,
    options: &Options,
    notices: &mut Vec<Notice>,
) -> Result<(), BindError> {
    if options.kind == Kind::SeqPacket {
        return Err(BindError::SeqPacketNeedsUnix);
    }
    if address.ip().is_loopback() {
        return Ok(());
    }
    if !options.expose {
        return Err(BindError::NotLoopback { address });
    }
    notices.push(Notice::Exposed { address });
    Ok(())
}

/// Where the socket is bound.
pub(super) fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    rustix::net::getsockname(socket)
        .ok()
        .and_then(|address| SocketAddr::try_from(address).ok())
}
