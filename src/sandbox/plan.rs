//! What a server says that it will need, before it is sealed.

use std::fmt;
use std::path::PathBuf;

#[cfg(feature = "sandbox")]
use rustix::thread::CapabilitySet;

use crate::ids::{Gid, Uid};

/// How a wall that can't stand is taken (`sandbox=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// The server refuses to start.
    #[default]
    Enforce,
    /// The server starts, and the [`Report`](super::Report) says what is missing.
    BestEffort,
    /// Only [`Plan::run_as`] and the descriptor limit are put in force.
    Off,
}

/// What a system call that no rule allows leads to (`seccomp=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SeccompAction {
    /// The process dies at once (`SECCOMP_RET_KILL_PROCESS`).
    #[default]
    Kill,
    /// The call, its arguments and its thread are named on descriptor 2, then
    /// the process dies of SIGSYS.
    Trap,
    /// The call is made, and the kernel logs it: for dry runs.
    Log,
    /// No filter is installed.
    Off,
}

/// What a thread does, and so which of the compiled filters it lives behind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Role {
    /// The main thread: signals, reload, the birth of other threads. It lives
    /// behind the filter that all others inherit.
    Supervisor,
    /// Accepts, checks and serves peers of the echo service, one or many at a time.
    EchoWorker,
    /// The same for the relay service, which also connects to its upstream.
    RelayWorker,
    /// The same for the broker service.
    BrokerWorker,
    /// The same for a service of an embedding program: as wide as the
    /// supervisor, without the birth of threads.
    EmbeddedWorker,
    /// Writes log lines to files, queues and syslog.
    LogWriter,
    /// Compresses rolled log files.
    LogCompressor,
    /// Looks at executables through `/proc/PID/exe`; outside Landlock.
    ProcessChecker,
    /// Connects to the upstream under the identity of a peer.
    Connector,
    /// Looks up the names of upstreams, through whatever the C library has for that.
    Resolver,
    /// Answers on the metrics socket.
    Metrics,
}

impl Role {
    /// Every role, in order.
    pub const ALL: [Self; 11] = [
        Self::Supervisor,
        Self::EchoWorker,
        Self::RelayWorker,
        Self::BrokerWorker,
        Self::EmbeddedWorker,
        Self::LogWriter,
        Self::LogCompressor,
        Self::ProcessChecker,
        Self::Connector,
        Self::Resolver,
        Self::Metrics,
    ];

    /// The name of its filter in `seccomp/*.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "base",
            Self::EchoWorker => "echo_worker",
            Self::RelayWorker => "relay_worker",
            Self::BrokerWorker => "broker_worker",
            Self::EmbeddedWorker => "embedded_worker",
            Self::LogWriter => "log_writer",
            Self::LogCompressor => "log_compressor",
            Self::ProcessChecker => "process_checker",
            Self::Connector => "connector",
            Self::Resolver => "resolver",
            Self::Metrics => "metrics",
        }
    }

    /// Whether its threads are born before the main thread is sealed
    /// ([`PrivilegedThread`]): their walls are their own, whatever the supervisor's.
    pub const fn stands_alone(self) -> bool {
        matches!(
            self,
            Self::ProcessChecker | Self::Connector | Self::Resolver
        )
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A capability that a feature may need (capabilities(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Capability {
    /// `CAP_SETUID`: to connect as a peer.
    SetUid,
    /// `CAP_SETGID`: the same, for its groups.
    SetGid,
    /// `CAP_SYS_PTRACE`: to see `/proc/PID/exe` of other users.
    SysPtrace,
    /// `CAP_DAC_READ_SEARCH`: to read executables that only their owner may read.
    DacReadSearch,
}

impl Capability {
    #[cfg(feature = "sandbox")]
    pub(super) const fn as_set(self) -> CapabilitySet {
        match self {
            Self::SetUid => CapabilitySet::SETUID,
            Self::SetGid => CapabilitySet::SETGID,
            Self::SysPtrace => CapabilitySet::SYS_PTRACE,
            Self::DacReadSearch => CapabilitySet::DAC_READ_SEARCH,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SetUid => "CAP_SETUID",
            Self::SetGid => "CAP_SETGID",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
        })
    }
}

/// Who the process is from the seal on (`run_as_user`, `run_as_group`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunAs {
    /// Real, effective and saved user.
    pub uid: Uid,
    /// Real, effective and saved group.
    pub gid: Gid,
    /// All supplementary groups; those not listed are given up. At most 65536.
    pub groups: Vec<Gid>,
}

/// What may be done below a path, or with a file if the path is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Access {
    /// Files are read, directories listed.
    Read,
    /// As `Read`; also files are written, cut, created, renamed and removed, and
    /// sockets removed. For a path that is a file: read, write and cut.
    Manage,
    /// Files and sockets are removed, and nothing else: for the socket's directory.
    Remove,
}

