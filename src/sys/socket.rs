//! Socket options that rustix doesn't know.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `SO_PASSRIGHTS` of `asm-generic/socket.h`, Linux 6.16 and later. SPARC and
/// PA-RISC number it otherwise; the sandbox has no filter for them either.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Lets peers of a Unix-domain socket pass file descriptors in, or makes that
/// fail on their side with `EPERM`. Accepted sockets inherit it.
///
/// `Ok(false)` where this kernel has no such option: before 6.16, or for a
/// socket that is not of the Unix domain.
///
/// # Errors
///
/// Those of setsockopt(2) otherwise.
pub fn set_pass_rights(socket: BorrowedFd<'_>, yes: bool) -> io::Result<bool> {
    let value = libc::c_int::from(yes);
    // The size of an int fits.
    #[allow(clippy::cast_possible_truncation)]
    let length: libc::socklen_t = const { size_of::<libc::c_int>() as libc::socklen_t };
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads
    // `length` bytes at the pointer, which is the size of `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const value).cast(),
            length,
        )
    };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP) => Ok(false),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    #[test]
    fn a_socket_of_another_domain_has_no_such_option() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!set_pass_rights(socket.as_fd(), false).unwrap());
    }
}
