//! `/proc/self/fdinfo/N` of a pidfd (pidfd_open(2), proc_pid_fdinfo(5)).

use crate::ids::Pid;

/// What a pidfd says about its process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PidfdState {
    /// It has this number in the PID namespace of the `/proc` that was read.
    Pid(Pid),
    /// It is gone: reaped.
    Gone,
    /// It has no number in that PID namespace.
    NotVisible,
}

/// The line `Pid:`. `None` if there is none, or not just one: then it isn't a pidfd.
pub fn pidfd_state(fdinfo: &[u8]) -> Option<PidfdState> {
    let mut lines = fdinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"Pid:"))
        .map(<[u8]>::trim_ascii);
    let value = std::str::from_utf8(lines.next()?).ok()?;
    if lines.next().is_some() {
        return None;
    }
    let number = value.parse::<i32>().ok()?;
    // The kernel prints neither a plus sign nor zeros in front.
    if number.to_string() != value {
        return None;
    }
    match number {
        -1 => Some(PidfdState::Gone),
        0 => Some(PidfdState::NotVisible),
        number => Pid::from_raw(number).map(PidfdState::Pid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fdinfo: &str, expected: Option<PidfdState>) {
        assert_eq!(pidfd_state(fdinfo.as_bytes()), expected, "{fdinfo:?}");
    }

    #[test]
    fn a_number_is_a_process_and_the_rest_is_not() {
        let head = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1\n";
        let seven = Pid::from_raw(7).map(PidfdState::Pid);
        check(&format!("{head}Pid:\t7\nNSpid:\t7\n"), seven);
        check(
            &format!("{head}Pid:\t-1\nNSpid:\t-1\n"),
            Some(PidfdState::Gone),
        );
        check(
            &format!("{head}Pid:\t0\nNSpid:\t0\n"),
            Some(PidfdState::NotVisible),
        );
        check(&format!("{head}Pid:\t-2\n"), None);
        check(&format!("{head}Pid:\t7\nPid:\t8\n"), None);
        check(&format!("{head}Pid:\t+7\n"), None);
        check(&format!("{head}Pid:\t07\n"), None);
        check(&format!("{head}Pid:\t-0\n"), None);
        check(&format!("{head}Pid:\n"), None);
        check(head, None);
        check("", None);
    }
}
