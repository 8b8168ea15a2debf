//! The proof that the process which was checked is the one at the other end now.
//!
//! A process may connect, write, and then run the trusted program: seen from
//! outside it is that program. So 16 random bytes are sent after the check, and
//! must come back in messages that the kernel stamps with the peer's pid
//! (unix(7), `SCM_CREDENTIALS`); after that the executable is checked once more.
//! Bytes sent before the check can't hold them, and a child that kept the
//! descriptor has another pid.
//!
//! Not here: when a proof is asked for, and the second check.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::ids::Pid;
use crate::sys::peer::{RawCredentials, random, receive};

/// The length of a challenge in bytes.
pub const PROOF_BYTES: usize = 16;

/// Why a proof failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProofFailure {
    /// It did not come in time.
    Timeout,
    /// The peer closed the connection instead.
    Closed,
    /// Other bytes came back.
    WrongBytes,
    /// They came from another process, or from nobody that the kernel would name.
    ForeignProcess,
    /// Descriptors came with it.
    Descriptors,
    /// The socket failed.
    Io(io::Error),
}

impl fmt::Display for ProofFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "the proof did not come in time",
            Self::Closed => "the peer closed instead of the proof",
            Self::WrongBytes => "the proof is not the challenge",
            Self::ForeignProcess => "the proof came from another process",
            Self::Descriptors => "descriptors came with the proof",
            Self::Io(_) => "the socket failed during the proof",
        })
    }
}

impl std::error::Error for ProofFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Io(error) = self {
            Some(error)
        } else {
            None
        }
    }
}

/// How far a proof is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More bytes are to come.
    Pending,
    /// Done; what follows in the socket has not been touched.
    Proved,
}

/// One challenge to one process. Pure but for [`Challenge::receive`].
pub struct Challenge {
    bytes: [u8; PROOF_BYTES],
    pid: Pid,
    received: usize,
    differs: u8,
}

// The bytes are a secret until they have come back.
impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge")
            .field("pid", &self.pid)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Challenge {
    /// A new challenge to the process that was checked.
    ///
    /// # Errors
    ///
    /// As getrandom(2).
    pub fn new(pid: Pid) -> io::Result<Self> {
        Ok(Self {
            bytes: random()?,
            pid,
            received: 0,
            differs: 0,
        })
    }

    /// What to send to the peer, after its check.
    pub fn bytes(&self) -> &[u8; PROOF_BYTES] {
        &self.bytes
    }

    /// How many bytes are still to come.
    pub fn remaining(&self) -> usize {
        PROOF_BYTES.saturating_sub(self.received)
    }

    /// Takes in some bytes of the answer, and who sent them.
    ///
    /// # Errors
    ///
    /// As soon as the proof can't succeed any more, but wrong bytes only when all
    /// have come: how many were right is nobody's business.
    pub fn take(
        &mut self,
        bytes: &[u8],
        sender: Option<RawCredentials>,
    ) -> Result<Progress, ProofFailure> {
        if sender.is_none_or(|sender| Pid::from_raw(sender.pid) != Some(self.pid)) {
            return Err(ProofFailure::ForeignProcess);
        }
        if bytes.len() > self.remaining() {
            return Err(ProofFailure::WrongBytes);
        }
        let expected = self.bytes.iter().skip(self.received);
        self.differs |= expected
            .zip(bytes)
            .fold(0, |differs, (a, b)| differs | (a ^ b));
        self.received = self.received.saturating_add(bytes.len());
        match (self.remaining(), self.differs) {
            (0, 0) => Ok(Progress::Proved),
            (0, _) => Err(ProofFailure::WrongBytes),
            _ => Ok(Progress::Pending),
        }
    }

    /// Receives once from a socket that has `SO_PASSCRED` on, without waiting, and
    /// no more than what the proof still lacks.
    ///
    /// # Errors
    ///
    /// As [`Challenge::take`]; [`ProofFailure::Io`] if the socket fails, but not
    /// where nothing has come yet: that is [`Progress::Pending`].
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<Progress, ProofFailure> {
        let mut buffer = [0; PROOF_BYTES];
        let free = buffer.get_mut(..self.remaining()).unwrap_or_default();
        let received = match receive(socket, free) {
            Ok(received) => received,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {
                    return Ok(Progress::Pending);
                }
                _ => return Err(ProofFailure::Io(error)),
            },
        };
        if received.had_descriptors {
            return Err(ProofFailure::Descriptors);
        }
        match free.get(..received.bytes) {
            None | Some([]) => Err(ProofFailure::Closed),
            Some(bytes) => self.take(bytes, received.sender),
        }
    }
}

