//! Opens the socket that peers connect to, in a directory that nobody else can
//! tamper with, and accepts their connections.
//!
//! A [`Listener<Bound>`] becomes a [`Listener<Sealed>`] by the sandbox's proof
//! that every wall stands, and only a sealed one accepts.
//!
//! Invariants: a path is reached without following links, through directories
//! that belong to root or to the server; the socket appears there complete, with
//! its owner and mode; one server for each path, by a lock file beside it; only
//! our own stale socket is ever replaced, and only our own socket unlinked;
//! a refused bind leaves nothing behind.
//!
//! Not here: who the peer is, and whether it is welcome.

mod activation;
mod address;
mod directory;
mod error;
mod file;
mod inet;
mod lock;
mod mismatch;
mod notice;
mod notify;
mod options;
mod place;
mod rights;
mod staging;
mod stale;
mod unix;
mod vetting;

use std::ffi::OsStr;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{Shutdown, SocketFlags};

pub use activation::{HandedOver, handed_over, only, take_named};
pub use address::{
    ABSTRACT_MAX_LEN, Address, CLIENT_PATH_MAX_LEN, DIRECTORY_NAME_MAX_LEN, Kind, NAME_MAX_LEN,
    PATH_MAX_LEN, SocketMode, SocketModeError, SocketName, SocketPath, SocketPathError,
};
pub use error::BindError;
pub use mismatch::Mismatch;
pub use notice::Notice;
pub use notify::{Notify, NotifyError, watchdog_timeout};
pub use options::{DEFAULT_BACKLOG, Options};
pub use place::Removal;
pub use rights::{Rights, Trusted};

use crate::ids::Uid;
use crate::policy::Policy;
use crate::sandbox::{self, Access, PathGrant, Plan, Role, SandboxError};
use place::Place;
pub(crate) use vetting::Vetting;

/// The state of a listener that is bound and listens, and accepts nothing yet.
#[derive(Debug)]
pub enum Bound {}

/// The state of a listener whose process is confined, so that it may accept.
#[derive(Debug)]
pub enum Sealed {}

/// A listening socket.
///
/// It can be shared between threads: several may wait in
/// [`accept`](Listener::accept) at once. When it is dropped, its path is
/// unlinked if it still is the socket's, and its lock is released; a child
/// that was forked off does neither. As long as it is only bound, directories
/// that were made for it go with it, so that a start which is refused by
/// something else leaves nothing behind either.
#[derive(Debug)]
pub struct Listener<S> {
    // Dropped before the socket: as long as that is open, no other file can
    // have the inode that the path is compared with.
    place: Option<Place>,
    socket: OwnedFd,
    address: Address,
    notices: Vec<Notice>,
    nonblocking: bool,
    handed_over: bool,
    kind: Kind,
    owner: Option<Uid>,
    vetting: Option<Vetting>,
    walls: Option<sandbox::Sealed>,
    state: PhantomData<S>,
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Close-on-exec, and non-blocking as [`Options`] or the server want it.
    pub socket: OwnedFd,
    /// Where it comes from, for internet addresses.
    pub address: Option<SocketAddr>,
}

/// What a confined process must still be allowed to do to close a listener.
#[derive(Clone, Copy, Debug)]
pub struct Cleanup<'a> {
    /// The directory in which the socket and its lock file are removed: under
    /// Landlock, `LANDLOCK_ACCESS_FS_REMOVE_FILE` is needed beneath it.
    pub directory: BorrowedFd<'a>,
    /// Its path, for reports.
    pub path: &'a Path,
}

impl Listener<Bound> {
    /// Binds and listens. The umask has no influence. The process may have
    /// threads, but none may change its user meanwhile.
    ///
    /// # Errors
    ///
    /// One [`BindError`] for each refusal. Nothing is left behind then.
    pub fn bind(options: &Options) -> Result<Self, BindError> {
        let mut notices = Vec::new();
        let vetting = vetting(options)?;
        let mut implied = Vec::new();
        let options = &options.resolved(&mut implied)?;
        let mut address = options.address.clone();
        let (socket, place) = match &options.address {
            Address::Unix(name) => match name.name() {
                SocketName::Path(path) => {
                    let (socket, place) = unix::bind_path(path, options, &mut notices)?;
                    (socket, Some(place))
                }
                SocketName::Abstract(bytes) => (
                    unix::bind_abstract(bytes, name, options, &mut notices)?,
                    None,
                ),
            },
            Address::Inet(wanted) => {
                let socket = inet::bind(*wanted, options, &mut notices)?;
                // The kernel has chosen a port if 0 was asked for.
                address = Address::Inet(inet::local_address(&socket).unwrap_or(*wanted));
                (socket, None)
            }
        };
        notices.append(&mut implied);
        Ok(Self::put_together(
            options, socket, place, address, notices, vetting,
        ))
    }

