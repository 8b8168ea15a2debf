//! `echo`: every byte, or message, goes back to the peer that sent it.
//!
//! Two system calls for a round trip on the pool, where a receive may block. No
//! data is kept but what the peer did not take at once; while some is left,
//! nothing more is read, so memory is bounded by one read.
//!
//! Small messages pass over the stack, whose pages the thread has anyway. The
//! driver's buffer is used once a peer sends more, until it has been quiet for a
//! while; meanwhile no receive blocks, so that the driver can give its pages back.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    CloseReason, Connection, Interest, Next, Opened, Protocol, Session, Turn, Wait, Waker,
};
use crate::sys;

/// How many reads one step may do before others have their turn.
const READS_PER_STEP: usize = 16;

/// Bytes of a small message.
const SMALL: usize = 512;
/// How long a peer that sent more has to be quiet to be taken for one that does not:
/// longer than a driver takes to give its pages back.
const QUIET: Duration = Duration::from_secs(2);

/// The service.
#[derive(Debug, Default)]
pub struct Echo;

impl Protocol for Echo {
    fn role(&self) -> crate::sandbox::Role {
        crate::sandbox::Role::EchoWorker
    }

    fn name(&self) -> &'static str {
        "echo"
    }

    fn can_block(&self) -> bool {
        true
    }

    fn open(&self, _connection: &Arc<Connection>, _waker: Option<Waker>) -> io::Result<Opened> {
        Ok(Box::new(EchoSession {
            rest: None,
            bulk: false,
        }))
    }
}

struct EchoSession {
    /// What the peer has not taken yet.
    rest: Option<Box<Rest>>,
    /// Whether more than small messages have come lately.
    bulk: bool,
}

/// Some bytes of a stream, or a whole message, which may be empty.
struct Rest {
    bytes: Box<[u8]>,
    sent: usize,
    until: Option<Instant>,
}

impl Rest {
    fn new(left: &[u8], connection: &Connection) -> Self {
        let bound = connection.timeouts().write;
        Self {
            bytes: left.into(),
            sent: 0,
            until: bound.map(|bound| sys::time::after(Instant::now(), bound)),
        }
    }
}

impl Session for EchoSession {
    fn step(&mut self, connection: &Connection, turn: &mut Turn<'_>) -> Next {
        match self.go_on(connection, turn) {
            Ok(next) => next,
            Err(error) => Next::Close(connection.reason_for(&error)),
        }
    }
}

impl EchoSession {
    fn go_on(&mut self, connection: &Connection, turn: &mut Turn<'_>) -> io::Result<Next> {
        if turn.ready.expired && self.rest.is_none() {
            self.bulk = false;
        }
        let packets = connection.is_packets();
        for round in 0.. {
            if let Some(wait) = self.flush(connection, turn)? {
                return Ok(wait);
            }
            let may_block = turn.may_block && !self.bulk;
            // On the pool, where nobody else waits, there is no need to give way.
            if round == READS_PER_STEP && !may_block {
                return Ok(Next::Again);
            }
            let mut small = [0_u8; SMALL];
            let buffer = match self.bulk || packets {
                true => &mut *turn.buffer,
                false => &mut small[..],
            };
            let room = buffer.len();
            let Some(received) = connection.recv(buffer, may_block)? else {
                return Ok(self.wait());
            };
            if received == 0 {
                if connection.is_at_end()? {
                    return Ok(Next::Close(CloseReason::Finished));
                }
                if connection.send(&[])?.is_none() {
                    self.rest = Some(Box::new(Rest::new(&[], connection)));
                }
                continue;
            }
            let bytes = buffer.get(..received).unwrap_or_default();
            let sent = connection.send(bytes)?.unwrap_or(0);
            if let Some(left) = bytes.get(sent..).filter(|left| !left.is_empty()) {
                self.rest = Some(Box::new(Rest::new(left, connection)));
            }
            self.bulk |= if packets {
                received > SMALL
            } else {
                received == room
            };
            // A stream that gave less than there was room for has no more to give.
            let is_empty = !packets && received < room && self.rest.is_none();
            if is_empty && (self.bulk || !turn.may_block) {
                return Ok(self.wait());
            }
        }
        Ok(Next::Again)
    }

    fn wait(&self) -> Next {
        Next::Wait(Wait {
            client: Interest::READ,
            // The clock itself: the receive before may have blocked.
            until: self.bulk.then(|| sys::time::after(Instant::now(), QUIET)),
            ..Wait::default()
        })
    }

    /// Sends what is left. `None` once nothing is.
    fn flush(&mut self, connection: &Connection, turn: &Turn<'_>) -> io::Result<Option<Next>> {
        let Some(rest) = &mut self.rest else {
            return Ok(None);
        };
        loop {
            let left = rest.bytes.get(rest.sent..).unwrap_or_default();
            let Some(sent) = connection.send(left)? else {
                if turn.ready.expired && rest.until.is_some_and(|until| turn.now >= until) {
                    return Ok(Some(Next::Close(CloseReason::WriteTimeout)));
                }
                let wait = Wait {
                    client: Interest::WRITE,
                    until: rest.until,
                    ..Wait::default()
                };
                return Ok(Some(Next::Wait(wait)));
            };
            // The bound is absolute: a byte now and then must not extend it.
            rest.sent = rest.sent.saturating_add(sent);
            if rest.sent >= rest.bytes.len() {
                self.rest = None;
                return Ok(None);
            }
        }
    }
}
