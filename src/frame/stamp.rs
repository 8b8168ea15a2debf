//! The sender's identity, as the broker writes it into each message.

use crate::ids::{Gid, Pid, Uid};

/// Length of a stamp.
pub const STAMP_BYTES: usize = 32;

/// Who sent a message, as the kernel reported it to the broker.
///
/// Absent ids (an internet domain, a process outside the broker's PID
/// namespace) are 4294967295 for uid and gid and 0 for pid on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Number of the sender's connection, never used twice by one broker.
    pub connection: u64,
    /// Place in the one order of this broker's messages; only grows.
    pub sequence: u64,
    /// Effective user at connect.
    pub uid: Option<Uid>,
    /// Primary group at connect.
    pub gid: Option<Gid>,
    /// Process that connected.
    pub pid: Option<Pid>,
    /// [`Stamp::PIDFD_HELD`] and [`Stamp::EXE_CHECKED`], or neither.
    pub flags: u32,
}

impl Stamp {
    /// The broker holds a pidfd of the process, so `pid` can't be recycled.
    pub const PIDFD_HELD: u32 = 0x1;
    /// The rule that admitted the sender named its executable, and it matched.
    pub const EXE_CHECKED: u32 = 0x2;

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; STAMP_BYTES] {
        let uid = self.uid.map_or(u32::MAX, Uid::as_raw);
        let gid = self.gid.map_or(u32::MAX, Gid::as_raw);
        let pid = self.pid.map_or(0, |pid| pid.as_raw().unsigned_abs());
        let mut out = [0; STAMP_BYTES];
        let fields = [
            self.connection.to_be_bytes(),
            self.sequence.to_be_bytes(),
            (u64::from(uid) << 32 | u64::from(gid)).to_be_bytes(),
            (u64::from(pid) << 32 | u64::from(self.flags)).to_be_bytes(),
        ];
        for (place, field) in out.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field);
        }
        out
    }

    /// Reads a stamp. A pid above `i32::MAX` counts as absent.
    pub fn parse(bytes: &[u8; STAMP_BYTES]) -> Self {
        let mut words = [0_u32; 8];
        for (word, four) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*four);
        }
        let [c0, c1, s0, s1, uid, gid, pid, flags] = words;
        Self {
            connection: u64::from(c0) << 32 | u64::from(c1),
            sequence: u64::from(s0) << 32 | u64::from(s1),
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            pid: i32::try_from(pid).ok().and_then(Pid::from_raw),
            flags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_ids_are_said_and_read_back() {
        let stamp = Stamp {
            connection: 1 << 40,
            sequence: 7,
            uid: None,
            gid: Gid::from_raw(0),
            pid: None,
            flags: 2,
        };
        let bytes = stamp.encode();
        assert_eq!(
            bytes[16..],
            [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]
        );
        assert_eq!(Stamp::parse(&bytes), stamp);
    }

    #[test]
    fn each_field_has_its_place() {
        let stamp = Stamp {
            connection: 0x0102_0304_0506_0708,
            sequence: 0x1112_1314_1516_1718,
            uid: Uid::from_raw(0x2122_2324),
            gid: Gid::from_raw(0x2526_2728),
            pid: Pid::from_raw(0x3132_3334),
            flags: 0x3536_3738,
        };
        let bytes = stamp.encode();
        for (eight, first) in bytes.chunks(8).zip([0x01, 0x11, 0x21, 0x31]) {
            assert!(eight.iter().copied().eq(first..first + 8), "{eight:x?}");
        }
        assert_eq!(Stamp::parse(&bytes), stamp);
    }
}
