//! Text to numbers, sizes, times, modes and rates.
//!
//! Each function takes the whole text of a value and either returns what it
//! says or tells what was expected and at which byte the text departs from it.
//! Nothing is trimmed, rounded or wrapped around.

use std::time::Duration;

use super::given::Wrong;
use crate::admission::Rate;

/// A decimal number from `min` to `max`.
pub(crate) fn number(text: &str, min: u64, max: u64) -> Result<u64, Wrong> {
    let what = format!("a number from {min} to {max}");
    let value = digits(text).map_err(|caret| Wrong::expected(&what, text, caret))?;
    in_bounds(value, min, max).ok_or_else(|| Wrong::expected(&what, text, 0))
}

/// Bytes: a decimal number, and perhaps `K`, `M`, `G` or `T`.
pub(crate) fn size(text: &str, min: u64, max: u64) -> Result<u64, Wrong> {
    let what = format!(
        "a size from {} to {} such as 64K",
        show_size(min),
        show_size(max)
    );
    let (count, unit) = split_unit(text);
    let factor: u64 = match unit {
        "" => 1,
        "K" | "k" => 1 << 10,
        "M" | "m" => 1 << 20,
        "G" | "g" => 1 << 30,
        "T" | "t" => 1 << 40,
        _ => return Err(Wrong::expected(&what, text, count.len())),
    };
    let count = digits(count).map_err(|caret| Wrong::expected(&what, text, caret))?;
    count
        .checked_mul(factor)
        .and_then(|bytes| in_bounds(bytes, min, max))
        .ok_or_else(|| Wrong::expected(&what, text, 0))
}

/// A time: a decimal number, and `ms`, `s`, `m` or `h`; without a unit, seconds.
pub(crate) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, Wrong> {
    let bounds = format!("{} to {}", show_duration(min), show_duration(max));
    let what = format!("a time from {bounds} such as 500ms, 10s, 5m or 2h");
    let (count, unit) = split_unit(text);
    let factor: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(Wrong::expected(&what, text, count.len())),
    };
    let count = digits(count).map_err(|caret| Wrong::expected(&what, text, caret))?;
    count
        .checked_mul(factor)
        .map(Duration::from_millis)
        .filter(|time| (min..=max).contains(time))
        .ok_or_else(|| Wrong::expected(&what, text, 0))
}

/// `yes|on|true|1` or `no|off|false|0`.
pub(crate) fn yes_no(text: &str) -> Result<bool, Wrong> {
    match text {
        "yes" | "on" | "true" | "1" => Ok(true),
        "no" | "off" | "false" | "0" => Ok(false),
        _ => Err(Wrong::expected("yes or no", text, 0)),
    }
}

/// Three or four octal digits, at most 0777.
pub(crate) fn mode(text: &str) -> Result<u32, Wrong> {
    let what = "an octal mode from 0000 to 0777";
    if let Some(caret) = text.find(|c| !('0'..='7').contains(&c)) {
        return Err(Wrong::expected(what, text, caret));
    }
    if !(3..=4).contains(&text.len()) {
        return Err(Wrong::expected(what, text, 0));
    }
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(Wrong::expected(what, text, 0)),
    }
}

/// `COUNT/TIME`, or `0` for no limit.
pub(crate) fn rate(text: &str) -> Result<Option<Rate>, Wrong> {
    if text == "0" {
        return Ok(None);
    }
    let what = "a rate such as 50/1s, or 0";
    let Some((count, per)) = text.split_once('/') else {
        return Err(Wrong::expected(what, text, 0));
    };
    let whole = |caret: usize| Wrong::expected(what, text, caret);
    let count = number(count, 1, 1_000_000).map_err(|wrong| whole(wrong.caret))?;
    let day = Duration::from_secs(24 * 3600);
    let per_at = text.len() - per.len();
    let per = duration(per, Duration::from_millis(1), day)
        .map_err(|wrong| whole(per_at + wrong.caret))?;
    let count = u32::try_from(count).map_err(|_| whole(0))?;
    Rate::new(count, per).map(Some).ok_or_else(|| whole(0))
}

