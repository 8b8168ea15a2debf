//! The ids that the kernel recorded when the peer connected.

#![forbid(unsafe_code)]

use std::fmt;

use crate::ids::{Gid, Pid, Uid};
use crate::text::ShortText;

/// Whether every user and group id has a meaning in this user namespace.
///
/// Where one has none, the kernel shows the overflow id instead
/// (user_namespaces(7)), and that number then is nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdMaps {
    /// `/proc/self/uid_map` covers all ids.
    pub users_full: bool,
    /// `/proc/self/gid_map` covers all ids.
    pub groups_full: bool,
    /// What an unmapped user is shown as, by default 65534.
    pub overflow_uid: Uid,
    /// What an unmapped group is shown as, by default 65534.
    pub overflow_gid: Gid,
}

impl IdMaps {
    /// As in the initial user namespace: every id is someone's.
    pub const FULL: Self = Self {
        users_full: true,
        groups_full: true,
        overflow_uid: Uid::OVERFLOW,
        overflow_gid: Gid::OVERFLOW,
    };

    /// As in a container with a map of its own: the overflow ids are nobody's.
    pub const PARTIAL: Self = Self {
        users_full: false,
        groups_full: false,
        ..Self::FULL
    };

    /// The user behind a number from the kernel. `None` if there is none.
    pub fn user(self, raw: u32) -> Option<Uid> {
        Uid::from_raw(raw).filter(|uid| self.users_full || !self.stands_for_no_user(*uid))
    }

    /// The group behind a number from the kernel. `None` if there is none.
    pub fn group(self, raw: u32) -> Option<Gid> {
        Gid::from_raw(raw).filter(|gid| self.groups_full || !self.stands_for_no_group(*gid))
    }

    fn stands_for_no_user(self, uid: Uid) -> bool {
        uid == self.overflow_uid || uid == Uid::OVERFLOW
    }

    fn stands_for_no_group(self, gid: Gid) -> bool {
        gid == self.overflow_gid || gid == Gid::OVERFLOW
    }
}

/// Process, user and group of a peer when it connected (unix(7), `SO_PEERCRED`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credentials {
    pid: Option<Pid>,
    uid: Option<Uid>,
    gid: Option<Gid>,
    raw: Option<(i32, u32, u32)>,
}

impl Credentials {
    /// What a peer over the internet has: none.
    pub const NONE: Self = Self {
        pid: None,
        uid: None,
        gid: None,
        raw: None,
    };

    /// Takes the numbers of a `struct ucred`, and drops those that are nobody's.
    pub fn from_raw(pid: i32, uid: u32, gid: u32, maps: IdMaps) -> Self {
        Self {
            pid: Pid::from_raw(pid),
            uid: maps.user(uid),
            gid: maps.group(gid),
            raw: Some((pid, uid, gid)),
        }
    }

    /// The process. `None` if this PID namespace can't see it.
    pub fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// The effective user. `None` if it has no mapping in this user namespace.
    pub fn uid(&self) -> Option<Uid> {
        self.uid
    }

    /// The effective group. `None` if it has no mapping in this user namespace.
    pub fn gid(&self) -> Option<Gid> {
        self.gid
    }

    /// Whether the kernel reported any at all: false for internet peers.
    pub fn are_known(&self) -> bool {
        self.raw.is_some()
    }

    /// The numbers as the kernel gave them, pid, uid and gid, for display only:
    /// an unmapped id is not told apart here.
    pub fn raw(&self) -> Option<(i32, u32, u32)> {
        self.raw
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((pid, uid, gid)) = self.raw else {
            return f.write_str("uid=none gid=none pid=none");
        };
        let mark = |known: bool, mark| if known { "" } else { mark };
        let mut text = ShortText::<96>::new();
        text.push("uid=")
            .push_number(uid.into(), 1)
            .push(mark(self.uid.is_some(), "(unmapped)"))
            .push(" gid=")
            .push_number(gid.into(), 1)
            .push(mark(self.gid.is_some(), "(unmapped)"))
            .push(" pid=")
            .push(mark(pid >= 0, "-"))
            .push_number(pid.unsigned_abs().into(), 1)
            .push(mark(self.pid.is_some(), "(not visible)"));
        f.write_str(text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflow_id_is_someone_only_where_the_map_is_full() {
        let full = Credentials::from_raw(7, 65_534, 65_534, IdMaps::FULL);
        assert_eq!(
            (full.uid(), full.gid()),
            (Some(Uid::OVERFLOW), Some(Gid::OVERFLOW))
        );
        let partial = Credentials::from_raw(7, 65_534, 65_534, IdMaps::PARTIAL);
        assert_eq!((partial.uid(), partial.gid()), (None, None));
        assert_eq!(partial.raw(), Some((7, 65_534, 65_534)));
    }

    #[test]
    fn an_overflow_id_of_ones_own_choice_is_nobody_either() {
        let maps = IdMaps {
            overflow_uid: Uid::from_raw(4_000).unwrap(),
            ..IdMaps::PARTIAL
        };
        assert_eq!(maps.user(4_000), None);
        assert_eq!(maps.user(65_534), None);
        assert_eq!(maps.user(4_001).map(Uid::as_raw), Some(4_001));
    }

    #[test]
    fn no_id_is_never_an_identity() {
        let peer = Credentials::from_raw(0, u32::MAX, u32::MAX, IdMaps::FULL);
        assert_eq!((peer.pid(), peer.uid(), peer.gid()), (None, None, None));
        assert_eq!(
            peer.to_string(),
            "uid=4294967295(unmapped) gid=4294967295(unmapped) pid=0(not visible)"
        );
        let lowest = Credentials::from_raw(i32::MIN, u32::MAX, u32::MAX, IdMaps::FULL);
        assert_eq!(
            lowest.to_string(),
            "uid=4294967295(unmapped) gid=4294967295(unmapped) pid=-2147483648(not visible)"
        );
    }
}
