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
use place::Place;

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
    state: PhantomData<S>,
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Close-on-exec, and non-blocking if the listener is.
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
        let nonblocking = options.nonblocking || options.nonblocking_accepted;
        let state = PhantomData;
        Ok(Self {
            place,
            socket,
            address,
            notices,
            nonblocking,
            handed_over: false,
            state,
        })
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
        let socket = activation::adopt(handed, options, &mut notices)?;
        let address = options.address.clone();
        let nonblocking = options.nonblocking || options.nonblocking_accepted;
        let state = PhantomData;
        Ok(Self {
            place: None,
            socket,
            address,
            notices,
            nonblocking,
            handed_over: true,
            state,
        })
    }

    /// Goes on without a sandbox, for a program that has one of its own or
    /// wants none: a hole in a service is then a hole in the whole user account.
    #[must_use]
    pub fn dangerously_unconfined(self) -> Listener<Sealed> {
        self.into_state()
    }

    /// Goes on in a confined process.
    #[must_use]
    pub fn seal(self, _proof: &crate::sandbox::Sealed) -> Listener<Sealed> {
        self.into_state()
    }

    fn into_state(self) -> Listener<Sealed> {
        let Self {
            place,
            socket,
            address,
            notices,
            nonblocking,
            handed_over,
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

/// The effective user of this process.
fn effective_uid() -> Uid {
    // No process has the id -1 (setresuid(2)); were it so, it would be nobody's.
    Uid::from_raw(rustix::process::geteuid().as_raw()).unwrap_or(Uid::OVERFLOW)
}
