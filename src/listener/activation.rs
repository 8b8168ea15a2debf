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
#[path = "activation_tests.rs"]
mod tests;
