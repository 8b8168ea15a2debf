//! The trail and the metrics: opened before the walls rise, kept by threads of
//! their own behind them, closed last.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::fault::{self, Fault};
use super::rooms;
use crate::config::{self, Settings};
use crate::exit;
use crate::listener::{Address, Bound, HandedOver, Kind, Listener, Options};
use crate::logging::Logger;
use crate::peer::{Checker, Kernel, Pins};
use crate::sandbox::{Access, Plan, Role, Sealed};
use crate::server::{
    Handle, Metrics, MetricsSocket, Observer, ProcessMetrics, Recorder, Rules, Source, State,
};
use crate::sys::interrupt::Thread;
use crate::trail::{self, Event, Trail};

/// How much stack the threads here need.
const STACK: usize = 256 * 1024;

/// How long threads are waited for at the end, once it has to hurry: longer than the
/// metrics go on answering.
const LAST_MOMENTS: Duration = Duration::from_secs(2);

/// What was opened before the walls rose.
pub(super) struct Opened {
    trail: Option<Arc<Trail>>,
    metrics: Option<Listener<Bound>>,
    counters: Arc<Metrics>,
}

impl Opened {
    /// Opens the trail and binds the metrics socket, where there are any.
    /// `handed` is the socket that the service manager named `metrics`.
    pub(super) fn open(settings: &Settings, handed: Option<HandedOver>) -> Result<Self, Fault> {
        let counters = Arc::new(Metrics::new());
        let trail = settings
            .trail
            .as_ref()
            .map(|trail| open_trail(trail, settings));
        let metrics = match (metrics_options(settings), handed) {
            (Some(options), Some(handed)) => Some(Listener::from_systemd(handed, &options)),
            (Some(options), None) => Some(Listener::bind(&options)),
            (None, Some(_)) => {
                let text = "the service manager handed over a socket named metrics, but \
                            metrics_socket is not given";
                return Err(Fault::plain(exit::CONFIG, text));
            }
            (None, None) => None,
        };
        let metrics = metrics.transpose().map_err(fault::of_bind)?;
        if metrics.is_some() {
            match ProcessMetrics::open() {
                Ok(process) => counters.add_source(Box::new(process)),
                Err(error) => crate::warning!("no metrics of the process: /proc/self: {error}"),
            }
        }
        Ok(Self {
            trail: trail.transpose()?.map(Arc::new),
            metrics,
            counters,
        })
    }

    /// Adds what else is to be told to readers of the metrics.
    pub(super) fn add_source(&self, source: Box<dyn Source>) {
        self.counters.add_source(source);
    }

    /// What has to stay open behind the walls.
    pub(super) fn plan(&self, plan: &mut Plan) {
        if let Some(directory) = self.trail.as_ref().and_then(|trail| trail.path().parent()) {
            rooms::grant(plan, directory, Access::Manage, &[Role::LogWriter]);
        }
        if let Some(cleanup) = self.metrics.as_ref().and_then(Listener::paths_needed) {
            rooms::grant(plan, cleanup.path, Access::Remove, &[Role::Supervisor]);
        }
    }

    /// Who is told of all decisions: the trail first, as it may say no.
    pub(super) fn observer(&self) -> Arc<dyn Observer> {
        let mut all: Vec<Arc<dyn Observer>> = Vec::new();
        if let Some(trail) = &self.trail {
            all.push(Arc::new(Recorder::new(Arc::clone(trail))));
        }
        all.push(Arc::clone(&self.counters) as Arc<dyn Observer>);
        Arc::new(all)
    }

