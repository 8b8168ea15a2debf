//! The proof of the process, in frames: CHALLENGE, PROOF, and a second look at the
//! executable.
//!
//! Up to the proof no byte is read that is not part of it, and each with the sender
//! that the kernel attached, so that bytes of two senders are never mixed.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::limits::Limits;
use crate::frame::{
    Frame, FrameError, FrameLimit, GREETING_BYTES, Greeting, HEADER_BYTES, Header, Kind, Side,
};
use crate::ids::Pid;
use crate::peer::proof::{Challenge, Progress};
use crate::peer::{Fact, FactKind, Facts, Inspector, Needs, ProcessFacts};
use crate::service::{CloseReason, Connection, Interest, Wait, Waker};
use crate::sys::peer::{pass_credentials, receive};
use crate::sys::time::after;

/// What the second look may take beyond the checker's own bound.
const GRACE: Duration = Duration::from_secs(1);

/// How a proof stands.
pub(super) enum Proved {
    /// It isn't done.
    Wait(Wait),
    /// It is; what the peer's greeting says it accepts.
    Yes(FrameLimit),
    /// It failed; nothing is said.
    No(CloseReason),
    /// The peer doesn't speak the protocol.
    Violation(FrameError),
}

/// A proof that is being asked for.
pub(super) struct Proving {
    challenge: Challenge,
    inspector: Inspector,
    /// What of greeting and CHALLENGE has not left yet.
    unsent: Vec<u8>,
    /// Greeting and header of PROOF, as far as they have come.
    head: Vec<u8>,
    accepts: Option<FrameLimit>,
    answer: Option<Arc<Mutex<Option<ProcessFacts>>>>,
    patience: Duration,
    until: Option<Instant>,
}

impl Proving {
    /// Makes the kernel attach senders, and draws the challenge.
    ///
    /// # Errors
    ///
    /// As getrandom(2) and setsockopt(2).
    pub(super) fn new(
        connection: &Connection,
        pid: Pid,
        limits: &Limits,
        inspector: Inspector,
    ) -> std::io::Result<Self> {
        pass_credentials(connection.as_fd(), true)?;
        let challenge = Challenge::new(pid)?;
        let accepts = limits.frame;
        let mut unsent = Greeting { accepts }.encode().to_vec();
        Frame::Challenge {
            nonce: *challenge.bytes(),
        }
        .encode(&mut unsent);
        Ok(Self {
            challenge,
            inspector,
            unsent,
            head: Vec::new(),
            accepts: None,
            answer: None,
            patience: limits.proof_timeout,
            until: None,
        })
    }

    pub(super) fn go_on(&mut self, connection: &Connection, waker: &Waker, now: Instant) -> Proved {
        let until = *self.until.get_or_insert_with(|| after(now, self.patience));
        if until <= now {
            return Proved::No(CloseReason::ProofFailed);
        }
        if !self.unsent.is_empty() {
            match connection.send(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent.unwrap_or(0))),
                Err(error) => return Proved::No(connection.reason_for(&error)),
            }
        }
        if self.answer.is_some() {
            return self.confirm(connection, until);
        }
        self.read(connection, waker, until, now)
    }

    fn read(
        &mut self,
        connection: &Connection,
        waker: &Waker,
        until: Instant,
        now: Instant,
    ) -> Proved {
        loop {
            let mut buffer = [0; GREETING_BYTES + HEADER_BYTES];
            let missing = match self.head.len() {
                got @ ..GREETING_BYTES => GREETING_BYTES.saturating_sub(got),
                got => (GREETING_BYTES + HEADER_BYTES).saturating_sub(got),
            };
            let missing = if missing == 0 {
                self.challenge.remaining()
            } else {
                missing
            };
            let free = buffer.get_mut(..missing).unwrap_or_default();
            let received = match receive(connection.as_fd(), free) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Proved::Wait(self.wait(until));
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Proved::No(connection.reason_for(&error)),
            };
            connection.count(received.bytes, 0);
            if received.had_descriptors {
                return Proved::No(CloseReason::DescriptorsRefused);
            }
            let bytes = free.get(..received.bytes).unwrap_or_default();
            if bytes.is_empty() {
                return Proved::No(CloseReason::Finished);
            }
            if self.head.len() < GREETING_BYTES + HEADER_BYTES {
                self.head.extend_from_slice(bytes);
                match self.check_head() {
                    Ok(()) => continue,
                    Err(error) => return Proved::Violation(error),
                }
            }
            match self.challenge.take(bytes, received.sender) {
                Ok(Progress::Pending) => (),
                Ok(Progress::Proved) => return self.look_again(connection, waker, now),
                Err(failure) => {
                    crate::limited!(
                        notice, conn = connection.id();
                        "no proof of the process: {failure}"
                    );
                    return Proved::No(CloseReason::ProofFailed);
                }
            }
        }
    }

    /// Checks greeting and header as soon as each is whole.
    fn check_head(&mut self) -> Result<(), FrameError> {
        let Some((greeting, header)) = self.head.split_first_chunk::<GREETING_BYTES>() else {
            return Ok(());
        };
        self.accepts = Some(Greeting::parse(greeting)?.accepts);
        let Some(header) = header.first_chunk::<HEADER_BYTES>() else {
            return Ok(());
        };
        let header = Header::parse(header, Side::Client)?;
        match header {
            Header {
                kind: Kind::Proof,
                id: 0,
                ..
            } => Ok(()),
            Header {
                kind: Kind::Proof, ..
            } => Err(FrameError::Id(Kind::Proof)),
            // Nothing else is served before it.
            _ => Err(FrameError::WrongSide(header.kind)),
        }
    }

    /// The process is the one that connected; now, what does it run?
    fn look_again(&mut self, connection: &Connection, waker: &Waker, now: Instant) -> Proved {
        let place: Arc<Mutex<Option<ProcessFacts>>> = Arc::default();
        self.answer = Some(Arc::clone(&place));
        let waker = waker.clone();
        let on_done = move |facts| {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
            waker.wake();
        };
        let exe = Needs::only(FactKind::Exe);
        self.inspector
            .learn_later(connection.peer(), exe, Box::new(on_done));
        // That the checker takes its time is not the peer's doing.
        let until = after(now, self.inspector.patience().saturating_add(GRACE));
        self.until = Some(until);
        self.confirm(connection, until)
    }

    fn confirm(&mut self, connection: &Connection, until: Instant) -> Proved {
        let answer = self.answer.as_ref().and_then(|answer| {
            let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
            answer.take()
        });
        let Some(process) = answer else {
            return Proved::Wait(Wait {
                until: Some(until),
                ..Wait::default()
            });
        };
        let mut facts = Facts::of(Fact::Unasked);
        facts.absorb(process);
        if let Err(reason) = connection.authorized().still_holds(&facts) {
            crate::limited!(
                notice, conn = connection.id();
                "the process is no longer what was admitted: {reason}"
            );
            return Proved::No(CloseReason::ProofFailed);
        }
        // From here on senders are of no interest; attaching them costs time.
        let passes = pass_credentials(connection.as_fd(), false);
        match (passes, self.accepts) {
            (Ok(()), Some(accepts)) => Proved::Yes(accepts),
            _ => Proved::No(CloseReason::ServiceError),
        }
    }

    fn wait(&self, until: Instant) -> Wait {
        let write = !self.unsent.is_empty();
        Wait {
            client: Interest { read: true, write },
            until: Some(until),
            ..Wait::default()
        }
    }
}
