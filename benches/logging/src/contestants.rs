//! Each logger, set up to write lines of the same content to one file: time,
//! severity, message, file and line. Asynchronous ones get a queue of 8192
//! lines, where they have a bound, and lose nothing, where they can.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a scenario logs.
pub type Emit = fn(u64);

pub struct Logger {
    pub emit: Emit,
    /// The same at the severity that matters most.
    pub urgent: Emit,
    /// So many calls below the level.
    pub disabled: Emit,
    /// Ends the logger, with all that was logged written.
    pub finish: Box<dyn FnOnce()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Callers wait for room.
    Lossless,
    /// What finds no room is dropped, where the logger can do that.
    Lossy,
    /// As lossless, rolled at 1 MiB, compressed.
    Rolling,
}

pub const QUEUE: usize = 8192;

pub const NAMES: [&str; 12] = [
    "secure_socket",
    "bare-ring",
    "bare-copy",
    "spdlog-rs",
    "tracing-appender",
    "flexi-async",
    "flexi-buffered",
    "log4rs",
    "slog-async",
    "ftlog",
    "fast_log",
    "fern",
];

pub const ROLLING: [&str; 3] = ["secure_socket", "flexi-async", "log4rs"];

/// Those that write in a thread of their own.
pub const THREADED: [&str; 7] = [
    "secure_socket",
    "spdlog-rs",
    "tracing-appender",
    "flexi-async",
    "slog-async",
    "ftlog",
    "fast_log",
];

macro_rules! calls {
    ($($info:ident)::+, $($urgent:ident)::+, $($debug:ident)::+, $finish:expr) => {
        Logger {
            emit: |i| {
                use $($info)::+ as log_it;
                log_it!("peer admitted uid={} gid={} pid={} rule={}", 33, 33, i, 1)
            },
            urgent: |i| {
                use $($urgent)::+ as log_it;
                log_it!("peer admitted uid={} gid={} pid={} rule={}", 33, 33, i, 1)
            },
            disabled: |calls| {
                use $($debug)::+ as log_it;
                for i in 0..calls {
                    log_it!("pid={}", std::hint::black_box(i));
                }
            },
            finish: Box::new($finish),
        }
    };
}

pub fn start(name: &str, directory: &Path, mode: Mode) -> Logger {
    let path = directory.join("log");
    match name {
        "secure_socket" => secure_socket(&path, mode),
        "bare-ring" => bare_ring(&path, bare_line),
        "bare-copy" => bare_ring(&path, bare_copy),
        "spdlog-rs" => spdlog(&path, mode),
        "tracing-appender" => tracing(directory, mode),
        "flexi-async" => flexi(directory, flexi_logger::WriteMode::Async, mode),
        "flexi-buffered" => flexi(directory, flexi_logger::WriteMode::BufferAndFlush, mode),
        "log4rs" => log4rs(&path, mode),
        "slog-async" => slog(&path, mode),
        "ftlog" => {
            let appender = ftlog::appender::FileAppender::builder().path(&path).build();
            let bounded = ftlog::builder().root(appender).bounded(QUEUE, mode != Mode::Lossy);
            let guard = bounded.try_init().unwrap();
            calls!(log::info, log::error, log::debug, || drop(guard))
        }
        "fast_log" => {
            let config = fast_log::Config::new().file(path.to_str().unwrap());
            let config = config.level(log::LevelFilter::Info).chan_len(Some(QUEUE));
            fast_log::init(config).unwrap();
            calls!(log::info, log::error, log::debug, || fast_log::flush().unwrap().wait())
        }
        "fern" => fern(&path),
        other => panic!("unknown logger {other}"),
    }
}

fn secure_socket(path: &Path, mode: Mode) -> Logger {
    use secure_socket::logging::{Builder, FileSpec, Overflow, SinkSpec};
    let mut spec = FileSpec::new(path);
    spec.max_size = if mode == Mode::Rolling { 1 << 20 } else { 0 };
    spec.keep = 1000;
    let overflow = if mode == Mode::Lossy { Overflow::Drop } else { Overflow::Block };
    let builder = Builder::new().queue(QUEUE).overflow(overflow);
    let guard = builder.target(SinkSpec::File(spec)).start().unwrap();
    calls!(secure_socket::info, secure_socket::alert, secure_socket::debug, || drop(guard))
}