    /// Starts the threads, behind the walls, and writes the first line.
    pub(super) fn start(
        self,
        settings: &Settings,
        sealed: &Sealed,
        logger: &Logger,
        handle: &Handle,
        place: &str,
        rules: Option<Rules>,
    ) -> Result<Records, Fault> {
        let mut threads = Vec::new();
        if let Some(trail) = &self.trail {
            // Before anybody else writes: no other thread may do what the keeper does.
            let keeper = trail.keeper();
            threads.push(spawn("trail", Role::LogWriter, sealed, move || {
                keeper.keep()
            })?);
            let start = Event::Start {
                version: env!("CARGO_PKG_VERSION"),
                socket: place,
            };
            trail
                .append(&start)
                .map_err(|e| Fault::new(exit::CANNOT_CREATE, "trail", &e))?;
            crate::notice!(
                "trail: {} goes on, head {}",
                trail.path().display(),
                trail.head()
            );
        }
        let socket = match (self.metrics, rules) {
            (Some(listener), Some(rules)) => {
                self.counters.add_source(Box::new(logger.clone()));
                let listener = listener.seal(sealed);
                for notice in listener
                    .notices()
                    .iter()
                    .filter(|notice| notice.is_warning())
                {
                    crate::warning!("metrics: {notice}");
                }
                crate::info!("metrics on {}", listener.address());
                let counters = Arc::clone(&self.counters);
                Some(Arc::new(MetricsSocket::new(
                    listener,
                    rules,
                    counters,
                    handle.clone(),
                )))
            }
            _ => None,
        };
        if let Some(socket) = &socket {
            let socket = Arc::clone(socket);
            threads.push(spawn("metrics", Role::Metrics, sealed, move || {
                socket.run()
            })?);
        }
        let counters = self.counters;
        Ok(Records {
            trail: self.trail,
            counters,
            socket,
            threads,
            digest: digest(settings),
        })
    }
}

/// Trail and metrics of a server that runs.
pub(super) struct Records {
    trail: Option<Arc<Trail>>,
    counters: Arc<Metrics>,
    socket: Option<Arc<MetricsSocket>>,
    threads: Vec<Thread<()>>,
    digest: [u8; 32],
}

impl Records {
    /// Who may read the metrics now, if there is a socket for them.
    pub(super) fn metrics_rules(&self) -> Option<Arc<Rules>> {
        self.socket.as_ref().map(|socket| socket.rules())
    }

    /// The rules of another configuration are in force. Returns whether it is the same.
    pub(super) fn in_force(&mut self, settings: &Settings) -> bool {
        let before = std::mem::replace(&mut self.digest, digest(settings));
        if let Some(trail) = &self.trail {
            trail.set_config(self.digest);
        }
        before == self.digest
    }

    /// All of another configuration is in force.
    pub(super) fn reloaded(&self, closed: usize, rules: Option<Rules>, same: bool) {
        if let (Some(socket), Some(rules)) = (&self.socket, rules) {
            socket.set_rules(rules);
        }
        let same = if same { ", nothing changed" } else { "" };
        self.append(&Event::Reload {
            applied: true,
            detail: Some(&format_args!(
                "{closed} connections no longer admitted{same}"
            )),
        });
    }

    /// A configuration was read and is not in force.
    pub(super) fn not_reloaded(&self, why: &str) {
        self.append(&Event::Reload {
            applied: false,
            detail: Some(&why),
        });
    }

    /// The state, line by line.
    pub(super) fn summary(&self, state: &State, logger: &Logger, handle: &Handle) -> Vec<String> {
        let (received, sent) = self.counters.traffic(handle);
        let mut lines = vec![
            format!("state: {state}"),
            format!("state: {} received={received} sent={sent}", self.counters),
        ];
        let log = logger.stats();
        let dropped: u64 = log.dropped.iter().sum();
        lines.push(format!(
            "state: log queued={} dropped={dropped}",
            log.queued
        ));
        for sink in &log.sinks {
            let (name, written, lost, waiting) =
                (&sink.name, sink.written, sink.lost, sink.waiting);
            lines.push(format!(
                "state: log {name}: written={written} lost={lost} waiting={waiting}"
            ));
        }
        if let Some(trail) = &self.trail {
            lines.push(format!(
                "state: trail {}: head {}",
                trail.path().display(),
                trail.head()
            ));
        }
        lines
    }

