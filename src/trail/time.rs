//! The time of day as lines and file names carry it. Pure, except for [`now`].

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// A time in UTC with microseconds, from 1970 on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    year: u64,
    month: u64,
    day: u64,
    second: u64,
    micros: u32,
}

/// Asks the clock. A time before 1970 is taken for 1970.
pub(super) fn now() -> Stamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Stamp::new(since.as_secs(), since.subsec_micros())
}

impl Stamp {
    /// From seconds since 1970 and microseconds.
    pub(super) fn new(seconds: u64, micros: u32) -> Self {
        // Civil from days, counted from 1 March of the year 0, so that a leap
        // day ends a year, and eras of 400 years are alike.
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let leaps = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
        let year_of_era = (day_of_era - leaps.min(day_of_era)) / 365;
        let before = 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
        let day_of_year = day_of_era - before;
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        Self {
            year,
            month,
            day,
            second: seconds % 86_400,
            micros,
        }
    }

    /// `2026-11-23T10:20:30.123456Z`
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let Self {
            year,
            month,
            day,
            second,
            micros,
        } = self;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let _ = write!(
            out,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        );
    }

    /// `20261123-102030.123456`
    pub(super) fn for_name(self) -> String {
        let Self {
            year,
            month,
            day,
            second,
            micros,
        } = self;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}.{micros:06}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seconds: u64, expected: &str) {
        let mut out = Vec::new();
        Stamp::new(seconds, 5).write(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("{expected}.000005Z")
        );
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        check(0, "1970-01-01T00:00:00");
        check(68_169_599, "1972-02-28T23:59:59");
        check(68_169_600, "1972-02-29T00:00:00");
        check(951_782_400, "2000-02-29T00:00:00");
        check(1_709_164_800, "2024-02-29T00:00:00");
        check(1_709_251_200, "2024-03-01T00:00:00");
        check(1_795_429_230, "2026-11-23T10:20:30");
        check(4_107_542_399, "2100-02-28T23:59:59");
        check(4_107_542_400, "2100-03-01T00:00:00");
    }

    #[test]
    fn names_sort_by_time() {
        let name = Stamp::new(1_795_429_230, 123_456).for_name();
        assert_eq!(name, "20261123-102030.123456");
        assert!(Stamp::new(1_795_429_230, 123_457).for_name() > name);
    }
}
