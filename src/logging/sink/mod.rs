//! Where lines go, and what all sinks have in common: lines that could not be
//! written yet, up to a bound, and the count of those beyond it.
//!
//! Not here: which lines, and what they look like; see `writer` and `layout`.

pub(super) mod compress;
pub(super) mod directory;
pub(super) mod file;
pub(super) mod mq;
mod open;
pub(super) mod remote;
pub(super) mod stream;

use super::Severity;
use super::lines::{Lines, Mark};
use super::loss::Loss;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// Bytes that wait for one sink.
pub(super) const BACKLOG_BYTES: usize = 1024 * 1024;

/// A place for lines.
pub(super) trait Sink: Send {
    /// Takes lines; writes what it can without waiting for anything but a disk,
    /// keeps the rest.
    fn write(&mut self, lines: &Lines, now: Instant);

    /// Tries again to write what was kept.
    fn retry(&mut self, now: Instant);

    /// What waits.
    fn backlog(&mut self) -> &mut Backlog;

    /// When `retry` is worth a try, if anything waits.
    fn retry_at(&self) -> Option<Instant>;

    /// Whether a flush waits for its lines.
    fn is_local(&self) -> bool {
        true
    }

    /// The logger stops: a try that was put off is due.
    fn try_at_last(&mut self) {}

    /// Opens again what may have been moved away.
    fn reopen(&mut self, _now: Instant) {}

    /// A thing that happened to the sink and belongs into the log.
    fn take_notice(&mut self) -> Option<String> {
        None
    }
}

/// Counters of a sink, for metrics.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) written: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) waiting: AtomicU64,
}

