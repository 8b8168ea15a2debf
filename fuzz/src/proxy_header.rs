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
    Framed(bool, u8, Vec<u8>),
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
    Unix(Vec<u8>, Vec<u8>),
}

pub fn check(input: Input) {
    match input {
        Input::Bytes(bytes) => check_bytes(&bytes),
        Input::Framed(local, family, rest) => {
            let length = u16::try_from(rest.len()).unwrap_or(u16::MAX).to_be_bytes();
            let fixed = [
                if local { 0x20 } else { 0x21 },
                family,
                length[0],
                length[1],
            ];
            check_bytes(&[&SIGNATURE[..], &fixed, &rest].concat());
        }
        Input::Made(made, bit) => check_made(&made.header(), usize::from(bit)),
    }
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
        Err(ParseError::Incomplete(needed)) => assert!(needed > bytes.len() && needed <= 65_551),
        Err(error) => assert!(crate::is_quiet(&error.to_string())),
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
