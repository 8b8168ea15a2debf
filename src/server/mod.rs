//! Threads that accept peers, check them, and serve them.
//!
//! A [`Server`] is built from a sealed listener, a service and [`Rules`]; `run`
//! makes the calling thread the supervisor until the server has stopped. A
//! [`Handle`] stops it, replaces its rules, and tells its state, from any thread.
//!
//! Invariants: only a sealed listener serves. Every number of threads and of
//! connections is bounded. A connection that fails, or whose service panics,
//! concerns nobody else. At the end no thread is left, except one that an
//! embedder's service holds.
//!
//! Not here: where the configuration comes from, signals, the log's sinks.

mod acceptor;
mod answer;
mod attendance;
#[cfg(feature = "broker")]
mod broker_metrics;
mod counted;
mod event_loop;
mod examination;
mod exhaustion;
mod exposition;
mod gate;
mod handle;
mod inbox;
mod journal;
#[cfg(feature = "logging")]
mod log_metrics;
mod metrics;
mod metrics_reader;
mod metrics_request;
mod metrics_socket;
mod observers;
mod phase;
mod pool;
mod process_metrics;
mod recheck;
#[cfg(feature = "trail")]
mod record;
mod registry;
mod reserve;
mod rules;
mod running;
mod serving;
mod shared;
mod slots;
mod supervisor;
mod visit;
mod wards;
mod worker;

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, RwLock};

pub use acceptor::Acceptor;
pub use exposition::{Exposition, Family, Form};
pub use gate::OnThreadStart;
pub use handle::{Handle, Pulse, State};
pub use journal::Observer;
pub use metrics::{Metrics, Source};
pub use metrics_socket::MetricsSocket;
pub use process_metrics::ProcessMetrics;
#[cfg(feature = "trail")]
pub use record::Recorder;
pub use rules::{Choice, Rules};
pub use running::Running;
#[cfg(feature = "daemon")]
pub(crate) use shared::EXAMINED;
pub use shared::{Overload, Threads};
pub use supervisor::Overseer;

use crate::admission::{Admission, Limits};
use crate::listener::{Listener, Sealed};
use crate::service::{Blocking, Kind, Protocol, Service, Timeouts};
use exhaustion::Exhaustion;
use gate::Gate;
use phase::Phase;
use pool::Pool;
pub(crate) use pool::connections_possible;
use registry::Registry;
use reserve::Reserve;
use shared::Shared;
use supervisor::{Bell, Supervisor};
use wards::Wards;

/// Stack of a thread that runs built-in services: they keep data elsewhere.
const BUILT_IN_STACK: usize = 256 * 1024;
/// Stack of a thread that runs an embedder's service, as std's default.
const EMBEDDED_STACK: usize = 2 * 1024 * 1024;

/// How the server ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every connection came to its own end.
    Drained,
    /// Connections were open when the time was over, and were closed.
    Forced,
}

/// Why a server can't serve.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// The system refused a facility.
    System(io::Error),
    /// A thread could not be started.
    Thread(io::Error),
    /// A thread could not enter its role.
    Role(String),
    /// The overseer found something amiss before the first accept.
    NotReady(io::Error),
    /// The listener failed while serving.
    Listener(io::Error),
    /// A blocking service needs a thread for each connection.
    ServiceNeedsPool,
    /// Rules name executables or other facts below `/proc`, and the process was
    /// confined without the threads that read them.
    CheckerConfined,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(_) => f.write_str("the system refused what the server needs"),
            Self::Thread(_) => f.write_str("can't start a thread"),
            Self::Role(why) => write!(f, "a thread can't enter its role: {why}"),
            Self::NotReady(_) => f.write_str("the server is not fit to accept peers"),
            Self::Listener(_) => f.write_str("the listening socket failed"),
            Self::ServiceNeedsPool => {
                f.write_str("a blocking service runs on the pool only, found threads=N")
            }
            Self::CheckerConfined => f.write_str(
                "rules name facts of processes, and nobody outside the walls can read them: \
                 Listener::join must come before sandbox::enter",
            ),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(cause)
            | Self::Thread(cause)
            | Self::NotReady(cause)
            | Self::Listener(cause) => Some(cause),
            Self::Role(_) | Self::ServiceNeedsPool | Self::CheckerConfined => None,
        }
    }
}

