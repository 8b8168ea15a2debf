//! `/proc/PID/cmdline` and `/proc/PID/comm` (proc_pid_cmdline(5), proc_pid_comm(5)).

/// The command line as one text: the NULs between arguments become blanks, and the
/// one at the end goes. Empty for a process without any, as a zombie.
pub fn command_line(mut cmdline: Vec<u8>) -> Vec<u8> {
    if cmdline.last() == Some(&0) {
        cmdline.pop();
    }
    for byte in &mut cmdline {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    cmdline
}

/// The name without the newline that the kernel adds.
pub fn command_name(mut comm: Vec<u8>) -> Vec<u8> {
    if comm.last() == Some(&b'\n') {
        comm.pop();
    }
    comm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cmdline: &[u8], expected: &[u8]) {
        assert_eq!(command_line(cmdline.to_vec()), expected);
    }

    #[test]
    fn arguments_are_joined_by_blanks() {
        check(b"a\0b c\0", b"a b c");
        check(b"a\0\0", b"a ");
        check(b"\0", b"");
        check(b"", b"");
        // A process that wrote over its arguments.
        check(b"a: worker", b"a: worker");
    }

    #[test]
    fn a_name_loses_one_newline() {
        assert_eq!(command_name(b"nginx\n".to_vec()), b"nginx");
        assert_eq!(command_name(b"a\n\n".to_vec()), b"a\n");
        assert_eq!(command_name(b"".to_vec()), b"");
    }
}
