//! An admitted connection: the socket, who is at its other end, and what moved.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

#[cfg(feature = "broker")]
use super::receiving::Receiving;
use super::stream::Attended;
use super::{CloseReason, Timeouts};
use crate::listener::{Listener, Sealed};
use crate::peer::{Credentials, Peer};
use crate::policy::Authorized;

/// What [`Connection::end_by_force`] stores when nobody forced an end.
const NOT_FORCED: u8 = u8::MAX;

/// An admitted connection. The last clone of its `Arc` closes the socket.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    socket: OwnedFd,
    kind: Kind,
    peer: Peer,
    authorized: Authorized,
    timeouts: Arc<Timeouts>,
    opened: Instant,
    admitted: Instant,
    received: AtomicU64,
    sent: AtomicU64,
    forced: AtomicU8,
    ends_with_peer: AtomicBool,
    /// What blocking services need besides; built-in ones do without.
    pub(super) attended: OnceLock<Box<Attended>>,
    #[cfg(feature = "broker")]
    receiving: Receiving,
}

/// What the driver knows of the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Kind {
    /// `SOCK_SEQPACKET`: a receive gives one whole message.
    pub(crate) packets: bool,
    /// The kernel can't refuse descriptors that the peer sends
    /// (`SO_PASSRIGHTS`, since 6.16): look for them at each receive.
    pub(crate) watch_descriptors: bool,
}

impl Kind {
    /// What a listener accepts.
    pub(crate) fn of(listener: &Listener<Sealed>) -> Self {
        Self {
            packets: listener.kind() == crate::listener::Kind::SeqPacket,
            watch_descriptors: listener.lets_descriptors_in(),
        }
    }
}

