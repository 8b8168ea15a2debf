//! Two sockets joined: both directions at once, and what the end of one means
//! for the other.
//!
//! An end is passed on as an end, a reset as a reset (over TCP by a close with
//! zero linger; a Unix socket can only be closed, and its kernel tells the other
//! side of a reset where data was left unread). A side that takes no more is told
//! to its writer as the kernel would: its next write fails.
//!
//! Invariants: what a side sent before it closed is still delivered; the other
//! side's answer too, after the first has shut down its writing half. Whoever is
//! dropped before both directions ended resets, so that a cut stream never looks whole.
//!
//! Not here: connecting, and who drives it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, sockopt};

use super::flow::{Fault, Flow, Shape, State, Tools};

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Client,
    Upstream,
}

/// What is reported of one side, or waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Events {
    pub(super) read: bool,
    pub(super) write: bool,
    /// The side is gone in both directions (reported only).
    pub(super) hangup: bool,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Both directions ended in order.
    Finished,
    /// That side reset the connection.
    Reset(Side),
    /// The client went away with data on its way to it; all of its own was delivered.
    Vanished,
    /// That side took too little within `write_timeout`.
    Stalled(Side),
    /// Nothing moved for `half_close_timeout` after one direction had ended.
    HalfClosed,
    /// That side sent a message that is too large for the buffer or for the other side.
    TooLarge(Side),
    /// That side sent descriptors that are not passed on.
    Descriptors(Side),
    /// The server itself cut the connection.
    Cut,
    /// The system refused something.
    System(Errno),
}

/// What a step ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// To be stepped again, without waiting.
    More,
    /// To be stepped when one of these came, or the time.
    Wait {
        client: Events,
        upstream: Events,
        until: Option<Instant>,
    },
    /// Over. The upstream is closed when this is dropped, as the end demands.
    Over(End),
}

/// Two sockets. Owns the upstream's; the client's belongs to its connection.
pub(super) struct Joint {
    upstream: OwnedFd,
    /// From client to upstream.
    up: Flow,
    /// From upstream to client.
    down: Flow,
    half_close: Option<Duration>,
    /// When the one direction that is left is given up.
    half_closed_until: Option<Instant>,
    /// A reset that a send reported: the kernel says it once only.
    reset: Option<Side>,
    /// The client went away with data on its way to it.
    vanished: bool,
    /// What follows is an orderly close.
    over: bool,
}

impl Joint {
    /// `ahead` goes to the upstream before anything from the client.
    pub(super) fn new(
        upstream: OwnedFd,
        shapes: (Shape, Shape),
        half_close: Option<Duration>,
        ahead: Vec<u8>,
    ) -> Self {
        Self {
            upstream,
            // Clients mostly speak first, and have by now.
            up: Flow::new(shapes.0, ahead, true),
            down: Flow::new(shapes.1, Vec::new(), false),
            half_close,
            half_closed_until: None,
            reset: None,
            vanished: false,
            over: false,
        }
    }