fn fern(path: &Path) -> Logger {
    fern::Dispatch::new()
        .format(|out, message, record| {
            let (seconds, micros) = now();
            let (file, line) = (record.file().unwrap(), record.line().unwrap());
            let level = record.level();
            out.finish(format_args!("{seconds}.{micros:06} {level} {message} ({file}:{line})"));
        })
        .chain(fern::log_file(path).unwrap())
        .apply()
        .unwrap();
    log::set_max_level(log::LevelFilter::Info);
    calls!(log::info, log::error, log::debug, || log::logger().flush())
}

fn now() -> (u64, u32) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (now.as_secs(), now.subsec_micros())
}

type Slot = ([u8; 240], usize);
static RING: OnceLock<crossbeam::queue::ArrayQueue<Slot>> = OnceLock::new();

/// The least that the work takes: a line that the caller formats, through a
/// ring, to a file, by a thread that never sleeps.
fn bare_ring(path: &Path, emit: Emit) -> Logger {
    let ring = RING.get_or_init(|| crossbeam::queue::ArrayQueue::new(QUEUE));
    let mut file = File::create(path).unwrap();
    let ends = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&ends);
    let thread = std::thread::spawn(move || {
        let mut batch = Vec::with_capacity(128 * 1024);
        loop {
            let last = ended.load(Ordering::Acquire);
            while let Some((bytes, length)) = ring.pop() {
                batch.extend_from_slice(&bytes[..length]);
                if batch.len() > 64 * 1024 {
                    break;
                }
            }
            if batch.is_empty() {
                if last {
                    return;
                }
                std::thread::yield_now();
            }
            file.write_all(&batch).unwrap();
            batch.clear();
        }
    });
    let finish = move || {
        ends.store(true, Ordering::Release);
        thread.join().unwrap();
    };
    Logger { emit, urgent: emit, disabled: |_| {}, finish: Box::new(finish) }
}

fn bare_line(i: u64) {
    let mut bytes = [0; 240];
    let mut rest = &mut bytes[..];
    let (seconds, micros) = now();
    writeln!(
        rest,
        "{seconds}.{micros:06} INFO peer admitted uid={} gid={} pid={i} rule={} ({}:{} call)",
        33,
        33,
        1,
        file!(),
        line!(),
    )
    .unwrap();
    let length = 240 - rest.len();
    bare_push((bytes, length));
}

/// Not even a line is made: a text that is there is copied.
fn bare_copy(_: u64) {
    const TEXT: &[u8] = b"1795429230.123456 INFO peer admitted uid=33 gid=33 pid=4711 rule=1 (x:1)\n";
    let mut bytes = [0; 240];
    bytes[..TEXT.len()].copy_from_slice(std::hint::black_box(TEXT));
    bare_push((bytes, TEXT.len()));
}

fn bare_push(mut slot: Slot) {
    let ring = RING.get().unwrap();
    while let Err(back) = ring.push(slot) {
        slot = back;
        std::thread::yield_now();
    }
}

fn spdlog(path: &Path, mode: Mode) -> Logger {
    use spdlog::formatter::{PatternFormatter, pattern};
    use spdlog::sink::{AsyncPoolSink, FileSink, OverflowPolicy};
    let pool =
        spdlog::ThreadPool::builder().capacity(QUEUE.try_into().unwrap()).build_arc().unwrap();
    let pattern = pattern!("{date}T{time}.{microsecond} {level} {payload} ({source}){eol}");
    let file = FileSink::builder().path(path).truncate(true);
    let file = file.formatter(PatternFormatter::new(pattern)).build_arc().unwrap();
    let policy =
        if mode == Mode::Lossy { OverflowPolicy::DropIncoming } else { OverflowPolicy::Block };
    let sink = AsyncPoolSink::builder()
        .sink(file)
        .overflow_policy(policy)
        .thread_pool(Arc::clone(&pool))
        .build_arc()
        .unwrap();
    let logger = spdlog::Logger::builder().sink(sink).build_arc().unwrap();
    spdlog::set_default_logger(logger);
    calls!(spdlog::info, spdlog::critical, spdlog::debug, move || {
        spdlog::default_logger().flush();
        let none = spdlog::Logger::builder().build_arc().unwrap();
        drop(spdlog::swap_default_logger(none));
        drop(pool);
    })
}

fn tracing(directory: &Path, mode: Mode) -> Logger {
    let file = tracing_appender::rolling::never(directory, "log");
    let builder = tracing_appender::non_blocking::NonBlockingBuilder::default();
    let builder = builder.lossy(mode == Mode::Lossy).buffered_lines_limit(QUEUE);
    let (writer, guard) = builder.finish(file);
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_target(false);
    subscriber.with_file(true).with_line_number(true).with_writer(writer).init();
    calls!(tracing::info, tracing::error, tracing::debug, || drop(guard))
}

