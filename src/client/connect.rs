//! From a path to a connected socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use super::error::ClientError;
use super::identity::ServerIdentity;

/// What a timeout is taken for that a socket can't have: 0 would be none (socket(7)),
/// and `Duration::MAX` is more seconds than a `timeval` holds.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(1 << 30);

/// Connects to a Unix-domain socket, `/path` or `@name` for an abstract one, and
/// verifies who listens there. Where the server's backlog is full it waits for as long
/// as it takes (connect(2)); [`Client::connect`](super::Client::connect) has a timeout.
///
/// # Errors
///
/// [`ClientError::Socket`] as connect(2), [`ClientError::Untrusted`],
/// [`ClientError::CannotVerify`].
pub fn connect(path: &Path, server: &ServerIdentity) -> Result<OwnedFd, ClientError> {
    connect_within(path, server, None)
}

/// [`connect`], but [`ClientError::Timeout`] where the backlog stays full.
pub(super) fn connect_within(
    path: &Path,
    server: &ServerIdentity,
    timeout: Option<Duration>,
) -> Result<OwnedFd, ClientError> {
    let socket = connect_unverified(path, timeout)?;
    server.verify(socket.as_fd())?;
    Ok(socket)
}

fn connect_unverified(path: &Path, timeout: Option<Duration>) -> Result<OwnedFd, ClientError> {
    let text = path.as_os_str().as_encoded_bytes();
    // The kernel would take it for an abstract name of no bytes, which anyone may bind.
    if matches!(text, b"" | b"@") {
        return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
    }
    let address = match text.strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name),
        None => SocketAddrUnix::new(path),
    };
    let address = address.map_err(io::Error::from)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(io::Error::from)?;
    // It bounds connect(2) as well (socket(7)); later calls don't wait in the kernel.
    let timeout = timeout.map(|timeout| timeout.clamp(SHORTEST, LONGEST));
    set_socket_timeout(&socket, Timeout::Send, timeout).map_err(io::Error::from)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(socket),
        Err(Errno::AGAIN) => Err(ClientError::Timeout),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel takes an empty address for the abstract name of no bytes: it is bound
    /// here, so that a connect without the check would succeed.
    #[test]
    fn no_path_is_no_server() {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let nameless = SocketAddrUnix::new_abstract_name(b"").unwrap();
        rustix::net::bind(&socket, &nameless).unwrap();
        rustix::net::listen(&socket, 1).unwrap();
        for path in ["", "@"] {
            let Err(ClientError::Socket(error)) = connect_unverified(Path::new(path), None) else {
                panic!("connected to {path:?}");
            };
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
