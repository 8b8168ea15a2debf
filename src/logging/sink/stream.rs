//! stdout and stderr: a terminal, a pipe, a file, or the journal's socket.
//!
//! The descriptor belongs to others as well, so it is not made non-blocking.
//! Instead the sink asks whether there is room, and writes no more than what a
//! pipe then takes at once (pipe(7), PIPE_BUF).

use super::super::lines::Lines;
use super::super::message::floor_boundary;
use super::{Backlog, Backoff, Sink};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::borrow::Cow;
use std::io;
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
        let (first, most) = match kind {
            Kind::File => (100, 1000),
            Kind::Socket | Kind::Other => (1, 50),
        };
        let backoff = Backoff::new(Duration::from_millis(first), Duration::from_millis(most));
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
                Err(error) if self.kind == Kind::File && may_pass(error) => {
                    // What waits goes on at the byte where it stopped.
                    self.backlog.set_cause(io::Error::from(error));
                    return self.backoff.failed(now);
                }
                Err(error) => {
                    // Nobody will ever read it again, or it is closed.
                    self.backlog.lose_all(error);
                }
            }
        }
    }
}

impl<S: AsFd + Send> Sink for Stream<S> {
    fn write(&mut self, lines: &Lines, now: Instant) {
        self.backlog.take(lines);
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

/// Whether a file may take lines again later: space is freed, a limit is raised.
fn may_pass(error: Errno) -> bool {
    matches!(
        error,
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO | Errno::NOMEM
    )
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

/// Writes a line, given with its line feed, if there is room now, once. What a
/// pipe would not take at once is cut, so that the line ends as one.
pub(in super::super) fn write_once<S: AsFd>(stream: &S, line: &str) {
    let kind = kind(stream);
    let line = match kind {
        Kind::Other => shortened(line),
        Kind::File | Kind::Socket => Cow::Borrowed(line),
    };
    let _ = write_some(stream, kind, line.as_bytes());
}

/// A line of at most `PIPE_BUF` bytes, which says how many are missing.
fn shortened(line: &str) -> Cow<'_, str> {
    if line.len() <= PIPE_BUF {
        return Cow::Borrowed(line);
    }
    let text = line.strip_suffix('\n').unwrap_or(line);
    // The number of missing bytes has no more digits than that of all.
    let longest_note = note(text.len());
    let end = floor_boundary(text, PIPE_BUF.saturating_sub(longest_note.len()));
    let kept = text.get(..end).unwrap_or_default();
    Cow::Owned(kept.to_owned() + &note(text.len() - kept.len()))
}

fn note(bytes: usize) -> String {
    format!(" (cut: {bytes} bytes more)\n")
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// What comes out of a pipe into which `text` and a line feed were written.
    fn piped(text: &str) -> String {
        let (mut reader, writer) = io::pipe().unwrap();
        write_once(&writer, &format!("{text}\n"));
        write_once(&writer, "next\n");
        drop(writer);
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        out.strip_suffix("\nnext\n").unwrap().to_owned()
    }

    #[test]
    fn a_line_is_whole_or_says_what_is_missing() {
        for length in [0, 1, PIPE_BUF - 2, PIPE_BUF - 1] {
            let text = "x".repeat(length);
            assert_eq!(piped(&text), text);
        }
        for letter in ["x", "\u{e4}", "\u{1f980}"] {
            for length in [PIPE_BUF, PIPE_BUF + 1, 6000, 100_000] {
                let text = letter.repeat(length.div_ceil(letter.len()));
                let line = piped(&text);
                assert!(line.len() < PIPE_BUF, "{}", line.len());
                let (kept, note) = line.split_once(" (cut: ").unwrap();
                let missing = note.strip_suffix(" bytes more)").unwrap();
                assert_eq!(kept.len() + missing.parse::<usize>().unwrap(), text.len());
                assert!(text.starts_with(kept) && kept.len() > PIPE_BUF - 64);
            }
        }
    }
}
