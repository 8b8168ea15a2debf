//! Accepts with policy and no more, for programs that have their own threads or event
//! loop, and for other languages.
//!
//! Invariant: what comes out was admitted by the policy; those who were not are
//! closed unread and logged. Where the rule names a process, the connection ends with
//! that.
//!
//! Not here: threads, limits of connections, rates and penalties, the proof of the
//! process and the repeated look at its executable: those are [`Server`](super::Server)'s.
//! Whoever uses this bounds what he accepts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::exhaustion::AcceptError;
use super::rules::Rules;
use super::{ServerError, journal, start_checker};
use crate::listener::{Accepted, Listener, Sealed};
use crate::peer::Peer;
use crate::service::{CloseReason, Connection, Kind, Watch};

/// Accepts those whom a listener's policy admits. May be shared between threads,
/// several of which may wait in [`accept`](Self::accept).
///
/// Reads and writes of a connection fail once the process has exited that a rule by
/// pid, executable, digest, name or arguments admitted, as a [`Server`](super::Server)'s
/// do: within 10 ms, however much data a child keeps flowing that holds the socket. If
/// nobody holds it, what the process sent is read to its end. The bare descriptor
/// ([`AsFd`]) knows of none of this. A process that runs another program since is not found out here: whose rules
/// name executables is better served by a server, which looks again.
///
/// ```no_run
/// use std::io::Write;
/// use secure_socket::server::Acceptor;
/// use secure_socket::{Listener, Policy};
///
/// let listener = Listener::builder("/run/hello/hello.sock")?
///     .policy(Policy::parse("uid:33")?)
///     .bind()?
///     .dangerously_unconfined();
/// let acceptor = Acceptor::new(listener)?;
/// while let Some(connection) = acceptor.accept(None)? {
///     writeln!(&*connection, "hello {}", connection.credentials())?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Acceptor {
    listener: Listener<Sealed>,
    rules: Rules,
    accepted: AtomicU64,
    kind: Kind,
}

impl Acceptor {
    /// For the policy that the listener was bound for; the own user alone, if for
    /// none. The listening socket is made non-blocking.
    ///
    /// # Errors
    /// [`ServerError::System`], [`ServerError::Thread`], and
    /// [`ServerError::CheckerConfined`] as for a server.
    pub fn new(listener: Listener<Sealed>) -> Result<Self, ServerError> {
        start_checker(&listener)?;
        rustix::io::ioctl_fionbio(listener.as_fd(), true)
            .map_err(|errno| ServerError::System(errno.into()))?;
        let kind = Kind::of(&listener);
        let rules = Rules::of(&listener);
        Ok(Self {
            listener,
            rules,
            accepted: AtomicU64::new(0),
            kind,
        })
    }

    /// The next peer that is admitted. `None` when `timeout` is over; without one it
    /// waits for as long as it takes. Those that are denied meanwhile are closed.
    ///
    /// # Errors
    /// Those of accept4(2) that don't concern one connection: `EMFILE`, `ENFILE`,
    /// `ENOMEM` when resources are used up: pause before the next call.
    pub fn accept(&self, timeout: Option<Duration>) -> io::Result<Option<Arc<Connection>>> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            match self.listener.accept() {
                Ok(accepted) => {
                    if let Some(connection) = self.examine(accepted)? {
                        return Ok(Some(connection));
                    }
                    // A crowd of those who are denied doesn't hold it up for ever.
                    if is_over(until) {
                        return Ok(None);
                    }
                }
                Err(error) => match AcceptError::of(&error) {
                    AcceptError::Passing => {}
                    AcceptError::Nothing => {
                        if is_over(until) {
                            return Ok(None);
                        }
                        self.wait(until)?;
                    }
                    AcceptError::Exhausted | AcceptError::Broken => return Err(error),
                },
            }
        }
    }

    /// Where it listens, what there is to say about it, and to whom it belongs.
    pub fn listener(&self) -> &Listener<Sealed> {
        &self.listener
    }

    /// Stops listening, and unlinks the path if it still is the socket's.
    pub fn close(self) -> crate::listener::Removal {
        self.listener.close()
    }

    fn examine(&self, accepted: Accepted) -> io::Result<Option<Arc<Connection>>> {
        let opened = Instant::now();
        let id = self.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        let rules = &self.rules;
        let peer = match accepted.address {
            Some(address) => Peer::from_address(address),
            None => Peer::from_socket(accepted.socket.as_fd(), rules.needs(), rules.pidfd_source),
        };
        let mut facts = peer.facts().clone();
        let verdict = rules.policy.judge(&mut facts, |facts, needs| {
            rules.inspector.learn(&peer, facts, needs);
        });
        let authorized = match verdict {
            Ok(authorized) => authorized,
            Err(denial) => {
                journal::denied(&(), id, &facts, &denial);
                return Ok(None);
            }
        };
        rustix::io::ioctl_fionbio(&accepted.socket, false)?;
        let timeouts = Arc::clone(&rules.timeouts);
        let (socket, kind) = (accepted.socket, self.kind);
        let connection = Connection::new(id, socket, kind, peer, authorized, timeouts, opened);
        if rules.ends_with_peer(connection.authorized()) {
            connection.end_with_peer();
        }
        let connection = Arc::new(connection);
        connection.attend(Box::new(Company));
        journal::admitted(&(), &connection)?;
        Ok(Some(connection))
    }

    fn wait(&self, until: Option<Instant>) -> io::Result<()> {
        let timeout = until.map(|until| crate::sys::time::until(until, Instant::now()));
        let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What is looked after while the connection is in use.
struct Company;

impl Watch for Company {
    fn due(&self) -> Option<Instant> {
        None
    }

    fn look(&self, _connection: &Connection, _now: Instant) -> Option<CloseReason> {
        None
    }
}

/// The listening socket, to wait on together with others.
impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn is_over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| until <= Instant::now())
}