/// What a server is made of. Everything but listener, service and rules has a default.
pub struct Builder {
    listener: Listener<Sealed>,
    protocol: Arc<dyn Protocol>,
    blocking: bool,
    rules: Rules,
    limits: Limits,
    threads: Threads,
    overload: Overload,
    stack_size: usize,
    on_thread_start: OnThreadStart,
    observer: Arc<dyn Observer>,
    connection_kind: Kind,
}

impl Builder {
    fn new(listener: Listener<Sealed>, protocol: Arc<dyn Protocol>, rules: Rules) -> Self {
        let connection_kind = Kind::of(&listener);
        Self {
            listener,
            protocol,
            blocking: false,
            rules,
            limits: Limits::default(),
            threads: Threads::Multi,
            overload: Overload::Wait,
            stack_size: BUILT_IN_STACK,
            on_thread_start: Box::new(|| Ok(())),
            observer: Arc::new(()),
            connection_kind,
        }
    }

    /// With a service of the embedding program, which runs on the pool.
    fn embedded(listener: Listener<Sealed>, service: impl Service, rules: Rules) -> Self {
        let mut builder = Self::new(listener, Arc::new(Blocking::new(service)), rules);
        builder.blocking = true;
        builder.stack_size = EMBEDDED_STACK;
        builder
    }

    /// Who is admitted and under which bounds of time, as a whole: instead of what the
    /// listener was bound for.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// How long a connection may take for what it does.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.rules.timeouts = Arc::new(timeouts);
        self
    }

    /// How many connections, from whom. By default 200 in all. On the pool no more than
    /// there can be threads for (`vm.max_map_count`), which is said in the log.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How connections are shared out among threads. By default the pool.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// What happens to newcomers when `max_connections` are open.
    #[must_use]
    pub fn overload(mut self, overload: Overload) -> Self {
        self.overload = overload;
        self
    }

    /// Stack of each thread in bytes, at least 64 KiB: 256 KiB for built-in
    /// services, 2 MiB for an embedder's. Only what is used costs memory.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = bytes.max(64 * 1024);
        self
    }

    /// What every thread does first, before it enters its role in the sandbox. An
    /// error keeps the server from serving.
    #[must_use]
    pub fn on_thread_start(mut self, hook: OnThreadStart) -> Self {
        self.on_thread_start = hook;
        self
    }

    /// Who is told of all decisions.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Whether connections carry messages (`SOCK_SEQPACKET`); by default as the
    /// listener was bound.
    #[must_use]
    pub fn packets(mut self, yes: bool) -> Self {
        self.connection_kind.packets = yes;
        self
    }

    /// Whether to look for descriptors that peers send, at each receive, where
    /// the kernel can't refuse them (`SO_PASSRIGHTS`, before Linux 6.16); by default
    /// where it can't.
    #[must_use]
    pub fn watch_descriptors(mut self, yes: bool) -> Self {
        self.connection_kind.watch_descriptors = yes;
        self
    }

    /// Puts the server together. No thread is started yet.
    ///
    /// # Errors
    /// [`ServerError::System`] when no descriptor is free;
    /// [`ServerError::ServiceNeedsPool`] for a blocking service with `threads=N`;
    /// [`ServerError::Thread`], [`ServerError::CheckerConfined`] where a rule asks for
    /// what a thread outside the walls has to read.
    pub fn build(mut self) -> Result<Server, ServerError> {
        if self.blocking && self.threads != Threads::Multi {
            return Err(ServerError::ServiceNeedsPool);
        }
        start_checker(&self.listener)?;
        fit_limits(&mut self.limits, self.threads, self.overload);
        self.fit_listener().map_err(ServerError::System)?;
        let rules = Arc::new(self.rules);
        let shared = Shared {
            max_connections: AtomicUsize::new(self.limits.max_connections),
            seated: AtomicUsize::new(0),
            pool: Pool::new(pool_bound(self.limits.max_connections, self.overload)),
            listener: self.listener,
            protocol: self.protocol,
            threads: self.threads,
            overload: self.overload,
            stack_size: self.stack_size,
            on_thread_start: self.on_thread_start,
            observer: self.observer,
            rules: RwLock::new(Arc::clone(&rules)),
            wakes: AtomicBool::new(false),
            reserve: Reserve::new().map_err(ServerError::System)?,
            connection_kind: self.connection_kind,
            admission: Arc::new(Admission::new(self.limits)),
            registry: Registry::default(),
            wards: Wards::default(),
            exhaustion: Exhaustion::new(),
            phase: Phase::default(),
            gate: Gate::default(),
            supervisor: Bell::new().map_err(ServerError::System)?,
            loops: Mutex::new(Vec::new()),
            paused: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            sweep_asked: AtomicBool::new(false),
            failure: Mutex::new(None),
        };
        shared.set_rules(&rules);
        Ok(Server {
            shared: Arc::new(shared),
        })
    }

    /// A loop must never wait in a call, a worker of the pool does so in accept; however
    /// the listener was bound.
    fn fit_listener(&mut self) -> io::Result<()> {
        let loops = self.threads != Threads::Multi;
        rustix::io::ioctl_fionbio(self.listener.as_fd(), loops)?;
        if loops || !self.protocol.can_block() {
            self.listener.accept_nonblocking();
        }
        Ok(())
    }
}

