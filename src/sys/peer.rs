//! What the kernel says about the other end of a Unix socket: unix(7), socket(7),
//! `SO_PEERCRED`, `SO_PEERGROUPS`, `SO_PEERPIDFD`, `SO_PEERSEC`, and the sender of
//! a message, `SCM_CREDENTIALS`.
//!
//! Numbers come out as the kernel gave them. A process that this PID namespace
//! can't see has the number 0, for which rustix has no value (see
//! `audit/rustix-peercred.md`), and so these calls are made here.
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

use std::ffi::c_int;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The most supplementary groups of a process (credentials(7), `NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;
/// The longest label of a security module that is taken.
const LABEL_MAX: usize = 4_096;
// asm-generic/socket.h, the same on all targets of this crate; libc lacks some.
const SO_PEERSEC: c_int = 31;
const SO_PEERGROUPS: c_int = 59;
const SO_PEERPIDFD: c_int = 77;

/// A `struct ucred`, as the kernel filled it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawCredentials {
    /// 0 or less: not visible in this PID namespace, or none.
    pub pid: i32,
    /// All bits set: none.
    pub uid: u32,
    /// All bits set: none.
    pub gid: u32,
}

/// The credentials recorded when the peer connected. All bits set for a socket
/// that has no such peer.
///
/// # Errors
///
/// As getsockopt(2), `SO_PEERCRED`.
pub fn credentials(socket: BorrowedFd<'_>) -> io::Result<RawCredentials> {
    let mut raw = [0_u32; 3];
    let length = get(socket, libc::SO_PEERCRED, &mut raw)?;
    if length != size_of::<[u32; 3]>() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let [pid, uid, gid] = raw;
    Ok(RawCredentials {
        pid: pid.cast_signed(),
        uid,
        gid,
    })
}

/// The peer's supplementary groups when it connected.
///
/// # Errors
///
/// As getsockopt(2), `SO_PEERGROUPS`: ENODATA where there is no peer, ENOPROTOOPT
/// before Linux 4.13.
pub fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 32];
    loop {
        let error = match get(socket, SO_PEERGROUPS, &mut groups) {
            Ok(bytes) => {
                groups.truncate(bytes.checked_div(size_of::<u32>()).unwrap_or(0));
                return Ok(groups);
            }
            Err(error) => error,
        };
        if error.raw_os_error() != Some(libc::ERANGE) || groups.len() >= GROUPS_MAX {
            return Err(error);
        }
        groups.resize(groups.len().saturating_mul(8).min(GROUPS_MAX), 0);
    }
}

/// A pidfd for the process that connected, close-on-exec.
///
/// # Errors
///
/// As getsockopt(2), `SO_PEERPIDFD`: EMFILE, ENODATA where there is no peer, EINVAL
/// or ESRCH where older kernels find it gone, ENOPROTOOPT before Linux 6.5.
pub fn pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut raw = [-1_i32];
    get(socket, SO_PEERPIDFD, &mut raw)?;
    let [raw] = raw;
    if raw < 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the kernel has just opened this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The peer's label, without a final NUL, at most 4096 bytes.
///
/// # Errors
///
/// As getsockopt(2), `SO_PEERSEC`: ENOPROTOOPT where no security module labels
/// sockets, ERANGE for a longer label.
pub fn label(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; LABEL_MAX];
    let length = get(socket, SO_PEERSEC, &mut bytes)?;
    bytes.truncate(length);
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

/// Asks the kernel to attach to each message who sent it. Set on a listener, it is
/// inherited by the sockets that it accepts.
///
/// # Errors
///
/// As setsockopt(2), `SO_PASSCRED`.
pub fn pass_credentials(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let value = c_int::from(on);
    let length = option_length(size_of::<c_int>())?;
    let fd = socket.as_raw_fd();
    let pointer = (&raw const value).cast();
    // SAFETY: setsockopt reads `length` bytes at `pointer`, which are those of `value`.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_PASSCRED, pointer, length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What one recvmsg(2) brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// How many bytes; 0 at the end of a stream.
    pub bytes: usize,
    /// Who sent them, if `SO_PASSCRED` was on.
    pub sender: Option<RawCredentials>,
    /// Whether descriptors came along. They are closed already.
    pub had_descriptors: bool,
}

/// Receives once, without waiting, with the sender of the bytes. The kernel never
/// joins bytes of different senders into one receive.
///
/// # Errors
///
/// As recvmsg(2): EAGAIN where nothing has come, EINTR.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    // Room for credentials alone: what else comes along is cut off by the kernel.
    // u64 elements, because a cmsghdr is aligned to a long.
    let mut control = [0_u64; 4];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let zeroed = MaybeUninit::<libc::msghdr>::zeroed();
    // SAFETY: a msghdr of zeroes is valid: null pointers with lengths of 0.
    let mut message = unsafe { zeroed.assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<[u64; 4]>() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let fd = socket.as_raw_fd();
    // SAFETY: the header's pointers are to `part`, `buffer` and `control`, which
    // outlive the call, with their lengths.
    let bytes = unsafe { libc::recvmsg(fd, &raw mut message, flags) };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    let (sender, fds) = ancillary(&message);
    let had_descriptors = fds > 0 || message.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Received {
        bytes,
        sender,
        had_descriptors,
    })
}

/// Walks the control messages; closes descriptors and counts them.
fn ancillary(message: &libc::msghdr) -> (Option<RawCredentials>, usize) {
    let (mut sender, mut descriptors) = (None, 0);
    // SAFETY: recvmsg filled the header; its control buffer is alive and aligned.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: not null, so the macros found a whole header in the control buffer.
        let header = unsafe { next.read() };
        // SAFETY: `next` points to a header within the control buffer.
        let data = unsafe { libc::CMSG_DATA(next) };
        let length = payload_length(&header);
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_CREDENTIALS {
            if length >= size_of::<libc::ucred>() {
                // SAFETY: the kernel wrote a whole ucred there; alignment isn't assumed.
                let raw = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                sender = Some(RawCredentials {
                    pid: raw.pid,
                    uid: raw.uid,
                    gid: raw.gid,
                });
            }
        } else if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
            let whole = length.checked_div(size_of::<c_int>()).unwrap_or(0);
            let count = close_all(data, whole);
            descriptors = usize::saturating_add(descriptors, count);
        }
        // SAFETY: as for CMSG_FIRSTHDR; `next` came from it.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    (sender, descriptors)
}

/// The bytes of a control message after its header.
#[allow(
    clippy::unnecessary_cast,
    reason = "cmsg_len is a usize in glibc and a u32 in musl"
)]
fn payload_length(header: &libc::cmsghdr) -> usize {
    // SAFETY: CMSG_LEN only computes.
    let head = unsafe { libc::CMSG_LEN(0) };
    usize::try_from(head).map_or(0, |head| (header.cmsg_len as usize).saturating_sub(head))
}

fn close_all(data: *const u8, count: usize) -> usize {
    for index in 0..count {
        let at = data.cast::<c_int>().wrapping_add(index);
        // SAFETY: the kernel wrote `count` descriptors there; alignment isn't assumed.
        let raw = unsafe { at.read_unaligned() };
        // SAFETY: the kernel has just opened it for us; nobody else has it.
        drop(unsafe { OwnedFd::from_raw_fd(raw) });
    }
    count
}

/// Fills an array with random bytes (getrandom(2)); waits only before the kernel's
/// generator is seeded, early at boot.
///
/// # Errors
///
/// ENOSYS where a filter forbids the call.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    loop {
        // SAFETY: getrandom writes at most N bytes at the pointer, which has N.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
        if usize::try_from(got) == Ok(N) {
            return Ok(bytes);
        }
        let error = io::Error::last_os_error();
        if got < 0 && error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// getsockopt(2) of plain numbers: returns how many bytes the kernel filled.
pub(super) fn get<T: Number>(
    socket: BorrowedFd<'_>,
    option: c_int,
    values: &mut [T],
) -> io::Result<usize> {
    let mut length = option_length(size_of_val(values))?;
    let fd = socket.as_raw_fd();
    let pointer = values.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `length` bytes at `pointer`, which are the
    // slice's; every pattern of bits is a valid T.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, pointer, &raw mut length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn option_length(bytes: usize) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Types of which every pattern of bits is a value.
pub(super) trait Number: Copy {}
impl Number for u8 {}
impl Number for u32 {}
impl Number for i32 {}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_pair_of_sockets_knows_this_process() {
        let (left, _right) = UnixStream::pair().unwrap();
        let own = credentials(left.as_fd()).unwrap();
        assert_eq!(u32::try_from(own.pid), Ok(std::process::id()));
        assert!(groups(left.as_fd()).is_ok());
    }

    #[test]
    fn a_socket_without_peer_has_no_identity() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let none = credentials(socket.as_fd()).unwrap();
        assert_eq!((none.pid, none.uid, none.gid), (0, u32::MAX, u32::MAX));
        assert!(pidfd(socket.as_fd()).is_err());
    }

    #[test]
    fn a_message_says_who_sent_it() {
        let (mut left, right) = UnixStream::pair().unwrap();
        let mut buffer = [0; 8];
        let early = receive(right.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
        left.write_all(b"a").unwrap();
        pass_credentials(right.as_fd(), true).unwrap();
        left.write_all(b"b").unwrap();
        let first = receive(right.as_fd(), &mut buffer).unwrap();
        assert_eq!(
            (first.bytes, first.sender.map(|s| s.pid)),
            (1, Some(0)),
            "sent before"
        );
        let second = receive(right.as_fd(), &mut buffer).unwrap();
        let pid = second
            .sender
            .and_then(|sender| u32::try_from(sender.pid).ok());
        assert_eq!((second.bytes, pid), (1, Some(std::process::id())));
        drop(left);
        assert_eq!(receive(right.as_fd(), &mut buffer).unwrap().bytes, 0);
    }

    #[test]
    fn accepted_sockets_inherit_the_wish_for_credentials() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("secure_socket-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        pass_credentials(listener.as_fd(), true).unwrap();
        let mut client = UnixStream::connect_addr(&address).unwrap();
        client.write_all(b"early").unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let received = receive(accepted.as_fd(), &mut [0; 8]).unwrap();
        let pid = received
            .sender
            .and_then(|sender| u32::try_from(sender.pid).ok());
        assert_eq!(pid, Some(std::process::id()));
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
    }
}
