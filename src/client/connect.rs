//! From a path to a connected socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use super::error::ClientError;
use super::identity::ServerIdentity;

/// Connects to a Unix-domain socket, `/path` or `@name` for an abstract one, and
/// verifies who listens there.
///
/// # Errors
///
/// [`ClientError::Socket`] as connect(2), [`ClientError::Untrusted`],
/// [`ClientError::CannotVerify`].
pub fn connect(path: &Path, server: &ServerIdentity) -> Result<OwnedFd, ClientError> {
    let socket = connect_unverified(path)?;
    server.verify(socket.as_fd())?;
    Ok(socket)
}

fn connect_unverified(path: &Path) -> io::Result<OwnedFd> {
    let text = path.as_os_str().as_encoded_bytes();
    let address = match text.strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(path)?,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}
