//! Addresses to listen on and to connect to: `/path`, `unix:/path`,
//! `tcp:host:port`, `udp:host:port`.
//!
//! Pure: names of hosts are checked for their form, and resolved where the
//! connection is made.

use std::fmt;
use std::net::Ipv6Addr;

use super::given::Wrong;
use super::place::quoted;
use super::values;
use crate::listener::{Kind, SocketPath};
use crate::service::relay::{Upstream, UpstreamError};

/// Something to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A Unix-domain socket.
    Unix(SocketPath),
    /// TCP.
    Tcp(HostPort),
    /// UDP.
    Udp(HostPort),
}

/// A host by name or address, and a port from 1 to 65535.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name of 1 to 253 bytes, an IPv4 address, or an IPv6 address without
    /// brackets.
    pub host: String,
    /// From 1 to 65535.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
            Self::Udp(host) => write!(f, "udp:{host}"),
        }
    }
}

/// `unix:/path`, `unix:@name` or `tcp:host:port`, with the caret where the relay
/// says that the fault is.
pub(crate) fn upstream(text: &str) -> Result<Upstream, Wrong> {
    if let Some(caret) = text.find(char::is_control) {
        let what = "an upstream without control characters";
        return Err(Wrong::expected(what, text, caret));
    }
    text.parse().map_err(|error: UpstreamError| {
        let behind_scheme = text.find(':').map_or(0, |at| at + 1);
        let caret = match error {
            UpstreamError::Scheme => 0,
            UpstreamError::Port => {
                let port = text.rfind(':').map_or(0, |at| at + 1);
                if port > behind_scheme {
                    port
                } else {
                    text.len()
                }
            }
            _ => behind_scheme,
        };
        let sentence = format!("{error}, found {}", quoted(text));
        Wrong {
            caret,
            ..Wrong::says(sentence, text)
        }
    })
}

/// `udp:host:port`, `tcp:host:port` or `unix:/path`.
pub(crate) fn log_remote(text: &str) -> Result<Endpoint, Wrong> {
    parse(
        text,
        "udp:host:port, tcp:host:port or unix:/path",
        &["unix", "tcp", "udp"],
    )
}

fn parse(text: &str, what: &str, schemes: &[&str]) -> Result<Endpoint, Wrong> {
    let Some((scheme, rest)) = text.split_once(':').filter(|(s, _)| schemes.contains(s)) else {
        return Err(Wrong::expected(what, text, 0));
    };
    let from = scheme.len() + 1;
    match scheme {
        "unix" => match socket_path(rest) {
            Ok(path) if path.is_abstract() => Err(Wrong::expected(what, text, from)),
            Ok(path) => Ok(Endpoint::Unix(path)),
            Err(wrong) => Err(wrong.moved(from)),
        },
        "tcp" => host_port(text, rest, what, from).map(Endpoint::Tcp),
        _ => host_port(text, rest, what, from).map(Endpoint::Udp),
    }
}

/// `SOCK_STREAM` or `SOCK_SEQPACKET`.
pub(crate) fn kind(text: &str) -> Result<Kind, Wrong> {
    match values::word(text, &["SOCK_STREAM", "SOCK_SEQPACKET"])? {
        "SOCK_STREAM" => Ok(Kind::Stream),
        _ => Ok(Kind::SeqPacket),
    }
}

/// A path, or `@name`.
pub(crate) fn socket_path(text: &str) -> Result<SocketPath, Wrong> {
    if let Some(caret) = text.find(char::is_control) {
        return Err(Wrong::expected(
            "a path without control characters",
            text,
            caret,
        ));
    }
    text.parse::<SocketPath>().map_err(|error| {
        let sentence = error.to_string();
        match sentence.contains("found") {
            true => Wrong::says(sentence, text),
            false => {
                let found = quoted(text);
                Wrong::says(format!("{sentence}, found {found}"), text)
            }
        }
    })
}

fn host_port(whole: &str, rest: &str, what: &str, from: usize) -> Result<HostPort, Wrong> {
    let at = |caret: usize| Wrong::expected(what, whole, caret);
    let (host, port) = rest.rsplit_once(':').ok_or_else(|| at(from))?;
    let port_at = whole.len() - port.len();
    let port = values::number(port, 1, 65_535).map_err(|wrong| wrong.moved(port_at))?;
    let port = u16::try_from(port).map_err(|_| at(port_at))?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(v6) => v6
            .parse::<Ipv6Addr>()
            .map_err(|_| at(from + 1))?
            .to_string(),
        None => host_name(host).ok_or_else(|| at(from))?.to_owned(),
    };
    Ok(HostPort { host, port })
}

/// A name of labels of letters, digits, `-` and `_`, or an IPv4 address.
fn host_name(host: &str) -> Option<&str> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let labels = host.strip_suffix('.').unwrap_or(host);
    ((1..=253).contains(&host.len()) && labels.split('.').all(label)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_upstream(text: &str, expected: Result<&str, (&str, usize)>) {
        let found = upstream(text).map(|endpoint| endpoint.to_string());
        let found = found
            .as_deref()
            .map_err(|wrong| (wrong.text.as_str(), wrong.caret));
        assert_eq!(found, expected);
    }

    #[test]
    fn an_upstream_steers_no_terminal() {
        let wrong = upstream("unix:/a\rb").unwrap_err();
        assert_eq!(wrong.caret, 7);
        assert!(!wrong.text.contains(char::is_control), "{}", wrong.text);
    }

    #[test]
    fn the_fault_of_an_upstream_has_its_place() {
        check_upstream("unix:/run/a.sock", Ok("unix:/run/a.sock"));
        check_upstream("tcp:[::1]:80", Ok("tcp:[::1]:80"));
        let scheme = "expected unix:/path, unix:@name or tcp:host:port, found \"udp:a:1\"";
        check_upstream("udp:a:1", Err((scheme, 0)));
        check_upstream(
            "tcp:a",
            Err(("expected a port from 1 to 65535, found \"tcp:a\"", 5)),
        );
        check_upstream(
            "tcp:a:x",
            Err(("expected a port from 1 to 65535, found \"tcp:a:x\"", 6)),
        );
        let host = "expected a host name or an IP address, found \"tcp:a b:1\"";
        check_upstream("tcp:a b:1", Err((host, 4)));
        let path = "expected an absolute path, or @ and a name, found \"unix:a\"";
        check_upstream("unix:a", Err((path, 5)));
    }

    #[track_caller]
    fn check_remote(text: &str, expected: Result<&str, usize>) {
        let found = log_remote(text).map(|endpoint| endpoint.to_string());
        assert_eq!(found.as_deref().map_err(|wrong| wrong.caret), expected);
    }

    #[test]
    fn syslog_servers_are_udp_tcp_or_unix() {
        check_remote("udp:localhost:514", Ok("udp:localhost:514"));
        check_remote("tcp:[0::1]:514", Ok("tcp:[::1]:514"));
        check_remote("unix:/dev/log", Ok("unix:/dev/log"));
        check_remote("http:a:1", Err(0));
        check_remote("tcp:a", Err(4));
        check_remote("tcp:::1:1", Err(4));
        check_remote("tcp:a:0", Err(6));
        check_remote("unix:dev/log", Err(5));
    }
}
