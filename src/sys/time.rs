//! Spans of time in the kernel's form (timespec(3type)).

use std::time::{Duration, Instant};

use rustix::event::Timespec;

/// Beyond this a span is as good as for ever, and every clock still holds its end.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The end of a span that begins now. One that no clock holds the end of is for ever
/// to whoever gave it: it ends in a hundred years, and not at once.
pub(crate) fn after(now: Instant, span: Duration) -> Instant {
    now.checked_add(span.min(FAR)).unwrap_or(now)
}

/// How long it is from `now` until `until`; zero if that is past. Rounded up to
/// the next microsecond, so that a waiter doesn't wake just too early.
pub fn until(until: Instant, now: Instant) -> Timespec {
    let span = until.saturating_duration_since(now);
    timespec(if span.is_zero() {
        span
    } else {
        span + Duration::from_micros(1)
    })
}

/// A span as a `timespec`; one beyond the kernel's range becomes its largest.
pub fn timespec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(span.subsec_nanos()),
    }
}

/// Microseconds since 1970, 0 for a clock that is set before
/// (clock_gettime(2), CLOCK_REALTIME).
#[cfg(feature = "logging")]
#[inline]
pub(crate) fn realtime_micros() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one timespec to the place that it is given. It
    // can't fail for this clock; then the time would stay 0.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000)
        .saturating_add(nanos / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_ever_is_far_off_and_not_at_once() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(after(now, second), now + second);
        assert_eq!(after(now, Duration::MAX), now + FAR);
        assert_eq!(
            after(after(now, Duration::MAX), Duration::MAX),
            now + FAR * 2
        );
        let wait = until(after(now, Duration::MAX), now);
        assert!(wait.tv_sec >= 3_153_600_000);
    }

    #[test]
    fn what_is_past_is_zero() {
        let now = Instant::now();
        let span = until(now, now + Duration::from_secs(1));
        assert_eq!((span.tv_sec, span.tv_nsec), (0, 0));
    }

    #[test]
    fn what_is_to_come_is_rounded_up() {
        let now = Instant::now();
        let span = until(now + Duration::from_millis(1500), now);
        assert_eq!((span.tv_sec, span.tv_nsec), (1, 500_001_000));
    }
}
