//! `relay`: joins each admitted peer to an upstream, both directions at once.
//!
//! Nothing is parsed. Talk is copied, bulk is spliced; ends and resets are
//! passed on; a slow side slows the other. When asked for, the upstream is told
//! who the peer is: by a PROXY header ([`proxy`]), or by a connection that is
//! made as the peer.
//!
//! Invariants: for one connection at most one lent buffer or one pipe of 1 MiB
//! is held in each direction, besides the sockets' own buffers; no step waits.
//!
//! Not here: who may be a peer, the timeouts of a connection as a whole, and the
//! threads that drive sessions.

mod connect;
mod connector;
mod deputy;
mod descriptors;
mod flow;
mod introduction;
mod joint;
#[cfg(test)]
mod joint_tests;
mod pipes;
pub mod proxy;
#[cfg(test)]
mod rules_tests;
mod session;
#[cfg(test)]
mod session_tests;
mod targets;
mod upstream;
mod wire;

pub use deputy::confused_deputy;
pub use descriptors::DESCRIPTORS_MAX;
pub use pipes::PIPES_MAX;
pub use targets::{ADDRESSES_MAX, DOWN_FOR};
pub use upstream::{Upstream, UpstreamError};

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use self::connector::{Body, Connector};
use self::pipes::Pipes;
use self::proxy::UnixName;
use self::session::RelaySession;
use self::targets::Targets;
use super::{Connection, Opened, Protocol, Waker};

/// As whom the relay connects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Identity {
    /// As the server itself.
    #[default]
    Own,
    /// As the peer: uid, gid and supplementary groups.
    Peer,
}

/// What a relay does.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it leads to: the first that is available. At least one.
    pub upstreams: Vec<Upstream>,
    /// As whom it connects. [`Identity::Peer`] needs Unix upstreams only, and
    /// [`Relay::connector`] on a thread with CAP_SETUID and CAP_SETGID.
    pub identity: Identity,
    /// Whether a PROXY v2 header goes first.
    pub proxy: bool,
    /// How many descriptors one message may carry, in either direction; 0 to
    /// [`DESCRIPTORS_MAX`]. More than 0 needs Unix upstreams only.
    pub descriptors: usize,
    /// The socket that peers connect to, as PROXY names it.
    pub socket: UnixName,
    /// How many connections may wait for the connector at once.
    pub max_connections: usize,
}

/// Why a relay can't be set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum RelayError {
    /// No upstream was named.
    NoUpstream,
    /// A TCP upstream can't see who connects, nor take descriptors.
    NeedsUnix(Upstream),
    /// More descriptors than the kernel lets one message carry.
    Descriptors(usize),
    /// The name of an upstream could not be looked up.
    Lookup {
        /// Which.
        upstream: Upstream,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUpstream => f.write_str("relay without an upstream, expected at least one"),
            Self::NeedsUnix(upstream) => {
                write!(
                    f,
                    "{upstream} takes neither identities nor descriptors, expected unix:"
                )
            }
            Self::Descriptors(found) => write!(
                f,
                "{found} descriptors with each message, expected at most {DESCRIPTORS_MAX}"
            ),
            Self::Lookup { upstream, .. } => write!(f, "can't look up the host of {upstream}"),
        }
    }
}

impl std::error::Error for RelayError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Lookup { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The body of a thread.
pub type ThreadBody = Box<dyn FnOnce() + Send>;

/// What all sessions share.
struct Common {
    targets: Arc<Targets>,
    pipes: Pipes,
    proxy: bool,
    descriptors: usize,
    socket: UnixName,
    /// For [`Identity::Peer`].
    connector: Option<Connector>,
}

/// The service.
pub struct Relay {
    common: Arc<Common>,
    body: Mutex<Option<Body>>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relay")
    }
}

impl Relay {
    /// Looks up the names of all upstreams; nothing is connected.
    ///
    /// # Errors
    /// See [`RelayError`].
    pub fn new(options: Options) -> Result<Self, RelayError> {
        if options.upstreams.is_empty() {
            return Err(RelayError::NoUpstream);
        }
        if options.descriptors > DESCRIPTORS_MAX {
            return Err(RelayError::Descriptors(options.descriptors));
        }
        let needs_unix = options.identity == Identity::Peer || options.descriptors > 0;
        let tcp = options
            .upstreams
            .iter()
            .find(|upstream| needs_unix && !upstream.is_unix());
        if let Some(tcp) = tcp {
            return Err(RelayError::NeedsUnix(tcp.clone()));
        }
        let (connector, body) = match options.identity {
            Identity::Own => (None, None),
            Identity::Peer => {
                let (connector, body) = connector::connector(options.max_connections.max(1));
                (Some(connector), Some(body))
            }
        };
        let common = Common {
            targets: Arc::new(Targets::resolve(options.upstreams)?),
            pipes: Pipes::default(),
            proxy: options.proxy,
            descriptors: options.descriptors,
            socket: options.socket,
            connector,
        };
        Ok(Self {
            common: Arc::new(common),
            body: Mutex::new(body),
        })
    }

    /// What a thread with CAP_SETUID and CAP_SETGID has to run for
    /// [`Identity::Peer`]; `None` otherwise, and at every call but the first.
    pub fn connector(&self) -> Option<ThreadBody> {
        let body = self
            .body
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        Some(Box::new(|| body.run()))
    }

    /// What a thread that can look up host names has to run, so that they are
    /// looked up again after failures. `None` if no upstream has a name, and at
    /// every call but the first. Without it the addresses of the start stay.
    pub fn resolver(&self) -> Option<ThreadBody> {
        let body = self.common.targets.resolver()?;
        Some(Box::new(body))
    }

    /// How many descriptors it may need beyond the peers' own sockets.
    pub fn descriptors_needed(max_connections: usize) -> usize {
        max_connections.saturating_add(PIPES_MAX.saturating_mul(2))
    }
}

impl Protocol for Relay {
    fn role(&self) -> crate::sandbox::Role {
        crate::sandbox::Role::RelayWorker
    }

    fn name(&self) -> &'static str {
        "relay"
    }

    fn needs_waker(&self) -> bool {
        self.common.connector.is_some()
    }

    fn open(&self, connection: &Arc<Connection>, waker: Option<Waker>) -> io::Result<Opened> {
        let session = RelaySession::open(Arc::clone(&self.common), connection, waker)?;
        Ok(Box::new(session))
    }
}
