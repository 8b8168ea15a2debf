//! Asks the kernel which answers a filter may give (seccomp(2),
//! `SECCOMP_GET_ACTION_AVAIL`).

/// Whether filters may return `action`; false also where there are no filters.
pub(crate) fn action_available(action: u32) -> bool {
    let pointer: *const u32 = &raw const action;
    // SAFETY: the operation reads one u32 through the pointer, which is to a
    // local that outlives the call; it takes no flags.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            pointer,
        )
    };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_action_is_not_available() {
        assert!(action_available(libc::SECCOMP_RET_KILL_PROCESS));
        assert!(!action_available(0x1234_0000));
    }
}
