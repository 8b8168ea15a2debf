//! From bytes to [`Header`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::checksum::Crc32c;
use super::{Endpoints, Header, SIGNATURE, Transport, UNIX_PATH, UnixName, Vouched, kind};
use crate::ids::{Gid, Pid, Uid};

/// Signature, command, family, length.
const FIXED: usize = 16;

/// Why bytes are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes so far are the start of a header; so many are needed at least,
    /// counted from the first. At most 65551.
    Incomplete(usize),
    /// Something else than a header of version 2.
    NotProxy,
    /// Another version, or an unknown command.
    Command(u8),
    /// A family or transport that the specification doesn't know.
    Family(u8),
    /// The addresses or a value reach beyond the end of the header.
    Overrun,
    /// A value whose length or content its type doesn't allow.
    Value(u8),
    /// A value that is there twice, so that two readers could differ.
    Twice(u8),
    /// The checksum is wrong.
    Checksum,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete(needed) => write!(f, "header is cut short, expected {needed} bytes"),
            Self::NotProxy => f.write_str("no PROXY v2 header"),
            Self::Command(byte) => {
                write!(f, "version and command 0x{byte:02x}, expected 0x20 or 0x21")
            }
            Self::Family(byte) => write!(f, "unknown family and transport 0x{byte:02x}"),
            Self::Overrun => f.write_str("header is shorter than what it contains"),
            Self::Value(kind) => write!(f, "malformed value of type 0x{kind:02x}"),
            Self::Twice(kind) => write!(f, "two values of type 0x{kind:02x}"),
            Self::Checksum => f.write_str("checksum does not fit"),
        }
    }
}

impl std::error::Error for ParseError {}

/// Parses the header at the start of `bytes`; also gives its length: what
/// follows belongs to the connection. Values of unknown types are skipped.
///
/// ```
/// use secure_socket::service::relay::proxy::{Header, ParseError, parse};
/// let sent = Header::default().encode();
/// assert_eq!(parse(&sent[..7]), Err(ParseError::Incomplete(16)));
/// assert_eq!(parse(&sent), Ok((Header::default(), sent.len())));
/// ```
///
/// # Errors
/// [`ParseError::Incomplete`] says to read more; every other one to close the connection.
pub fn parse(bytes: &[u8]) -> Result<(Header, usize), ParseError> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes.get(..known) != SIGNATURE.get(..known) {
        return Err(ParseError::NotProxy);
    }
    let Some((fixed, _)) = bytes.split_first_chunk::<FIXED>() else {
        return Err(ParseError::Incomplete(FIXED));
    };
    let [.., command, family, high, low] = *fixed;
    let total = FIXED.saturating_add(usize::from(u16::from_be_bytes([high, low])));
    if !matches!(command, 0x20 | 0x21) {
        return Err(ParseError::Command(command));
    }
    let Some(header) = bytes.get(..total) else {
        return Err(ParseError::Incomplete(total));
    };
    if command == 0x20 {
        // Whatever else is in it must be accepted and ignored.
        return Ok((Header::default(), total));
    }
    let mut rest = Reader(header.get(FIXED..).unwrap_or_default());
    let endpoints = endpoints(family, &mut rest)?;
    let vouched = values(header, rest)?;
    Ok((Header { endpoints, vouched }, total))
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ParseError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ParseError::Overrun)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(ParseError::Overrun)?;
        self.0 = rest;
        Ok(*taken)
    }
}

fn endpoints(family: u8, rest: &mut Reader<'_>) -> Result<Endpoints, ParseError> {
    if family == 0x00 {
        return Ok(Endpoints::Unspecified);
    }
    let transport = match family & 0x0F {
        1 => Transport::Stream,
        2 => Transport::Datagram,
        _ => return Err(ParseError::Family(family)),
    };
    match family >> 4 {
        1 => {
            let (source, destination) = (rest.array::<4>()?, rest.array::<4>()?);
            inet(transport, source.into(), destination.into(), rest)
        }
        2 => {
            let (source, destination) = (rest.array::<16>()?, rest.array::<16>()?);
            inet(transport, source.into(), destination.into(), rest)
        }
        3 => Ok(Endpoints::Unix {
            transport,
            source: unix(rest)?,
            destination: unix(rest)?,
        }),
        _ => Err(ParseError::Family(family)),
    }
}

