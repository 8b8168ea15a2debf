//! Points of time as text, in UTC, with the part up to the second kept.

/// Year, month, day, hour, minute, second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Civil {
    pub(crate) year: u64,
    pub(crate) month: u64,
    pub(crate) day: u64,
    pub(crate) hour: u64,
    pub(crate) minute: u64,
    pub(crate) second: u64,
}

impl Civil {
    /// From seconds since 1970. Proleptic Gregorian, years from March, so that
    /// the leap day is the last of its year.
    pub(crate) fn from_unix(seconds: u64) -> Self {
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        // Days since 0000-03-01; an era is 400 years.
        let shifted = days.saturating_add(719_468);
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Self {
            year,
            month,
            day,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

/// Appends a number of at least `width` digits.
pub(crate) fn push_padded(number: u64, width: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut rest = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        if rest == 0 && used >= width.max(1) {
            break;
        }
        // A remainder by ten is one digit.
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Appends a number.
pub(crate) fn push_number(number: u64, out: &mut Vec<u8>) {
    push_padded(number, 1, out);
}

/// The digits of a number below 100, the first in the lower byte.
#[inline]
const fn two_digits(number: u64) -> u64 {
    (u64::from_le_bytes(*b"00\0\0\0\0\0\0")) | (number / 10) | (number % 10) << 8
}

/// Appends `2026-11-23T10:20:30`.
fn push_second(seconds: u64, out: &mut Vec<u8>) {
    let civil = Civil::from_unix(seconds);
    push_padded(civil.year, 4, out);
    for (separator, number) in [
        (b'-', civil.month),
        (b'-', civil.day),
        (b'T', civil.hour),
        (b':', civil.minute),
        (b':', civil.second),
    ] {
        out.push(separator);
        push_padded(number, 2, out);
    }
}

/// `2026-11-23T10:20:30.`
const LENGTH: usize = 20;

/// Formats times that mostly lie in the same second.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    second: Option<u64>,
    text: [u8; LENGTH],
}

impl Clock {
    /// Appends `2026-11-23T10:20:30.123456Z`, RFC 3339.
    pub(crate) fn push(&mut self, micros: u64, out: &mut Vec<u8>) {
        let second = micros / 1_000_000;
        if self.second != Some(second) {
            self.second = Some(second);
            let mut text = Vec::with_capacity(LENGTH);
            push_second(second, &mut text);
            text.push(b'.');
            // Years of five digits come in 10000 years.
            if let Ok(text) = text.try_into() {
                self.text = text;
            }
        }
        let fraction = micros % 1_000_000;
        let digits = two_digits(fraction / 10_000)
            | two_digits(fraction / 100 % 100) << 16
            | two_digits(fraction % 100) << 32
            | u64::from(b'Z') << 48;
        out.extend_from_slice(&self.text);
        let end = out.len() + 7;
        // One store of a register: of eight bytes, the last is none of ours.
        out.extend_from_slice(&digits.to_le_bytes());
        out.truncate(end);
    }
}

/// The same as text, for messages.
pub(crate) fn rfc3339(micros: u64) -> String {
    let mut out = Vec::with_capacity(27);
    Clock::default().push(micros, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_date() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_795_429_230, "2026-11-23T10:20:30.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000), expected);
        }
    }

    #[test]
    fn the_kept_second_is_replaced() {
        let mut clock = Clock::default();
        let mut out = Vec::new();
        for micros in [999_999, 1_000_000, 1_000_001] {
            clock.push(micros, &mut out);
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:00.999999Z1970-01-01T00:00:01.000000Z1970-01-01T00:00:01.000001Z"
        );
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for (number, width, expected) in [
            (0, 1, "0"),
            (7, 2, "07"),
            (123, 2, "123"),
            (u64::MAX, 1, "18446744073709551615"),
        ] {
            let mut out = Vec::new();
            push_padded(number, width, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
