//! The contract between a built-in service and the threads that drive it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use super::{CloseReason, Connection};
use crate::sandbox::Role;

/// What a session waits for on one descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interest {
    /// Data or end of data to read.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

impl Interest {
    /// Neither; errors and hang-ups are reported all the same.
    pub const NONE: Self = Self {
        read: false,
        write: false,
    };
    /// Data to read.
    pub const READ: Self = Self {
        read: true,
        write: false,
    };
    /// Room to write.
    pub const WRITE: Self = Self {
        read: false,
        write: true,
    };
    /// Both.
    pub const BOTH: Self = Self {
        read: true,
        write: true,
    };

    /// Whether nothing is waited for.
    pub const fn is_none(self) -> bool {
        !self.read && !self.write
    }
}

/// What came since the last step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// The peer's descriptor. An error or a hang-up counts as both, so that
    /// the next call on it finds out.
    pub client: Interest,
    /// The other descriptor ([`Session::other`]), alike.
    pub other: Interest,
    /// The peer's descriptor has an error or hang-up while nothing was waited
    /// for on it. Said once: it is not watched again before an interest in it.
    pub client_hangup: bool,
    /// The same of the other descriptor.
    pub other_hangup: bool,
    /// [`Waker::wake`] was called.
    pub woken: bool,
    /// The time of [`Wait::until`] has come.
    pub expired: bool,
}

/// What a session waits for next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wait {
    /// On the peer's descriptor.
    pub client: Interest,
    /// On the other descriptor.
    pub other: Interest,
    /// A time at which the session wants to be stepped in any case, with
    /// [`Ready::expired`]. The timeouts first byte, idle and lifetime are the
    /// driver's and need not be repeated here.
    pub until: Option<Instant>,
}

/// What a step ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing more can be done before one of these.
    Wait(Wait),
    /// More can be done at once, but others shall have their turn.
    Again,
    /// The connection is over.
    Close(CloseReason),
}

/// What a driver hands to a session for one step.
#[derive(Debug)]
pub struct Turn<'a> {
    /// When the driver woke up (monotonic). A session that was allowed to block
    /// asks the clock itself.
    pub now: Instant,
    /// What came.
    pub ready: Ready,
    /// Whether a receive from the peer may block: only if the session then
    /// waits for nothing else.
    pub may_block: bool,
    /// Room for data in transit, shared by all sessions of this thread: what has
    /// to outlive the step is copied out. At least 64 KiB.
    pub buffer: &'a mut [u8],
    /// Set once the server drains: when connections will be closed by force.
    pub stopping: Option<Instant>,
}

/// The state machine that serves one connection.
pub trait Session: Send {
    /// Goes on as far as possible without waiting.
    ///
    /// Both descriptors may report readiness that is not there any more; every
    /// call on them must cope with `EAGAIN`.
    fn step(&mut self, connection: &Connection, turn: &mut Turn<'_>) -> Next;

    /// Whether a receive may block instead of this wait, for data from the peer and
    /// perhaps a time. Only a session that bounds its receives can say so of a time.
    fn may_block(&self, wait: &Wait) -> bool {
        wait.until.is_none()
    }

    /// A second descriptor to wait on (a relay's upstream), with a number that
    /// changes whenever it is another one, so that the driver registers it anew.
    fn other(&self) -> Option<(BorrowedFd<'_>, u64)> {
        None
    }
}

/// Steps a session from another thread: its next step comes soon, with
/// [`Ready::woken`]. Cheap to clone; calls before that step are folded into one.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// Wraps what a driver does to wake one of its sessions.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Asks for a step. Never blocks; does nothing if the session is gone.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

/// A session that was opened.
pub type Opened = Box<dyn Session>;

/// A built-in service: opens a session for each admitted connection.
pub trait Protocol: Send + Sync + 'static {
    /// The name, as in `service=`.
    fn name(&self) -> &'static str;

    /// Whether sessions are woken by other threads: only then does the driver
    /// make a [`Waker`] for each, which costs a descriptor on the pool.
    fn needs_waker(&self) -> bool {
        false
    }

    /// Whether a session may use the driver's permission to block in a receive.
    /// If not, sockets are made non-blocking, which `splice` needs.
    fn can_block(&self) -> bool {
        false
    }

    /// Whether a session's first step is its last, and waits by itself: an embedder's
    /// blocking service.
    fn runs_to_its_end(&self) -> bool {
        false
    }

    /// Whether the service asks for the proof of the process in its own protocol.
    fn proves_by_itself(&self) -> bool {
        false
    }

    /// Which walls a thread that serves it lives behind.
    fn role(&self) -> Role {
        Role::EmbeddedWorker
    }

    /// Opens a session. `waker` is given if [`needs_waker`](Self::needs_waker).
    ///
    /// # Errors
    /// If the system refuses what it needs; the connection is closed.
    fn open(&self, connection: &Arc<Connection>, waker: Option<Waker>) -> io::Result<Opened>;

    /// Called once when the server begins to drain, from the supervisor's thread.
    fn drain(&self, _until: Instant) {}

    /// Called after a reload put other rules in force, from the thread that did.
    fn reloaded(&self) {}
}
