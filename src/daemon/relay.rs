//! The relay's part of the start: what it is told, what it keeps, and the
//! warning about a confused deputy.

use std::sync::Arc;

use super::fault::Fault;
use super::rooms;
use crate::config::{Service, Settings};
use crate::exit;
use crate::ids::Uid;
use crate::listener::Address;
use crate::sandbox::{Capability, Plan, PrivilegedThread, Role};
use crate::service::relay::proxy::UnixName;
use crate::service::relay::{Identity, Options, Relay, RelayError, confused_deputy};

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
