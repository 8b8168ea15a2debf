//! A process behind a pidfd: whether it lives, and what `/proc` says of the
//! descriptor (pidfd_open(2), proc_pid_fdinfo(5)).

use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::ids::Pid;

/// The text of `fdinfo` for a descriptor of this process, at most 64 KiB.
///
/// # Errors
///
/// As openat2(2) and read(2) below `proc`, an open `/proc`.
pub fn descriptor_info(proc: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let name = format!("self/fdinfo/{}", fd.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat2(proc, name, flags, Mode::empty(), ResolveFlags::BENEATH)?;
    let mut text = Vec::new();
    std::fs::File::from(file)
        .take(65_536)
        .read_to_end(&mut text)?;
    Ok(text)
}

/// The hard limit on descriptors (`RLIMIT_NOFILE`). rustix has this call as one that can't
/// fail; where an outer filter refuses it, it does.
///
/// # Errors
///
/// As getrlimit(2).
#[cfg(feature = "sandbox")]
pub(crate) fn most_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes one rlimit to the place that it is given.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit.rlim_max),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many mappings a process may have (`vm.max_map_count`, proc_sys_vm(5)), as it was
/// when this was asked first: a sandbox hides it later. The kernel's own default where it
/// can't be read.
pub(crate) fn max_map_count() -> usize {
    const DEFAULT: usize = 65_530;
    static FOUND: OnceLock<usize> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        text.trim().parse().unwrap_or(DEFAULT)
    })
}

/// Whether the process of a pidfd has exited. A zombie has.
///
/// # Errors
///
/// As poll(2).
pub fn has_exited(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        match poll(&mut fds, Some(&now)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens a pidfd for the process that bears a number now (pidfd_open(2)).
///
/// # Errors
///
/// ESRCH if there is none.
pub fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    let none = || io::Error::from_raw_os_error(libc::ESRCH);
    let number = rustix::process::Pid::from_raw(pid.as_raw()).ok_or_else(none)?;
    Ok(rustix::process::pidfd_open(
        number,
        rustix::process::PidfdFlags::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_child_lives_until_it_exits() {
        let mut child = std::process::Command::new("sleep")
            .arg("10")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = open_pidfd(pid).unwrap();
        assert!(!has_exited(pidfd.as_fd()).unwrap());
        let proc = std::fs::File::open("/proc").unwrap();
        let text = descriptor_info(proc.as_fd(), pidfd.as_fd()).unwrap();
        assert!(
            String::from_utf8(text)
                .unwrap()
                .contains(&format!("Pid:\t{pid}\n"))
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_exited(pidfd.as_fd()).unwrap());
        assert!(open_pidfd(pid).is_err());
    }
}
