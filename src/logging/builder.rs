//! From a description of a logger to a logger: opens and checks every sink.
//!
//! All that needs rights which a sandbox takes away happens here: directories
//! are created, files, queues and names opened and resolved. No thread starts.

use super::edition::Edition;
use super::layout::{Format, Layout, Origin, Renderer};
use super::logger::{Guard, Logger, NeededPath};
use super::outlet::Outlet;
use super::queue::Queue;
use super::shared::{Shared, SinkState};
use super::sink::compress::{Compressor, Handle};
use super::sink::directory::{Directory, Owner};
use super::sink::file::{File, FileSpec};
use super::sink::mq::Mq;
use super::sink::remote::{Remote, RemoteAddress, RemoteSpec};
use super::sink::stream::{Stream, is_journal, wants_colour};
use super::sink::{Counters, Sink};
use super::site::Site;
use super::thresholds::Thresholds;
use super::writer::Writer;
use super::{LINES_PER_SECOND, LoggingError, Verbosity};
use crate::sys::fork;
use std::io::{self, IsTerminal};
use std::sync::{Arc, OnceLock, Weak};

/// Lines that the queue may be given, at least and at most.
const QUEUE_BOUNDS: std::ops::RangeInclusive<usize> = 2..=1 << 22;

/// What happens to a line that finds the queue full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overflow {
    /// It is dropped, counted, and the count is said in the log.
    #[default]
    Drop,
    /// The caller waits.
    Block,
}

/// A place for lines.
#[derive(Clone, Debug)]
pub enum SinkSpec {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file.
    File(FileSpec),
    /// A POSIX message queue, `/NAME`, owned by the user named, or by the
    /// process's own.
    Mq {
        /// `/` and 1 to 254 bytes without another `/`.
        name: String,
        /// Who may read it.
        owner: Owner,
    },
    /// A syslog server.
    Remote(RemoteSpec),
}

/// A place for lines, and how severe they must be to go there.
#[derive(Clone, Debug)]
pub struct Target {
    /// The place.
    pub sink: SinkSpec,
    /// Its own level; the logger's verbosity if it has none.
    pub level: Option<Verbosity>,
}

impl From<SinkSpec> for Target {
    fn from(sink: SinkSpec) -> Self {
        Self { sink, level: None }
    }
}

/// Describes a logger.
#[derive(Clone, Debug)]
pub struct Builder {
    verbosity: Verbosity,
    modules: Vec<(String, Verbosity)>,
    format: Format,
    queue_lines: usize,
    overflow: Overflow,
    rate: Option<u32>,
    app_name: String,
    targets: Vec<Target>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Severities 0 to 6 as text to stdout, through a queue of 8192 lines that
    /// drops what it has no room for.
    pub fn new() -> Self {
        Self {
            verbosity: Verbosity::default(),
            modules: Vec::new(),
            format: Format::Text,
            queue_lines: 8192,
            overflow: Overflow::Drop,
            rate: Some(LINES_PER_SECOND),
            app_name: "secure_socket".into(),
            targets: Vec::new(),
        }
    }

    /// Which severities are logged.
    #[must_use]
    pub fn verbosity(mut self, verbosity: Verbosity) -> Self {
        self.verbosity = verbosity;
        self
    }

    /// The same for one module and those in it, as `secure_socket::listener`.
    /// The longest path that fits a line decides.
    #[must_use]
    pub fn verbosity_for(mut self, module: impl Into<String>, verbosity: Verbosity) -> Self {
        self.modules.push((module.into(), verbosity));
        self
    }

    /// How lines look. A remote server gets RFC 5424, a local syslogd what it
    /// reads, whatever is chosen here.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// How many lines the queue holds, 2 to 4194304. An eighth is kept for
    /// severities 0 to 3. It takes 256 bytes for each, rounded up to a power of two,
    /// and 256 KiB at least, at once; where lines are longer than 200 bytes on the
    /// average, it holds fewer.
    #[must_use]
    pub fn queue(mut self, lines: usize) -> Self {
        self.queue_lines = lines;
        self
    }

    /// What happens to a line that finds the queue full.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// How many lines a second each `limited!` may write, once the logger is
    /// installed; `None` for any number. The rest are counted and summed up.
    #[must_use]
    pub fn rate(mut self, lines_per_second: Option<u32>) -> Self {
        self.rate = lines_per_second;
        self
    }

    /// The program's name for syslog: printable ASCII, 48 bytes are used.
    #[must_use]
    pub fn app_name(mut self, name: impl Into<String>) -> Self {
        self.app_name = name.into();
        self
    }

    /// Adds a place for lines. Without any, they go to stdout.
    #[must_use]
    pub fn target(mut self, target: impl Into<Target>) -> Self {
        self.targets.push(target.into());
        self
    }

    /// Opens every sink. Lines can be logged from now on; they are written once
    /// the writer is started, or by [`Logger::drain_blocking`].
    ///
    /// # Errors
    /// Whatever keeps a sink from being opened, named.
    pub fn build(self) -> Result<Logger, LoggingError> {
        if !QUEUE_BOUNDS.contains(&self.queue_lines) {
            let (least, most) = (QUEUE_BOUNDS.start(), QUEUE_BOUNDS.end());
            let why = format!(
                "the log queue: expected {least} to {most} lines, found {}",
                self.queue_lines
            );
            return Err(LoggingError::Value(why));
        }
        fork::watch();
        let shared_later = Arc::new(OnceLock::new());
        let mut parts = Parts::new(self.format, self.origin(), Arc::clone(&shared_later));
        if self.targets.is_empty() {
            parts.add(SinkSpec::Stdout.into())?;
        }
        for target in self.targets {
            parts.add(target)?;
        }
        let writer = Writer::new(parts.outlets, parts.editions);
        let queue = Queue::new(self.queue_lines);
        let thresholds = Thresholds::new(self.verbosity, self.modules, parts.levels);
        let shared = Shared::new(queue, self.overflow, thresholds, parts.states, writer);
        let shared = Arc::new(shared);
        let _ = shared_later.set(Arc::downgrade(&shared));
        Ok(Logger::new(
            shared,
            self.rate,
            parts.compressors,
            parts.paths,
            parts.addresses,
        ))
    }