/// Lines on their way into a sink.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    lines: Lines,
    /// Bytes and lines that are written.
    sent: usize,
    next: usize,
    loss: Loss,
    cause: String,
    written: u64,
    /// Bytes and lines that were written: grows with any progress, and only then.
    taken: u64,
    /// Bytes that were written, and have to be again: they are no progress then.
    again: usize,
    /// Lines that waited here and do no more: written, or given up.
    passed: u64,
    /// The last thing that happened was a success.
    failing: bool,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.next >= self.lines.marks.len()
    }

    /// Lines that wait.
    pub(super) fn len(&self) -> usize {
        self.lines.marks.len() - self.next.min(self.lines.marks.len())
    }

    /// Bytes of the next line that are written.
    pub(super) fn torn(&self) -> usize {
        self.sent.saturating_sub(self.lines.start(self.next))
    }

    /// What waits, as rendered, and the number of bytes and lines of it that
    /// are written.
    pub(super) fn parts(&self) -> (&Lines, usize, usize) {
        (&self.lines, self.sent, self.next)
    }

    /// The bytes that wait.
    pub(super) fn unsent(&self) -> &[u8] {
        self.lines.bytes.get(self.sent..).unwrap_or_default()
    }

    /// The next line, without what was written of it.
    pub(super) fn next_line(&self) -> Option<&[u8]> {
        let mark = self.lines.marks.get(self.next)?;
        self.lines.bytes.get(self.sent..mark.end)
    }

    /// Keeps lines, as long as there is room.
    pub(super) fn take(&mut self, lines: &Lines) {
        for (line, mark) in lines.iter_from(0) {
            self.add(line, mark);
        }
    }

    /// Keeps a line if there is room: for fatal and alert, twice as much.
    pub(super) fn add(&mut self, line: &[u8], mark: &Mark) {
        self.compact();
        let urgent = mark.severity <= Severity::Alert;
        let bound = BACKLOG_BYTES * if urgent { 2 } else { 1 };
        let waiting = self.lines.bytes.len() - self.sent.min(self.lines.bytes.len());
        if waiting == 0 || waiting + line.len() <= bound {
            return self.lines.push(line, mark);
        }
        self.loss.add(mark.severity, mark.micros);
        if urgent {
            // So that its caller learns that it is not written.
            self.set_cause("too slow");
        }
    }

    /// The place behind all lines that wait.
    pub(super) fn end(&self) -> u64 {
        self.passed + u64::try_from(self.len()).unwrap_or(0)
    }

    /// Whether no line before this place waits any more.
    pub(super) const fn is_past(&self, end: u64) -> bool {
        self.passed >= end
    }

    /// So many lines from the front wait no more.
    fn pass(&mut self, lines: usize) {
        self.next += lines;
        self.passed += u64::try_from(lines).unwrap_or(0);
        if self.is_empty() {
            self.lines.clear();
            (self.sent, self.next) = (0, 0);
        }
    }

    /// Keeps the lines from `next` on, `sent` being the offset of the first
    /// byte that is not written. A line that is partly written is always kept.
    pub(super) fn adopt(&mut self, lines: &Lines, sent: usize, next: usize) {
        let torn = sent - lines.start(next).min(sent);
        for (line, mark) in lines.iter_from(next) {
            self.add(line, mark);
        }
        self.sent += torn;
        self.count_bytes(torn);
    }

    /// What was written until now, in a measure of its own: whoever remembers it learns
    /// whether there was any progress since.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    fn count_bytes(&mut self, bytes: usize) {
        let fresh = bytes.saturating_sub(self.again);
        self.again = self.again.saturating_sub(bytes);
        self.taken += u64::try_from(fresh).unwrap_or(0);
    }

    /// Notes that bytes were written; gives the number of lines ended.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        self.count_bytes(bytes);
        let ended = self
            .lines
            .marks
            .iter()
            .skip(self.next)
            .take_while(|m| m.end <= self.sent);
        let ended = ended.count();
        self.count_written(ended);
        self.pass(ended);
    }

    /// Takes back what was written of the next line: it goes elsewhere, whole.
    pub(super) fn rewind_line(&mut self) {
        self.again += self.torn();
        self.sent = self.lines.start(self.next).min(self.sent);
    }

    /// Notes that everything before byte `sent` is written, and what `other`
    /// counted meanwhile.
    pub(super) fn moved_to(&mut self, sent: usize, other: Self) {
        self.again += self.sent.saturating_sub(sent);
        self.count_bytes(sent.saturating_sub(self.sent));
        self.sent = sent;
        let ended = self
            .lines
            .marks
            .iter()
            .skip(self.next)
            .take_while(|m| m.end <= sent);
        let ended = ended.count();
        self.written += other.written;
        self.loss.merge(&other.loss);
        if !other.cause.is_empty() {
            self.cause = other.cause;
        }
        self.failing = other.failing;
        self.pass(ended);
    }

    /// Gives the next line up.
    pub(super) fn lose_next(&mut self, cause: impl ToString) {
        let Some(mark) = self.lines.marks.get(self.next).copied() else {
            return;
        };
        self.loss.add(mark.severity, mark.micros);
        self.set_cause(cause);
        (self.sent, self.again) = (mark.end, 0);
        self.pass(1);
    }

    /// Gives everything up.
    pub(super) fn lose_all(&mut self, cause: impl ToString) {
        while !self.is_empty() {
            self.lose_next(cause.to_string());
        }
    }

    /// Counts everything as lost, and gives it up; but the rest of a line that is partly
    /// written stays.
    pub(super) fn lose_but_torn(&mut self, cause: impl ToString) {
        let kept = usize::from(self.torn() > 0);
        let first = self.next + kept;
        for mark in self.lines.marks.get(self.next..).unwrap_or_default() {
            self.loss.add(mark.severity, mark.micros);
            self.cause = cause.to_string();
            self.failing = true;
        }
        let lost = self.lines.marks.len().saturating_sub(first);
        self.lines.marks.truncate(first);
        self.lines.bytes.truncate(self.lines.start(first));
        self.passed += u64::try_from(lost).unwrap_or(0);
        self.pass(0);
    }

    /// Counts a line that never came here.
    pub(super) fn lose(&mut self, mark: &Mark) {
        self.loss.add(mark.severity, mark.micros);
    }

    pub(super) fn set_cause(&mut self, cause: impl ToString) {
        self.cause = cause.to_string();
        self.failing = true;
    }

    pub(super) fn count_written(&mut self, lines: usize) {
        self.failing &= lines == 0;
        let lines = u64::try_from(lines).unwrap_or(0);
        self.written += lines;
        self.taken += lines;
    }

    pub(super) fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// What was lost since the last time, and why.
    pub(super) fn take_loss(&mut self) -> (Loss, String) {
        let cause = std::mem::take(&mut self.cause);
        let cause = if cause.is_empty() {
            "too slow".into()
        } else {
            cause
        };
        (std::mem::take(&mut self.loss), cause)
    }

    pub(super) const fn loss(&self) -> &Loss {
        &self.loss
    }

    /// Why it fails, if the last try did.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failing.then_some(self.cause.as_str())
    }

    /// Moves what waits to the front, when most of the buffer is written.
    fn compact(&mut self) {
        let start = self.lines.start(self.next);
        if start < BACKLOG_BYTES / 2 {
            return;
        }
        self.lines.bytes.drain(..start);
        self.lines.marks.drain(..self.next);
        for mark in &mut self.lines.marks {
            mark.end -= start;
        }
        self.sent -= start;
        self.next = 0;
    }
}

/// When to try again after failures: twice as late each time, and not at the
/// same moment as everybody else.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    until: Option<Instant>,
    jitter: u64,
}

impl Backoff {
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        let jitter = u64::from(std::process::id()) ^ super::line::now_micros();
        Self {
            first,
            most,
            failures: 0,
            until: None,
            jitter: jitter | 1,
        }
    }

    /// Whether it is time for a try.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn failed(&mut self, now: Instant) {
        let full = self
            .first
            .saturating_mul(1 << self.failures.min(16))
            .min(self.most);
        self.failures = self.failures.saturating_add(1);
        // xorshift: spread over 75 to 125 %.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let percent = u32::try_from(75 + self.jitter % 51).unwrap_or(100);
        self.until = now.checked_add(full.saturating_mul(percent) / 100);
    }

    /// It is time for a try now.
    pub(super) const fn is_over_now(&mut self) {
        self.until = None;
    }

    pub(super) const fn succeeded(&mut self) {
        self.failures = 0;
        self.until = None;
    }
}

