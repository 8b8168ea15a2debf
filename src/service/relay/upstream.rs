//! The address of an upstream, as a configuration names it.
//!
//! Invariants: a path is absolute and fits in `sun_path` (unix(7)); a port is
//! never 0; a host is an IP address or looks like a host name.
//!
//! Not here: names are not looked up, and nothing is opened.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Bytes that a path, or a name without its leading zero byte, may have.
const NAME_MAX: usize = 107;

/// Bytes of a host name (RFC 1035).
const HOST_MAX: usize = 253;

/// Where a relay leads to: `unix:/path`, `unix:@name`, `tcp:host:port` or
/// `tcp:[::1]:port`.
///
/// ```
/// use secure_socket::service::relay::Upstream;
/// let upstream: Upstream = "tcp:[::1]:6379".parse().unwrap();
/// assert_eq!(upstream.port(), Some(6379));
/// assert_eq!(upstream.to_string(), "tcp:[::1]:6379");
/// assert!("tcp:localhost".parse::<Upstream>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Upstream(Kind);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Kind {
    /// A socket in the file system.
    Path(String),
    /// A socket in the abstract namespace, without the leading zero byte.
    Abstract(String),
    /// An IP address and port.
    Address(SocketAddr),
    /// A host name to be looked up, and a port.
    Host(String, u16),
}

impl Upstream {
    pub(super) fn kind(&self) -> &Kind {
        &self.0
    }

    /// The path of its socket, if it has one.
    pub fn path(&self) -> Option<&str> {
        match &self.0 {
            Kind::Path(path) => Some(path),
            _ => None,
        }
    }

    /// Its TCP port, if it has one.
    pub fn port(&self) -> Option<u16> {
        match &self.0 {
            Kind::Address(address) => Some(address.port()),
            Kind::Host(_, port) => Some(*port),
            Kind::Path(_) | Kind::Abstract(_) => None,
        }
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.0, Kind::Path(_) | Kind::Abstract(_))
    }

    /// Whether a name has to be looked up for it.
    pub fn needs_lookup(&self) -> bool {
        matches!(self.0, Kind::Host(..))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Path(path) => write!(f, "unix:{path}"),
            Kind::Abstract(name) => write!(f, "unix:@{name}"),
            Kind::Address(address) => write!(f, "tcp:{address}"),
            Kind::Host(host, port) => write!(f, "tcp:{host}:{port}"),
        }
    }
}

/// Why a text names no upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UpstreamError {
    /// Neither `unix:` nor `tcp:`.
    Scheme,
    /// A Unix path that doesn't start with `/` or `@`.
    Relative,
    /// A Unix path or name of no bytes, or more than 107, or with a zero byte.
    Name,
    /// No host name and no IP address.
    Host,
    /// An IPv6 address without brackets.
    Brackets,
    /// No port from 1 to 65535.
    Port,
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "expected unix:/path, unix:@name or tcp:host:port",
            Self::Relative => "expected an absolute path, or @ and a name",
            Self::Name => "expected a path or name of 1 to 107 bytes without a zero byte",
            Self::Host => "expected a host name or an IP address",
            Self::Brackets => "expected brackets around an IPv6 address, as in tcp:[::1]:6379",
            Self::Port => "expected a port from 1 to 65535",
        })
    }
}

impl std::error::Error for UpstreamError {}

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, UpstreamError> {
        if let Some(name) = text.strip_prefix("unix:") {
            return unix(name).map(Self);
        }
        let address = text.strip_prefix("tcp:").ok_or(UpstreamError::Scheme)?;
        tcp(address).map(Self)
    }
}

fn unix(name: &str) -> Result<Kind, UpstreamError> {
    let fits = |name: &str| (1..=NAME_MAX).contains(&name.len()) && !name.contains('\0');
    if let Some(name) = name.strip_prefix('@') {
        return fits(name)
            .then(|| Kind::Abstract(name.into()))
            .ok_or(UpstreamError::Name);
    }
    if !name.is_empty() && !name.starts_with('/') {
        return Err(UpstreamError::Relative);
    }
    fits(name)
        .then(|| Kind::Path(name.into()))
        .ok_or(UpstreamError::Name)
}