impl Connection {
    pub(crate) fn new(
        id: u64,
        socket: OwnedFd,
        kind: Kind,
        peer: Peer,
        authorized: Authorized,
        timeouts: Arc<Timeouts>,
        opened: Instant,
    ) -> Self {
        Self {
            id,
            socket,
            kind,
            peer,
            authorized,
            timeouts,
            opened,
            admitted: Instant::now(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            forced: AtomicU8::new(NOT_FORCED),
            ends_with_peer: AtomicBool::new(false),
            attended: OnceLock::new(),
            #[cfg(feature = "broker")]
            receiving: Receiving::default(),
        }
    }

    /// Its number: 1 for the first since the server started, never reused.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Who is at the other end, as the kernel reported it at accept.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Process, user and group of the peer, as the kernel recorded them at connect;
    /// [`Credentials::NONE`] for an internet peer.
    pub fn credentials(&self) -> Credentials {
        self.authorized.credentials()
    }

    /// Which rule admitted it.
    pub fn authorized(&self) -> &Authorized {
        &self.authorized
    }

    /// The bounds of time that held when it was accepted.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// When it was accepted (monotonic clock).
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// When it was admitted. The peer's time to speak runs from here: how long its
    /// examination took is not its doing.
    pub(crate) fn admitted(&self) -> Instant {
        self.admitted
    }

    /// Whether it carries messages (`SOCK_SEQPACKET`) and not a stream.
    pub fn is_packets(&self) -> bool {
        self.kind.packets
    }

    /// Has it end with the process that opened it, if that is held. Before others know it.
    pub(crate) fn end_with_peer(&self) {
        let is_held = self.peer.pidfd().is_some();
        self.ends_with_peer.store(is_held, Ordering::Relaxed);
    }

    /// Whether it ends with that process.
    pub(crate) fn ends_with_peer(&self) -> bool {
        self.ends_with_peer.load(Ordering::Relaxed)
    }

    /// Whether nothing more can come, and nobody can take anything: the last one who held
    /// the other end has closed it.
    pub(crate) fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let at_once = crate::sys::time::timespec(std::time::Duration::ZERO);
        let polled = rustix::event::poll(&mut fds, Some(&at_once));
        polled.is_ok() && fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP))
    }

    #[cfg(feature = "relay")]
    /// Whether a receive has to look for descriptors that the peer sent, because
    /// the kernel doesn't refuse them to it.
    pub(crate) fn watches_descriptors(&self) -> bool {
        self.kind.watch_descriptors
    }

    /// Bytes that came from the peer, and bytes that went to it.
    pub fn traffic(&self) -> (u64, u64) {
        (
            self.received.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        )
    }

    /// Counts bytes that a service moved by calls of its own (splice, sendmsg).
    pub fn count(&self, received: usize, sent: usize) {
        // One thread at a time steps a connection, so a load and a store
        // suffice; others only read.
        if received > 0 {
            add(&self.received, received);
        }
        if sent > 0 {
            self.sent.fetch_add(sent as u64, Ordering::Relaxed);
        }
    }

    /// Receives once. `Some(0)` is the end of a stream, or an empty message;
    /// `None` says that nothing is there (and the call was not to block, or was
    /// interrupted).
    ///
    /// # Errors
    /// As recvmsg(2); `ConnectionReset` when the peer is gone,
    /// `InvalidData` for a message longer than `buffer`, `PermissionDenied`
    /// when the peer sent descriptors. [`reason_for`](Self::reason_for) tells them apart.
    pub fn recv(&self, buffer: &mut [u8], may_block: bool) -> io::Result<Option<usize>> {
        let mut flags = if may_block {
            RecvFlags::empty()
        } else {
            RecvFlags::DONTWAIT
        };
        if self.kind.watch_descriptors {
            return self.recv_watching(buffer, flags);
        }
        if self.kind.packets {
            flags |= RecvFlags::TRUNC;
        }
        loop {
            let room = buffer.len();
            match rustix::net::recv(&self.socket, &mut *buffer, flags) {
                Ok((_, length)) if length > room => return Err(io::ErrorKind::InvalidData.into()),
                Ok((_, length)) => {
                    add(&self.received, length);
                    return Ok(Some(length));
                }
                Err(Errno::AGAIN) => return Ok(None),
                // Somebody interrupted a blocking receive: let the driver look why.
                Err(Errno::INTR) if may_block => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    #[cfg(feature = "broker")]
    /// Receives once, and blocks until something is there, somebody
    /// [interrupts](Self::interrupt) it, or, if it is `bounded`, for [`BOUND`] at
    /// most. `None` says that nothing has come.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub(crate) fn wait_and_recv(
        &self,
        buffer: &mut [u8],
        bounded: bool,
    ) -> io::Result<Option<usize>> {
        let receive = || self.recv(buffer, true);
        self.receiving.run(self.as_fd(), bounded, receive)
    }

    #[cfg(feature = "broker")]
    /// Ends a [`wait_and_recv`](Self::wait_and_recv), the present one or the next.
    pub(crate) fn interrupt(&self) {
        self.receiving.interrupt(self.as_fd());
    }

    fn recv_watching(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<Option<usize>> {
        let mut control = rustix::net::RecvAncillaryBuffer::default();
        loop {
            let mut parts = [io::IoSliceMut::new(buffer)];
            match rustix::net::recvmsg(&self.socket, &mut parts, &mut control, flags) {
                Ok(message) if message.flags.contains(rustix::net::ReturnFlags::CTRUNC) => {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                Ok(message) if message.flags.contains(rustix::net::ReturnFlags::TRUNC) => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Ok(message) => {
                    add(&self.received, message.bytes);
                    return Ok(Some(message.bytes));
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) if flags.contains(RecvFlags::DONTWAIT) => {}
                Err(Errno::INTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether the peer has sent something that nobody has received yet.
    pub(crate) fn has_unread(&self) -> bool {
        let mut next = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = rustix::net::recv(&self.socket, &mut next[..], flags);
        matches!(peeked, Ok((_, 1..)))
    }

    /// Sends what fits now, without waiting and without SIGPIPE. `None` says
    /// that nothing fits.
    ///
    /// # Errors
    /// As send(2); `BrokenPipe` or `ConnectionReset` when the peer is gone.
    pub fn send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        loop {
            match rustix::net::send(
                &self.socket,
                bytes,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(length) => {
                    self.sent.fetch_add(length as u64, Ordering::Relaxed);
                    return Ok(Some(length));
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells a receive of 0 bytes apart: the end, or an empty message. Several empty
    /// messages on end, followed by the end of data, count as the end.
    ///
    /// # Errors
    /// As poll(2) and recv(2).
    pub fn is_at_end(&self) -> io::Result<bool> {
        if !self.kind.packets {
            return Ok(true);
        }
        // Whatever comes behind it, the end or nothing yet: only an empty record
        // leaves more to receive, or nothing.
        let mut next = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&self.socket, &mut next[..], flags) {
            Ok((_, 0)) => {}
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        rustix::event::poll(&mut fds, Some(&now))?;
        Ok(fds.iter().any(|fd| !fd.revents().is_empty()))
    }

    /// Ends the connection from any thread: whoever waits on the socket wakes
    /// up, and the connection closes with `reason`. The first reason stays.
    pub fn end_by_force(&self, reason: CloseReason) {
        let code = u8::try_from(reason.index()).unwrap_or(0);
        let first =
            self.forced
                .compare_exchange(NOT_FORCED, code, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            // ENOTCONN says that the peer was quicker.
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        }
    }

    /// The reason given to [`end_by_force`](Self::end_by_force), if it was called.
    pub fn forced(&self) -> Option<CloseReason> {
        match self.forced.load(Ordering::Acquire) {
            NOT_FORCED => None,
            code => CloseReason::from_index(usize::from(code)),
        }
    }

    /// The reason to close with after an error of [`recv`](Self::recv) or
    /// [`send`](Self::send).
    pub fn reason_for(&self, error: &io::Error) -> CloseReason {
        match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::TimedOut => CloseReason::PeerReset,
            io::ErrorKind::InvalidData => CloseReason::MessageTooLarge,
            io::ErrorKind::PermissionDenied => CloseReason::DescriptorsRefused,
            _ => CloseReason::ServiceError,
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn add(counter: &AtomicU64, length: usize) {
    let now = counter.load(Ordering::Relaxed).wrapping_add(length as u64);
    counter.store(now, Ordering::Relaxed);
}