/// A text of 1 to `max` bytes without control characters.
pub(crate) fn plain<'a>(text: &'a str, what: &str, max: usize) -> Result<&'a str, Wrong> {
    if let Some(caret) = text.find(char::is_control) {
        return Err(Wrong::expected(what, text, caret));
    }
    if text.is_empty() || text.len() > max {
        return Err(Wrong::expected(what, text, 0));
    }
    Ok(text)
}

/// An absolute path of at most 4095 bytes, PATH_MAX without its NUL.
pub(crate) fn path(text: &str) -> Result<&str, Wrong> {
    let what = "an absolute path of at most 4095 bytes";
    let text = plain(text, what, 4095)?;
    if !text.starts_with('/') || text.ends_with('/') {
        return Err(Wrong::expected(what, text, 0));
    }
    if text.split('/').any(|part| part == ".." || part == ".") {
        return Err(Wrong::says(
            format!(
                "the path must not contain . or .., found {}",
                super::place::quoted(text)
            ),
            text,
        ));
    }
    Ok(text)
}

/// A name as mq_overview(7) has it.
pub(crate) fn mq_name(text: &str) -> Result<String, Wrong> {
    let what = "/ and a name of at most 254 bytes without another /";
    let text = plain(text, what, 255)?;
    match text.strip_prefix('/') {
        Some(name) if !name.is_empty() && !name.contains('/') && name != "." && name != ".." => {
            Ok(text.to_owned())
        }
        _ => Err(Wrong::expected(what, text, 0)),
    }
}

/// One of some words.
pub(crate) fn word<'a>(text: &str, words: &[&'a str]) -> Result<&'a str, Wrong> {
    let known = words.iter().find(|word| **word == text);
    known
        .copied()
        .ok_or_else(|| Wrong::expected(&one_of(words), text, 0))
}