/// Sends the challenge and waits for it to come back, until the deadline. The
/// socket must have `SO_PASSCRED` on, set on its listener before the peer connected.
///
/// # Errors
///
/// Why the peer must be denied.
pub fn challenge(socket: BorrowedFd<'_>, pid: Pid, deadline: Instant) -> Result<(), ProofFailure> {
    let mut challenge = Challenge::new(pid).map_err(ProofFailure::Io)?;
    send_all(socket, challenge.bytes(), deadline)?;
    loop {
        wait(socket, PollFlags::IN, deadline)?;
        if challenge.receive(socket)? == Progress::Proved {
            return Ok(());
        }
    }
}

/// The client's side: takes the 16 bytes of the server and returns them.
///
/// # Errors
///
/// [`ProofFailure::Closed`] if the server closes, which it also does with a peer
/// that it denies; [`ProofFailure::Timeout`], [`ProofFailure::Io`].
pub fn answer(socket: BorrowedFd<'_>, deadline: Instant) -> Result<(), ProofFailure> {
    let mut bytes = [0; PROOF_BYTES];
    let mut got = 0;
    while let Some(free) = bytes.get_mut(got..).filter(|free| !free.is_empty()) {
        wait(socket, PollFlags::IN, deadline)?;
        match recv(socket, free, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(ProofFailure::Closed),
            Ok((_, count)) => got = got.saturating_add(count),
            Err(error) => later(error)?,
        }
    }
    send_all(socket, &bytes, deadline)
}

fn send_all(
    socket: BorrowedFd<'_>,
    mut bytes: &[u8],
    deadline: Instant,
) -> Result<(), ProofFailure> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) => {
                later(error)?;
                wait(socket, PollFlags::OUT, deadline)?;
            }
        }
    }
    Ok(())
}

/// Passes over what asks for another try.
fn later(error: rustix::io::Errno) -> Result<(), ProofFailure> {
    use rustix::io::Errno;
    match error {
        Errno::AGAIN | Errno::INTR => Ok(()),
        Errno::PIPE | Errno::CONNRESET => Err(ProofFailure::Closed),
        _ => Err(ProofFailure::Io(error.into())),
    }
}

fn wait(socket: BorrowedFd<'_>, events: PollFlags, deadline: Instant) -> Result<(), ProofFailure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ProofFailure::Timeout);
        }
        // Longer waits are cut, and begun again.
        let left = left.min(Duration::from_secs(3_600));
        let timeout = Timespec::try_from(left).map_err(|_| ProofFailure::Timeout)?;
        match poll(
            &mut [PollFd::from_borrowed_fd(socket, events)],
            Some(&timeout),
        ) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(ProofFailure::Io(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(pid: i32) -> Option<RawCredentials> {
        Some(RawCredentials {
            pid,
            uid: 0,
            gid: 0,
        })
    }

    fn new() -> Challenge {
        Challenge::new(Pid::from_raw(7).unwrap()).unwrap()
    }

    #[test]
    fn the_same_bytes_of_the_same_process_prove() {
        let mut challenge = new();
        let bytes = *challenge.bytes();
        assert_eq!(challenge.take(&bytes, by(7)).unwrap(), Progress::Proved);
    }

    #[test]
    fn they_may_come_one_at_a_time() {
        let mut challenge = new();
        let bytes = *challenge.bytes();
        for (index, byte) in bytes.iter().enumerate() {
            let progress = challenge.take(&[*byte], by(7)).unwrap();
            assert_eq!(progress == Progress::Proved, index == 15);
        }
    }

    #[test]
    fn one_byte_of_another_process_spoils_all() {
        let mut challenge = new();
        let bytes = *challenge.bytes();
        challenge.take(&bytes[..15], by(7)).unwrap();
        let failure = challenge.take(&bytes[15..], by(8)).unwrap_err();
        assert!(matches!(failure, ProofFailure::ForeignProcess));
        for sender in [None, by(0), by(-1)] {
            let failure = new().take(&bytes, sender).unwrap_err();
            assert!(matches!(failure, ProofFailure::ForeignProcess));
        }
    }

    #[test]
    fn wrong_bytes_are_told_only_at_the_end() {
        let mut challenge = new();
        let mut bytes = *challenge.bytes();
        bytes[0] ^= 1;
        assert_eq!(
            challenge.take(&bytes[..15], by(7)).unwrap(),
            Progress::Pending
        );
        let failure = challenge.take(&bytes[15..], by(7)).unwrap_err();
        assert!(matches!(failure, ProofFailure::WrongBytes));
        let failure = new().take(&[0; 17], by(7)).unwrap_err();
        assert!(matches!(failure, ProofFailure::WrongBytes));
    }
}
