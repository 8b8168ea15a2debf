//! The system calls that move bytes, none of which waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::SpliceFlags;

use super::descriptors;
use super::flow::Fault;

/// The send buffer asked for where bulk goes to a Unix socket, in bytes. TCP
/// sizes its own.
const SEND_BUFFER: usize = 1 << 20;

/// Without room for control data the kernel closes descriptors that come along (unix(7)).
pub(super) fn receive(
    source: BorrowedFd<'_>,
    scratch: &mut [u8],
    packets: bool,
) -> Result<Option<(usize, Vec<OwnedFd>)>, Fault> {
    let flags = if packets {
        RecvFlags::TRUNC
    } else {
        RecvFlags::empty()
    };
    let room = scratch.len();
    let mut receive = || rustix::net::recv(source, &mut *scratch, flags | RecvFlags::DONTWAIT);
    match retry_past_reset(&mut receive, |(_, length)| *length == 0) {
        Ok((_, length)) if length > room => Err(Fault::TooLarge),
        Ok((_, length)) => Ok(Some((length, Vec::new()))),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(Fault::Source(error)),
    }
}

pub(super) fn send(sink: BorrowedFd<'_>, bytes: &[u8], with: &[OwnedFd]) -> Result<usize, Errno> {
    if !with.is_empty() {
        return descriptors::send(sink, bytes, with);
    }
    retry(|| rustix::net::send(sink, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
}

/// The one call here that can't suppress SIGPIPE: who ignores the signal, as the
/// Rust runtime does, gets EPIPE.
pub(super) fn splice<In, Out>(from: In, to: Out, length: usize) -> Result<usize, Errno>
where
    In: AsFd,
    Out: AsFd,
{
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    retry(|| rustix::pipe::splice(&from, None, &to, None, length, flags))
}

/// Who closes a Unix socket without reading all that came resets it. Of a socket of
/// messages the kernel then tells the reset before what was sent, and once only: what was
/// sent is taken first.
fn retry_past_reset<T>(
    receive: &mut impl FnMut() -> Result<T, Errno>,
    is_end: impl Fn(&T) -> bool,
) -> Result<T, Errno> {
    match retry(&mut *receive) {
        Err(Errno::CONNRESET) => match retry(receive) {
            Ok(received) if !is_end(&received) => Ok(received),
            _ => Err(Errno::CONNRESET),
        },
        other => other,
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Tells the end from an empty message (only `SOCK_SEQPACKET` has those). Empty
/// messages that are the very last before the end are taken for the end.
pub(super) fn is_at_end(source: BorrowedFd<'_>, packets: bool) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec};
    if !packets {
        return true;
    }
    let mut fds = [PollFd::from_borrowed_fd(source, PollFlags::RDHUP)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if !matches!(retry(|| rustix::event::poll(&mut fds, Some(&now))), Ok(1..)) {
        return false;
    }
    // The sum over all messages that are queued (unix(7), SIOCINQ).
    !matches!(rustix::io::ioctl_fionread(source), Ok(1..))
}

/// Gives a Unix sink room for more than the default 208 KiB in flight: fewer
/// changes of thread. The kernel cuts it to `wmem_max`. The size before, to be given
/// to [`restore`]; `None` where nothing was changed.
pub(super) fn enlarge(sink: BorrowedFd<'_>) -> Option<usize> {
    use rustix::net::{AddressFamily, sockopt};
    let domain = sockopt::socket_domain(sink).ok()?;
    let before = sockopt::socket_send_buffer_size(sink).ok()?;
    // It reports twice what it was asked for (socket(7)).
    if domain != AddressFamily::UNIX || before >= SEND_BUFFER.saturating_mul(2) {
        return None;
    }
    sockopt::set_socket_send_buffer_size(sink, SEND_BUFFER).ok()?;
    Some(before)
}

/// Undoes [`enlarge`]: what is in flight stays there.
pub(super) fn restore(sink: BorrowedFd<'_>, before: usize) {
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(sink, before / 2);
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    /// What a peer sent, and closed without reading what came.
    fn sent_and_reset(kind: SocketType) -> OwnedFd {
        let (near, far) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        send(far.as_fd(), b"unread", &[]).unwrap();
        send(near.as_fd(), b"one", &[]).unwrap();
        send(near.as_fd(), b"two", &[]).unwrap();
        far
    }

    #[test]
    fn what_was_sent_comes_before_the_reset() {
        let mut scratch = [0; 3];
        for kind in [SocketType::STREAM, SocketType::SEQPACKET] {
            let far = sent_and_reset(kind);
            let packets = kind == SocketType::SEQPACKET;
            for expected in [b"one", b"two"] {
                let got = receive(far.as_fd(), &mut scratch, packets).unwrap();
                assert_eq!(
                    (got.map(|(length, _)| length), &scratch),
                    (Some(3), expected)
                );
            }
            let far = sent_and_reset(kind);
            for expected in [b"one", b"two"] {
                let got = descriptors::receive(far.as_fd(), &mut scratch, 1).unwrap();
                assert_eq!(
                    (got.map(|(length, _)| length), &scratch),
                    (Some(3), expected)
                );
            }
        }
    }

    #[test]
    fn a_reset_after_nothing_is_one() {
        let mut scratch = [0; 3];
        for kind in [SocketType::STREAM, SocketType::SEQPACKET] {
            let (near, far) =
                socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
            send(far.as_fd(), b"unread", &[]).unwrap();
            drop(near);
            let packets = kind == SocketType::SEQPACKET;
            let got = receive(far.as_fd(), &mut scratch, packets);
            assert!(matches!(got, Err(Fault::Source(Errno::CONNRESET))));
        }
    }
}
