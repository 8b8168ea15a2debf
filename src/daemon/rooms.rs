//! Settings to what each room asks for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::{self, Fault};
use super::links;
use crate::config::{
    self, CheckOverload, Endpoint, LogFormat, LogOverflow, LogSink, Service, Settings, Weight,
};
use crate::listener::{Bound, Listener, Notify, Options};
use crate::logging::{self, FileSpec, Logger, RemoteAddress, RemoteSpec, SinkSpec, Target};
use crate::peer::{
    Checker, CheckerConfig, CheckerReach, CheckerThread, Inspector, Kernel, Needs, PidfdSource,
    Pins,
};
use crate::policy::Policy;
use crate::sandbox::{Access, Capability, Mode, PathGrant, Plan, PrivilegedThread, Role, Sealed};
use crate::server::{Choice, EXAMINED, Overload, Rules, Threads, connections_possible};
use crate::service::broker::{Broker, BrokerService};
use crate::service::relay::{PIPES_MAX, Relay};
use crate::service::{Echo, Protocol};
use crate::{exit, ids, sys};

/// Descriptors that a server needs besides those of its connections.
const DESCRIPTORS_ASIDE: u64 = 64;

type Owner = Option<(ids::Uid, ids::Gid)>;

pub(super) fn owner(settings: &Settings) -> Owner {
    settings
        .walls
        .run_as
        .as_ref()
        .map(|run_as| (run_as.uid, run_as.gid))
}

pub(super) fn notify() -> Result<Option<Notify>, Fault> {
    Notify::from_env().map_err(|e| Fault::new(exit::UNAVAILABLE, "NOTIFY_SOCKET", &e))
}

/// Opens every sink; the lines wait until the writer is started.
pub(super) fn logger(settings: &Settings) -> Result<Logger, Fault> {
    let logs = &settings.logs;
    let mut builder = logging::Builder::new()
        .verbosity(logs.verbosity)
        .queue(usize::try_from(logs.queue).unwrap_or(8192))
        .format(match logs.format {
            LogFormat::Text => logging::Format::Text,
            LogFormat::Json => logging::Format::Json,
            LogFormat::Rfc5424 => logging::Format::Rfc5424,
        })
        .overflow(match logs.overflow {
            LogOverflow::Drop => logging::Overflow::Drop,
            LogOverflow::Block => logging::Overflow::Block,
        })
        .rate(logs.rate);
    for (module, verbosity) in &logs.verbosity_for {
        builder = builder.verbosity_for(module.clone(), *verbosity);
    }
    for target in &logs.targets {
        let Some(sink) = sink(settings, target.sink) else {
            continue;
        };
        builder = builder.target(Target {
            sink,
            level: target.verbosity,
        });
    }
    let logger = builder.build().map_err(fault::of_logging)?;
    logger.install().map_err(fault::of_logging)?;
    Ok(logger)
}

fn sink(settings: &Settings, sink: LogSink) -> Option<SinkSpec> {
    let logs = &settings.logs;
    Some(match sink {
        LogSink::Stdout => SinkSpec::Stdout,
        LogSink::Stderr => SinkSpec::Stderr,
        LogSink::Mq => SinkSpec::Mq {
            name: logs.mq_name.clone(),
            owner: owner(settings),
        },
        LogSink::Remote => SinkSpec::Remote(match logs.remote.as_ref()? {
            Endpoint::Unix(path) => RemoteSpec::Unix(PathBuf::from(path.to_string())),
            Endpoint::Tcp(host) => RemoteSpec::Tcp(host.to_string()),
            Endpoint::Udp(host) => RemoteSpec::Udp(host.to_string()),
        }),
        LogSink::File => SinkSpec::File(FileSpec {
            max_size: logs.max_size,
            max_age: logs.max_age,
            keep: logs.keep,
            keep_bytes: logs.keep_bytes,
            sync: logs.sync,
            owner: owner(settings),
            ..FileSpec::new(logs.file.clone()?)
        }),
    })
}

/// What there is to say about the directory of the log file, as it is now.
pub(super) fn log_remarks(settings: &Settings) -> Vec<String> {
    let logs = &settings.logs;
    let to_file = logs.targets.iter().any(|to| to.sink == LogSink::File);
    let file = logs.file.as_ref().filter(|_| to_file);
    file.map_or_else(Vec::new, |file| {
        logging::log_file_remarks(Path::new(file), owner(settings))
    })
}