/// Starts the threads that look at executables, where the sandbox did not.
fn start_checker(listener: &Listener<Sealed>) -> Result<(), ServerError> {
    let threads = listener
        .vetting()
        .map(|vetting| vetting.take_threads())
        .unwrap_or_default();
    if threads.is_empty() {
        return Ok(());
    }
    if listener.walls().is_some() {
        return Err(ServerError::CheckerConfined);
    }
    for thread in threads {
        std::thread::Builder::new()
            .name(thread.name.to_owned())
            .spawn(move || thread.run())
            .map_err(ServerError::Thread)?;
    }
    Ok(())
}

/// Admits no more at once than there can be threads for.
fn fit_limits(limits: &mut Limits, threads: Threads, overload: Overload) {
    let possible = connections_possible(threads, overload);
    if limits.max_connections > possible {
        crate::warning!(
            "max_connections={}: vm.max_map_count has room for the threads of {possible}, \
             which is the bound now; threads=N needs none for each",
            limits.max_connections
        );
        limits.max_connections = possible;
    }
}

/// How many workers there may be. One more than connections where newcomers are
/// turned away: somebody has to accept them for that.
fn pool_bound(max_connections: usize, overload: Overload) -> usize {
    match overload {
        Overload::Wait => max_connections,
        Overload::Refuse => max_connections.saturating_add(1),
    }
}

/// A server that is ready to run.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
}

impl Server {
    /// A server for the policy that the listener was bound for (the own user alone, if
    /// for none), with the default bounds.
    ///
    /// # Errors
    /// Those of [`Builder::build`].
    pub fn new(listener: Listener<Sealed>, service: impl Service) -> Result<Self, ServerError> {
        Self::builder(listener, service).build()
    }

    /// Begins such a server.
    pub fn builder(listener: Listener<Sealed>, service: impl Service) -> Builder {
        let rules = Rules::of(&listener);
        Builder::embedded(listener, service, rules)
    }

    /// Begins such a server with one of the built-in services.
    pub fn builder_with_protocol(
        listener: Listener<Sealed>,
        protocol: Arc<dyn Protocol>,
    ) -> Builder {
        let rules = Rules::of(&listener);
        Builder::new(listener, protocol, rules)
    }

    /// Begins a server with one of the built-in services.
    pub fn with_protocol(
        listener: Listener<Sealed>,
        protocol: Arc<dyn Protocol>,
        rules: Rules,
    ) -> Builder {
        Builder::new(listener, protocol, rules)
    }

    /// Begins a server with a service of the embedding program, which runs on
    /// the pool.
    pub fn with_service(
        listener: Listener<Sealed>,
        service: impl Service,
        rules: Rules,
    ) -> Builder {
        Builder::embedded(listener, service, rules)
    }

    /// Stops the server, or changes it while it runs; from any thread.
    pub fn handle(&self) -> Handle {
        Handle::new(&self.shared)
    }

    /// Serves until a [`Handle`] stops it. The calling thread supervises.
    ///
    /// # Errors
    /// [`ServerError`] when it can't begin, or the listener breaks.
    pub fn run(self) -> Result<Outcome, ServerError> {
        self.run_with(&mut ())
    }

    /// Serves on a thread of its own, which supervises, and comes back at once.
    ///
    /// # Errors
    /// If that thread can't be started. What [`run`](Self::run) would give comes from
    /// [`Running::join`].
    pub fn spawn(self) -> Result<Running, ServerError> {
        Running::start(self)
    }

    /// As [`run`](Self::run), with an overseer on the supervising thread.
    ///
    /// # Errors
    /// As [`run`](Self::run), and what the overseer finds before the first accept.
    pub fn run_with(self, overseer: &mut dyn Overseer) -> Result<Outcome, ServerError> {
        Supervisor::new(self.shared, overseer).run()
    }
}

#[cfg(test)]
mod tests;
