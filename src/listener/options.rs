//! How a listener is to be bound: an address and everything that has a safe default.
//!
//! Not here: names of options or of users. Whoever reads those resolves them first.

use std::ffi::OsStr;

use super::address::{Address, Kind, SocketMode, SocketPath, SocketPathError};
use super::error::BindError;
use super::notice::Notice;
use super::{Bound, Listener};
use crate::ids::{Gid, Uid};
use crate::policy::Policy;

/// listen(2)'s backlog where none is chosen.
pub const DEFAULT_BACKLOG: u32 = 128;

/// How a listener is to be bound. Begin with [`Options::at`] or [`Options::new`] and
/// change what has to differ.
///
/// ```no_run
/// use secure_socket::Policy;
/// use secure_socket::listener::Options;
///
/// let listener = Options::at("/run/shop/shop.sock")?
///     .policy(Policy::parse("gid:27")?)
///     .backlog(512)
///     .bind()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub(super) address: Address,
    pub(super) kind: Kind,
    /// `None`: as the policy needs it, or `0600`.
    pub(super) mode: Option<SocketMode>,
    pub(super) policy: Option<Policy>,
    pub(super) owner: Option<(Uid, Gid)>,
    pub(super) socket_group: Option<Gid>,
    pub(super) server_uid: Uid,
    pub(super) others_authorised: bool,
    pub(super) backlog: u32,
    pub(super) expose: bool,
    pub(super) pass_credentials: bool,
    pub(super) pass_descriptors: bool,
    pub(super) nonblocking: bool,
    pub(super) nonblocking_accepted: bool,
}

impl Options {
    /// A stream socket at `address`, `0600`, for the user that runs this
    /// process, with a backlog of 128, blocking, and on loopback only.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            kind: Kind::Stream,
            mode: None,
            policy: None,
            owner: None,
            socket_group: None,
            server_uid: super::effective_uid(),
            others_authorised: false,
            backlog: DEFAULT_BACKLOG,
            expose: false,
            pass_credentials: false,
            pass_descriptors: false,
            nonblocking: false,
            nonblocking_accepted: false,
        }
    }

    /// The same at a path, or at `@name` in the abstract namespace.
    ///
    /// # Errors
    ///
    /// Why that is no [`SocketPath`].
    pub fn at(path: impl AsRef<OsStr>) -> Result<Self, SocketPathError> {
        SocketPath::parse(path.as_ref()).map(|path| Self::new(Address::Unix(path)))
    }

    /// Who will be admitted. Mode and group of the socket, and who may cross its
    /// directory, follow from that where they are not given: `0600` for the server's
    /// own user alone, else `0660` with the one group that the rules name, or with the
    /// primary group of the one user (for which the feature `names` is needed).
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Binds and listens; see [`Listener::bind`].
    ///
    /// # Errors
    ///
    /// Those of [`Listener::bind`].
    pub fn bind(&self) -> Result<Listener<Bound>, BindError> {
        Listener::bind(self)
    }

    /// What follows from the policy, filled in.
    pub(super) fn resolved(&self, notices: &mut Vec<Notice>) -> Result<Self, BindError> {
        let mut options = self.clone();
        let Some(policy) = self.policy.as_ref().filter(|policy| policy.admits_others()) else {
            return Ok(options);
        };
        options.others_authorised = true;
        options.mode.get_or_insert(SocketMode::GROUP);
        let is_path = matches!(&self.address, Address::Unix(path) if !path.is_abstract());
        if is_path && options.socket_group.is_none() {
            options.socket_group = group_for(policy)?;
            if options.socket_group.is_none() {
                notices.push(Notice::NoGroup);
            }
        }
        Ok(options)
    }

    /// The mode in force.
    pub(super) fn mode_bits(&self) -> SocketMode {
        self.mode.unwrap_or(SocketMode::OWNER)
    }

    /// Stream or records. Records need a Unix-domain address.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The permission bits that the socket gets, whatever the umask is.
    #[must_use]
    pub fn mode(mut self, mode: SocketMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// The user and group that the server runs as after it has dropped its
    /// privileges: what is created belongs to them, and directories of that
    /// user are trusted as the server's own.
    #[must_use]
    pub fn run_as(mut self, uid: Uid, gid: Gid) -> Self {
        self.owner = Some((uid, gid));
        self.server_uid = uid;
        self
    }

    /// The group that owns the socket and, where
    /// [`others_authorised`](Self::others_authorised) is set, may cross a
    /// directory that is created for it.
    #[must_use]
    pub fn socket_group(mut self, group: Option<Gid>) -> Self {
        self.socket_group = group;
        self
    }

    /// Whether anyone but the server's own user is to connect. Directories that
    /// are created can then be crossed: the last one (`0710`) by the socket's
    /// group, those above it (`0711`) by all. Otherwise all are `0700`.
    #[must_use]
    pub fn others_authorised(mut self, yes: bool) -> Self {
        self.others_authorised = yes;
        self
    }

    /// listen(2)'s backlog. The kernel caps it at `net.core.somaxconn`.
    #[must_use]
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Allows an internet address that is not loopback.
    #[must_use]
    pub fn expose(mut self, yes: bool) -> Self {
        self.expose = yes;
        self
    }

    /// Sets `SO_PASSCRED` (unix(7)), which accepted sockets inherit, so that
    /// every message carries its sender's credentials.
    #[must_use]
    pub fn pass_credentials(mut self, yes: bool) -> Self {
        self.pass_credentials = yes;
        self
    }

    /// Lets peers send descriptors along with data, for a service that takes
    /// them. Without it the kernel refuses them to the sender, since Linux 6.16
    /// (`SO_PASSRIGHTS`).
    #[must_use]
    pub fn pass_descriptors(mut self, yes: bool) -> Self {
        self.pass_descriptors = yes;
        self
    }

    /// Makes the listening socket non-blocking, and those it accepts. For programs that
    /// accept by themselves: a [`Server`](crate::server::Server) sees to it.
    #[must_use]
    pub fn nonblocking(mut self, yes: bool) -> Self {
        self.nonblocking = yes;
        self
    }

    /// Makes the sockets that are accepted non-blocking, though the listening one
    /// may block.
    #[must_use]
    pub fn nonblocking_accepted(mut self, yes: bool) -> Self {
        self.nonblocking_accepted = yes;
        self
    }

    /// Where it is to listen.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The backlog as listen(2) takes it.
    pub(super) fn backlog_for_listen(&self) -> i32 {
        i32::try_from(self.backlog).unwrap_or(i32::MAX)
    }
}

/// The group through which those whom a policy admits reach the socket.
fn group_for(policy: &Policy) -> Result<Option<Gid>, BindError> {
    if let Some(group) = policy.single_group() {
        return Ok(Some(group));
    }
    #[cfg(feature = "names")]
    if let Some(uid) = policy.only_other_uid() {
        return match crate::sys::account::user_by_uid(uid) {
            Ok(account) => Ok(account.map(|account| account.gid)),
            Err(source) => Err(BindError::Account { uid, source }),
        };
    }
    Ok(None)
}