/// Warnings and notices of the configuration, to the log.
pub(super) fn say_remarks(settings: &Settings) {
    for remark in settings.remarks.iter() {
        match remark.weight {
            Weight::Notice => crate::notice!("{remark}"),
            _ => crate::warning!("{remark}"),
        }
    }
}

/// What the kernel offers for the rules at hand; what is missing refuses the start.
pub(super) fn probe(settings: &Settings) -> Result<Kernel, Fault> {
    let kernel = Kernel::probe();
    meet(kernel, settings)?;
    Ok(kernel)
}

/// The same for the rules of a reload.
pub(super) fn meet(kernel: Kernel, settings: &Settings) -> Result<(), Fault> {
    let missing = kernel.shortcomings(needs(settings), reach(settings).ptrace_capability);
    for shortcoming in missing {
        let best_effort = settings.walls.sandbox == Mode::BestEffort;
        match shortcoming.weaker().filter(|_| best_effort) {
            Some(weaker) => crate::warning!("{shortcoming}; goes on without: {weaker}"),
            None => return Err(Fault::plain(exit::CONFIG, shortcoming.to_string())),
        }
    }
    Ok(())
}

/// Refuses more connections than there can be threads for, where each has one. `threads`
/// is how the server runs, which no reload changes.
pub(super) fn fit_pool(settings: &Settings, threads: Threads) -> Result<(), Fault> {
    let limits = &settings.limits;
    let wanted = limits.admission.max_connections;
    let possible = connections_possible(threads, limits.overload);
    if wanted <= possible {
        return Ok(());
    }
    let text = format!(
        "max_connections={wanted}: threads=multi needs a thread for each, and \
         vm.max_map_count={} has room for {possible}; expected max_connections={possible} or \
         less; or start again with threads=N or a higher vm.max_map_count",
        sys::process::max_map_count()
    );
    Err(Fault::plain(exit::CONFIG, text))
}

/// The policies of all sockets.
fn policies(settings: &Settings) -> impl Iterator<Item = &Policy> {
    let metrics = settings.metrics.as_ref().map(|metrics| &metrics.policy);
    std::iter::once(&settings.peers.policy).chain(metrics)
}

fn needs(settings: &Settings) -> Needs {
    policies(settings).fold(Needs::NONE, |needs, policy| needs.and(policy.needs()))
}

/// What the process checker must be able to do.
pub(super) fn reach(settings: &Settings) -> CheckerReach {
    CheckerReach {
        needs: needs(settings).within(Needs::PROC),
        ptrace_capability: policies(settings).any(Policy::needs_ptrace_capability),
    }
}

/// The process checker, if a rule asks for facts below `/proc`.
pub(super) fn checker(settings: &Settings) -> Result<(Option<Checker>, Vec<CheckerThread>), Fault> {
    let needs = needs(settings);
    if !needs.has_any(Needs::PROC) {
        return Ok((None, Vec::new()));
    }
    let checks = &settings.peers.checks;
    let digests = needs.has(crate::peer::FactKind::Sha256);
    let bound = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let config = CheckerConfig {
        digest_threads: if digests {
            usize::from(checks.parallel)
        } else {
            0
        },
        digest_wait: checks.timeout,
        digest_max_bytes: checks.hash_max_size,
        digests_remembered: bound(checks.hash_cache),
        queue: match checks.overload {
            CheckOverload::Deny => bound(checks.queue),
            // Nobody is turned away for want of room: at most one for each connection.
            CheckOverload::Wait => settings
                .limits
                .admission
                .max_connections
                .max(bound(checks.queue)),
        },
    };
    let (checker, threads) =
        Checker::new(config).map_err(|e| Fault::new(exit::SYSTEM, "process checker: /proc", &e))?;
    Ok((Some(checker), threads))
}

/// Who may enter and under which bounds.
pub(super) fn rules(
    settings: &Settings,
    kernel: &Kernel,
    checker: Option<Checker>,
    before: Option<&Pins>,
) -> Result<Rules, Fault> {
    let peers = &settings.peers;
    let limits = &settings.limits;
    let mut rules = rules_of(peers.policy.clone(), kernel, checker, before)?;
    rules.timeouts = Arc::new(limits.timeouts.clone());
    rules.session_ends_with_peer = peers.session_ends_with_peer;
    rules.process_proof = peers.process_proof;
    rules.proof_timeout = peers.proof_timeout;
    rules.recheck_interval = peers.checks.interval;
    rules.limits_need = limits.admission.needs();
    Ok(rules)
}

