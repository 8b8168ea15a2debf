//! A POSIX message queue as a sink: one line, one message, and when the queue
//! is full the oldest makes room. And the other end, which prints the lines.
//!
//! Invariants: never waits; a queue that somebody else made, or that others
//! may read or write, is not used.

use super::super::lines::Lines;
use super::super::{LoggingError, escape};
use super::directory::{Owner, may_own, settle};
use super::{Backlog, Sink};
use crate::sys::mqueue::{MessageQueue, Purpose};
use rustix::fs::{Stat, fstat};
use std::io::{self, Write};
use std::time::Instant;

/// What is put at the end of a line that is longer than a message may be.
const CUT: &[u8] = b" (cut)";

/// How often room is made for one line; readers and writers may be many.
const TRIES: usize = 16;

/// An open queue.
#[derive(Debug)]
pub(in super::super) struct Mq {
    queue: MessageQueue,
    backlog: Backlog,
    oldest: Vec<u8>,
    message: Vec<u8>,
}

impl Mq {
    /// Opens the queue, and creates it, 0600, if it is missing.
    pub(in super::super) fn open(name: &str, owner: Owner) -> Result<Self, LoggingError> {
        let (queue, created) = open(name, Purpose::Send)?;
        let failed = |error| refused(name, "its owner can't be told", Some(error));
        let stat = queue
            .descriptor()
            .and_then(|fd| Ok(fstat(fd)?))
            .map_err(failed)?;
        if created {
            let settled = queue.descriptor().and_then(|fd| settle(fd, 0o600, owner));
            settled.map_err(|e| refused(name, "its mode and owner can't be set", Some(e)))?;
        } else {
            check(name, &stat, owner)?;
        }
        let oldest = vec![0; queue.message_size()];
        Ok(Self {
            queue,
            backlog: Backlog::default(),
            oldest,
            message: Vec::new(),
        })
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let most = self.queue.message_size();
        self.message.clear();
        if line.len() <= most {
            self.message.extend_from_slice(line);
        } else {
            let kept = most.saturating_sub(CUT.len());
            self.message
                .extend_from_slice(line.get(..kept).unwrap_or_default());
            self.message.extend_from_slice(CUT);
        }
        for _ in 0..TRIES {
            match self.queue.send(&self.message) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Gone already is as good: there is room then.
                    let _ = self.queue.receive(&mut self.oldest);
                }
                other => return other,
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Sink for Mq {
    fn write(&mut self, lines: &Lines, _now: Instant) {
        for (line, mark) in lines.iter_from(0) {
            match self.send(line) {
                Ok(()) => self.backlog.count_written(1),
                Err(error) => {
                    self.backlog.lose(mark);
                    self.backlog.set_cause(error);
                }
            }
        }
    }

    fn retry(&mut self, _now: Instant) {}

    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    fn retry_at(&self) -> Option<Instant> {
        None
    }
}

fn open(name: &str, purpose: Purpose) -> Result<(MessageQueue, bool), LoggingError> {
    let shaped = name
        .strip_prefix('/')
        .is_some_and(|rest| !rest.is_empty() && rest.len() < 255 && !rest.contains(['/', '\0']));
    if !shaped {
        let why = "expected / and a name of 1 to 254 bytes without another /";
        return Err(refused(name, why, None));
    }
    MessageQueue::open(name, purpose).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "it does not exist",
            io::ErrorKind::PermissionDenied => "it belongs to somebody else",
            _ => "it can't be opened",
        };
        refused(name, why, Some(error))
    })
}

fn check(name: &str, stat: &Stat, owner: Owner) -> Result<(), LoggingError> {
    if !may_own(stat.st_uid, owner) {
        let why = format!(
            "somebody else made it (uid {}), expected root or the server's user",
            stat.st_uid
        );
        return Err(refused(name, &why, None));
    }
    if stat.st_mode & 0o077 != 0 {
        let why = format!(
            "others may use it (mode {:04o}), expected 0600",
            stat.st_mode & 0o7777
        );
        return Err(refused(name, &why, None));
    }
    Ok(())
}

fn refused(name: &str, why: &str, source: Option<io::Error>) -> LoggingError {
    LoggingError::Queue {
        name: name.to_owned(),
        why: why.to_owned(),
        source,
    }
}

/// Follows a queue and writes each of its lines to `out`, until `out` fails or
/// `goes_on`, asked before each line, says no. The lines are taken out of the
/// queue. Controls in them, which only another writer can have put there, are
/// escaped. Waits without bound for the next line (mq_receive(3)).
pub fn mqcat(
    name: &str,
    out: &mut impl Write,
    mut goes_on: impl FnMut() -> bool,
) -> Result<(), LoggingError> {
    let (queue, _) = open(name, Purpose::Receive)?;
    let mut message = vec![0; queue.message_size()];
    let mut line = String::new();
    while goes_on() {
        match queue.receive(&mut message) {
            Ok(length) => {
                line.clear();
                let text = escape::Untrusted(message.get(..length).unwrap_or_default());
                escape::leftover(&text.to_string(), &mut line);
                line.push('\n');
                let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
                written.map_err(|e| refused(name, "its lines can't be written out", Some(e)))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(refused(name, "it can't be read", Some(error))),
        }
    }
    Ok(())
}
