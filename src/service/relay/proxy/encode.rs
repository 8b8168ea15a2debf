//! From [`Header`] to bytes.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::checksum::Crc32c;
use super::{
    Endpoints, Header, MAX_ENCODED, SIGNATURE, Transport, UNIX_PATH, UnixName, Vouched, kind,
};

/// haproxy (2.6 and others) knows no Unix addresses: it goes through the values
/// of such a header from the first byte of the signature on, and takes the header
/// only if it ends where it gets to. The signature there reads as a value of
/// 0x0A0D bytes, so a header of exactly 3 + 0x0A0D bytes is accepted.
const LENGTH_FOR_HAPROXY: usize = 3 + 0x0A0D;

/// Type, length and sum of the checksum's own value.
const CHECKSUM: usize = 3 + 4;

impl Header {
    /// The bytes to send before all others, at most [`MAX_ENCODED`]. A value
    /// that would make it longer is left out: first the executable, then the groups.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(&SIGNATURE);
        let (command, family) = match &self.endpoints {
            Endpoints::Local => (0x20, 0x00),
            Endpoints::Unspecified => (0x21, 0x00),
            Endpoints::Inet {
                transport,
                source: SocketAddr::V4(_),
                ..
            } => (0x21, 0x10 | transport.nibble()),
            Endpoints::Inet { transport, .. } => (0x21, 0x20 | transport.nibble()),
            Endpoints::Unix { transport, .. } => (0x21, 0x30 | transport.nibble()),
        };
        out.extend_from_slice(&[command, family, 0, 0]);
        self.endpoints.append_to(&mut out);
        self.vouched.append_to(&mut out);
        if !matches!(self.endpoints, Endpoints::Local | Endpoints::Inet { .. }) {
            pad(&mut out);
        }
        seal(&mut out);
        out
    }
}

/// Fills up with a value that receivers ignore, if there is room for one.
fn pad(out: &mut Vec<u8>) {
    let end = LENGTH_FOR_HAPROXY.saturating_sub(CHECKSUM);
    let Some(length) = end.checked_sub(out.len().saturating_add(3)) else {
        return;
    };
    append(out, kind::NOOP, &vec![0; length]);
}

/// Where the length stands: behind the signature, the command and the family.
const LENGTH_AT: Range<usize> = SIGNATURE.len() + 2..SIGNATURE.len() + 4;

/// Fills in the length and appends the checksum over everything.
fn seal(out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind::CRC32C, 0, 4]);
    let length = out.len().saturating_add(4).saturating_sub(LENGTH_AT.end);
    let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(field) = out.get_mut(LENGTH_AT) {
        field.copy_from_slice(&length);
    }
    let sum = Crc32c::new().with(out).with(&[0; 4]).value();
    out.extend_from_slice(&sum.to_be_bytes());
}

impl Transport {
    const fn nibble(self) -> u8 {
        match self {
            Self::Stream => 1,
            Self::Datagram => 2,
        }
    }
}

impl Endpoints {
    fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Local | Self::Unspecified => {}
            Self::Unix {
                source,
                destination,
                ..
            } => {
                source.append_to(out);
                destination.append_to(out);
            }
            Self::Inet {
                source,
                destination,
                ..
            } => {
                let wide = source.is_ipv6();
                append_ip(out, source.ip(), wide);
                append_ip(out, destination.ip(), wide);
                out.extend_from_slice(&source.port().to_be_bytes());
                out.extend_from_slice(&destination.port().to_be_bytes());
            }
        }
    }
}

/// Both addresses have the width of the source's family: a destination of the
/// other one, which a socket can't have, is mapped, or told as unspecified.
fn append_ip(out: &mut Vec<u8>, address: IpAddr, wide: bool) {
    match (address, wide) {
        (IpAddr::V4(v4), false) => out.extend_from_slice(&v4.octets()),
        (IpAddr::V6(v6), true) => out.extend_from_slice(&v6.octets()),
        (IpAddr::V4(v4), true) => out.extend_from_slice(&v4.to_ipv6_mapped().octets()),
        (IpAddr::V6(v6), false) => {
            let v4 = v6
                .to_ipv4_mapped()
                .unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
            out.extend_from_slice(&v4.octets());
        }
    }
}

impl UnixName {
    fn append_to(&self, out: &mut Vec<u8>) {
        let end = out.len().saturating_add(UNIX_PATH);
        out.extend_from_slice(self.as_bytes());
        out.resize(end, 0);
    }
}

impl Vouched {
    fn append_to(&self, out: &mut Vec<u8>) {
        if let Some(uid) = self.uid {
            append(out, kind::UID, &uid.as_raw().to_be_bytes());
        }
        if let Some(gid) = self.gid {
            append(out, kind::GID, &gid.as_raw().to_be_bytes());
        }
        if let Some(pid) = self.pid {
            append(out, kind::PID, &pid.as_raw().to_be_bytes());
        }
        if let Some(rule) = self.rule {
            append(out, kind::RULE, &rule.to_be_bytes());
        }
        if let Some(groups) = &self.groups {
            let bytes: Vec<u8> = groups
                .iter()
                .flat_map(|group| group.as_raw().to_be_bytes())
                .collect();
            append(out, kind::GROUPS, &bytes);
        }
        if let Some(exe) = &self.exe {
            append(out, kind::EXE, exe);
        }
    }
}

