//! `echo`: every byte, or message, goes back to the peer that sent it.
//!
//! Two system calls for a round trip on the pool, where a receive may block. No
//! data is kept but what the peer did not take at once; while some is left,
//! nothing more is read, so memory is bounded by one read.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{
    CloseReason, Connection, Interest, Next, Opened, Protocol, Session, Turn, Wait, Waker,
};

/// How many reads one step may do before others have their turn.
const READS_PER_STEP: usize = 16;

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
        Ok(Box::new(EchoSession { rest: None }))
    }
}

struct EchoSession {
    /// What the peer has not taken yet.
    rest: Option<Rest>,
}

struct Rest {
    bytes: Box<[u8]>,
    sent: usize,
    until: Option<Instant>,
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
        for round in 0.. {
            if let Some(wait) = self.flush(connection, turn)? {
                return Ok(wait);
            }
            // On the pool, where nobody else waits, there is no need to give way.
            if round == READS_PER_STEP && !turn.may_block {
                return Ok(Next::Again);
            }
            let Some(received) = connection.recv(turn.buffer, turn.may_block)? else {
                return Ok(Next::Wait(Wait {
                    client: Interest::READ,
                    ..Wait::default()
                }));
            };
            if received == 0 {
                if connection.is_at_end()? {
                    return Ok(Next::Close(CloseReason::Finished));
                }
                connection.send(&[])?;
                continue;
            }
            let bytes = turn.buffer.get(..received).unwrap_or_default();
            let sent = connection.send(bytes)?.unwrap_or(0);
            if let Some(left) = bytes.get(sent..).filter(|left| !left.is_empty()) {
                let until = connection
                    .timeouts()
                    .write
                    .map(|bound| Instant::now() + bound);
                self.rest = Some(Rest {
                    bytes: left.into(),
                    sent: 0,
                    until,
                });
            }
        }
        Ok(Next::Again)
    }

    /// Sends what is left. `None` once nothing is.
    fn flush(&mut self, connection: &Connection, turn: &Turn<'_>) -> io::Result<Option<Next>> {
        let Some(rest) = &mut self.rest else {
            return Ok(None);
        };
        while let Some(left) = rest.bytes.get(rest.sent..).filter(|left| !left.is_empty()) {
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
            rest.sent += sent;
        }
        self.rest = None;
        Ok(None)
    }
}
