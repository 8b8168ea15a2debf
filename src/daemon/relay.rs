//! The relay's part of the start: what it is told, what it keeps, and the
//! warning about a confused deputy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::Fault;
use super::rooms;
use crate::config::{Service, Settings};
use crate::exit;
use crate::ids::Uid;
use crate::listener::Address;
use crate::sandbox::{Access, Capability, Plan, PrivilegedThread, Role};
use crate::service::relay::proxy::UnixName;
use crate::service::relay::{Identity, Options, Relay, RelayError, confused_deputy};

/// Where name servers listen, for answers that don't fit a datagram (RFC 7766).
const DOMAIN_PORT: u16 = 53;

/// What getaddrinfo(3) reads: hosts(5), resolv.conf(5), nsswitch.conf(5),
/// host.conf(5), gai.conf(5).
const NAME_FILES: [&str; 5] = [
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
];

/// The service, if it is asked for, with every host name looked up.
pub(super) fn open(settings: &Settings) -> Result<Option<Arc<Relay>>, Fault> {
    let service = &settings.service;
    if service.service != Service::Relay {
        return Ok(None);
    }
    warn(settings);
    let options = Options {
        upstreams: service.upstreams.clone(),
        identity: service.upstream_identity,
        proxy: service.proxy_protocol,
        descriptors: usize::try_from(service.relay_descriptors).unwrap_or(usize::MAX),
        socket: own_name(settings),
        max_connections: settings.limits.admission.max_connections,
    };
    let relay = Relay::new(options).map_err(|error| {
        let code = match error {
            RelayError::Lookup { .. } => exit::UNAVAILABLE,
            _ => exit::CONFIG,
        };
        Fault::new(code, "relay", &error)
    })?;
    Ok(Some(Arc::new(relay)))
}

/// The socket that peers connect to, which is bound under another name first.
fn own_name(settings: &Settings) -> UnixName {
    let text = match &settings.socket.address {
        Address::Unix(path) => path.to_string(),
        Address::Inet(_) => return UnixName::default(),
    };
    match text.strip_prefix('@') {
        Some(name) => UnixName::new(format!("\0{name}").as_bytes()),
        None => UnixName::new(text.as_bytes()),
    }
}

/// Ports and names that stay within reach, and the thread that connects as peers.
pub(super) fn keep(plan: &mut Plan, settings: &Settings, relay: &Relay) {
    for upstream in &settings.service.upstreams {
        match upstream.port() {
            Some(port) => plan.tcp_connect.push((port, vec![Role::RelayWorker])),
            None => plan.abstract_sockets |= upstream.path().is_none(),
        }
    }
    if let Some(body) = relay.connector() {
        plan.privileged.push(PrivilegedThread {
            name: "connector",
            role: Role::Connector,
            capabilities: vec![Capability::SetUid, Capability::SetGid],
            outside_landlock: false,
            body,
        });
    }
    if let Some(body) = relay.resolver() {
        for place in places_of_names(settings) {
            rooms::grant(plan, &place, Access::Read, &[Role::Resolver]);
        }
        plan.tcp_connect.push((DOMAIN_PORT, vec![Role::Resolver]));
        plan.privileged.push(PrivilegedThread {
            name: "resolver",
            role: Role::Resolver,
            capabilities: vec![],
            outside_landlock: false,
            body,
        });
    }
}

/// What the thread that looks names up may read. The directories, since such files
/// are replaced and not rewritten; but root owns what else is in `/etc`, so for a
/// server that stays root only the files as they are now.
fn places_of_names(settings: &Settings) -> Vec<PathBuf> {
    let stays_root = match rooms::owner(settings) {
        Some((uid, _)) => uid == Uid::ROOT,
        None => rustix::process::geteuid().is_root(),
    };
    let files = NAME_FILES.map(Path::new).into_iter();
    // They may be links, as those of systemd-resolved and resolvconf are.
    let files = files.filter_map(|file| file.canonicalize().ok());
    if stays_root {
        return files.collect();
    }
    let mut folders: Vec<PathBuf> = files
        .filter_map(|file| Some(file.parent()?.to_path_buf()))
        .chain([PathBuf::from("/etc")])
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

/// Says in plain words where an upstream would take everybody for the server.
fn warn(settings: &Settings) {
    let service = &settings.service;
    let introduced = service.upstream_identity == Identity::Peer || service.proxy_protocol;
    let own = rooms::owner(settings).map(|(uid, _)| uid);
    let own = own.or_else(|| Uid::from_raw(rustix::process::geteuid().as_raw()));
    let (Some(own), false) = (own, introduced) else {
        return;
    };
    let only_own = !settings.peers.policy.admits_others();
    for upstream in &service.upstreams {
        if let Some(sentence) = confused_deputy(upstream, own, only_own) {
            crate::warning!("{sentence}");
        }
    }
}