/// Who may enter, with default bounds.
pub(super) fn rules_of(
    policy: Policy,
    kernel: &Kernel,
    checker: Option<Checker>,
    before: Option<&Pins>,
) -> Result<Rules, Fault> {
    let pins = Pins::open(&policy.exe_paths(), &policy.pids(), before).map_err(|errors| {
        let texts: Vec<_> = errors
            .iter()
            .map(|e| Fault::new(0, "rule", e).to_string())
            .collect();
        Fault::plain(exit::CONFIG, texts.join("; "))
    })?;
    let mut rules = Rules::new(policy);
    rules.inspector = Inspector::new(pins, checker);
    if !kernel.peer_pidfd {
        rules.pidfd_source = PidfdSource::SocketOrNumber;
    }
    Ok(rules)
}

/// The service: echo, if it is neither of those that were opened.
pub(super) fn protocol(
    settings: &Settings,
    relay: Option<&Arc<Relay>>,
    broker: Option<&Arc<Broker>>,
    rules: &Rules,
) -> Arc<dyn Protocol> {
    if let Some(relay) = relay {
        return Arc::<Relay>::clone(relay);
    }
    let Some(broker) = broker else {
        return Arc::new(Echo);
    };
    let service = BrokerService::new(Arc::clone(broker));
    Arc::new(match settings.peers.process_proof {
        Choice::No => service,
        Choice::Auto | Choice::Yes => service.with_proof(rules.inspector.clone()),
    })
}

/// The broker, where that is the service.
pub(super) fn broker(settings: &Settings) -> Result<Option<Arc<Broker>>, Fault> {
    if settings.service.service != Service::Broker {
        return Ok(None);
    }
    if settings.socket.kind == crate::listener::Kind::SeqPacket {
        let text = "service=broker: its frames are cut anywhere, expected protocol=SOCK_STREAM";
        return Err(Fault::plain(exit::CONFIG, text.to_owned()));
    }
    let permits = settings.service.permits.clone();
    Ok(Some(Broker::new(settings.service.broker, permits)))
}

pub(super) fn listener_options(settings: &Settings, protocol: &dyn Protocol) -> Options {
    let socket = &settings.socket;
    let policy = &settings.peers.policy;
    let proves = settings.peers.process_proof == Choice::Yes || protocol.proves_by_itself();
    // Only then can a rule name an executable, now or after a reload, which is
    // refused without the checker. Those who are accepted inherit it.
    let has_checker = !reach(settings).needs.is_empty();
    let blocking = settings.limits.threads == Threads::Multi && protocol.can_block();
    let mut options = Options::new(socket.address.clone())
        .kind(socket.kind)
        .mode(socket.mode)
        .socket_group(socket.group)
        .others_authorised(policy.admits_others())
        .backlog(socket.backlog)
        .expose(socket.expose)
        .pass_descriptors(
            settings.service.service == Service::Relay && settings.service.relay_descriptors > 0,
        )
        .pass_credentials(proves && has_checker)
        .nonblocking(settings.limits.threads != Threads::Multi)
        .nonblocking_accepted(!blocking);
    if let Some((uid, gid)) = owner(settings) {
        options = options.run_as(uid, gid);
    }
    options
}

pub(super) fn log_hook(sealed: &Sealed) -> logging::ThreadHook {
    let sealed = sealed.clone();
    Arc::new(move |role| {
        let role = match role {
            logging::ThreadRole::LogWriter => Role::LogWriter,
            logging::ThreadRole::LogCompressor => Role::LogCompressor,
        };
        sealed.enter_role(role).map_err(io::Error::other)
    })
}

/// What the server keeps; see `sandbox`.
pub(super) fn plan(
    settings: &Settings,
    listener: &Listener<Bound>,
    logger: &Logger,
    records: &super::records::Opened,
) -> Plan {
    let mut plan = base_plan(settings);
    records.plan(&mut plan);
    if let Some(cleanup) = listener.paths_needed() {
        grant(&mut plan, cleanup.path, Access::Remove, &[Role::Supervisor]);
    }
    for needed in logger.paths_needed() {
        let roles = [Role::LogWriter, Role::LogCompressor];
        grant(&mut plan, &needed.path, Access::Manage, &roles);
    }
    for address in logger.addresses_needed() {
        if let RemoteAddress::Tcp(address) = address {
            plan.tcp_connect
                .push((address.port(), vec![Role::LogWriter]));
        }
    }
    if let Some(file) = &settings.file {
        // To be read again at a reload, with the names of users and groups.
        for folder in links::folders(Path::new(file)) {
            grant(&mut plan, &folder, Access::Read, &[Role::Supervisor]);
        }
        grant(
            &mut plan,
            Path::new("/etc"),
            Access::Read,
            &[Role::Supervisor],
        );
    }
    plan
}