fn tcp(address: &str) -> Result<Kind, UpstreamError> {
    let (host, port) = address.rsplit_once(':').ok_or(UpstreamError::Port)?;
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(UpstreamError::Host)?;
        let ip: Ipv6Addr = inner.parse().map_err(|_| UpstreamError::Host)?;
        return Ok(Kind::Address(SocketAddr::new(
            IpAddr::V6(ip),
            number(port)?,
        )));
    }
    if host.contains(':') {
        // Also where the last part of an address was taken for the port.
        return Err(UpstreamError::Brackets);
    }
    let port = number(port)?;
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Kind::Address(SocketAddr::new(IpAddr::V4(ip), port)));
    }
    if is_host_name(host) {
        Ok(Kind::Host(host.into(), port))
    } else {
        Err(UpstreamError::Host)
    }
}

fn number(port: &str) -> Result<u16, UpstreamError> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or(UpstreamError::Port)
}

/// A name of digits and dots only is a mistyped IPv4 address: the resolver would
/// take `127.1` or `0177.0.0.1` for one and lead somewhere else than meant.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    host.len() <= HOST_MAX
        && host.split('.').all(label)
        && host.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, UpstreamError>) {
        let parsed = text
            .parse::<Upstream>()
            .map(|upstream| upstream.to_string());
        assert_eq!(
            parsed.as_deref().map_err(|error| *error),
            expected,
            "{text}"
        );
    }

    #[test]
    fn each_form_is_understood() {
        for text in [
            "unix:/run/redis/redis.sock",
            "unix:@bus",
            "tcp:127.0.0.1:6379",
            "tcp:[::1]:1",
            "tcp:db-1.example.org:65535",
            "tcp:localhost:5432",
        ] {
            check(text, Ok(text));
        }
        check("tcp:[0:0:0:0:0:0:0:1]:80", Ok("tcp:[::1]:80"));
    }

    #[test]
    fn lengths_are_exact() {
        let name = |length: usize| "x".repeat(length);
        check(
            &format!("unix:/{}", name(106)),
            Ok(&format!("unix:/{}", name(106))),
        );
        check(&format!("unix:/{}", name(107)), Err(UpstreamError::Name));
        check(
            &format!("unix:@{}", name(107)),
            Ok(&format!("unix:@{}", name(107))),
        );
        check(&format!("unix:@{}", name(108)), Err(UpstreamError::Name));
        check("unix:", Err(UpstreamError::Name));
        check("unix:@", Err(UpstreamError::Name));
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        check("", Err(UpstreamError::Scheme));
        check("/run/x.sock", Err(UpstreamError::Scheme));
        check("udp:127.0.0.1:53", Err(UpstreamError::Scheme));
        check("unix:run/x.sock", Err(UpstreamError::Relative));
        check("unix:/a\0b", Err(UpstreamError::Name));
        check("tcp:localhost", Err(UpstreamError::Port));
        check("tcp:localhost:", Err(UpstreamError::Port));
        check("tcp:localhost:0", Err(UpstreamError::Port));
        check("tcp:localhost:+80", Err(UpstreamError::Port));
        check("tcp:localhost:65536", Err(UpstreamError::Port));
        check("tcp:::1:80", Err(UpstreamError::Brackets));
        check("tcp:[::1:80", Err(UpstreamError::Host));
        check("tcp:[127.0.0.1]:80", Err(UpstreamError::Host));
        check("tcp::80", Err(UpstreamError::Host));
        check("tcp:127.1:80", Err(UpstreamError::Host));
        check("tcp:0177.0.0.1:80", Err(UpstreamError::Host));
        check("tcp:-x:80", Err(UpstreamError::Host));
        check("tcp:a..b:80", Err(UpstreamError::Host));
        check("tcp:a b:80", Err(UpstreamError::Host));
    }
}
