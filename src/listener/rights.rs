//! Who owns a file and who may do what with it, and whom we trust with that.

use std::fmt;

use crate::ids::{Gid, Uid};

/// Owner, group and mode of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    /// The owner. [`Uid::OVERFLOW`] also where the owner has no mapping here.
    pub owner: Uid,
    /// The group.
    pub group: Gid,
    /// The permission bits with set-id and sticky bits, at most `0o7777`.
    pub mode: u32,
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, group, mode } = self;
        write!(f, "mode {mode:04o}, owner uid {owner}, group gid {group}")
    }
}

/// The users that a file may belong to: root, and the server's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trusted {
    pub(super) current: Uid,
    pub(super) server: Uid,
    /// Whether 65534 may stand for a user without a mapping.
    pub(super) overflow_is_nobody: bool,
}

impl Trusted {
    /// Root, the user that runs this process, and the one that the server has
    /// in the end.
    pub(super) fn new(server: Uid) -> Self {
        // A map that can't be read is taken for a partial one.
        let full = std::fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]));
        Self {
            current: super::effective_uid(),
            server,
            overflow_is_nobody: !full,
        }
    }

    /// Whether `uid` is root or the server's user. In a user namespace without
    /// a full map, the overflow id is nobody's.
    pub fn includes(self, uid: Uid) -> bool {
        if uid == Uid::OVERFLOW && self.overflow_is_nobody {
            return false;
        }
        uid == Uid::ROOT || uid == self.current || uid == self.server
    }
}

impl fmt::Display for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("uid 0")?;
        if self.server != Uid::ROOT {
            write!(f, " or {}", self.server)?;
        }
        if self.current != Uid::ROOT && self.current != self.server {
            write!(f, " or {}", self.current)?;
        }
        Ok(())
    }
}