/// What [`plan`] can say before anything is opened, for `check`.
pub(super) fn preview_plan(settings: &Settings) -> Plan {
    base_plan(settings)
}

fn base_plan(settings: &Settings) -> Plan {
    Plan {
        mode: settings.walls.sandbox,
        seccomp: settings.walls.seccomp,
        run_as: settings.walls.run_as.clone(),
        max_descriptors: descriptors(settings),
        ..Plan::default()
    }
}

/// How many descriptors the process needs at most.
fn descriptors(settings: &Settings) -> u64 {
    let limits = &settings.limits;
    // Those who are to be refused are examined first.
    let examined = match limits.overload {
        Overload::Wait => 0,
        Overload::Refuse => EXAMINED,
    };
    let seats = limits.admission.max_connections.saturating_add(examined);
    u64::try_from(seats)
        .unwrap_or(u64::MAX)
        .saturating_mul(descriptors_each(settings))
        .saturating_add(descriptors_shared(settings))
        .saturating_add(DESCRIPTORS_ASIDE)
}

/// At a reload: a bound that descriptors don't suffice for, of which the start left no
/// more than it needed. What takes a restart is as it was at the start.
pub(super) fn say_descriptors(start: &Settings, now: &Settings) {
    let mut settings = start.clone();
    settings.limits.admission.clone_from(&now.limits.admission);
    settings.peers.policy.clone_from(&now.peers.policy);
    let (needed, had) = (descriptors(&settings), descriptors(start));
    if needed > had {
        crate::warning!(
            "reload: max_connections={} needs {needed} descriptors, and the start left {had}: \
             newcomers wait where they are used up; restart for more",
            now.limits.admission.max_connections
        );
    }
}

/// How many descriptors one connection may need at once.
fn descriptors_each(settings: &Settings) -> u64 {
    match settings.service.service {
        // The socket and the process that is held.
        Service::Echo => 3,
        // A wake-up as well.
        Service::Broker => 4,
        // The process, the upstream, a wake-up, and what is passed on.
        Service::Relay => 4 + u64::from(settings.service.relay_descriptors) * 2,
    }
}

/// How many all connections share.
fn descriptors_shared(settings: &Settings) -> u64 {
    let pipes = match settings.service.service {
        // Both ends of each.
        Service::Relay => PIPES_MAX.saturating_mul(2),
        Service::Echo | Service::Broker => 0,
    };
    let loops = match settings.limits.threads {
        Threads::Multi => 0,
        // epoll, and what wakes it.
        Threads::Loops(count) => count.get().saturating_mul(2),
    };
    // A process that a rule names is held; what is looked at is open: an executable, its
    // directory and status.
    let pinned = policies(settings).map(|policy| policy.pids().len()).sum();
    let looked_at = usize::from(settings.peers.checks.parallel).saturating_mul(3);
    let all = [pipes, loops, pinned, looked_at];
    let all = all.into_iter().fold(0, usize::saturating_add);
    u64::try_from(all).unwrap_or(u64::MAX)
}

pub(super) fn grant(plan: &mut Plan, path: &Path, access: Access, roles: &[Role]) {
    if path.exists() {
        plan.paths.push(PathGrant {
            path: path.to_path_buf(),
            access,
            roles: roles.to_vec(),
        });
    }
}

/// Adds the threads that look at executables.
pub(super) fn with_checkers(
    mut plan: Plan,
    settings: &Settings,
    threads: Vec<CheckerThread>,
) -> Plan {
    let ptrace = reach(settings)
        .ptrace_capability
        .then_some(Capability::SysPtrace);
    for thread in threads {
        plan.privileged.push(PrivilegedThread {
            name: thread.name,
            role: Role::ProcessChecker,
            capabilities: ptrace.into_iter().collect(),
            // Landlock hides executables, and all of /proc that it is not told of.
            outside_landlock: true,
            body: Box::new(move || thread.run()),
        });
    }
    plan
}

/// Options that a reload reads and can't put in force, as the walls stand and the
/// socket is bound: said, so that nobody thinks they are.
pub(super) fn say_unchangeable(before: &Settings, now: &Settings) {
    for name in config::needs_restart(before, now) {
        crate::warning!("reload: {name} stays as it was until a restart");
    }
}