    /// The last line, and the end of the threads. They are left if they have not ended
    /// some time after `hurries` says so, which is false then. Nothing here waits for a
    /// disk, whose lines are the business of the trail's thread.
    pub(super) fn close(mut self, code: u8, mut hurries: impl FnMut() -> bool) -> bool {
        if let Some(socket) = &self.socket {
            socket.stop();
        }
        let mut until: Option<Instant> = None;
        let mut all_ended = true;
        for thread in self.threads.drain(..) {
            // The metrics thread may sit in accept on a socket that is not ours to
            // shut down.
            while !thread.is_finished() && until.is_none_or(|until| Instant::now() < until) {
                if let Some(trail) = &self.trail {
                    trail.close_with_stop(code);
                }
                thread.interrupt();
                std::thread::sleep(Duration::from_millis(1));
                if until.is_none() && hurries() {
                    until = Some(Instant::now() + LAST_MOMENTS);
                }
            }
            if !thread.is_finished() {
                all_ended = false;
            } else if thread.join().is_err() {
                crate::critical!("a thread of trail or metrics panicked");
            }
        }
        match &self.trail {
            // Whoever hangs may hold its lock.
            _ if !all_ended => crate::error!(
                "a thread of trail or metrics hangs and is left: the trail's last lines may be \
                 missing"
            ),
            Some(trail) => crate::notice!("trail: head {}", trail.head()),
            None => {}
        }
        all_ended
    }

    fn append(&self, event: &Event<'_>) {
        if let Some(Err(error)) = self.trail.as_ref().map(|trail| trail.append(event)) {
            crate::error!("{}", Fault::new(0, "trail", &error));
        }
    }
}

/// Who may read the metrics, if there is a socket for them. What the rules `before` pin
/// stays pinned.
pub(super) fn metrics_rules(
    settings: &Settings,
    kernel: &Kernel,
    checker: Option<Checker>,
    before: Option<&Pins>,
) -> Result<Option<Rules>, Fault> {
    let policy = settings
        .metrics
        .as_ref()
        .map(|metrics| metrics.policy.clone());
    policy
        .map(|policy| rooms::rules_of(policy, kernel, checker, before))
        .transpose()
}

/// The SHA-256 of the configuration, as the trail carries it.
fn digest(settings: &Settings) -> [u8; 32] {
    Sha256::digest(config::digest_input(settings)).into()
}

fn open_trail(options: &trail::Options, settings: &Settings) -> Result<Trail, Fault> {
    let (trail, opened) = Trail::open(options, digest(settings))
        .map_err(|error| Fault::new(exit::CANNOT_CREATE, "trail", &error))?;
    let path = options.path.display();
    if let Some((aside, bytes)) = opened.torn {
        crate::warning!(
            "trail: the last line of {path} was torn, as after a crash: its {bytes} bytes were \
             set aside in {}",
            aside.display()
        );
    }
    if !opened.can_roll {
        let directory = options.path.parent().unwrap_or(Path::new("/")).display();
        crate::warning!("trail: {path} can't be rolled: run_as_user may not write {directory}");
    }
    Ok(trail)
}

fn metrics_options(settings: &Settings) -> Option<Options> {
    let metrics = settings.metrics.as_ref()?;
    let mut options = Options::new(Address::Unix(metrics.path.clone()))
        .kind(Kind::Stream)
        .mode(metrics.mode)
        .socket_group(metrics.group)
        .others_authorised(metrics.policy.admits_others())
        .nonblocking(true)
        .backlog(16);
    if let Some((uid, gid)) = rooms::owner(settings) {
        options = options.run_as(uid, gid);
    }
    Some(options)
}

fn spawn(
    name: &str,
    role: Role,
    sealed: &Sealed,
    body: impl FnOnce() + Send + 'static,
) -> Result<Thread<()>, Fault> {
    let sealed = sealed.clone();
    let (entered, wait) = std::sync::mpsc::channel();
    let builder = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK);
    let thread = Thread::spawn(builder, move || {
        let result = sealed.enter_role(role);
        let stands = result.is_ok();
        if entered.send(result).is_ok() && stands {
            body();
        }
    });
    let thread =
        thread.map_err(|error| Fault::new(exit::SYSTEM, "can't start a thread", &error))?;
    match wait.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(fault::of_sandbox(error)),
        Err(_) => Err(Fault::plain(
            exit::INTERNAL,
            format!("the thread {name} panicked"),
        )),
    }
}