/// Says on stderr what no log can, at most once a second, without waiting.
pub(super) fn complain(what: &str) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let Ok(mut last) = LAST.try_lock() else {
        return;
    };
    let now = Instant::now();
    if last.is_some_and(|last| now.duration_since(last) < Duration::from_secs(1)) {
        return;
    }
    *last = Some(now);
    complain_at_last(what);
}

/// The same at the end, where nothing comes after it, whatever was said in the same
/// second.
pub(super) fn complain_at_last(what: &str) {
    let mut line = String::from("secure_socket: log: ");
    super::escape::line(what, &mut line);
    line.push('\n');
    stream::write_once(&io::stderr(), &line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(backlog: &mut Backlog, severity: Severity, bytes: usize) -> bool {
        let mark = Mark {
            end: 0,
            severity,
            micros: 1,
        };
        let before = backlog.len();
        backlog.add(&vec![b'x'; bytes], &mark);
        backlog.len() > before
    }

    #[test]
    fn urgent_lines_find_room_where_others_find_none() {
        let mut backlog = Backlog::default();
        assert!(add(&mut backlog, Severity::Info, BACKLOG_BYTES - 2));
        assert!(!add(&mut backlog, Severity::Critical, 3));
        assert!(add(&mut backlog, Severity::Critical, 2));
        assert!(!add(&mut backlog, Severity::Critical, 1));
        assert!(add(&mut backlog, Severity::Alert, 1));
        assert!(add(&mut backlog, Severity::Fatal, BACKLOG_BYTES - 2));
        assert_eq!((backlog.failure(), backlog.loss().lines()), (None, 2));
        assert!(!add(&mut backlog, Severity::Fatal, 2));
        assert_eq!(backlog.failure(), Some("too slow"));
        assert!(add(&mut backlog, Severity::Alert, 1));
        assert_eq!((backlog.len(), backlog.loss().lines()), (5, 3));
    }

    #[test]
    fn an_empty_backlog_takes_any_line() {
        let mut backlog = Backlog::default();
        assert!(add(&mut backlog, Severity::Wire, 2 * BACKLOG_BYTES));
        assert!(!add(&mut backlog, Severity::Wire, 1));
    }

    #[test]
    fn of_what_is_given_up_at_the_end_a_line_that_is_partly_written_stays() {
        for (written, kept, unsent) in [(0, 0, 0), (3, 1, 1), (4, 0, 0), (5, 1, 3)] {
            let mut backlog = Backlog::default();
            (0..4).for_each(|_| assert!(add(&mut backlog, Severity::Info, 4)));
            let end = backlog.end();
            backlog.advance(written);
            let waited = backlog.len();
            backlog.lose_but_torn("x");
            assert_eq!((backlog.len(), backlog.unsent().len()), (kept, unsent));
            let lost = u64::try_from(waited).unwrap();
            assert_eq!((backlog.loss().lines(), backlog.end()), (lost, end));
            assert_eq!(backlog.is_past(end), kept == 0);
            assert!(add(&mut backlog, Severity::Info, 2));
            backlog.advance(unsent + 2);
            assert!(backlog.is_empty());
        }
    }

    #[test]
    fn a_place_is_past_when_no_line_before_it_waits() {
        let mut backlog = Backlog::default();
        assert!(backlog.is_past(backlog.end()));
        assert!(add(&mut backlog, Severity::Info, 4) && add(&mut backlog, Severity::Info, 4));
        let end = backlog.end();
        assert!(add(&mut backlog, Severity::Info, 4));
        backlog.advance(7);
        assert!(!backlog.is_past(end));
        backlog.advance(1);
        assert!(backlog.is_past(end) && !backlog.is_past(backlog.end()));
        backlog.lose_all("x");
        assert!(backlog.is_past(backlog.end()));
        assert_eq!(backlog.end(), 3);
    }

    #[test]
    fn what_is_written_again_is_no_progress() {
        let mut backlog = Backlog::default();
        (0..4).for_each(|_| assert!(add(&mut backlog, Severity::Info, 10)));
        let mut took = |change: &dyn Fn(&mut Backlog)| {
            let before = backlog.taken();
            change(&mut backlog);
            backlog.taken() > before
        };
        assert!(took(&|b| b.advance(5)));
        for _ in 0..3 {
            assert!(!took(&Backlog::rewind_line));
            assert!(!took(&|b| b.advance(3)));
            assert!(!took(&|b| b.advance(2)));
        }
        assert!(took(&|b| b.advance(1)));
        // A file took a part of a line back, and then all of it.
        assert!(!took(&|b| b.moved_to(0, Backlog::default())));
        assert!(!took(&|b| b.moved_to(6, Backlog::default())));
        assert!(took(&|b| b.moved_to(10, Backlog::default())));
        assert!(took(&|b| b.advance(2)));
        assert!(!took(&|b| b.lose_next("x")));
        assert!(took(&|b| b.advance(1)));
    }
}