fn flexi(directory: &Path, write_mode: flexi_logger::WriteMode, mode: Mode) -> Logger {
    use flexi_logger::{Cleanup, Criterion, FileSpec, Naming, detailed_format};
    let spec = FileSpec::default().directory(directory).basename("log").suppress_timestamp();
    let mut logger = flexi_logger::Logger::try_with_str("info")
        .unwrap()
        .log_to_file(spec)
        .format(detailed_format)
        .write_mode(write_mode);
    if mode == Mode::Rolling {
        let (size, keep) = (Criterion::Size(1 << 20), Cleanup::KeepCompressedFiles(1000));
        logger = logger.rotate(size, Naming::Numbers, keep);
    }
    let handle = logger.start().unwrap();
    calls!(log::info, log::error, log::debug, move || handle.shutdown())
}

fn log4rs(path: &Path, mode: Mode) -> Logger {
    use log4rs::append::file::FileAppender;
    use log4rs::append::rolling_file::RollingFileAppender;
    use log4rs::append::rolling_file::policy::compound::CompoundPolicy;
    use log4rs::append::rolling_file::policy::compound::roll::fixed_window::FixedWindowRoller;
    use log4rs::append::rolling_file::policy::compound::trigger::size::SizeTrigger;
    use log4rs::config::{Appender, Config, Root};
    let pattern = "{d(%Y-%m-%dT%H:%M:%S%.6f)} {l} {m} ({f}:{L}){n}";
    let encoder = Box::new(log4rs::encode::pattern::PatternEncoder::new(pattern));
    let appender: Box<dyn log4rs::append::Append> = if mode == Mode::Rolling {
        let pattern = format!("{}.{{}}.gz", path.display());
        let roller = FixedWindowRoller::builder().build(&pattern, 10).unwrap();
        let policy = CompoundPolicy::new(Box::new(SizeTrigger::new(1 << 20)), Box::new(roller));
        let builder = RollingFileAppender::builder().encoder(encoder);
        Box::new(builder.build(path, Box::new(policy)).unwrap())
    } else {
        Box::new(FileAppender::builder().encoder(encoder).build(path).unwrap())
    };
    let config = Config::builder()
        .appender(Appender::builder().build("file", appender))
        .build(Root::builder().appender("file").build(log::LevelFilter::Info))
        .unwrap();
    log4rs::init_config(config).unwrap();
    calls!(log::info, log::error, log::debug, || log::logger().flush())
}

static SLOG: std::sync::Mutex<Option<slog::Logger>> = std::sync::Mutex::new(None);

fn with_slog(call: impl FnOnce(&slog::Logger)) {
    thread_local!(static MINE: std::cell::OnceCell<slog::Logger> = const { std::cell::OnceCell::new() });
    MINE.with(|mine| call(mine.get_or_init(|| SLOG.lock().unwrap().clone().unwrap())));
}

fn slog(path: &Path, mode: Mode) -> Logger {
    use slog::Drain;
    use slog_async::OverflowStrategy;
    let file = std::io::LineWriter::new(File::create(path).unwrap());
    let decorator = slog_term::PlainDecorator::new(file);
    let drain = slog_term::FullFormat::new(decorator).use_file_location().build().fuse();
    let strategy =
        if mode == Mode::Lossy { OverflowStrategy::Drop } else { OverflowStrategy::Block };
    let (drain, guard) = slog_async::Async::new(drain)
        .chan_size(QUEUE)
        .overflow_strategy(strategy)
        .build_with_guard();
    let drain = drain.filter_level(slog::Level::Info).fuse();
    *SLOG.lock().unwrap() = Some(slog::Logger::root(drain, slog::o!()));
    Logger {
        emit: |i| {
            with_slog(|logger| {
                slog::info!(logger, "peer admitted uid={} gid={} pid={} rule={}", 33, 33, i, 1)
            })
        },
        urgent: |i| {
            with_slog(|logger| {
                slog::crit!(logger, "peer admitted uid={} gid={} pid={} rule={}", 33, 33, i, 1)
            })
        },
        disabled: |calls| {
            with_slog(|logger| {
                for i in 0..calls {
                    slog::debug!(logger, "pid={}", std::hint::black_box(i));
                }
            })
        },
        finish: Box::new(|| drop(guard)),
    }
}
