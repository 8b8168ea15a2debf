//! PROXY v2 headers.
//!
//! - Bytes that are a header are one whatever follows; every shorter part of it
//!   asks for more, within the bound.
//! - Encoded and parsed again a header is the same, but for values that the
//!   encoder leaves out because they don't fit.
//! - A changed address is found out by the checksum.

use std::net::{IpAddr, SocketAddr};

use arbitrary::Arbitrary;
use secure_socket::ids::{Gid, Pid, Uid};
use secure_socket::service::relay::proxy::{
    Endpoints, Header, MAX_ENCODED, ParseError, SIGNATURE, Transport, UnixName, Vouched, parse,
};

#[derive(Arbitrary, Debug)]
pub enum Input {
    /// As it comes.
    Bytes(Vec<u8>),
    /// The signature, the command, family and length that fit, then this.
    Framed(u8, u8, Vec<u8>),
    /// Addresses as the family has them, then values of any type.
    Values(u8, Vec<(u8, Vec<u8>)>),
    /// A header to encode, and a bit to flip.
    Made(Made, u16),
}

#[derive(Arbitrary, Debug)]
pub struct Made {
    datagram: bool,
    ends: Ends,
    uid: Option<u32>,
    gid: Option<u32>,
    pid: Option<i32>,
    groups: Option<Vec<u32>>,
    exe: Option<Vec<u8>>,
    rule: Option<u32>,
}

#[derive(Arbitrary, Debug)]
enum Ends {
    Local,
    Unspecified,
    V4([u8; 4], [u8; 4], u16, u16),
    V6([u8; 16], [u8; 16], u16, u16),
    /// A source and a destination of two families, which a socket can't have.
    Mixed(bool, [u8; 4], [u8; 16]),
    Unix(Vec<u8>, Vec<u8>),
}

pub fn check(input: Input) {
    match input {
        Input::Bytes(bytes) => check_bytes(&bytes),
        Input::Framed(command, family, rest) => {
            let command = [0x20, 0x21, command][usize::from(command) % 3];
            check_bytes(&framed(command, family, &rest));
        }
        Input::Values(family, values) => {
            let family = [0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32][usize::from(family) % 7];
            let addresses = [0, 12, 36, 216][usize::from(family >> 4)];
            let mut rest = vec![7; addresses];
            for (kind, value) in &values {
                // Mostly one of those that are defined, a checksum among them.
                let kind = [0x03, 0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, *kind][usize::from(kind % 8)];
                rest.push(kind);
                rest.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
                rest.extend(value);
            }
            check_bytes(&framed(0x21, family, &rest));
        }
        Input::Made(made, bit) => check_made(&made.header(), usize::from(bit)),
    }
}

fn framed(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap_or(u16::MAX).to_be_bytes();
    let fixed = [command, family, length[0], length[1]];
    [&SIGNATURE[..], &fixed, rest].concat()
}

fn check_bytes(bytes: &[u8]) {
    match parse(bytes) {
        Ok((header, length)) => {
            let alone = bytes.get(..length).expect("no longer than the bytes");
            assert_eq!(parse(alone), Ok((header.clone(), length)));
            for cut in [0, 1, 11, 12, 15, 16, length / 2, length - 1] {
                if let Some(part) = alone.get(..cut).filter(|part| part.len() < length) {
                    check_incomplete(part);
                }
            }
            check_made(&header, bytes.len());
        }
        Err(error) => {
            assert!(crate::is_quiet(&error.to_string()));
            if let ParseError::Incomplete(needed) = error {
                assert!(needed > bytes.len() && needed <= 65_551);
            }
        }
    }
}

fn check_incomplete(part: &[u8]) {
    match parse(part) {
        Err(ParseError::Incomplete(needed)) => assert!(needed > part.len() && needed <= 65_551),
        other => panic!("a part of a header is {other:?}"),
    }
}

