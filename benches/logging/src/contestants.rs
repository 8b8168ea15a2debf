//! Each logger, set up to lose nothing and to write to one file.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What a scenario logs.
pub type Emit = fn(u64);
/// Ends the logger, with all that was logged written.
pub type Finish = Box<dyn FnOnce()>;

pub const NAMES: [&str; 11] = [
    "secure_socket",
    "bare-ring",
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

macro_rules! emit {
    ($($macro:tt)+) => {
        |i| $($macro)+("peer admitted uid={} gid={} pid={} rule={}", 33, 33, i, 1)
    };
}

pub fn start(name: &str, directory: &Path, rolling: bool) -> (Emit, Finish) {
    let path = directory.join("log");
    match name {
        "secure_socket" => secure_socket(&path, rolling),
        "bare-ring" => bare_ring(&path),
        "spdlog-rs" => spdlog(&path),
        "tracing-appender" => tracing(directory),
        "flexi-async" => flexi(directory, flexi_logger::WriteMode::Async, rolling),
        "flexi-buffered" => flexi(directory, flexi_logger::WriteMode::BufferAndFlush, rolling),
        "log4rs" => log4rs(&path, rolling),
        "slog-async" => slog(&path),
        "ftlog" => {
            let appender = ftlog::appender::FileAppender::builder().path(&path).build();
            let guard = ftlog::builder().root(appender).bounded(8192, true).try_init().unwrap();
            (emit!(log::info!), Box::new(|| drop(guard)))
        }
        "fast_log" => {
            let config = fast_log::Config::new().file(path.to_str().unwrap()).chan_len(Some(8192));
            fast_log::init(config).unwrap();
            (emit!(log::info!), Box::new(|| fast_log::flush().unwrap().wait()))
        }
        "fern" => {
            fern::Dispatch::new()
                .format(|out, message, record| {
                    let now = std::time::SystemTime::now();
                    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
                    let (file, line) = (record.file().unwrap(), record.line().unwrap());
                    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
                    let level = record.level();
                    out.finish(format_args!("{seconds}.{micros:06} {level} {message} ({file}:{line})"));
                })
                .chain(fern::log_file(&path).unwrap())
                .apply()
                .unwrap();
            log::set_max_level(log::LevelFilter::Info);
            (emit!(log::info!), Box::new(|| log::logger().flush()))
        }
        other => panic!("unknown logger {other}"),
    }
}

fn secure_socket(path: &Path, rolling: bool) -> (Emit, Finish) {
    use secure_socket::logging::{Builder, FileSpec, Overflow, SinkSpec};
    let mut spec = FileSpec::new(path);
    spec.max_size = if rolling { 1 << 20 } else { 0 };
    spec.keep = 1000;
    let guard =
        Builder::new().overflow(Overflow::Block).target(SinkSpec::File(spec)).start().unwrap();
    (emit!(secure_socket::info!), Box::new(move || drop(guard)))
}

/// The least that the work takes: a formatted line through a ring to a file.
fn bare_ring(path: &Path) -> (Emit, Finish) {
    type Slot = ([u8; 240], usize);
    static RING: OnceLock<Arc<crossbeam::queue::ArrayQueue<Slot>>> = OnceLock::new();
    let ring = Arc::new(crossbeam::queue::ArrayQueue::<Slot>::new(8192));
    RING.set(Arc::clone(&ring)).unwrap();
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
    let emit: Emit = |i| {
        let mut bytes = [0; 240];
        let mut rest = &mut bytes[..];
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        writeln!(
            rest,
            "{}.{:06} INFO peer admitted uid={} gid={} pid={} rule={} (src/x.rs:88 accept)",
            now.as_secs(),
            now.subsec_micros(),
            33,
            33,
            i,
            1
        )
        .unwrap();
        let length = 240 - rest.len();
        let ring = RING.get().unwrap();
        let mut slot = (bytes, length);
        while let Err(back) = ring.push(slot) {
            slot = back;
            std::thread::yield_now();
        }
    };
    let finish = move || {
        ends.store(true, Ordering::Release);
        thread.join().unwrap();
    };
    (emit, Box::new(finish))
}

fn spdlog(path: &Path) -> (Emit, Finish) {
    use spdlog::sink::{AsyncPoolSink, FileSink, OverflowPolicy};
    let pool = spdlog::ThreadPool::builder()
        .capacity(8192.try_into().unwrap())
        .build_arc()
        .unwrap();
    let file = FileSink::builder().path(path).truncate(true).build_arc().unwrap();
    let sink = AsyncPoolSink::builder()
        .sink(file)
        .overflow_policy(OverflowPolicy::Block)
        .thread_pool(Arc::clone(&pool))
        .build_arc()
        .unwrap();
    let logger = spdlog::Logger::builder().sink(sink).build_arc().unwrap();
    spdlog::set_default_logger(logger);
    let finish = move || {
        spdlog::default_logger().flush();
        let none = spdlog::Logger::builder().build_arc().unwrap();
        drop(spdlog::swap_default_logger(none));
        drop(pool);
    };
    (emit!(spdlog::info!), Box::new(finish))
}

fn tracing(directory: &Path) -> (Emit, Finish) {
    let file = tracing_appender::rolling::never(directory, "log");
    let builder = tracing_appender::non_blocking::NonBlockingBuilder::default().lossy(false);
    let (writer, guard) = builder.buffered_lines_limit(8192).finish(file);
    tracing_subscriber::fmt().with_ansi(false).with_writer(writer).init();
    (emit!(tracing::info!), Box::new(|| drop(guard)))
}

fn flexi(directory: &Path, mode: flexi_logger::WriteMode, rolling: bool) -> (Emit, Finish) {
    use flexi_logger::{Cleanup, Criterion, FileSpec, Logger, Naming, detailed_format};
    let spec = FileSpec::default().directory(directory).basename("log").suppress_timestamp();
    let mut logger = Logger::try_with_str("info")
        .unwrap()
        .log_to_file(spec)
        .format(detailed_format)
        .write_mode(mode);
    if rolling {
        let (size, keep) = (Criterion::Size(1 << 20), Cleanup::KeepCompressedFiles(1000));
        logger = logger.rotate(size, Naming::Numbers, keep);
    }
    let handle = logger.start().unwrap();
    (emit!(log::info!), Box::new(move || handle.shutdown()))
}

fn log4rs(path: &Path, rolling: bool) -> (Emit, Finish) {
    use log4rs::append::file::FileAppender;
    use log4rs::append::rolling_file::RollingFileAppender;
    use log4rs::append::rolling_file::policy::compound::CompoundPolicy;
    use log4rs::append::rolling_file::policy::compound::roll::fixed_window::FixedWindowRoller;
    use log4rs::append::rolling_file::policy::compound::trigger::size::SizeTrigger;
    use log4rs::config::{Appender, Config, Root};
    let encoder = Box::new(log4rs::encode::pattern::PatternEncoder::new("{d} {l} {m} ({f}:{L}){n}"));
    let appender: Box<dyn log4rs::append::Append> = if rolling {
        let pattern = format!("{}.{{}}.gz", path.display());
        let roller = FixedWindowRoller::builder().build(&pattern, 10).unwrap();
        let policy = CompoundPolicy::new(Box::new(SizeTrigger::new(1 << 20)), Box::new(roller));
        Box::new(RollingFileAppender::builder().encoder(encoder).build(path, Box::new(policy)).unwrap())
    } else {
        Box::new(FileAppender::builder().encoder(encoder).build(path).unwrap())
    };
    let config = Config::builder()
        .appender(Appender::builder().build("file", appender))
        .build(Root::builder().appender("file").build(log::LevelFilter::Info))
        .unwrap();
    log4rs::init_config(config).unwrap();
    (emit!(log::info!), Box::new(|| log::logger().flush()))
}

fn slog(path: &Path) -> (Emit, Finish) {
    use slog::Drain;
    static LOGGER: std::sync::Mutex<Option<slog::Logger>> = std::sync::Mutex::new(None);
    thread_local!(static MINE: std::cell::OnceCell<slog::Logger> = const { std::cell::OnceCell::new() });
    let decorator = slog_term::PlainDecorator::new(File::create(path).unwrap());
    let drain = slog_term::FullFormat::new(decorator).build().fuse();
    let (drain, guard) = slog_async::Async::new(drain)
        .chan_size(8192)
        .overflow_strategy(slog_async::OverflowStrategy::Block)
        .build_with_guard();
    *LOGGER.lock().unwrap() = Some(slog::Logger::root(drain.fuse(), slog::o!()));
    let emit: Emit = |i| {
        MINE.with(|mine| {
            let logger = mine.get_or_init(|| LOGGER.lock().unwrap().clone().unwrap());
            slog::info!(logger, "peer admitted uid={} gid={} pid={} rule={}", 33, 33, i, 1);
        });
    };
    (emit, Box::new(|| drop(guard)))
}
