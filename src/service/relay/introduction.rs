//! Who the peer is, in the forms in which an upstream is told.
//!
//! Invariants: only what the kernel vouched for is told; of the executable, the path
//! that the policy looked up, and never the text of `/proc/PID/exe`, which a peer in a
//! mount namespace of its own chooses. Groups are asked for here where no rule did.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::net::SocketAddrAny;

use super::connector::Identity;
use super::proxy::{Endpoints, Header, Transport, UnixName, Vouched};
use crate::ids::Gid;
use crate::peer::{Fact, FactKind, Needs, Peer, PidfdSource};
use crate::service::Connection;
use crate::sys::unix_name;

/// The header for a connection to `socket`.
pub(super) fn header(connection: &Connection, socket: &UnixName) -> Header {
    let authorized = connection.authorized();
    let vouched = Vouched {
        uid: authorized.uid(),
        gid: authorized.gid(),
        pid: authorized.pid(),
        groups: groups(connection),
        exe: authorized
            .exe_path()
            .map(|path| path.as_os_str().as_bytes().to_vec()),
        rule: Some(authorized.rule_number()),
    };
    Header {
        endpoints: endpoints(connection, socket),
        vouched,
    }
}

/// The identity to connect with. `None` unless all of it is known.
pub(super) fn identity(connection: &Connection) -> Option<Identity> {
    let authorized = connection.authorized();
    let (uid, gid) = (authorized.uid()?, authorized.gid()?);
    Some(Identity {
        uid,
        gid,
        groups: groups(connection)?,
    })
}

fn groups(connection: &Connection) -> Option<Vec<Gid>> {
    let authorized = connection.authorized();
    if !authorized.credentials().are_known() {
        return None;
    }
    match &authorized.facts().groups {
        Fact::Known(groups) => Some(groups.clone()),
        Fact::Unreadable(_) => None,
        Fact::Unasked => {
            let needs = Needs::only(FactKind::Groups);
            let peer = Peer::from_socket(connection.as_fd(), needs, PidfdSource::default());
            peer.facts().groups.known().cloned()
        }
    }
}

fn endpoints(connection: &Connection, socket: &UnixName) -> Endpoints {
    let transport = Transport::Stream;
    let source = rustix::net::getpeername(connection).ok().flatten();
    let inet = |address: &SocketAddrAny| SocketAddr::try_from(address.clone()).ok();
    let destination = rustix::net::getsockname(connection).ok();
    if let (Some(source), Some(destination)) = (
        source.as_ref().and_then(inet),
        destination.as_ref().and_then(inet),
    ) {
        return Endpoints::Inet {
            transport,
            source,
            destination,
        };
    }
    let source = unix_name::of_peer(connection.as_fd()).ok().flatten();
    Endpoints::Unix {
        transport,
        source: UnixName::new(&source.unwrap_or_default()),
        destination: socket.clone(),
    }
}
