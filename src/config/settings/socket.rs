//! Where the socket is, and who may reach its file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::endpoint;
use super::super::given::Wrong;
use super::super::reader::Reader;
use super::super::values;
use super::super::words::Domain;
use super::Surroundings;
use super::walls::group_option;
use crate::ids::{Gid, Uid};
use crate::listener::{Address, Kind, SocketMode, SocketPath};
use crate::policy::Policy;

/// Where the socket is, and who may reach it.
#[derive(Clone, Debug)]
pub struct SocketSettings {
    /// The path, the abstract name, or the internet address.
    pub address: Address,
    /// Stream or records.
    pub kind: Kind,
    /// The mode that the socket gets.
    pub mode: SocketMode,
    /// The group that owns it. `None`: that of the server.
    pub group: Option<Gid>,
    /// Whether the address may be one that other machines reach.
    pub expose: bool,
    /// listen(2)'s backlog, 1 to 65535.
    pub backlog: u32,
}

const PATH_OPTIONS: &[&str] = &["socket_path", "socket_permissions", "socket_group"];
const INET_OPTIONS: &[&str] = &["address", "port", "expose"];

pub(super) fn read(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
    policy: &Policy,
) -> Option<SocketSettings> {
    let domain = reader.one("domain", Domain::parse)?;
    let kind = reader.one("protocol", endpoint::kind)?;
    let backlog = reader.number("backlog")?;
    let path = socket_path(reader, surroundings)?;
    let inet = inet(reader, domain)?;
    let expose = reader.yes_no("expose")?;
    let (mode, group) = rights(reader, surroundings, policy, &SOCKET);
    let address = match domain {
        Domain::Unix | Domain::Local => {
            INET_OPTIONS
                .iter()
                .for_each(|name| reader.idle(name, "domain=AF_UNIX"));
            check_abstract(reader, &path);
            if !path.is_abstract() {
                warn_of_rights(reader, policy, (mode, group), &SOCKET);
            }
            Address::Unix(path)
        }
        Domain::Inet | Domain::Inet6 => {
            let why = format!("domain={}", domain.word());
            PATH_OPTIONS.iter().for_each(|name| reader.idle(name, &why));
            if kind == Kind::SeqPacket {
                reader.error("protocol", "SOCK_SEQPACKET needs domain=AF_UNIX");
            }
            if !inet.ip().is_loopback() && !expose {
                let ip = inet.ip();
                let text = format!(
                    "{ip} is not loopback: other machines could reach it; if that \
                                    is wanted, add expose=yes"
                );
                reader.error("address", text);
            }
            Address::Inet(inet)
        }
    };
    Some(SocketSettings {
        address,
        kind,
        mode,
        group,
        expose,
        backlog,
    })
}

/// The path that is given, or the default for who runs the program.
pub(crate) fn socket_path(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
) -> Option<SocketPath> {
    if let Some(path) = reader.maybe("socket_path", endpoint::socket_path) {
        return Some(path.value);
    }
    let (text, why) = default_path(surroundings);
    let path: SocketPath = text.parse().ok()?;
    reader.follows("socket_path", text, why);
    Some(path)
}

/// Where the socket is if nobody says, and why there.
fn default_path(surroundings: &Surroundings<'_>) -> (String, &'static str) {
    const NAME: &str = "secure_socket/secure_socket.sock";
    let uid = surroundings.euid;
    if uid == Uid::ROOT {
        return (format!("/run/{NAME}"), "run by root");
    }
    let own = surroundings.runtime_dir.and_then(|dir| dir.to_str());
    let own = own.filter(|dir| dir.starts_with('/') && !dir.contains(char::is_control));
    let own = own.map(|dir| format!("{dir}/{NAME}"));
    match own.filter(|path| path.parse::<SocketPath>().is_ok()) {
        Some(path) => (path, "under $XDG_RUNTIME_DIR"),
        None => (
            format!("/tmp/secure_socket-{uid}/secure_socket.sock"),
            "no $XDG_RUNTIME_DIR",
        ),
    }
}

