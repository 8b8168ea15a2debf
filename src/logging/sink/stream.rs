//! stdout and stderr: a terminal, a pipe, a file, or the journal's socket.
//!
//! The descriptor belongs to others as well, so it is not made non-blocking.
//! Instead the sink asks whether there is room, and writes no more than what a
//! pipe then takes at once (pipe(7), PIPE_BUF).

use super::super::lines::{Gate, Lines};
use super::{Backlog, Backoff, Sink};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Bytes that a pipe takes at once when it has room at all.
const PIPE_BUF: usize = 4096;

/// One of the standard streams.
#[derive(Debug)]
pub(in super::super) struct Stream<S> {
    stream: S,
    kind: Kind,
    backlog: Backlog,
    backoff: Backoff,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Takes any write.
    File,
    Socket,
    /// A pipe or a terminal.
    Other,
}

fn kind<S: AsFd>(stream: &S) -> Kind {
    match fstat(stream).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::RegularFile) => Kind::File,
        Ok(FileType::Socket) => Kind::Socket,
        _ => Kind::Other,
    }
}

impl<S: AsFd> Stream<S> {
    pub(in super::super) fn new(stream: S) -> Self {
        let kind = kind(&stream);
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
        Self {
            stream,
            kind,
            backlog: Backlog::default(),
            backoff,
        }
    }

    fn flush(&mut self, now: Instant) {
        while !self.backlog.is_empty() {
            match write_some(&self.stream, self.kind, self.backlog.unsent()) {
                Ok(0) | Err(Errno::AGAIN) => return self.backoff.failed(now),
                Ok(written) => {
                    self.backlog.advance(written);
                    self.backoff.succeeded();
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    // Nobody will ever read it again, or it is closed.
                    self.backlog.lose_all(error);
                }
            }
        }
    }
}

impl<S: AsFd + Send> Sink for Stream<S> {
    fn write(&mut self, lines: &Lines, gate: Gate, now: Instant) {
        self.backlog.take(lines, gate);
        self.retry(now);
    }

    fn retry(&mut self, now: Instant) {
        if self.backoff.is_over(now) {
            self.flush(now);
        }
    }

    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    fn retry_at(&self) -> Option<Instant> {
        if self.backlog.is_empty() {
            None
        } else {
            self.backoff.until()
        }
    }
}

/// Writes as much as there is room for; `Ok(0)` for none.
fn write_some<S: AsFd>(stream: &S, kind: Kind, bytes: &[u8]) -> Result<usize, Errno> {
    match kind {
        Kind::File => rustix::io::write(stream, bytes),
        Kind::Socket => send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
        Kind::Other => {
            if !has_room(stream)? {
                return Ok(0);
            }
            let some = bytes.get(..PIPE_BUF).unwrap_or(bytes);
            rustix::io::write(stream, some)
        }
    }
}

fn has_room<S: AsFd>(stream: &S) -> Result<bool, Errno> {
    let mut asked = [PollFd::new(stream, PollFlags::OUT)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(poll(&mut asked, Some(&at_once))? > 0)
}

/// Writes a short line if there is room now, once.
pub(in super::super) fn write_once<S: AsFd>(stream: &S, line: &[u8]) {
    let _ = write_some(stream, kind(stream), line);
}

/// Whether the stream is the journal's, which systemd says by naming its device
/// and inode (systemd.exec(5), JOURNAL_STREAM).
pub(in super::super) fn is_journal<S: AsFd>(stream: &S) -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(stream).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Whether colours are wanted: on a terminal that knows them, unless `NO_COLOR`
/// is set and not empty.
pub(in super::super) fn wants_colour(is_terminal: bool) -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    is_terminal && !forbidden && !dumb
}
