//! The names of a Unix socket and of its peer: getsockname(2), getpeername(2), unix(7).
//!
//! A path may fill all 108 bytes of `sun_path`. The kernel then tells a length of 111, one
//! more than the structure has, for the NUL that it keeps behind the path. Whoever trusts
//! that length, or looks for the NUL within the structure, reads beyond it; rustix 1.1
//! panics. Any peer can bind such a name before it connects, so it is read here.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

/// With room for the NUL behind the longest path.
const ROOM: usize = size_of::<libc::sockaddr_un>() + 1;

/// The name of the other end: a path without its NUL, a NUL and an abstract name, or
/// nothing for a socket without a name. `None` for one that is no Unix socket.
///
/// # Errors
///
/// As getpeername(2).
#[cfg(any(feature = "relay", test))]
pub(crate) fn of_peer(socket: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    let mut raw = [0_u8; ROOM];
    let mut length = libc::socklen_t::try_from(ROOM).map_err(io::Error::other)?;
    let (fd, pointer) = (socket.as_raw_fd(), raw.as_mut_ptr().cast());
    // SAFETY: getpeername writes at most `length` bytes at `pointer`, which are those of
    // `raw`, and then the length to the place that it is given.
    match unsafe { libc::getpeername(fd, pointer, &raw mut length) } {
        0 => Ok(name(&raw, length)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The name of the socket itself, as for [`of_peer`].
///
/// # Errors
///
/// As getsockname(2).
pub(crate) fn of_socket(socket: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    let mut raw = [0_u8; ROOM];
    let mut length = libc::socklen_t::try_from(ROOM).map_err(io::Error::other)?;
    let (fd, pointer) = (socket.as_raw_fd(), raw.as_mut_ptr().cast());
    // SAFETY: getsockname writes at most `length` bytes at `pointer`, which are those of
    // `raw`, and then the length to the place that it is given.
    match unsafe { libc::getsockname(fd, pointer, &raw mut length) } {
        0 => Ok(name(&raw, length)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn name(raw: &[u8; ROOM], length: libc::socklen_t) -> Option<Vec<u8>> {
    const AT: usize = offset_of!(libc::sockaddr_un, sun_path);
    let length = usize::try_from(length).unwrap_or(ROOM).min(ROOM);
    let (family, _) = raw.get(..length)?.split_first_chunk()?;
    if i32::from(libc::sa_family_t::from_ne_bytes(*family)) != libc::AF_UNIX {
        return None;
    }
    let path = raw.get(AT..length).unwrap_or_default();
    let end = match path.first() {
        Some(0) => path.len(),
        _ => path
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(path.len()),
    };
    path.get(..end).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};

    use super::*;

    /// A path of that many bytes in a directory of its own.
    fn path(length: usize) -> (std::path::PathBuf, String) {
        let directory = std::env::temp_dir().join(format!("n{}-{length}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut path = format!("{}/", directory.display());
        path.push_str(&"x".repeat(length - path.len()));
        (directory, path)
    }

    #[test]
    fn every_length_of_a_path_comes_back_and_so_do_abstract_names() {
        for length in [60, 106, 107, 108] {
            let (directory, path) = path(length);
            let address = SocketAddrUnix::new(path.as_str()).unwrap();
            check(&address, path.as_bytes());
            std::fs::remove_dir_all(directory).unwrap();
        }
        for length in [1, 107] {
            let name = format!("{:x<length$}", std::process::id());
            let name = &name[..length];
            let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
            check(&address, &[b"\0", name.as_bytes()].concat());
        }
    }

    #[track_caller]
    fn check(address: &SocketAddrUnix, expected: &[u8]) {
        let server = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        assert_eq!(
            of_socket(server.as_fd()).unwrap().unwrap(),
            b"",
            "not bound"
        );
        bind(&server, address).unwrap();
        listen(&server, 1).unwrap();
        let client = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        connect(&client, address).unwrap();
        assert_eq!(of_socket(server.as_fd()).unwrap().unwrap(), expected);
        assert_eq!(of_peer(client.as_fd()).unwrap().unwrap(), expected);
    }

    #[test]
    fn other_families_have_no_such_name() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(of_socket(socket.as_fd()).unwrap(), None);
        assert!(of_peer(socket.as_fd()).is_err(), "nobody has connected");
    }
}
