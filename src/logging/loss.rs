//! What was lost: how many lines of each severity, from when to when.

use super::Severity;
use super::layout::time::rfc3339;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Lines that did not arrive, and when the first and the last were logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Loss {
    counts: [u64; Severity::COUNT],
    span: Option<(u64, u64)>,
}

impl Loss {
    /// Adds one line.
    pub(super) fn add(&mut self, severity: Severity, micros: u64) {
        if let Some(count) = self.counts.get_mut(severity.index()) {
            *count += 1;
        }
        self.span = Some(match self.span {
            Some((from, to)) => (from.min(micros), to.max(micros)),
            None => (micros, micros),
        });
    }

    /// Adds the lines of another.
    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.span = match (self.span, other.span) {
            (Some((from, to)), Some((a, b))) => Some((from.min(a), to.max(b))),
            (one, two) => one.or(two),
        };
    }

    /// All lines.
    pub(super) fn lines(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Lines by severity.
    pub(super) const fn by_severity(&self) -> [u64; Severity::COUNT] {
        self.counts
    }

    /// Microseconds since 1970 of the first and the last.
    pub(super) const fn span(&self) -> Option<(u64, u64)> {
        self.span
    }
}

/// `5 lines from T1 to T2 (error 2, info 3)`.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        write!(f, "{lines} line{}", if lines == 1 { "" } else { "s" })?;
        if let Some((from, to)) = self.span() {
            write!(f, " from {} to {}", rfc3339(from), rfc3339(to))?;
        }
        write!(f, " ({})", BySeverity(self.by_severity()))
    }
}

/// `info 512, debug 3`.
struct BySeverity([u64; Severity::COUNT]);

impl fmt::Display for BySeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (severity, count) in Severity::ALL.into_iter().zip(self.0) {
            if count > 0 {
                write!(f, "{separator}{severity} {count}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// A loss that many threads add to.
#[derive(Debug)]
pub(super) struct LossCounter {
    counts: [AtomicU64; Severity::COUNT],
    from: AtomicU64,
    to: AtomicU64,
    any: AtomicBool,
}

impl LossCounter {
    pub(super) const fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; Severity::COUNT],
            from: AtomicU64::new(u64::MAX),
            to: AtomicU64::new(0),
            any: AtomicBool::new(false),
        }
    }

    /// Adds one line.
    pub(super) fn add(&self, severity: Severity, micros: u64) {
        self.from.fetch_min(micros, Ordering::Relaxed);
        self.to.fetch_max(micros, Ordering::Relaxed);
        if let Some(count) = self.counts.get(severity.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // Last, so that who sees it finds the count.
        self.any.store(true, Ordering::Release);
    }

    /// Takes what was added since the last time.
    pub(super) fn take(&self) -> Option<Loss> {
        if !self.any.load(Ordering::Relaxed) || !self.any.swap(false, Ordering::Acquire) {
            return None;
        }
        let mut loss = Loss::default();
        for (count, taken) in self.counts.iter().zip(&mut loss.counts) {
            *taken = count.swap(0, Ordering::Relaxed);
        }
        let from = self.from.swap(u64::MAX, Ordering::Relaxed);
        let to = self.to.swap(0, Ordering::Relaxed);
        loss.span = (from <= to).then_some((from, to));
        (loss.lines() > 0).then_some(loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_counts_by_severity_and_knows_its_span() {
        let counter = LossCounter::new();
        assert_eq!(counter.take(), None);
        counter.add(Severity::Info, 20);
        counter.add(Severity::Error, 10);
        counter.add(Severity::Info, 15);
        let mut loss = counter.take().unwrap();
        assert_eq!(counter.take(), None);
        assert_eq!((loss.lines(), loss.span()), (3, Some((10, 20))));
        loss.add(Severity::Info, 30);
        assert_eq!(
            loss.to_string(),
            "4 lines from 1970-01-01T00:00:00.000010Z to 1970-01-01T00:00:00.000030Z \
             (error 1, info 3)"
        );
        let mut sum = Loss::default();
        sum.merge(&loss);
        assert_eq!(sum, loss);
    }
}
