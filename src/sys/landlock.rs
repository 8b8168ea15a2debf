//! Landlock by its three system calls (landlock(7), landlock_create_ruleset(2),
//! landlock_add_rule(2), landlock_restrict_self(2)).
//!
//! `audit/landlock.md` weighs this against the `landlock` crate.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: u32 = 1;
/// `LANDLOCK_RULE_PATH_BENEATH` and `LANDLOCK_RULE_NET_PORT`.
const RULE_PATH: u32 = 1;
const RULE_PORT: u32 = 2;

/// `struct landlock_ruleset_attr`: every right that is denied unless granted.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Handled {
    pub(crate) files: u64,
    pub(crate) network: u64,
    pub(crate) scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathRule {
    allowed: u64,
    parent: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct PortRule {
    allowed: u64,
    port: u64,
}

/// Rules that threads can be restricted to.
#[derive(Debug)]
pub(crate) struct Ruleset(OwnedFd);

/// The version of the interface; `ENOSYS` where the kernel was built without
/// it, `EOPNOTSUPP` where it is disabled at boot.
pub(crate) fn abi() -> io::Result<u32> {
    // SAFETY: with this flag the kernel takes a null pointer and size 0.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<Handled>(),
            0,
            ASK_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}

impl Ruleset {
    /// Starts with no rule at all.
    pub(crate) fn new(handled: &Handled) -> io::Result<Self> {
        let pointer: *const Handled = handled;
        // SAFETY: the pointer is to a landlock_ruleset_attr of the size given;
        // kernels that know fewer fields accept the rest if it is zero.
        let descriptor = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                pointer,
                size_of::<Handled>(),
                0,
            )
        };
        let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor (close-on-exec), and
        // nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Grants rights to a file, or to what is below a directory.
    pub(crate) fn allow_path(&self, path: BorrowedFd<'_>, allowed: u64) -> io::Result<()> {
        let rule = PathRule {
            allowed,
            parent: path.as_raw_fd(),
        };
        // SAFETY: the rule is of the type that the number announces, and its
        // descriptor is borrowed for the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.0.as_raw_fd(),
                RULE_PATH,
                &raw const rule,
                0,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Grants rights to a TCP port.
    pub(crate) fn allow_port(&self, port: u16, allowed: u64) -> io::Result<()> {
        let rule = PortRule {
            allowed,
            port: u64::from(port),
        };
        // SAFETY: the rule is of the type that the number announces.
        let result = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.0.as_raw_fd(),
                RULE_PORT,
                &raw const rule,
                0,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Restricts the calling thread, and all that it will start.
    pub(crate) fn restrict_thread(&self) -> io::Result<()> {
        // SAFETY: a borrowed descriptor and no flags.
        let result =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// Opens a path as a place only: no right to what is there is needed or given.
pub(crate) fn open_place(path: &std::path::Path) -> io::Result<(OwnedFd, bool)> {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let kind = rustix::fs::fstat(place.as_fd())?.st_mode;
    let is_directory = rustix::fs::FileType::from_raw_mode(kind).is_dir();
    Ok((place, is_directory))
}
