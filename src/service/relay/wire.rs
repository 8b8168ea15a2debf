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

/// What one receive brought.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) length: usize,
    /// Descriptors that came along.
    pub(super) with: Vec<OwnedFd>,
    /// The source was reset, which a socket of messages tells once, before what was sent
    /// until then: who closes a Unix socket without reading all that came resets it.
    pub(super) reset: bool,
}

/// `None` if nothing is there. Without room for control data the kernel closes descriptors
/// that come along (unix(7)).
pub(super) fn receive(
    source: BorrowedFd<'_>,
    scratch: &mut [u8],
    packets: bool,
) -> Result<Option<Received>, Fault> {
    let flags = if packets {
        RecvFlags::TRUNC
    } else {
        RecvFlags::empty()
    };
    let room = scratch.len();
    let mut reset = false;
    loop {
        match retry(|| rustix::net::recv(source, &mut *scratch, flags | RecvFlags::DONTWAIT)) {
            Ok((_, length)) if length > room => return Err(Fault::TooLarge),
            Ok((_, length)) => {
                let with = Vec::new();
                return Ok(Some(Received {
                    length,
                    with,
                    reset,
                }));
            }
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNRESET) if packets && !reset => reset = true,
            Err(error) => return Err(Fault::Source(error)),
        }
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

    fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
    }

    /// What a peer sent, and closed without reading what came.
    fn sent_and_reset(kind: SocketType) -> OwnedFd {
        let (near, far) = pair(kind);
        send(far.as_fd(), b"unread", &[]).unwrap();
        for message in [&b"one"[..], b"", b"two"] {
            send(near.as_fd(), message, &[]).unwrap();
        }
        far
    }

    #[test]
    fn what_was_sent_comes_before_the_reset() {
        let mut scratch = [0; 3];
        let mut taken = |by: &mut dyn FnMut(&mut [u8]) -> Received| {
            let mut all = Vec::new();
            for _ in 0..3 {
                let got = by(&mut scratch);
                all.push((scratch.get(..got.length).unwrap().to_vec(), got.reset));
            }
            all
        };
        // An empty message, which only a socket of messages has, is none of its end.
        let sent = |first| {
            [
                (b"one".to_vec(), first),
                (Vec::new(), false),
                (b"two".to_vec(), false),
            ]
        };
        let far = sent_and_reset(SocketType::SEQPACKET);
        let mut by = |room: &mut [u8]| receive(far.as_fd(), room, true).unwrap().unwrap();
        assert_eq!(taken(&mut by), sent(true));
        let far = sent_and_reset(SocketType::SEQPACKET);
        let mut by = |room: &mut [u8]| {
            let got = descriptors::receive(far.as_fd(), room, 1, true);
            got.unwrap().unwrap()
        };
        assert_eq!(taken(&mut by), sent(true));
    }

    #[test]
    fn a_stream_tells_its_reset_after_what_was_sent() {
        let mut scratch = [0; 9];
        let far = sent_and_reset(SocketType::STREAM);
        let got = receive(far.as_fd(), &mut scratch, false).unwrap().unwrap();
        assert_eq!((got.length, got.reset), (6, false));
        let end = receive(far.as_fd(), &mut scratch, false);
        assert!(matches!(end, Err(Fault::Source(Errno::CONNRESET))));
    }

    #[test]
    fn a_reset_after_nothing_is_seen() {
        let mut scratch = [0; 3];
        let (near, far) = pair(SocketType::SEQPACKET);
        send(far.as_fd(), b"unread", &[]).unwrap();
        drop(near);
        let got = receive(far.as_fd(), &mut scratch, true).unwrap().unwrap();
        assert_eq!((got.length, got.reset), (0, true));
        assert!(is_at_end(far.as_fd(), true));
    }
}