fn inet(reader: &mut Reader<'_>, domain: Domain) -> Option<SocketAddr> {
    let address = reader.maybe("address", |text| ip(text, domain));
    let address = match address {
        Some(address) => address.value,
        None => {
            let (ip, why) = match domain {
                Domain::Inet6 => (IpAddr::V6(Ipv6Addr::LOCALHOST), "domain=AF_INET6"),
                _ => (IpAddr::V4(Ipv4Addr::LOCALHOST), "loopback"),
            };
            reader.follows("address", ip.to_string(), why);
            ip
        }
    };
    let port = reader.number("port")?;
    Some(SocketAddr::new(address, port))
}

fn ip(text: &str, domain: Domain) -> Result<IpAddr, Wrong> {
    let what = match domain {
        Domain::Inet => "an IPv4 address",
        Domain::Inet6 => "an IPv6 address",
        Domain::Unix | Domain::Local => "an IP address",
    };
    let wrong = || Wrong::expected(what, text, 0);
    let ip: IpAddr = text.parse().map_err(|_| wrong())?;
    match (domain, ip) {
        (Domain::Inet, IpAddr::V6(_)) | (Domain::Inet6, IpAddr::V4(_)) => Err(wrong()),
        _ => Ok(ip),
    }
}

/// The names of the options that give a socket its rights.
pub(super) struct RightsOptions {
    pub(super) mode: &'static str,
    pub(super) group: &'static str,
}

const SOCKET: RightsOptions = RightsOptions {
    mode: "socket_permissions",
    group: "socket_group",
};

/// Mode and group of a socket: what is given, else what its policy needs.
pub(super) fn rights(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
    policy: &Policy,
    options: &RightsOptions,
) -> (SocketMode, Option<Gid>) {
    let group = match group_option(reader, options.group, surroundings) {
        Some(group) => Some(group.value),
        None => default_group(reader, surroundings, policy, options),
    };
    let mode = reader.maybe(options.mode, mode);
    let mode = match mode {
        Some(mode) => mode.value,
        None => {
            let (mode, why) = match policy.admits_others() {
                true => (SocketMode::GROUP, "a group or another user is authorised"),
                false => (
                    SocketMode::OWNER,
                    "only the server's own user is authorised",
                ),
            };
            reader.follows(options.mode, mode.to_string(), why);
            mode
        }
    };
    (mode, group)
}

/// Warns of rights that are too wide, or too narrow for those who are admitted.
pub(super) fn warn_of_rights(
    reader: &mut Reader<'_>,
    policy: &Policy,
    (mode, group): (SocketMode, Option<Gid>),
    options: &RightsOptions,
) {
    if mode.is_world_accessible() {
        let text = format!(
            "{mode} lets everyone reach the socket; the rules alone keep \
                            strangers out"
        );
        reader.warning(options.mode, text);
    } else if policy.admits_others() && group.is_none() && !reader.is_given(options.group) {
        let text = "the rules admit others than the server's own user, but name no single user \
                    or group that the socket could be opened to";
        reader.warning(options.group, text);
    }
}

fn mode(text: &str) -> Result<SocketMode, Wrong> {
    let bits = values::mode(text)?;
    let what = "an octal mode from 0000 to 0777";
    SocketMode::from_bits(bits).ok_or_else(|| Wrong::expected(what, text, 0))
}

fn default_group(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
    policy: &Policy,
    options: &RightsOptions,
) -> Option<Gid> {
    if reader.is_given(options.group) || !policy.admits_others() {
        return None;
    }
    if let Some(gid) = policy.single_group() {
        reader.follows(options.group, gid.to_string(), "the one authorised group");
        return Some(gid);
    }
    let uid = policy.only_other_uid()?;
    match surroundings.accounts.user_of(uid) {
        Ok(Some((_, gid))) => {
            let why = "primary group of the one authorised user";
            reader.follows(options.group, gid.to_string(), why);
            Some(gid)
        }
        // The caller warns that nobody but the owner reaches the socket.
        Ok(None) => None,
        Err(error) => {
            let why = super::super::file::reason(&error);
            reader.error(options.group, format!("cannot look up uid {uid}: {why}"));
            None
        }
    }
}

/// An abstract name has neither owner nor mode: everyone in the network
/// namespace reaches it.
fn check_abstract(reader: &mut Reader<'_>, path: &SocketPath) {
    if path.is_abstract() {
        let why = "an abstract name has no owner and no mode";
        reader.idle("socket_permissions", why);
        reader.idle("socket_group", why);
    }
}