    /// Builds the logger, installs it, and starts the writer: for a program
    /// without a sandbox of its own.
    ///
    /// # Errors
    /// Those of [`Builder::build`], [`Logger::install`] and
    /// [`Logger::start_writer`].
    pub fn start(self) -> Result<Guard, LoggingError> {
        let logger = self.build()?;
        logger.install()?;
        logger.start_writer(Arc::new(|_| Ok(())))
    }

    fn origin(&self) -> Origin {
        // proc(5); the call for it, uname(2), is not in every build of rustix.
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Origin::new(&self.app_name, hostname.trim_end())
    }
}

/// What is put together for a logger.
struct Parts {
    format: Format,
    origin: Origin,
    shared: Arc<OnceLock<Weak<Shared>>>,
    outlets: Vec<Outlet>,
    editions: Vec<Edition>,
    states: Vec<Arc<SinkState>>,
    levels: Vec<Option<u8>>,
    compressors: Vec<(Compressor, Handle)>,
    paths: Vec<NeededPath>,
    addresses: Vec<RemoteAddress>,
}

impl Parts {
    fn new(format: Format, origin: Origin, shared: Arc<OnceLock<Weak<Shared>>>) -> Self {
        Self {
            format,
            origin,
            shared,
            outlets: Vec::new(),
            editions: Vec::new(),
            states: Vec::new(),
            levels: Vec::new(),
            compressors: Vec::new(),
            paths: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn add(&mut self, target: Target) -> Result<(), LoggingError> {
        let (name, layout, sink): (String, Layout, Box<dyn Sink>) = match target.sink {
            SinkSpec::Stdout => {
                let layout = self.stream_layout(&io::stdout(), io::stdout().is_terminal());
                ("stdout".into(), layout, Box::new(Stream::new(io::stdout())))
            }
            SinkSpec::Stderr => {
                let layout = self.stream_layout(&io::stderr(), io::stderr().is_terminal());
                ("stderr".into(), layout, Box::new(Stream::new(io::stderr())))
            }
            SinkSpec::File(spec) => {
                let name = format!("file {}", spec.path.display());
                (name, self.format.into(), self.file(spec)?)
            }
            SinkSpec::Mq { name, owner } => {
                let sink = Mq::open(&name, owner)?;
                (format!("mq {name}"), self.format.into(), Box::new(sink))
            }
            SinkSpec::Remote(spec) => {
                let address = spec.resolve()?;
                self.addresses.push(address.clone());
                let (name, layout) = match &address {
                    RemoteAddress::Udp(to) => (format!("remote udp:{to}"), Layout::Rfc5424),
                    RemoteAddress::Tcp(to) => (format!("remote tcp:{to}"), Layout::Rfc5424),
                    RemoteAddress::Unix(to) => {
                        (format!("remote unix:{}", to.display()), Layout::Local)
                    }
                };
                (name, layout, Box::new(Remote::new(address)))
            }
        };
        let level = target.level.map(Verbosity::threshold);
        let state = Arc::new(SinkState {
            name,
            counters: Counters::default(),
        });
        self.states.push(Arc::clone(&state));
        self.levels.push(level);
        let edition = self.edition(layout, level);
        self.outlets.push(Outlet::new(sink, state, edition));
        Ok(())
    }

    /// A terminal gets colours, the journal priorities, where lines are text.
    fn stream_layout(&self, stream: &impl std::os::fd::AsFd, is_terminal: bool) -> Layout {
        match Layout::from(self.format) {
            Layout::Text if is_journal(stream) => Layout::Prefixed,
            Layout::Text if wants_colour(is_terminal) => Layout::Coloured,
            other => other,
        }
    }

    fn file(&mut self, spec: FileSpec) -> Result<Box<dyn Sink>, LoggingError> {
        fn compressor() {}
        static SITE: Site = crate::__log_site!(Error, compressor);
        let directory = Arc::new(Directory::open(&spec.path, spec.owner)?);
        self.paths.push(NeededPath {
            path: directory.path().to_owned(),
        });
        let shared = Arc::clone(&self.shared);
        let note = Box::new(move |message: String| {
            if let Some(shared) = shared.get().and_then(Weak::upgrade) {
                shared.note(&SITE, format_args!("{message}"));
            }
        });
        let (compressor, handle) = Compressor::new(&spec, Arc::clone(&directory), note);
        let waker = handle.clone();
        let file = File::open(spec, directory, Box::new(move || waker.wake()))?;
        self.compressors.push((compressor, handle));
        Ok(Box::new(file))
    }

    /// The index of the edition of this layout and level.
    fn edition(&mut self, layout: Layout, level: Option<u8>) -> usize {
        let known = self
            .editions
            .iter()
            .position(|edition| edition.is_for(layout, level));
        known.unwrap_or_else(|| {
            let renderer = Renderer::new(layout, self.origin.clone());
            self.editions.push(Edition::new(renderer, level));
            self.editions.len() - 1
        })
    }
}
