//! Sheds what the process was started with, before anything else is done:
//! inherited descriptors and variables, a lenient umask, core dumps.

use std::ffi::OsString;

use rustix::fs::Mode as FileMode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use super::SandboxError;
use super::attest::thread_count;
use super::error::system;
use crate::sys::startup::{close_descriptors_from, remove_variable};

/// The variables that a server reads; sd_listen_fds(3), sd_notify(3),
/// sd_watchdog_enabled(3), systemd.exec(5), environ(7), no-color.org.
const KEPT_VARIABLES: [&str; 11] = [
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "NO_COLOR",
    "TERM",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "XDG_RUNTIME_DIR",
];

/// First descriptor that is handed over by systemd (sd_listen_fds(3)).
const FIRST_LISTEN_DESCRIPTOR: u32 = 3;

/// Most descriptors that are taken over from systemd.
const MOST_LISTEN_DESCRIPTORS: u32 = 64;

/// Hardens the process before it reads its configuration: closes inherited
/// descriptors other than 0 to 2 and those that systemd hands over, removes all
/// environment variables that a server doesn't read, sets the umask to 077,
/// forbids core dumps and ptrace by the same user (`PR_SET_DUMPABLE`).
///
/// To be called at the very start of `main`: it closes descriptors from 3 on,
/// whoever opened them. Descriptors 0 to 2 are opened on `/dev/null` by the
/// standard library, before `main`, where they were closed.
///
/// # Errors
/// [`SandboxError::Threads`] if another thread exists; [`SandboxError::System`]
/// if `/proc` is not mounted or a call is refused (close_range(2) needs Linux 5.9).
pub fn early_hardening() -> Result<(), SandboxError> {
    let found = thread_count()?;
    if found != 1 {
        return Err(SandboxError::Threads { found });
    }
    close_descriptors_from(FIRST_LISTEN_DESCRIPTOR.saturating_add(handed_over()))
        .map_err(|source| system("can't close inherited descriptors", source))?;
    for name in unneeded_variables() {
        remove_variable(&name);
    }
    rustix::process::umask(FileMode::from_raw_mode(0o077));
    forbid_dumps()
}

/// `RLIMIT_CORE` 0 and `PR_SET_DUMPABLE` 0.
pub(super) fn forbid_dumps() -> Result<(), SandboxError> {
    rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
    .map_err(|errno| system("can't set RLIMIT_CORE to 0", errno.into()))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| system("can't make the process undumpable", errno.into()))
}

/// How many descriptors systemd meant for this process.
fn handed_over() -> u32 {
    let variable = |name| std::env::var(name).ok();
    let ours = variable("LISTEN_PID")
        .and_then(|text| text.parse::<u32>().ok())
        .is_some_and(|pid| pid == std::process::id());
    if !ours {
        return 0;
    }
    variable("LISTEN_FDS")
        .and_then(|text| text.parse::<u32>().ok())
        .map_or(0, |count| count.min(MOST_LISTEN_DESCRIPTORS))
}

fn unneeded_variables() -> Vec<OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| !KEPT_VARIABLES.iter().any(|kept| name == kept))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_reads_is_kept() {
        let unneeded = unneeded_variables();
        assert!(!unneeded.iter().any(|name| name == "NOTIFY_SOCKET"));
        assert!(KEPT_VARIABLES.is_sorted());
    }
}
