//! `/proc/PID/uid_map`, `gid_map` and `/proc/sys/kernel/overflowuid`
//! (user_namespaces(7), proc_sys_kernel(5)).

/// Ids run from 0 to this number, exclusive: all bits set is no id.
const ALL_IDS: u64 = 4_294_967_295;

/// Whether a map gives every id a meaning. `None` if it isn't a map.
///
/// Lines hold the first id inside, the first outside, and the length of a range.
pub fn covers_all_ids(map: &[u8]) -> Option<bool> {
    let mut ranges = Vec::new();
    for line in map
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        ranges.push(range(line)?);
    }
    ranges.sort_unstable();
    let mut covered = 0;
    for (first, length) in ranges {
        if first > covered {
            return Some(covered >= ALL_IDS);
        }
        covered = covered.max(first.checked_add(length)?);
    }
    Some(covered >= ALL_IDS)
}

/// The ids outside of a range count: they are what the kernel translates. A range
/// of all ids maps each one whatever the order inside.
fn range(line: &[u8]) -> Option<(u64, u64)> {
    let mut numbers = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let _inside = decimal(numbers.next()?)?;
    let outside = decimal(numbers.next()?)?;
    let length = decimal(numbers.next()?)?;
    numbers.next().is_none().then_some((outside, length))
}

/// The id that stands for an unmapped one. `None` if the text is no id.
pub fn overflow_id(text: &[u8]) -> Option<u32> {
    decimal(text.strip_suffix(b"\n").unwrap_or(text)).and_then(|id| u32::try_from(id).ok())
}

/// A decimal number of at most ten digits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(map: &str, expected: Option<bool>) {
        assert_eq!(covers_all_ids(map.as_bytes()), expected, "{map:?}");
    }

    #[test]
    fn what_lies_beyond_all_ids_takes_nothing_away() {
        assert_eq!(
            covers_all_ids(b"0 0 4294967295\n9 5008589900 90\n"),
            Some(true)
        );
        assert_eq!(
            covers_all_ids(b"0 0 4294967294\n9 5008589900 90\n"),
            Some(false)
        );
    }

    #[test]
    fn only_a_map_of_everything_is_full() {
        check("         0          0 4294967295\n", Some(true));
        check("         0          0 4294967294\n", Some(false));
        check("         0       1000          1\n", Some(false));
        check("0 0 1000\n1000 1000 4294966295\n", Some(true));
        check("0 0 1000\n1001 1001 4294966294\n", Some(false));
        check("0 100000 65536\n", Some(false));
        check("", Some(false));
    }

    #[test]
    fn what_is_no_map_is_unknown() {
        check("0 0\n", None);
        check("0 0 1 2\n", None);
        check("a 0 1\n", None);
        check("0 0 99999999999\n", None);
        assert_eq!(overflow_id(b"65534\n"), Some(65_534));
        assert_eq!(overflow_id(b"\n"), None);
        assert_eq!(overflow_id(b"4294967296\n"), None);
    }
}
