//! User, group and process ids as the kernel reports them.
//!
//! Each is a type of its own, so that they are never swapped, and so that no
//! number stands for "not set": where an id can be absent, `Option` says so.

use std::fmt;
use std::num::NonZeroI32;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(u32);

        impl $name {
            /// Superuser, or its group.
            pub const ROOT: Self = Self(0);

            /// The id that the kernel shows for one that has no mapping in this
            /// user namespace (user_namespaces(7), `/proc/sys/kernel/overflowuid`).
            pub const OVERFLOW: Self = Self(65_534);

            /// Takes an id as system calls use it. `None` for `u32::MAX`, which
            /// they use for "no id" (setresuid(2), chown(2)).
            pub const fn from_raw(raw: u32) -> Option<Self> {
                if raw == u32::MAX { None } else { Some(Self(raw)) }
            }

            /// The number, for a system call or for display.
            pub const fn as_raw(self) -> u32 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// A user id, 0 to 4294967294.
    Uid
}

id! {
    /// A group id, 0 to 4294967294.
    Gid
}

/// A process id: 1 or more, in the PID namespace of the one who asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pid(NonZeroI32);

impl Pid {
    /// Takes a pid as the kernel reports it. `None` for 0, which stands for a
    /// process that this PID namespace can't see, and for negative numbers,
    /// which stand for one that is gone (unix(7), `SO_PEERCRED`).
    pub const fn from_raw(raw: i32) -> Option<Self> {
        match NonZeroI32::new(raw) {
            Some(number) if number.get() > 0 => Some(Self(number)),
            _ => None,
        }
    }

    /// The number, for a system call or for display.
    pub const fn as_raw(self) -> i32 {
        self.0.get()
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bits_set_is_no_id() {
        assert_eq!(Uid::from_raw(u32::MAX), None);
        assert_eq!(
            Uid::from_raw(u32::MAX - 1).map(Uid::as_raw),
            Some(u32::MAX - 1)
        );
        assert_eq!(Gid::from_raw(0), Some(Gid::ROOT));
    }

    #[test]
    fn a_pid_is_positive() {
        assert_eq!(Pid::from_raw(0), None);
        assert_eq!(Pid::from_raw(-1), None);
        assert_eq!(Pid::from_raw(i32::MIN), None);
        assert_eq!(Pid::from_raw(1).map(Pid::as_raw), Some(1));
    }
}
