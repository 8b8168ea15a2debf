//! One reader of the metrics: judged, heard, answered, closed.
//!
//! Never waits; each has a deadline that a byte now and then does not extend.
//!
//! Not here: what the bytes of a request mean (`metrics_request`).
#![forbid(unsafe_code)]
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

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::exposition::Form;
use super::metrics_request::{Heard, Request};
use super::rules::Rules;
use crate::ids::Uid;
use crate::listener::Accepted;
use crate::peer::{Facts, Needs, Peer, ProcessFacts};
use crate::policy::Denial;
use crate::sys;

/// How long one may take, for request and answer together, beyond what the process
/// checker takes.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often an answer of the checker is looked for.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// How much is read after a request.
const MOST_REST: usize = 64 * 1024;

/// How far one is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// It waits for [`Reader::events`].
    Pending,
    /// It is done, or given up.
    Over,
}

/// Where the checker puts what it read.
type Answer = Arc<Mutex<Option<ProcessFacts>>>;

enum Stage {
    /// The policy has not said yes; perhaps the checker was asked.
    Judging(Option<Answer>),
    /// The request, as far as it has come.
    Request(Request),
    /// The response, and how much of it was sent.
    Response(Vec<u8>, usize),
    /// A close with data unread would reset the connection, and the peer might lose
    /// the end of the answer. So much was read since.
    Rest(usize),
}

/// One connection to the metrics socket.
pub(super) struct Reader {
    socket: OwnedFd,
    peer: Peer,
    facts: Facts,
    rules: Arc<Rules>,
    stage: Stage,
    until: Instant,
}

impl Reader {
    pub(super) fn new(accepted: Accepted, rules: Arc<Rules>, now: Instant) -> Self {
        let needs = rules.policy.needs();
        let peer = match accepted.address {
            Some(address) => Peer::from_address(address),
            None => Peer::from_socket(accepted.socket.as_fd(), needs, rules.pidfd_source),
        };
        let facts = peer.facts().clone();
        let patience = PATIENCE.saturating_add(rules.inspector.patience());
        let until = sys::time::after(now, patience);
        Self {
            socket: accepted.socket,
            peer,
            facts,
            rules,
            stage: Stage::Judging(None),
            until,
        }
    }

    /// Whom it counts for.
    pub(super) fn uid(&self) -> Option<Uid> {
        self.peer.credentials().and_then(|known| known.uid())
    }

    /// What to wait for; nothing while the checker reads.
    pub(super) fn events(&self) -> PollFlags {
        match self.stage {
            Stage::Judging(_) => PollFlags::empty(),
            Stage::Request(_) | Stage::Rest(_) => PollFlags::IN,
            Stage::Response(..) => PollFlags::OUT,
        }
    }

    /// Whether a part of its answer is still to be sent.
    pub(super) fn is_being_answered(&self) -> bool {
        matches!(self.stage, Stage::Response(..))
    }

    /// When to call [`go_on`](Self::go_on) at the latest.
    pub(super) fn next_look(&self) -> Instant {
        match self.stage {
            Stage::Judging(_) => self
                .until
                .min(sys::time::after(Instant::now(), BETWEEN_LOOKS)),
            _ => self.until,
        }
    }

    /// Goes on as far as possible without waiting.
    pub(super) fn go_on(
        &mut self,
        now: Instant,
        render: impl Fn(Form) -> String + Copy,
    ) -> Progress {
        match self.try_go_on(render) {
            Ok(Progress::Pending) if now < self.until => Progress::Pending,
            Ok(Progress::Over) => Progress::Over,
            Ok(Progress::Pending) => {
                crate::limited!(info, "metrics: {self} took too long and got no answer");
                Progress::Over
            }
            Err(error) => {
                crate::limited!(info, "metrics: {self} got no answer: {error}");
                Progress::Over
            }
        }
    }

    fn try_go_on(&mut self, render: impl Fn(Form) -> String + Copy) -> io::Result<Progress> {
        loop {
            let next = match &mut self.stage {
                Stage::Judging(_) => match self.judge() {
                    None => return Ok(Progress::Pending),
                    Some(Ok(())) => Stage::Request(Request::default()),
                    Some(Err(denial)) => {
                        crate::limited!(notice, "metrics: peer denied {} {denial}", self.facts);
                        return Ok(Progress::Over);
                    }
                },
                Stage::Request(request) => {
                    if !read_request(self.socket.as_fd(), request)? {
                        return Ok(Progress::Pending);
                    }
                    Stage::Response(request.answer(render), 0)
                }
                Stage::Response(bytes, sent) => {
                    if !send_all(self.socket.as_fd(), bytes, sent)? {
                        return Ok(Progress::Pending);
                    }
                    rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write)?;
                    Stage::Rest(0)
                }
                Stage::Rest(read) => {
                    // It has its answer: how it leaves is its own affair.
                    let mut part = [0; 2_048];
                    return Ok(match receive(self.socket.as_fd(), &mut part) {
                        Ok(None) => Progress::Pending,
                        Ok(Some(count)) if count > 0 && *read < MOST_REST => {
                            *read = read.saturating_add(count);
                            continue;
                        }
                        Ok(Some(_)) | Err(_) => Progress::Over,
                    });
                }
            };
            self.stage = next;
        }
    }

    /// The verdict. `None` while the checker reads.
    fn judge(&mut self) -> Option<Result<(), Denial>> {
        if let Stage::Judging(Some(answer)) = &self.stage {
            let process = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.facts.absorb(process?);
            self.stage = Stage::Judging(None);
        }
        let (policy, inspector) = (&self.rules.policy, &self.rules.inspector);
        loop {
            let asks: Needs = policy.asks(&self.facts);
            if asks.is_empty() {
                return Some(policy.check(&self.facts).map(drop));
            }
            let later = inspector.learn_now(&self.peer, &mut self.facts, asks);
            if !later.is_empty() {
                let answer = Answer::default();
                let place = Arc::clone(&answer);
                let on_done = move |process| {
                    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
                };
                inspector.learn_later(&self.peer, later, Box::new(on_done));
                self.stage = Stage::Judging(Some(answer));
                return None;
            }
        }
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.facts)
    }
}

/// Reads up to the end of the request. False if more is to come.
fn read_request(socket: BorrowedFd<'_>, request: &mut Request) -> io::Result<bool> {
    let mut part = [0; 2_048];
    while let Some(count) = receive(socket, &mut part)? {
        match request.take(part.get(..count).unwrap_or_default()) {
            Heard::Part => {}
            Heard::Whole => return Ok(true),
            Heard::TooLong => return Err(io::Error::other("the request is longer than 8 KiB")),
        }
    }
    Ok(false)
}

/// False if the peer has to take what was sent before.
fn send_all(socket: BorrowedFd<'_>, bytes: &[u8], sent: &mut usize) -> io::Result<bool> {
    while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
        match rustix::net::send(socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => *sent = sent.saturating_add(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// How much came, 0 at the end. `None` if nothing has come yet.
fn receive(socket: BorrowedFd<'_>, part: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match rustix::net::recv(socket, &mut *part, RecvFlags::DONTWAIT) {
            Ok((count, _)) => return Ok(Some(count)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