fn check_made(header: &Header, bit: usize) {
    let mut bytes = header.encode();
    assert!(bytes.len() <= MAX_ENCODED);
    let (mut again, length) = parse(&bytes).expect("what is encoded is a header");
    assert_eq!(length, bytes.len());
    if matches!(header.endpoints, Endpoints::Local) {
        assert_eq!(again, Header::default());
        return;
    }
    if is_mixed(&header.endpoints) {
        check_mixed(&again.endpoints, &header.endpoints);
        again.endpoints = header.endpoints.clone();
    }
    assert_eq!(again.endpoints, header.endpoints);
    let left_out = |value: usize| length + 3 + value > MAX_ENCODED;
    let vouched = &header.vouched;
    if again.vouched.groups.is_none() {
        let groups = vouched.groups.as_ref().map_or(0, Vec::len);
        assert!(vouched.groups.is_none() || left_out(4 * groups));
        again.vouched.groups = vouched.groups.clone();
    }
    if again.vouched.exe.is_none() {
        let exe = vouched.exe.as_ref().map_or(0, Vec::len);
        assert!(vouched.exe.is_none() || left_out(exe));
        again.vouched.exe = vouched.exe.clone();
    }
    assert_eq!(&again, header);
    let addresses = match header.endpoints {
        Endpoints::Unix { .. } => 216,
        Endpoints::Inet { source, .. } if source.is_ipv4() => 12,
        Endpoints::Inet { .. } => 36,
        _ => return,
    };
    let at = 16 + bit / 8 % addresses;
    bytes[at] ^= 1 << (bit % 8);
    assert_eq!(parse(&bytes), Err(ParseError::Checksum));
}

fn is_mixed(ends: &Endpoints) -> bool {
    matches!(ends, Endpoints::Inet { source, destination, .. }
        if source.is_ipv4() != destination.is_ipv4())
}

/// The source comes back as it was; the destination in the source's family: the same
/// address in its other form, or none.
fn check_mixed(again: &Endpoints, ends: &Endpoints) {
    let (
        Endpoints::Inet {
            source: from,
            destination: to,
            ..
        },
        Endpoints::Inet {
            source,
            destination,
            ..
        },
    ) = (again, ends)
    else {
        panic!("{ends:?} became {again:?}");
    };
    assert_eq!((from, to.port()), (source, destination.port()));
    assert_eq!(to.is_ipv4(), from.is_ipv4());
    let same = to.ip().to_canonical() == destination.ip().to_canonical();
    assert!(
        same || to.ip().is_unspecified(),
        "{destination} became {to}"
    );
}

impl Made {
    fn header(self) -> Header {
        let transport = if self.datagram {
            Transport::Datagram
        } else {
            Transport::Stream
        };
        let inet = |source: IpAddr, destination: IpAddr, from, to| Endpoints::Inet {
            transport,
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
        };
        let endpoints = match self.ends {
            Ends::Local => Endpoints::Local,
            Ends::Unspecified => Endpoints::Unspecified,
            Ends::V4(a, b, from, to) => inet(a.into(), b.into(), from, to),
            Ends::V6(a, b, from, to) => inet(a.into(), b.into(), from, to),
            Ends::Mixed(wide, a, b) => {
                let (v4, v6): (IpAddr, IpAddr) = (a.into(), b.into());
                if wide {
                    inet(v6, v4, 1, 2)
                } else {
                    inet(v4, v6, 1, 2)
                }
            }
            Ends::Unix(source, destination) => Endpoints::Unix {
                transport,
                source: UnixName::new(&as_sun_path(source)),
                destination: UnixName::new(&as_sun_path(destination)),
            },
        };
        let groups = self
            .groups
            .map(|all| all.into_iter().filter_map(Gid::from_raw).collect());
        let vouched = Vouched {
            uid: self.uid.and_then(Uid::from_raw),
            gid: self.gid.and_then(Gid::from_raw),
            pid: self.pid.and_then(Pid::from_raw),
            groups,
            exe: self.exe,
            rule: self.rule,
        };
        Header { endpoints, vouched }
    }
}

/// A path ends before its first zero; an abstract name starts with one and has
/// none at its end.
fn as_sun_path(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(108);
    if name.first() == Some(&0) {
        while name.last() == Some(&0) {
            name.pop();
        }
    } else if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    name
}
