//! Messages that carry descriptors (`SCM_RIGHTS`, unix(7)).
//!
//! Invariants: what is received is owned, so whoever returns early closes it;
//! more than the bound is an error, and none of them stays open.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::flow::Fault;
use super::wire::Received;

/// Descriptors that the kernel lets one message carry (`SCM_MAX_FD`).
pub const DESCRIPTORS_MAX: usize = 253;

/// Room for the largest message, and for credentials where a listener asks for them.
const ROOM: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX), ScmCredentials(1));

/// Receives once. `None` if nothing is there.
pub(super) fn receive(
    source: BorrowedFd<'_>,
    scratch: &mut [u8],
    bound: usize,
    packets: bool,
) -> Result<Option<Received>, Fault> {
    let mut room = [MaybeUninit::<u8>::uninit(); ROOM];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let mut reset = false;
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let mut parts = [IoSliceMut::new(scratch)];
        let message = match rustix::net::recvmsg(source, &mut parts, &mut control, flags) {
            Ok(message) => message,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => continue,
            // As in `wire::receive`.
            Err(Errno::CONNRESET) if packets && !reset => {
                reset = true;
                continue;
            }
            Err(error) => return Err(Fault::Source(error)),
        };
        let descriptors: Vec<OwnedFd> = control
            .drain()
            .filter_map(|part| match part {
                RecvAncillaryMessage::ScmRights(rights) => Some(rights),
                _ => None,
            })
            .flatten()
            .collect();
        // Cut short: the kernel found no free number for the rest, and closed it.
        if message.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > bound {
            return Err(Fault::Descriptors);
        }
        if message.flags.contains(ReturnFlags::TRUNC) {
            return Err(Fault::TooLarge);
        }
        return Ok(Some(Received {
            length: message.bytes,
            with: descriptors,
            reset,
        }));
    }
}

/// Sends what fits, with the descriptors at its first byte.
pub(super) fn send(sink: BorrowedFd<'_>, bytes: &[u8], with: &[OwnedFd]) -> Result<usize, Errno> {
    let borrowed: Vec<BorrowedFd<'_>> = with.iter().map(AsFd::as_fd).collect();
    let mut room = [MaybeUninit::<u8>::uninit(); ROOM];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match rustix::net::sendmsg(sink, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