/// A path that stays open to some roles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathGrant {
    /// Absolute; it must exist when the process is sealed.
    pub path: PathBuf,
    /// What is allowed from there on down.
    pub access: Access,
    /// The roles that may. The supervisor's domain is the one that others are born
    /// into, so what a role is granted the supervisor has too, unless all of them
    /// stand alone ([`Role::stands_alone`]).
    pub roles: Vec<Role>,
}

/// A thread that keeps what the others lose. It is born before the main thread
/// gives its capabilities up, and runs its body once all of its own walls stand.
pub struct PrivilegedThread {
    /// Name of the thread, at most 15 bytes (pthread_setname_np(3)).
    pub name: &'static str,
    /// One that stands alone ([`Role::stands_alone`]).
    pub role: Role,
    /// All that it keeps; a capability that the process doesn't have is an error
    /// in [`Mode::Enforce`].
    pub capabilities: Vec<Capability>,
    /// Whether it must stay outside Landlock, which hides `/proc/PID/exe`.
    pub outside_landlock: bool,
    /// What it does. When it returns, the thread ends.
    pub body: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for PrivilegedThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivilegedThread")
            .field("name", &self.name)
            .field("role", &self.role)
            .field("capabilities", &self.capabilities)
            .field("outside_landlock", &self.outside_landlock)
            .finish_non_exhaustive()
    }
}

/// Everything that the server keeps. The default keeps nothing but its identity,
/// and kills for a call that is not allowed.
///
/// ```
/// use secure_socket::sandbox::{Mode, Plan};
///
/// let plan = Plan::new()
///     .mode(Mode::BestEffort)
///     .read("/etc/shop")
///     .manage("/var/lib/shop");
/// assert_eq!(plan.paths.len(), 2);
/// ```
#[derive(Debug, Default)]
pub struct Plan {
    /// What happens where a wall can't stand.
    pub mode: Mode,
    /// What happens on a call that is not allowed.
    pub seccomp: SeccompAction,
    /// Whom to become; `None` keeps the present identity and groups.
    pub run_as: Option<RunAs>,
    /// Paths that stay open.
    pub paths: Vec<PathGrant>,
    /// TCP ports that may still be bound after the seal: none for a server
    /// whose sockets are bound before.
    pub tcp_bind: Vec<u16>,
    /// TCP ports that may be connected to, and by which roles.
    pub tcp_connect: Vec<(u16, Vec<Role>)>,
    /// Whether sockets in the abstract namespace that other programs bound may
    /// be connected to.
    pub abstract_sockets: bool,
    /// `RLIMIT_NOFILE`, soft and hard; 0 leaves it as it is.
    pub max_descriptors: u64,
    /// Threads that keep more than the others.
    pub privileged: Vec<PrivilegedThread>,
}

impl Plan {
    /// Keeps nothing, and refuses to go on unless every wall stands.
    pub fn new() -> Self {
        Self::default()
    }

    /// What happens where a wall can't stand.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// What happens on a call that is not allowed.
    #[must_use]
    pub fn seccomp(mut self, action: SeccompAction) -> Self {
        self.seccomp = action;
        self
    }

    /// Becomes this user and group. Only for the whole process.
    #[must_use]
    pub fn run_as(mut self, run_as: RunAs) -> Self {
        self.run_as = Some(run_as);
        self
    }

    /// Lets a service ([`Role::EmbeddedWorker`]) read what is at or below this path.
    #[must_use]
    pub fn read(self, path: impl Into<PathBuf>) -> Self {
        self.grant(path.into(), Access::Read)
    }

    /// Lets a service read, write, create and remove files at or below this path.
    #[must_use]
    pub fn manage(self, path: impl Into<PathBuf>) -> Self {
        self.grant(path.into(), Access::Manage)
    }

    /// Lets a service connect to this TCP port, wherever it is.
    #[must_use]
    pub fn connect_tcp(mut self, port: u16) -> Self {
        self.tcp_connect.push((port, vec![Role::EmbeddedWorker]));
        self
    }

    fn grant(mut self, path: PathBuf, access: Access) -> Self {
        self.paths.push(PathGrant {
            path,
            access,
            roles: vec![Role::EmbeddedWorker],
        });
        self
    }
}

#[cfg(feature = "names")]
impl RunAs {
    /// A user by name, with its primary group and all its groups
    /// (getpwnam_r(3), getgrouplist(3)). Waits for the name service.
    ///
    /// # Errors
    /// `NotFound` if there is no such user; else what the name service failed with.
    pub fn user(name: &str) -> std::io::Result<Self> {
        let account = crate::sys::account::user_by_name(name)?.ok_or_else(|| {
            let text = format!("there is no user {name:?}");
            std::io::Error::new(std::io::ErrorKind::NotFound, text)
        })?;
        let groups = crate::sys::account::groups_of(&account.name, account.gid)?;
        Ok(Self {
            uid: account.uid,
            gid: account.gid,
            groups,
        })
    }
}