    /// Takes over a socket from the service manager, if it is the one that the
    /// options describe: of the same family, type and address, listening, and,
    /// with a path, in safe directories and with no wider rights. It is never
    /// unlinked or shut down, and keeps the backlog that it has.
    ///
    /// # Errors
    ///
    /// [`BindError::HandedOver`] says what differs; the refusals of directories
    /// are those of [`bind`](Self::bind).
    pub fn from_systemd(handed: HandedOver, options: &Options) -> Result<Self, BindError> {
        let mut notices = Vec::new();
        let vetting = vetting(options)?;
        let options = &options.resolved(&mut Vec::new())?;
        let socket = activation::adopt(handed, options, &mut notices)?;
        let address = options.address.clone();
        let mut listener = Self::put_together(options, socket, None, address, notices, vetting);
        listener.handed_over = true;
        Ok(listener)
    }

    fn put_together(
        options: &Options,
        socket: OwnedFd,
        place: Option<Place>,
        address: Address,
        notices: Vec<Notice>,
        vetting: Option<Vetting>,
    ) -> Self {
        // Behind walls they could not be read any more.
        let _ = crate::peer::id_maps();
        Self {
            place,
            socket,
            address,
            notices,
            nonblocking: options.nonblocking || options.nonblocking_accepted,
            handed_over: false,
            kind: options.kind,
            owner: options.owner.map(|(uid, _)| uid),
            vetting,
            walls: None,
            state: PhantomData,
        }
    }

    /// Begins a listener at a path, or at `@name` in the abstract namespace.
    ///
    /// # Errors
    ///
    /// [`BindError::Path`] says why that can't be the path of a socket.
    pub fn builder(path: impl AsRef<OsStr>) -> Result<Options, BindError> {
        Ok(Options::at(path)?)
    }

    /// Confines the whole process, and goes on behind the walls. To be called while
    /// the process has one thread; for a program with more there is
    /// [`enter_threads`](Self::enter_threads).
    ///
    /// What the listener needs (its directory at the end, a thread that looks at
    /// executables) is added to the plan.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::enter`]: the process is then good for nothing but to end.
    #[cfg(feature = "sandbox")]
    pub fn enter(self, mut plan: Plan) -> Result<Listener<Sealed>, SandboxError> {
        self.join(&mut plan)?;
        let walls = sandbox::enter(plan)?;
        Ok(self.seal(&walls))
    }

    /// Confines the threads that serve, and no others; see
    /// [`sandbox::enter_threads`] for what that can't do.
    ///
    /// # Errors
    ///
    /// Those of [`sandbox::enter_threads`].
    #[cfg(feature = "sandbox")]
    pub fn enter_threads(self, mut plan: Plan) -> Result<Listener<Sealed>, SandboxError> {
        if let Some(vetting) = &self.vetting {
            vetting.join(&mut plan);
        }
        let walls = sandbox::enter_threads(plan)?;
        Ok(self.seal(&walls))
    }

    /// Adds to a plan what this listener needs once the process is confined. For a
    /// program with several listeners: each of them joins, then [`sandbox::enter`],
    /// then [`seal`](Self::seal) each.
    ///
    /// # Errors
    ///
    /// [`SandboxError::OtherUser`] if it was bound for another user than the plan's.
    pub fn join(&self, plan: &mut Plan) -> Result<(), SandboxError> {
        let planned = plan.run_as.as_ref().map(|run_as| run_as.uid);
        let planned = planned.unwrap_or_else(effective_uid);
        let bound_for = self.owner.unwrap_or_else(effective_uid);
        if planned != bound_for {
            return Err(SandboxError::OtherUser { bound_for, planned });
        }
        if let Some(cleanup) = self.paths_needed() {
            plan.paths.push(PathGrant {
                path: cleanup.path.to_owned(),
                access: Access::Remove,
                roles: vec![Role::Supervisor],
            });
        }
        if let Some(vetting) = &self.vetting {
            vetting.join(plan);
        }
        Ok(())
    }

    /// Goes on without a sandbox, for a program that has one of its own or
    /// wants none: a hole in a service is then a hole in the whole user account.
    #[must_use]
    pub fn dangerously_unconfined(self) -> Listener<Sealed> {
        self.into_state(None)
    }

    /// Goes on in a confined process. Threads of a [`Server`](crate::server::Server)
    /// enter their roles by this proof, and are attested by it.
    #[must_use]
    pub fn seal(self, proof: &sandbox::Sealed) -> Listener<Sealed> {
        self.into_state(Some(proof.clone()))
    }