/// Appends one value, or nothing if the header would get too long for it.
fn append(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let total = out
        .len()
        .saturating_add(3 + CHECKSUM)
        .saturating_add(value.len());
    let Ok(length) = u16::try_from(value.len()) else {
        return;
    };
    if total > MAX_ENCODED {
        return;
    }
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::ids::{Gid, Pid, Uid};

    fn vouched() -> Vouched {
        Vouched {
            uid: Uid::from_raw(1000),
            gid: Gid::from_raw(33),
            pid: Pid::from_raw(812),
            groups: Some(vec![Gid::ROOT, Gid::from_raw(4_000_000_000).unwrap()]),
            exe: Some(b"/usr/sbin/nginx".to_vec()),
            rule: Some(3),
        }
    }

    #[track_caller]
    fn round_trip(header: &Header) {
        let bytes = header.encode();
        let (parsed, length) = parse(&bytes).unwrap();
        assert_eq!((&parsed, length), (header, bytes.len()));
    }

    #[test]
    fn a_unix_header_is_byte_for_byte_as_specified() {
        let header = Header {
            endpoints: Endpoints::Unix {
                transport: Transport::Stream,
                source: UnixName::default(),
                destination: UnixName::new(b"/run/s"),
            },
            vouched: Vouched {
                uid: Uid::from_raw(33),
                ..Vouched::default()
            },
        };
        let bytes = header.encode();
        assert_eq!(
            bytes[..12],
            *b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
        );
        assert_eq!(bytes[12..16], [0x21, 0x31, 0x0A, 0x00]);
        assert_eq!(bytes[16..124], [0; 108]);
        assert_eq!(bytes[124..130], *b"/run/s");
        assert_eq!(bytes[130..232], [0; 102]);
        assert_eq!(bytes[232..239], [0xE0, 0, 4, 0, 0, 0, 33]);
        // Padding of 2576 - 239 - 3 - 7 bytes, and the checksum.
        assert_eq!(bytes[239..242], [0x04, 0x09, 0x17]);
        assert_eq!(bytes[242..2569], [0; 2327]);
        assert_eq!(bytes[2569..2572], [0x03, 0, 4]);
        assert_eq!(bytes.len(), 2576);
    }

    #[test]
    fn what_is_encoded_is_parsed_again() {
        for transport in [Transport::Stream, Transport::Datagram] {
            let unix = Endpoints::Unix {
                transport,
                source: UnixName::new(b"\0abstract"),
                destination: UnixName::new(&[b'x'; 108]),
            };
            let v4 = Endpoints::Inet {
                transport,
                source: "127.0.0.1:1".parse().unwrap(),
                destination: "192.0.2.7:65535".parse().unwrap(),
            };
            let v6 = Endpoints::Inet {
                transport,
                source: "[::1]:1".parse().unwrap(),
                destination: "[2001:db8::1]:443".parse().unwrap(),
            };
            for endpoints in [unix, v4, v6, Endpoints::Unspecified] {
                round_trip(&Header {
                    endpoints: endpoints.clone(),
                    vouched: vouched(),
                });
                round_trip(&Header {
                    endpoints,
                    vouched: Vouched::default(),
                });
            }
        }
        round_trip(&Header::default());
    }

    #[test]
    fn no_group_is_told_apart_from_unknown_groups() {
        let endpoints = Endpoints::Unspecified;
        let vouched = Vouched {
            groups: Some(Vec::new()),
            ..Vouched::default()
        };
        round_trip(&Header { endpoints, vouched });
    }

    #[test]
    fn a_value_that_does_not_fit_is_left_out_whole() {
        let header = Header {
            endpoints: Endpoints::Unspecified,
            vouched: Vouched {
                exe: Some(vec![b'x'; 4096]),
                ..vouched()
            },
        };
        let bytes = header.encode();
        let (parsed, _) = parse(&bytes).unwrap();
        assert_eq!(
            parsed.vouched,
            Vouched {
                exe: None,
                ..vouched()
            }
        );
        for (groups, kept) in [(1016, true), (1017, true), (1018, false)] {
            let vouched = Vouched {
                groups: Some(vec![Gid::ROOT; groups]),
                ..Vouched::default()
            };
            let header = Header {
                endpoints: Endpoints::Unspecified,
                vouched,
            };
            let bytes = header.encode();
            assert!(bytes.len() <= MAX_ENCODED);
            assert_eq!(
                parse(&bytes).unwrap().0.vouched.groups.is_some(),
                kept,
                "{groups}"
            );
        }
    }

    #[test]
    fn a_long_path_keeps_its_end() {
        let mut path = vec![b'a'; 200];
        path.extend_from_slice(b"/end");
        let name = UnixName::new(&path);
        assert_eq!(name.as_bytes().len(), 108);
        assert!(name.as_bytes().ends_with(b"/end"));
    }
}
