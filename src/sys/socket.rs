//! Socket options that rustix doesn't know.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `SO_PASSRIGHTS` of `asm-generic/socket.h`, Linux 6.16 and later. SPARC and
/// PA-RISC number it otherwise; the sandbox has no filter for them either.
const SO_PASSRIGHTS: libc::c_int = 83;
/// Likewise, since Linux 6.5.
const SO_PASSPIDFD: libc::c_int = 76;

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
    turn(socket, SO_PASSRIGHTS, yes)
}

/// `Ok(false)` where there is no such option.
fn turn(socket: BorrowedFd<'_>, option: libc::c_int, yes: bool) -> io::Result<bool> {
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
            option,
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

/// Has the kernel add neither labels nor pidfds to what a Unix-domain socket receives
/// (`SO_PASSSEC`, `SO_PASSPIDFD`). Accepted sockets inherit it.
///
/// # Errors
///
/// Those of setsockopt(2), but for a kernel that has no such option.
pub(crate) fn add_nothing(socket: BorrowedFd<'_>) -> io::Result<()> {
    for option in [libc::SO_PASSSEC, SO_PASSPIDFD] {
        turn(socket, option, false)?;
    }
    Ok(())
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

    /// What a service manager may have turned on (systemd.socket(5), `PassCredentials=`).
    #[test]
    fn nothing_is_added_to_what_is_received() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        for option in [libc::SO_PASSSEC, SO_PASSPIDFD] {
            turn(socket.as_fd(), option, true).unwrap();
        }
        add_nothing(socket.as_fd()).unwrap();
        for option in [libc::SO_PASSSEC, SO_PASSPIDFD] {
            let mut value = [7_i32];
            // A kernel without it says so.
            if super::super::peer::get(socket.as_fd(), option, &mut value).is_ok() {
                assert_eq!(value, [0]);
            }
        }
    }
}