/// `a`, `a or b`, `a, b or c`.
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// Bytes as `size` reads them, with the largest unit that divides them.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let fits = units
        .iter()
        .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    match fits {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// A time as `duration` reads it, with the largest unit that divides it.
pub(crate) fn show_duration(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0 => "0".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// The number that these digits say; else the byte that is no digit, or 0 where
/// the number is too large or missing.
fn digits(text: &str) -> Result<u64, usize> {
    match text.find(|c: char| !c.is_ascii_digit()) {
        Some(caret) => Err(caret),
        None => text.parse().map_err(|_| 0),
    }
}

/// The leading digits, and the rest if it looks like a unit. A letter that was
/// put for a digit (`2OO`) stays with the digits, so that the caret finds it.
fn split_unit(text: &str) -> (&str, &str) {
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at_checked(at).unwrap_or((text, ""))
}

fn in_bounds(value: u64, min: u64, max: u64) -> Option<u64> {
    (min..=max).contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T, Wrong>, text: &str, caret: usize) {
        let wrong = result.unwrap_err();
        assert_eq!((wrong.text.as_str(), wrong.caret), (text, caret));
    }

    #[test]
    fn a_number_is_digits_within_its_bounds() {
        assert_eq!(number("1", 1, 10), Ok(1));
        assert_eq!(number("10", 1, 10), Ok(10));
        let what = "expected a number from 1 to 10, found";
        refused(number("0", 1, 10), &format!("{what} \"0\""), 0);
        refused(number("11", 1, 10), &format!("{what} \"11\""), 0);
        refused(number("1O", 1, 10), &format!("{what} \"1O\""), 1);
        refused(number("+1", 1, 10), &format!("{what} \"+1\""), 0);
        refused(number("-1", 1, 10), &format!("{what} \"-1\""), 0);
        refused(number(" 1", 1, 10), &format!("{what} \" 1\""), 0);
        refused(number("", 1, 10), &format!("{what} nothing"), 0);
        refused(
            number("99999999999999999999", 1, 10),
            &format!("{what} \"99999999999999999999\""),
            0,
        );
    }

    #[test]
    fn sizes_take_units_of_1024() {
        assert_eq!(size("1024", 0, 1 << 40), Ok(1024));
        assert_eq!(size("64K", 0, 1 << 40), Ok(65_536));
        assert_eq!(size("1M", 0, 1 << 40), Ok(1 << 20));
        assert_eq!(size("1T", 0, 1 << 40), Ok(1 << 40));
        let what = "expected a size from 0 to 1T such as 64K, found";
        refused(size("2T", 0, 1 << 40), &format!("{what} \"2T\""), 0);
        refused(size("1X", 0, 1 << 40), &format!("{what} \"1X\""), 1);
        refused(
            size("18446744073709551615K", 0, 1 << 40),
            &format!("{what} \"18446744073709551615K\""),
            0,
        );
        refused(size("K", 0, 1 << 40), &format!("{what} \"K\""), 0);
    }

    #[test]
    fn times_take_units_and_bare_numbers_are_seconds() {
        let day = Duration::from_secs(86_400);
        let time = |text| duration(text, Duration::ZERO, day);
        assert_eq!(time("0"), Ok(Duration::ZERO));
        assert_eq!(time("10"), Ok(Duration::from_secs(10)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        let what = "expected a time from 0 to 24h such as 500ms, 10s, 5m or 2h, found";
        refused(time("25h"), &format!("{what} \"25h\""), 0);
        refused(time("1d"), &format!("{what} \"1d\""), 1);
        refused(time("1.5s"), &format!("{what} \"1.5s\""), 1);
    }

    #[test]
    fn a_mode_is_three_or_four_octal_digits_without_special_bits() {
        assert_eq!(mode("0660"), Ok(0o660));
        assert_eq!(mode("777"), Ok(0o777));
        let what = "expected an octal mode from 0000 to 0777, found";
        refused(mode("0680"), &format!("{what} \"0680\""), 2);
        refused(mode("1777"), &format!("{what} \"1777\""), 0);
        refused(mode("00777"), &format!("{what} \"00777\""), 0);
        refused(mode("77"), &format!("{what} \"77\""), 0);
    }

    #[test]
    fn a_rate_is_a_count_in_a_time() {
        assert_eq!(rate("0"), Ok(None));
        let second = Duration::from_secs(1);
        assert_eq!(rate("50/1s"), Ok(Rate::new(50, second)));
        let what = "expected a rate such as 50/1s, or 0, found";
        refused(rate("50"), &format!("{what} \"50\""), 0);
        refused(rate("50/1x"), &format!("{what} \"50/1x\""), 4);
        refused(rate("5o/1s"), &format!("{what} \"5o/1s\""), 1);
        refused(rate("0/1s"), &format!("{what} \"0/1s\""), 0);
    }

    #[test]
    fn what_is_shown_reads_back() {
        for bytes in [0, 1, 1023, 1024, 1536, 10 << 20, 3 << 30, 1 << 40] {
            assert_eq!(size(&show_size(bytes), 0, u64::MAX), Ok(bytes));
        }
        for ms in [0, 1, 999, 1000, 1500, 60_000, 90_000, 3_600_000] {
            let time = Duration::from_millis(ms);
            assert_eq!(
                duration(&show_duration(time), Duration::ZERO, time),
                Ok(time)
            );
        }
    }

    #[test]
    fn a_queue_has_one_slash() {
        assert!(mq_name("/a").is_ok());
        assert!(mq_name(&format!("/{}", "a".repeat(254))).is_ok());
        for text in [
            "a",
            "/",
            "//",
            "/a/b",
            "",
            "/.",
            &format!("/{}", "a".repeat(255)),
        ] {
            assert!(mq_name(text).is_err(), "{text:?}");
        }
    }
}