fn inet(
    transport: Transport,
    source: IpAddr,
    destination: IpAddr,
    rest: &mut Reader<'_>,
) -> Result<Endpoints, ParseError> {
    let source = SocketAddr::new(source, u16::from_be_bytes(rest.array()?));
    let destination = SocketAddr::new(destination, u16::from_be_bytes(rest.array()?));
    Ok(Endpoints::Inet {
        transport,
        source,
        destination,
    })
}

fn unix(rest: &mut Reader<'_>) -> Result<UnixName, ParseError> {
    let field = rest.take(UNIX_PATH)?;
    let length = if field.first() == Some(&0) {
        field
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last.saturating_add(1))
    } else {
        field
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(field.len())
    };
    Ok(UnixName::new(field.get(..length).unwrap_or_default()))
}

fn values(header: &[u8], mut rest: Reader<'_>) -> Result<Vouched, ParseError> {
    let mut vouched = Vouched::default();
    let mut summed = false;
    while !rest.0.is_empty() {
        let [kind] = rest.array()?;
        let length = usize::from(u16::from_be_bytes(rest.array()?));
        let at = header.len().saturating_sub(rest.0.len());
        let value = rest.take(length)?;
        let wrong = ParseError::Value(kind);
        match kind {
            kind::CRC32C => {
                check_sum(header, at, value)?;
                set(&mut summed.then_some(()), kind, ())?;
                summed = true;
            }
            kind::UID => {
                let uid = Uid::from_raw(number(value, kind)?).ok_or(wrong)?;
                set(&mut vouched.uid, kind, uid)?;
            }
            kind::GID => {
                let gid = Gid::from_raw(number(value, kind)?).ok_or(wrong)?;
                set(&mut vouched.gid, kind, gid)?;
            }
            kind::PID => {
                let pid = i32::try_from(number(value, kind)?)
                    .ok()
                    .and_then(Pid::from_raw);
                set(&mut vouched.pid, kind, pid.ok_or(wrong)?)?;
            }
            kind::GROUPS => set(&mut vouched.groups, kind, groups(value)?)?,
            kind::EXE => set(&mut vouched.exe, kind, value.to_vec())?,
            kind::RULE => set(&mut vouched.rule, kind, number(value, kind)?)?,
            _ => {}
        }
    }
    Ok(vouched)
}

fn set<T>(place: &mut Option<T>, kind: u8, value: T) -> Result<(), ParseError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(ParseError::Twice(kind)),
    }
}

fn number(value: &[u8], kind: u8) -> Result<u32, ParseError> {
    let bytes = value.try_into().map_err(|_| ParseError::Value(kind))?;
    Ok(u32::from_be_bytes(bytes))
}

fn groups(value: &[u8]) -> Result<Vec<Gid>, ParseError> {
    let wrong = ParseError::Value(kind::GROUPS);
    let (chunks, rest) = value.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(wrong);
    }
    chunks
        .iter()
        .map(|raw| Gid::from_raw(u32::from_be_bytes(*raw)).ok_or(wrong))
        .collect()
}

