//! Takes over a listening socket from the service manager (sd_listen_fds(3)),
//! and compares it with the configuration.
//!
//! Invariants: variables that are meant for another process are ignored; what
//! is meant for this one is taken whole, or refused; such a socket is never
//! unlinked and never shut down, since it belongs to the manager.

use std::env;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{FileType, OFlags};
use rustix::net::{AddressFamily, SocketAddrAny, sockopt};

use super::address::{Address, SocketMode, SocketName, SocketPath};
use super::directory;
use super::error::BindError;
use super::file;
use super::inet;
use super::mismatch::Mismatch;
use super::notice::Notice;
use super::options::Options;
use super::rights::Trusted;
use super::unix;
use crate::ids::{Gid, Pid};
use crate::sys::{inherited, unix_name};

/// More would be a mistake in a unit.
const SOCKETS_MAX: u16 = 64;

/// A socket that the service manager handed over.
#[derive(Debug)]
pub struct HandedOver {
    name: String,
    socket: OwnedFd,
}

impl HandedOver {
    /// Its name in `LISTEN_FDNAMES` (`FileDescriptorName=` of the socket unit),
    /// or `unknown`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Takes all sockets that the service manager left for this process. There are
/// none if it left them for another, if it left none at all, and from the
/// second call on.
///
/// # Errors
///
/// [`BindError::Activation`] where a variable is not as sd_listen_fds(3) says,
/// or a descriptor is not open.
pub fn handed_over() -> Result<Vec<HandedOver>, BindError> {
    let variable = |name| env::var_os(name);
    let (pid, count) = (variable("LISTEN_PID"), variable("LISTEN_FDS"));
    let own = Pid::from_raw(rustix::process::getpid().as_raw_pid());
    let names = parse(pid, count, variable("LISTEN_FDNAMES"), own)?;
    let count = u16::try_from(names.len()).unwrap_or(SOCKETS_MAX);
    if count == 0 {
        return Ok(Vec::new());
    }
    let sockets = inherited::take(count).map_err(|error| {
        BindError::system(
            "take over the sockets of the service manager",
            Path::new("LISTEN_FDS"),
            error,
        )
    })?;
    let sockets = sockets.unwrap_or_default();
    Ok(names
        .into_iter()
        .zip(sockets)
        .map(|(name, socket)| HandedOver { name, socket })
        .collect())
}

/// The one socket that a server with one socket can use.
///
/// # Errors
///
/// [`BindError::SeveralHandedOver`] if there are more.
pub fn only(mut sockets: Vec<HandedOver>) -> Result<Option<HandedOver>, BindError> {
    if sockets.len() > 1 {
        let names = sockets.into_iter().map(|socket| socket.name).collect();
        return Err(BindError::SeveralHandedOver { names });
    }
    Ok(sockets.pop())
}

/// Takes the socket of this name out of `sockets`.
pub fn take_named(sockets: &mut Vec<HandedOver>, name: &str) -> Option<HandedOver> {
    let at = sockets.iter().position(|socket| socket.name == name)?;
    Some(sockets.remove(at))
}

/// The names of the sockets that the variables announce.
fn parse(
    pid: Option<OsString>,
    count: Option<OsString>,
    names: Option<OsString>,
    own: Option<Pid>,
) -> Result<Vec<String>, BindError> {
    let (Some(pid), Some(count)) = (pid, count) else {
        return Ok(Vec::new());
    };
    let refuse = |variable, expected: String, found: &OsStr| BindError::Activation {
        variable,
        expected,
        found: found.to_string_lossy().into_owned(),
    };
    let number = |text: &OsStr| {
        text.to_str()
            .filter(|text| is_number(text))?
            .parse::<i32>()
            .ok()
    };
    match number(&pid).and_then(Pid::from_raw) {
        None => return Err(refuse("LISTEN_PID", "a process id".to_owned(), &pid)),
        // A child inherits the variables, but the sockets are not for it.
        pid if pid != own => return Ok(Vec::new()),
        Some(_) => {}
    }
    let wanted = number(&count)
        .and_then(|count| u16::try_from(count).ok())
        .filter(|count| *count <= SOCKETS_MAX)
        .ok_or_else(|| {
            refuse(
                "LISTEN_FDS",
                format!("a number from 0 to {SOCKETS_MAX}"),
                &count,
            )
        })?;
    let Some(names) = names else {
        return Ok((0..wanted).map(|_| "unknown".to_owned()).collect());
    };
    let found: Vec<String> = match names.is_empty() {
        true => Vec::new(),
        false => names
            .to_string_lossy()
            .split(':')
            .map(str::to_owned)
            .collect(),
    };
    if found.len() != usize::from(wanted) {
        let expected = format!("{wanted} names joined by colons");
        return Err(refuse("LISTEN_FDNAMES", expected, &names));
    }
    Ok(found)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Compares a socket with the configuration, and makes it ours as far as it
/// can be.
pub(super) fn adopt(
    handed: HandedOver,
    options: &Options,
    notices: &mut Vec<Notice>,
) -> Result<OwnedFd, BindError> {
    let HandedOver { name, socket } = handed;
    if let Some(problem) = compare(&socket, options) {
        return Err(BindError::HandedOver { name, problem });
    }
    let object = Path::new(&name);
    match &options.address {
        Address::Inet(address) => inet::check(*address, options, notices)?,
        Address::Unix(path) => {
            match path.name() {
                SocketName::Abstract(_) => {
                    notices.push(Notice::AbstractName { name: path.clone() });
                }
                SocketName::Path(path) => check_path(path, &name, options, notices)?,
            }
            unix::protect(socket.as_fd(), options, object, notices)?;
        }
    }
    let refuse = |error: rustix::io::Errno| BindError::system("set the mode of", object, error);
    let mut flags = rustix::fs::fcntl_getfl(&socket).map_err(refuse)?;
    flags.set(OFlags::NONBLOCK, options.nonblocking);
    rustix::fs::fcntl_setfl(&socket, flags).map_err(refuse)?;
    Ok(socket)
}

/// What differs, if anything does.
fn compare(socket: &OwnedFd, options: &Options) -> Option<Mismatch> {
    let (family, expected) = match &options.address {
        Address::Unix(_) => (AddressFamily::UNIX, "AF_UNIX"),
        Address::Inet(SocketAddr::V4(_)) => (AddressFamily::INET, "AF_INET"),
        Address::Inet(SocketAddr::V6(_)) => (AddressFamily::INET6, "AF_INET6"),
    };
    let Ok(bound) = rustix::net::getsockname(socket) else {
        return Some(Mismatch::Family {
            found: "no socket".to_owned(),
            expected,
        });
    };
    if bound.address_family() != family {
        let found = family_name(bound.address_family());
        return Some(Mismatch::Family { found, expected });
    }
    let kind = sockopt::socket_type(socket).ok();
    if kind != Some(unix::socket_type(options.kind)) {
        let found = kind.map_or_else(|| "none".to_owned(), kind_name);
        return Some(Mismatch::Kind {
            found,
            expected: options.kind,
        });
    }
    if sockopt::socket_acceptconn(socket) != Ok(true) {
        return Some(Mismatch::NotListening);
    }
    let found = address_of(socket, bound);
    if found.as_ref() != Some(&options.address) {
        let found = found.map_or_else(|| "nothing".to_owned(), |address| address.to_string());
        return Some(Mismatch::Address {
            found,
            expected: options.address.clone(),
        });
    }
    None
}

/// Checks the directories and the rights of a path that the manager has made.
fn check_path(
    path: &Path,
    name: &str,
    options: &Options,
    notices: &mut Vec<Notice>,
) -> Result<(), BindError> {
    let refuse = |problem| {
        Err(BindError::HandedOver {
            name: name.to_owned(),
            problem,
        })
    };
    let (Some(parent), Some(entry)) = (path.parent(), path.file_name()) else {
        return refuse(Mismatch::PathGone);
    };
    let trusted = Trusted::new(options.server_uid);
    let directory = directory::open(parent, path, trusted, None, notices)?;
    let stat = file::look(directory.descriptor.as_fd(), entry)
        .map_err(|error| BindError::system("examine", path, error))?;
    let Some(stat) = stat.filter(|stat| file::kind(stat) == FileType::Socket) else {
        return refuse(Mismatch::PathGone);
    };
    let found = file::rights(&stat);
    if !trusted.includes(found.owner) {
        return refuse(Mismatch::Owner {
            found,
            expected: trusted,
        });
    }
    // Only the write bit lets anyone connect (unix(7)).
    if found.mode & 0o222 & !options.mode_bits().bits() != 0 {
        return refuse(Mismatch::TooOpen {
            found,
            expected: options.mode_bits(),
        });
    }
    // Where everyone may connect it says nothing which group may. Where no group was
    // given, only the own one is nobody else's.
    let by_group = found.mode & 0o020 != 0 && options.mode_bits().bits() & 0o002 == 0;
    let group = expected_group(options);
    if by_group && found.group != group {
        return refuse(Mismatch::Group {
            found,
            expected: group,
        });
    }
    if let Some(mode) = SocketMode::from_bits(found.mode & 0o777)
        && mode.is_world_accessible()
        && found.mode & 0o002 != 0
    {
        notices.push(Notice::WorldAccessible {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// The group that a socket gets that is bound here.
fn expected_group(options: &Options) -> Gid {
    let of_owner = options.owner.map(|(_, group)| group);
    let own = || Gid::from_raw(rustix::process::getegid().as_raw()).unwrap_or(Gid::OVERFLOW);
    let group = options.socket_group.or(of_owner);
    group.unwrap_or_else(own)
}

fn address_of(socket: &OwnedFd, address: SocketAddrAny) -> Option<Address> {
    if address.address_family() != AddressFamily::UNIX {
        return SocketAddr::try_from(address).ok().map(Address::Inet);
    }
    let name = unix_name::of_socket(socket.as_fd()).ok().flatten()?;
    let text = match name.split_first()? {
        (0, name) => [b"@", name].concat(),
        _ => name,
    };
    SocketPath::parse(&OsString::from_vec(text))
        .ok()
        .map(Address::Unix)
}

fn family_name(family: AddressFamily) -> String {
    match family {
        AddressFamily::UNIX => "AF_UNIX".to_owned(),
        AddressFamily::INET => "AF_INET".to_owned(),
        AddressFamily::INET6 => "AF_INET6".to_owned(),
        other => format!("address family {}", other.as_raw()),
    }
}

fn kind_name(kind: rustix::net::SocketType) -> String {
    match kind {
        rustix::net::SocketType::STREAM => "SOCK_STREAM".to_owned(),
        rustix::net::SocketType::SEQPACKET => "SOCK_SEQPACKET".to_owned(),
        rustix::net::SocketType::DGRAM => "SOCK_DGRAM".to_owned(),
        other => format!("socket type {}", other.as_raw()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TempDir, set_mode};

    #[track_caller]
    fn check(
        pid: Option<&str>,
        count: Option<&str>,
        names: Option<&str>,
        expected: Result<&[&str], &str>,
    ) {
        let text = |text: Option<&str>| text.map(OsString::from);
        let found = parse(text(pid), text(count), text(names), Pid::from_raw(812));
        let found = found.map_err(|error| error.to_string());
        let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn a_path_may_be_as_open_as_was_asked_for() {
        let temp = TempDir::new();
        let path = temp.join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        // What is there, what is asked for; whether it is taken, and said.
        for (found, wanted, expected) in [
            (0o600, 0o600, Some(false)),
            (0o400, 0o600, Some(false)),
            (0o644, 0o600, Some(false)),
            (0o660, 0o600, None),
            (0o602, 0o600, None),
            (0o660, 0o660, Some(false)),
            (0o604, 0o604, Some(false)),
            (0o606, 0o666, Some(true)),
            (0o666, 0o666, Some(true)),
        ] {
            set_mode(&path, found);
            let options = Options::at(&path).unwrap();
            let options = options.mode(SocketMode::from_bits(wanted).unwrap());
            let mut notices = Vec::new();
            let told = match check_path(&path, "name", &options, &mut notices) {
                Ok(()) => {
                    let mode = SocketMode::from_bits(found).unwrap();
                    let path = path.clone();
                    let said = Notice::WorldAccessible { path, mode };
                    assert!(notices.iter().all(|notice| *notice == said), "{notices:?}");
                    Some(!notices.is_empty())
                }
                Err(BindError::HandedOver { problem, .. }) => {
                    assert!(matches!(problem, Mismatch::TooOpen { .. }), "{problem}");
                    None
                }
                Err(other) => panic!("{other}"),
            };
            assert_eq!(told, expected, "{found:o} for {wanted:o}");
        }
    }

    /// The group of the socket is the test's own, as nobody gave it another.
    #[test]
    fn only_the_group_that_was_asked_for_may_connect() {
        let temp = TempDir::new();
        let path = temp.join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let own = Gid::from_raw(rustix::process::getegid().as_raw());
        let other = Gid::from_raw(12_345);
        assert_ne!(own, other);
        // What is there, what is asked for and for which group; which group is expected.
        for (found, wanted, group, expected) in [
            (0o660, 0o660, None, None),
            (0o660, 0o660, own, None),
            (0o660, 0o660, other, other),
            (0o620, 0o660, other, other),
            // The group may not connect, or everyone may.
            (0o640, 0o660, other, None),
            (0o600, 0o660, other, None),
            (0o666, 0o666, other, None),
        ] {
            set_mode(&path, found);
            let options = Options::at(&path).unwrap().socket_group(group);
            let options = options.mode(SocketMode::from_bits(wanted).unwrap());
            let refused = match check_path(&path, "name", &options, &mut Vec::new()) {
                Ok(()) => None,
                Err(BindError::HandedOver {
                    problem: Mismatch::Group { found, expected },
                    ..
                }) => {
                    assert_eq!(Some(found.group), own);
                    Some(expected)
                }
                Err(other) => panic!("{other}"),
            };
            assert_eq!(refused, expected, "{found:o} for {wanted:o} of {group:?}");
        }
        // Without one it is that of the owner whom the socket was to have.
        set_mode(&path, 0o660);
        let options = Options::at(&path).unwrap();
        assert_eq!(expected_group(&options), own.unwrap());
        let options = options.run_as(crate::ids::Uid::ROOT, other.unwrap());
        assert_eq!(expected_group(&options), other.unwrap());
    }

    #[test]
    fn what_is_not_for_us_is_ignored() {
        check(None, None, None, Ok(&[]));
        check(None, Some("1"), None, Ok(&[]));
        check(Some("812"), None, None, Ok(&[]));
        check(Some("811"), Some("1"), None, Ok(&[]));
        check(Some("811"), Some("many"), None, Ok(&[]));
        check(Some("812"), Some("0"), None, Ok(&[]));
        check(Some("812"), Some("0"), Some(""), Ok(&[]));
    }

    #[test]
    fn what_is_for_us_is_counted_and_named() {
        check(Some("812"), Some("1"), None, Ok(&["unknown"]));
        check(
            Some("812"),
            Some("2"),
            Some("main:metrics"),
            Ok(&["main", "metrics"]),
        );
        check(Some("812"), Some("2"), Some(":"), Ok(&["", ""]));
        let names = vec!["unknown"; 64];
        check(Some("812"), Some("64"), None, Ok(&names));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let count = "LISTEN_FDS: expected a number from 0 to 64, found ";
        for text in ["65", "65536", "4294967297", "-1", "+1", "", " 1", "1x"] {
            check(
                Some("812"),
                Some(text),
                None,
                Err(&format!("{count}\"{text}\"")),
            );
        }
        for text in ["", "0", "-812", "+812", "8 12", "99999999999"] {
            let expected = format!("LISTEN_PID: expected a process id, found \"{text}\"");
            check(Some(text), Some("1"), None, Err(&expected));
        }
        let names = "LISTEN_FDNAMES: expected 2 names joined by colons, found ";
        check(
            Some("812"),
            Some("2"),
            Some("a"),
            Err(&format!("{names}\"a\"")),
        );
        check(
            Some("812"),
            Some("2"),
            Some("a:b:c"),
            Err(&format!("{names}\"a:b:c\"")),
        );
        check(
            Some("812"),
            Some("2"),
            Some(""),
            Err(&format!("{names}\"\"")),
        );
    }

    fn handed(name: &str, socket: impl Into<OwnedFd>) -> HandedOver {
        let (name, socket) = (name.to_owned(), socket.into());
        HandedOver { name, socket }
    }

    fn null() -> std::fs::File {
        std::fs::File::open("/dev/null").unwrap()
    }

    #[test]
    fn the_only_socket_is_taken_and_one_of_several_by_its_name() {
        assert!(only(Vec::new()).unwrap().is_none());
        let one = only(vec![handed("a", null())]).unwrap().unwrap();
        assert_eq!(one.name(), "a");
        let several = || ["a", "b", "c"].map(|name| handed(name, null())).into();
        match only(several()) {
            Err(BindError::SeveralHandedOver { names }) => assert_eq!(names, ["a", "b", "c"]),
            other => panic!("{other:?}"),
        }
        let mut left: Vec<HandedOver> = several();
        assert!(take_named(&mut left, "d").is_none());
        assert_eq!(take_named(&mut left, "b").unwrap().name(), "b");
        let names: Vec<&str> = left.iter().map(HandedOver::name).collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn what_differs_is_named_and_nothing_is_where_nothing_does() {
        use std::net::{TcpListener, UdpSocket};
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

        let told = |socket: OwnedFd, options: &Options| {
            let problem = compare(&socket, options)?;
            Some(problem.to_string())
        };
        let name = format!("compare-{}", std::process::id());
        let wanted = Options::at(format!("@{name}")).unwrap();
        let bound = |name: &str| {
            let address = SocketAddr::from_abstract_name(name).unwrap();
            OwnedFd::from(UnixListener::bind_addr(&address).unwrap())
        };
        assert_eq!(told(bound(&name), &wanted), None);
        let elsewhere = told(bound(&format!("{name}-2")), &wanted);
        let expected = format!("expected it to be bound to @{name}, found @{name}-2");
        assert_eq!(elsewhere, Some(expected));

        let temp = TempDir::new();
        let path = temp.join("socket");
        let at_path = OwnedFd::from(UnixListener::bind(&path).unwrap());
        let same = Options::at(&path).unwrap();
        assert_eq!(told(at_path.try_clone().unwrap(), &same), None);
        assert!(
            told(at_path, &wanted)
                .unwrap()
                .ends_with(path.to_str().unwrap())
        );

        let nameless = UnixStream::pair().unwrap().0;
        assert!(
            told(nameless.into(), &wanted)
                .unwrap()
                .contains("does not listen")
        );
        let datagrams = UnixDatagram::unbound().unwrap();
        assert_eq!(
            told(datagrams.into(), &wanted).unwrap(),
            "expected SOCK_STREAM, found SOCK_DGRAM"
        );
        let records = wanted.clone().kind(super::super::Kind::SeqPacket);
        assert_eq!(
            told(bound(&format!("{name}-3")), &records).unwrap(),
            "expected SOCK_SEQPACKET, found SOCK_STREAM"
        );
        assert_eq!(
            told(null().into(), &wanted).unwrap(),
            "expected AF_UNIX, found no socket"
        );

        for (local, other, family) in [
            ("127.0.0.1:0", "[::1]:7", "expected AF_INET6, found AF_INET"),
            (
                "127.0.0.1:0",
                "127.0.0.1:7",
                "expected it to be bound to 127.0.0.1:7, found 127.0.0.1:",
            ),
        ] {
            let listener = TcpListener::bind(local).unwrap();
            let here = Options::new(Address::Inet(listener.local_addr().unwrap()));
            let socket = OwnedFd::from(listener);
            assert_eq!(told(socket.try_clone().unwrap(), &here), None);
            assert_eq!(
                told(socket.try_clone().unwrap(), &wanted).unwrap(),
                "expected AF_UNIX, found AF_INET"
            );
            let there = Options::new(Address::Inet(other.parse().unwrap()));
            assert!(told(socket, &there).unwrap().starts_with(family), "{other}");
        }
        let packets = UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = Options::new(Address::Inet(packets.local_addr().unwrap()));
        assert_eq!(
            told(packets.into(), &here).unwrap(),
            "expected SOCK_STREAM, found SOCK_DGRAM"
        );
        assert_eq!(family_name(AddressFamily::NETLINK), "address family 16");
        assert_eq!(family_name(AddressFamily::INET6), "AF_INET6");
        assert_eq!(kind_name(rustix::net::SocketType::RAW), "socket type 3");
    }
}
