//! `/proc/PID/status` (proc_pid_status(5)).

/// The capability sets of a thread, as masks of `1 << number`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
}

/// The lines `CapEff:` and `CapPrm:`. `None` if either is missing or no mask.
pub fn capabilities(status: &[u8]) -> Option<Capabilities> {
    let mask = |key: &[u8]| {
        let mut lines = status.split(|byte| *byte == b'\n');
        let line = lines.find_map(|line| line.strip_prefix(key))?;
        let digits = line.trim_ascii();
        // `from_str_radix` takes a plus sign, which the kernel doesn't print.
        let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
        let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
        u64::from_str_radix(digits, 16).ok()
    };
    Some(Capabilities {
        effective: mask(b"CapEff:")?,
        permitted: mask(b"CapPrm:")?,
    })
}

/// Whether a capability is in force, by its number (capabilities(7)). False for
/// what is not the text of a status.
pub fn has_capability(status: &[u8], number: u8) -> bool {
    let mask = 1_u64.checked_shl(u32::from(number)).unwrap_or(0);
    capabilities(status).is_some_and(|sets| sets.effective & mask != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_in_force_only_in_the_effective_set() {
        let status = b"Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t0000000000080000\n\
                       CapEff:\t0000000000080000\nCapBnd:\t000001ffffffffff\n";
        assert!(has_capability(status, 19));
        assert!(!has_capability(status, 18));
        assert!(!has_capability(status, 200));
        assert!(!has_capability(b"CapPrm:\t00ff\nCapEff:\tzz\n", 1));
        assert!(!has_capability(b"CapPrm:\t00ff\nCapEff:\t+ff\n", 1));
        assert!(!has_capability(b"", 19));
        let dropped = b"CapPrm:\t0000000000080000\nCapEff:\t0000000000000000\n";
        assert!(!has_capability(dropped, 19));
    }
}