    pub(super) fn upstream(&self) -> BorrowedFd<'_> {
        self.upstream.as_fd()
    }

    /// Bytes that came from the client and that went to it, since the last call.
    pub(super) fn tally(&mut self) -> (usize, usize) {
        (self.up.tally().0, self.down.tally().1)
    }

    /// Goes on as far as possible, within bounds.
    pub(super) fn step(
        &mut self,
        client: BorrowedFd<'_>,
        events: (Events, Events),
        tools: &mut Tools<'_>,
    ) -> Outcome {
        self.take_note(client, events);
        let up = match self.step_one(client, Side::Client, tools) {
            Ok(state) => state,
            Err(end) => return self.end(client, end),
        };
        let down = match self.step_one(client, Side::Upstream, tools) {
            Ok(state) => state,
            Err(end) => return self.end(client, end),
        };
        if self.up.is_done() && self.down.is_done() {
            return self.end(client, self.both_done());
        }
        if up == State::More || down == State::More {
            return Outcome::More;
        }
        if let Some(end) = self.watch_half_close(tools.now) {
            return self.end(client, end);
        }
        let times = [self.up.until(), self.down.until(), self.half_closed_until];
        Outcome::Wait {
            client: Events {
                read: up == State::NeedsSource,
                write: down == State::NeedsSink,
                hangup: false,
            },
            upstream: Events {
                read: down == State::NeedsSource,
                write: up == State::NeedsSink,
                hangup: false,
            },
            until: times.into_iter().flatten().min(),
        }
    }

    fn take_note(&mut self, client: BorrowedFd<'_>, (at_client, at_upstream): (Events, Events)) {
        if at_client.read {
            self.up.source_is_ready();
        }
        if at_upstream.read {
            self.down.source_is_ready();
        }
        if at_client.write {
            self.down.sink_is_ready();
        }
        if at_upstream.write {
            self.up.sink_is_ready();
        }
        if at_client.hangup {
            self.up.source_is_ready();
            if is_reset(client) {
                self.note_reset(Side::Client);
            }
            self.sink_is_gone(client, Side::Client);
        }
        if at_upstream.hangup {
            self.down.source_is_ready();
            if is_reset(self.upstream.as_fd()) {
                self.note_reset(Side::Upstream);
            }
            self.sink_is_gone(client, Side::Upstream);
        }
    }

    /// Keeps a reset in mind that the kernel won't report again: what the side
    /// sent before is still to be read.
    fn note_reset(&mut self, side: Side) {
        self.reset = self.reset.or(Some(side));
        match side {
            Side::Client => self.up.expect_reset(),
            Side::Upstream => self.down.expect_reset(),
        }
    }

    fn both_done(&self) -> End {
        match self.reset {
            Some(side) => End::Reset(side),
            None if self.vanished => End::Vanished,
            None => End::Finished,
        }
    }

    /// One direction, named by its source.
    fn step_one(
        &mut self,
        client: BorrowedFd<'_>,
        from: Side,
        tools: &mut Tools<'_>,
    ) -> Result<State, End> {
        let upstream = self.upstream.as_fd();
        let (flow, source, sink, to) = match from {
            Side::Client => (&mut self.up, client, upstream, Side::Upstream),
            Side::Upstream => (&mut self.down, upstream, client, Side::Client),
        };
        let fault = match flow.step(source, sink, tools) {
            Ok(state) => return Ok(state),
            Err(fault) => fault,
        };
        match fault {
            Fault::Source(error) if is_gone(error) => Err(End::Reset(from)),
            Fault::Sink(error) if is_gone(error) => {
                if error == Errno::CONNRESET {
                    self.note_reset(to);
                }
                self.sink_is_gone(client, to);
                Ok(State::Done)
            }
            Fault::Source(error) | Fault::Sink(error) | Fault::System(error) => {
                Err(End::System(error))
            }
            Fault::Cut => Err(End::Cut),
            Fault::Stalled => Err(End::Stalled(to)),
            Fault::TooLarge => Err(End::TooLarge(from)),
            Fault::Descriptors => Err(End::Descriptors(from)),
        }
    }

    /// A side takes nothing more: whoever writes to it is told, and what it
    /// wrote itself is still delivered.
    fn sink_is_gone(&mut self, client: BorrowedFd<'_>, gone: Side) {
        let (flow, source) = match gone {
            Side::Client => (&mut self.down, self.upstream.as_fd()),
            Side::Upstream => (&mut self.up, client),
        };
        if flow.is_done() {
            return;
        }
        self.vanished |= gone == Side::Client && flow.holds_data();
        flow.give_up();
        let _ = rustix::net::shutdown(source, Shutdown::Read);
    }

    fn watch_half_close(&mut self, now: Instant) -> Option<End> {
        let bound = self.half_close?;
        if !self.up.is_done() && !self.down.is_done() {
            return None;
        }
        let left = if self.up.is_done() {
            &mut self.down
        } else {
            &mut self.up
        };
        if left.has_moved() || self.half_closed_until.is_none() {
            self.half_closed_until = now.checked_add(bound);
            return None;
        }
        self.half_closed_until
            .filter(|until| now >= *until)
            .map(|_| End::HalfClosed)
    }

    /// Makes the closes that follow say what happened.
    fn end(&mut self, client: BorrowedFd<'_>, end: End) -> Outcome {
        self.over = match end {
            End::Finished | End::Vanished => true,
            // Closing a Unix socket with data unread is no wish to undo what was
            // sent on it, and a TCP reset would: see tcp(7) and unix(7).
            End::Reset(Side::Client) => !is_tcp(client),
            End::Reset(Side::Upstream) => !is_tcp(self.upstream.as_fd()),
            _ => false,
        };
        if !self.over {
            abort_on_close(client);
        }
        Outcome::Over(end)
    }
}

impl Drop for Joint {
    fn drop(&mut self) {
        if !self.over {
            abort_on_close(self.upstream.as_fd());
        }
    }
}

/// Whether an error means that the other end is gone.
fn is_gone(error: Errno) -> bool {
    matches!(
        error,
        Errno::PIPE
            | Errno::CONNRESET
            | Errno::CONNABORTED
            | Errno::NOTCONN
            | Errno::TIMEDOUT
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
    )
}

/// Whether a reset is pending; asking clears it.
fn is_reset(fd: BorrowedFd<'_>) -> bool {
    matches!(
        sockopt::socket_error(fd),
        Ok(Err(Errno::CONNRESET | Errno::TIMEDOUT))
    )
}

/// The close will send RST and drop what is on its way (socket(7), `SO_LINGER`).
/// Means nothing to a Unix socket.
fn abort_on_close(fd: BorrowedFd<'_>) {
    let _ = sockopt::set_socket_linger(fd, Some(Duration::ZERO));
}

fn is_tcp(fd: BorrowedFd<'_>) -> bool {
    let domain = sockopt::socket_domain(fd);
    domain.is_ok_and(|domain| domain != AddressFamily::UNIX)
}