/// The sum is over the whole header, with zeros where it stands itself.
fn check_sum(header: &[u8], at: usize, value: &[u8]) -> Result<(), ParseError> {
    let told = number(value, kind::CRC32C)?;
    let before = header.get(..at).unwrap_or_default();
    let after = header.get(at.saturating_add(4)..).unwrap_or_default();
    let sum = Crc32c::new().with(before).with(&[0; 4]).with(after).value();
    if sum == told {
        Ok(())
    } else {
        Err(ParseError::Checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend_from_slice(&[command, family]);
        bytes.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: ParseError) {
        assert_eq!(parse(bytes), Err(expected));
    }

    #[test]
    fn every_prefix_of_a_header_asks_for_more_and_never_for_too_much() {
        let vouched = Vouched {
            exe: Some(vec![7; 99]),
            ..Vouched::default()
        };
        let whole = Header {
            endpoints: Endpoints::Unspecified,
            vouched,
        }
        .encode();
        for cut in 0..whole.len() {
            match parse(&whole[..cut]) {
                Err(ParseError::Incomplete(needed)) => {
                    assert!(cut < needed && needed <= whole.len(), "{cut} {needed}");
                }
                other => panic!("{cut}: {other:?}"),
            }
        }
    }

    #[test]
    fn other_protocols_are_refused_at_their_first_byte() {
        check(b"G", ParseError::NotProxy);
        check(b"PROXY TCP4 ", ParseError::NotProxy);
        check(b"\r\n\r\n\0\r\nQUIX", ParseError::NotProxy);
    }

    #[test]
    fn a_sum_that_does_not_fit_is_refused_wherever_the_error_is() {
        let vouched = Vouched {
            uid: Some(Uid::ROOT),
            exe: Some(vec![7; 9]),
            ..Vouched::default()
        };
        let whole = Header {
            endpoints: Endpoints::Unspecified,
            vouched,
        }
        .encode();
        // Another type for the sum itself makes it a value to be skipped.
        let sum_at = whole.len() - 7;
        for place in (FIXED..whole.len()).filter(|place| *place != sum_at) {
            let mut bad = whole.clone();
            bad[place] ^= 0x10;
            assert!(parse(&bad).is_err(), "changed byte {place}");
        }
    }

    #[test]
    fn a_local_header_hides_whatever_it_carries() {
        let bytes = header(0x20, 0xFF, &[0xE0, 0xFF, 0xFF]);
        assert_eq!(parse(&bytes), Ok((Header::default(), 19)));
    }

    #[test]
    fn malformed_headers_are_told_apart() {
        check(&header(0x11, 0x00, &[]), ParseError::Command(0x11));
        check(&header(0x22, 0x00, &[]), ParseError::Command(0x22));
        check(&header(0x21, 0x41, &[]), ParseError::Family(0x41));
        check(&header(0x21, 0x13, &[]), ParseError::Family(0x13));
        check(&header(0x21, 0x11, &[0; 11]), ParseError::Overrun);
        check(&header(0x21, 0x31, &[0; 215]), ParseError::Overrun);
        check(&header(0x21, 0x00, &[0xE0, 0]), ParseError::Overrun);
        check(
            &header(0x21, 0x00, &[0xE0, 0, 4, 0, 0, 0]),
            ParseError::Overrun,
        );
        check(
            &header(0x21, 0x00, &[0xE0, 0, 3, 0, 0, 0]),
            ParseError::Value(0xE0),
        );
        check(
            &header(0x21, 0x00, &[0xE0, 0, 4, 255, 255, 255, 255]),
            ParseError::Value(0xE0),
        );
        check(
            &header(0x21, 0x00, &[0xE2, 0, 4, 0, 0, 0, 0]),
            ParseError::Value(0xE2),
        );
        check(
            &header(0x21, 0x00, &[0xE2, 0, 4, 128, 0, 0, 0]),
            ParseError::Value(0xE2),
        );
        check(
            &header(0x21, 0x00, &[0xE3, 0, 3, 0, 0, 0]),
            ParseError::Value(0xE3),
        );
        let twice = [0xE5, 0, 4, 0, 0, 0, 1, 0xE5, 0, 4, 0, 0, 0, 2];
        check(&header(0x21, 0x00, &twice), ParseError::Twice(0xE5));
    }

    #[test]
    fn unknown_values_are_skipped() {
        let body = [0x04, 0, 2, 9, 9, 0xEF, 0, 0, 0xE5, 0, 4, 0, 0, 0, 7];
        let bytes = header(0x21, 0x00, &body);
        let (parsed, length) = parse(&bytes).unwrap();
        assert_eq!((parsed.vouched.rule, length), (Some(7), bytes.len()));
    }

    #[test]
    fn nothing_makes_it_panic() {
        // A small generator suffices: the fuzz target looks deeper.
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[1]
        };
        let times = if cfg!(miri) { 200 } else { 20_000 };
        for _ in 0..times {
            let length = usize::from(next());
            let body: Vec<u8> = (0..length).map(|_| next()).collect();
            let family = [0x00, 0x11, 0x21, 0x31][usize::from(next() & 3)];
            let _ = parse(&header(0x21, family, &body));
        }
    }
}