    fn into_state(self, walls: Option<sandbox::Sealed>) -> Listener<Sealed> {
        let Self {
            place,
            socket,
            address,
            notices,
            nonblocking,
            handed_over,
            kind,
            owner,
            vetting,
            walls: _,
            state: _,
        } = self;
        let mut place = place;
        if let Some(place) = &mut place {
            place.directory.keep();
        }
        let state = PhantomData;
        Listener {
            place,
            socket,
            address,
            notices,
            nonblocking,
            handed_over,
            kind,
            owner,
            vetting,
            walls,
            state,
        }
    }
}

impl Listener<Sealed> {
    /// Takes the next connection out of the backlog, or waits for one if the
    /// listener is blocking (accept4(2)).
    ///
    /// # Errors
    ///
    /// Those of accept4(2), and nothing is done about any of them: `EINTR`, `EAGAIN`
    /// and `ECONNABORTED` pass; `EMFILE`, `ENFILE` and `ENOMEM` call for a
    /// pause; `EINVAL` comes after [`shut_down`](Self::shut_down).
    pub fn accept(&self) -> io::Result<Accepted> {
        let mut flags = SocketFlags::CLOEXEC;
        flags.set(SocketFlags::NONBLOCK, self.nonblocking);
        if matches!(self.address, Address::Unix(_)) {
            let socket = rustix::net::accept_with(&self.socket, flags)?;
            return Ok(Accepted {
                socket,
                address: None,
            });
        }
        let (socket, address) = rustix::net::acceptfrom_with(&self.socket, flags)?;
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        Ok(Accepted { socket, address })
    }

    /// Makes the sockets that are accepted from now on non-blocking.
    pub(crate) fn accept_nonblocking(&mut self) {
        self.nonblocking = true;
    }

    /// The walls that it was sealed with, unless it is unconfined.
    pub fn walls(&self) -> Option<&sandbox::Sealed> {
        self.walls.as_ref().filter(|walls| walls.is_confined())
    }

    /// Makes [`accept`](Self::accept) fail with `EINVAL` in every thread that
    /// waits in it, once the backlog is empty, and refuses newcomers
    /// (shutdown(2)).
    ///
    /// `Ok(false)`, and nothing is done, for a socket that the service manager
    /// handed over: it is shared, and goes on to listen for the next server.
    /// Threads must then be woken by other means.
    ///
    /// # Errors
    ///
    /// Those of shutdown(2).
    pub fn shut_down(&self) -> io::Result<bool> {
        if self.handed_over {
            return Ok(false);
        }
        rustix::net::shutdown(&self.socket, Shutdown::Both)?;
        Ok(true)
    }
}

impl<S> Listener<S> {
    /// Where it listens, with the port that the kernel chose if 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Stream or records.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Who is admitted, if it was bound for a policy.
    pub fn policy(&self) -> Option<&Policy> {
        self.vetting.as_ref().map(|vetting| &vetting.policy)
    }

    /// The means to judge by that policy.
    pub(crate) fn vetting(&self) -> Option<&Vetting> {
        self.vetting.as_ref()
    }

    /// What there is to say about it, for the log.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Whether peers can push descriptors in, as this kernel has no
    /// `SO_PASSRIGHTS`: whoever receives has to look for them.
    pub fn lets_descriptors_in(&self) -> bool {
        self.notices
            .iter()
            .any(|notice| matches!(notice, Notice::NoPassRights))
    }

    /// Whether the service manager handed it over.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// What [`close`](Self::close) needs of a confined process. `None` where
    /// there is nothing to unlink.
    pub fn paths_needed(&self) -> Option<Cleanup<'_>> {
        let directory = &self.place.as_ref()?.directory;
        Some(Cleanup {
            directory: directory.descriptor.as_fd(),
            path: &directory.path,
        })
    }

    /// Stops listening: unlinks the path if it still is the socket's, releases
    /// the lock and closes the socket.
    pub fn close(mut self) -> Removal {
        self.place.as_mut().map_or(Removal::NotNeeded, Place::clear)
    }
}

impl<S> AsFd for Listener<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn vetting(options: &Options) -> Result<Option<Vetting>, BindError> {
    options.policy.as_ref().map(Vetting::prepare).transpose()
}

/// The effective user of this process.
fn effective_uid() -> Uid {
    // No process has the id -1 (setresuid(2)); were it so, it would be nobody's.
    Uid::from_raw(rustix::process::geteuid().as_raw()).unwrap_or(Uid::OVERFLOW)
}

#[cfg(test)]
mod tests;
