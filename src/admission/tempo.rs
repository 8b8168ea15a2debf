//! How fast those under a penalty are turned away: who floods a server then waits in
//! connect(2), and leaves the processors to the others.
//!
//! One counter of time, as in the generic cell rate algorithm: each that is turned away
//! moves the moment of the next accept on by one step. Nobody is asked for a lock, and
//! nobody for the time where none was turned away lately.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Who rests wakes late, by this much at most times: the next ones make it up.
const MADE_UP: Duration = Duration::from_micros(200);

/// Many who wait in accept(2) when a flood begins turn one away each: no more than so many
/// are paid for afterwards, as everybody waits meanwhile.
const MOST_STEPS_AHEAD: u32 = 16;

/// When the next newcomer may be accepted.
#[derive(Debug, Default)]
pub(super) struct Tempo {
    first: OnceLock<Instant>,
    /// Nanoseconds from then. 0: at once.
    next_ns: AtomicU64,
}

impl Tempo {
    /// One was turned away, and the next may be after so much time.
    pub(super) fn turned_away(&self, step: Duration, now: Instant) {
        let first = *self.first.get_or_init(|| now);
        let now_ns = nanoseconds(now.saturating_duration_since(first));
        let earliest = now_ns.saturating_sub(nanoseconds(MADE_UP));
        let latest = now_ns.saturating_add(nanoseconds(step.saturating_mul(MOST_STEPS_AHEAD)));
        let moved = |next_ns: u64| {
            let next_ns = next_ns.max(earliest).saturating_add(nanoseconds(step));
            Some(next_ns.min(latest))
        };
        let _ = self
            .next_ns
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, moved);
    }

    /// Whether somebody was turned away lately, so that [`rest`](Self::rest) is to be asked.
    pub(super) fn is_set(&self) -> bool {
        self.next_ns.load(Ordering::Acquire) != 0
    }

    /// Until when to rest before the next accept. The clock is read only if somebody was
    /// turned away since the last time that there was nothing to wait for.
    pub(super) fn rest(&self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        let next_ns = self.next_ns.load(Ordering::Acquire);
        if next_ns == 0 {
            return None;
        }
        let next = self
            .first
            .get()?
            .checked_add(Duration::from_nanos(next_ns))?;
        let now = now();
        if now.saturating_duration_since(next) > MADE_UP {
            // Over, unless another was turned away meanwhile.
            let _ = self
                .next_ns
                .compare_exchange(next_ns, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        (next > now).then_some(next)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(100);

    #[test]
    fn each_that_is_turned_away_moves_the_next_on_by_a_step() {
        let (tempo, start) = (Tempo::default(), Instant::now());
        assert_eq!(tempo.rest(|| panic!("nobody came yet")), None);
        tempo.turned_away(STEP, start);
        assert_eq!(tempo.rest(|| start), Some(start + STEP));
        tempo.turned_away(STEP, start);
        tempo.turned_away(STEP, start + STEP);
        assert_eq!(tempo.rest(|| start + STEP), Some(start + 3 * STEP));
    }

    #[test]
    fn many_at_once_are_not_all_paid_for() {
        let (tempo, start) = (Tempo::default(), Instant::now());
        for _ in 0..1000 {
            tempo.turned_away(STEP, start);
        }
        assert_eq!(tempo.rest(|| start), Some(start + 16 * STEP));
    }

    #[test]
    fn a_rest_that_is_over_costs_no_clock() {
        let (tempo, start) = (Tempo::default(), Instant::now());
        tempo.turned_away(STEP, start);
        assert_eq!(tempo.rest(|| start + STEP), None);
        assert_eq!(tempo.rest(|| start + 2 * MADE_UP), None);
        assert_eq!(tempo.rest(|| panic!("the clock was read")), None);
    }

    /// How many are turned away at one moment before there is a rest.
    fn at_once(tempo: &Tempo, now: Instant) -> u32 {
        let mut count = 0;
        while tempo.rest(|| now).is_none() {
            tempo.turned_away(STEP, now);
            count += 1;
        }
        count
    }

    #[test]
    fn who_wakes_late_makes_up_for_little() {
        let (tempo, start) = (Tempo::default(), Instant::now());
        tempo.turned_away(STEP, start);
        assert_eq!(at_once(&tempo, start + 2 * STEP), 2, "one that was missed");
        // A long pause is not saved up.
        let most = u32::try_from(MADE_UP.as_micros() / STEP.as_micros()).unwrap();
        assert_eq!(at_once(&tempo, start + Duration::from_secs(60)), most + 1);
    }
}
