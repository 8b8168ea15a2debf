//! The PROXY protocol, version 2: who is behind a relay, told to the upstream
//! before the first byte.
//!
//! [`Header`] is what both ends talk about; [`Header::encode`] is for the relay,
//! [`parse`] for whoever is the upstream. Besides the addresses it carries what
//! the kernel vouched for, in type-length-values of the range that the
//! specification leaves to applications (0xE0 to 0xE5), and a CRC-32C over all.
//!
//! Invariants: pure, no I/O; a value that doesn't fit is left out whole and
//! never cut; what is parsed was covered by the checksum if one is there.
//!
//! A header with Unix addresses has 2576 bytes: haproxy takes no other. nginx up
//! to 1.23.1 needs `client_header_buffer_size 4k` for it.
//!
//! Not here: version 1, the text form; deciding whether a sender may be
//! believed. Only read headers from a socket that nobody but the relay reaches.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod checksum;
mod encode;
mod parse;

pub use parse::{ParseError, parse};

use std::net::SocketAddr;

use crate::ids::{Gid, Pid, Uid};

/// The first 12 bytes of every header.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Most bytes that [`Header::encode`] gives: nginx takes no more.
pub const MAX_ENCODED: usize = 4096;

/// Bytes of a Unix address (`sun_path`).
const UNIX_PATH: usize = 108;

/// Types of values.
mod kind {
    pub(super) const CRC32C: u8 = 0x03;
    pub(super) const NOOP: u8 = 0x04;
    pub(super) const UID: u8 = 0xE0;
    pub(super) const GID: u8 = 0xE1;
    pub(super) const PID: u8 = 0xE2;
    pub(super) const GROUPS: u8 = 0xE3;
    pub(super) const EXE: u8 = 0xE4;
    pub(super) const RULE: u8 = 0xE5;
}

/// One header.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Whose connection it is.
    pub endpoints: Endpoints,
    /// What the kernel vouched for.
    pub vouched: Vouched,
}

/// The two ends of the connection that is passed on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Endpoints {
    /// The sender's own connection (command LOCAL), as for a health check:
    /// nobody is behind it.
    #[default]
    Local,
    /// Of a family that the sender doesn't name.
    Unspecified,
    /// Over the internet domains.
    Inet {
        /// Stream or datagrams.
        transport: Transport,
        /// The peer.
        source: SocketAddr,
        /// The socket that it connected to; of the same family as `source`.
        destination: SocketAddr,
    },
    /// On this machine.
    Unix {
        /// Stream (also for `SOCK_SEQPACKET`) or datagrams.
        transport: Transport,
        /// The peer; most often without a name.
        source: UnixName,
        /// The socket that it connected to.
        destination: UnixName,
    },
}

/// Stream or datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// `SOCK_STREAM`, and any other that is connected.
    Stream,
    /// `SOCK_DGRAM`.
    Datagram,
}

/// A Unix address as in `sun_path`: a path, a name in the abstract namespace
/// (which starts with a zero byte), or none. At most 108 bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnixName(Vec<u8>);

impl UnixName {
    /// Takes a path, or a zero byte and an abstract name. Of a longer one, which
    /// no `sun_path` can hold, the last 108 bytes are kept: they tell sockets
    /// apart better than the first.
    pub fn new(bytes: &[u8]) -> Self {
        let start = bytes.len().saturating_sub(UNIX_PATH);
        Self(bytes.get(start..).unwrap_or_default().to_vec())
    }

    /// The bytes, without trailing zeros. Empty for a socket without a name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What the relay's kernel said of the peer. `None` where it said nothing, or
/// what it said doesn't fit in a header: whoever needs it must deny then.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vouched {
    /// Effective user at connect (0xE0).
    pub uid: Option<Uid>,
    /// Effective group at connect (0xE1).
    pub gid: Option<Gid>,
    /// The process that connected, in the relay's PID namespace (0xE2).
    pub pid: Option<Pid>,
    /// Supplementary groups (0xE3).
    pub groups: Option<Vec<Gid>>,
    /// Path of the executable, where a rule names it by its path (0xE4): that path of
    /// the policy, and not what the peer's mount namespace calls the file.
    pub exe: Option<Vec<u8>>,
    /// The rule that admitted the peer (0xE5).
    pub rule: Option<u32>,
}
