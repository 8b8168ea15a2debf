//! Fatal and alert: written when the call returns, or said on stderr.

use super::super::shared::Phase;
use super::super::sink::stream::Stream;
use super::*;

/// Keeps its lines until it is told that there is room.
struct Full {
    room: Arc<AtomicBool>,
    /// Why, if it knows.
    cause: Option<&'static str>,
    local: bool,
    backlog: Backlog,
}

impl Sink for Full {
    fn write(&mut self, lines: &Lines, now: Instant) {
        self.backlog.take(lines);
        self.retry(now);
    }

    fn retry(&mut self, _now: Instant) {
        if self.room.load(Ordering::SeqCst) {
            self.backlog.advance(self.backlog.unsent().len());
        } else if let Some(cause) = self.cause {
            self.backlog.set_cause(cause);
        }
    }

    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    fn is_local(&self) -> bool {
        self.local
    }

    fn retry_at(&self) -> Option<Instant> {
        Some(Instant::now())
    }
}

/// A logger with a sink that is full, and what makes room in it.
fn full(cause: Option<&'static str>, local: bool) -> (Logger, Arc<Shared>, Arc<AtomicBool>) {
    let room = Arc::new(AtomicBool::new(false));
    let sink = Full {
        room: Arc::clone(&room),
        cause,
        local,
        backlog: Backlog::default(),
    };
    let (logger, shared) = logger(Overflow::Drop, Box::new(sink));
    (logger, shared, room)
}

fn waiting(logger: &Logger) -> u64 {
    logger.stats().sinks[0].waiting
}

#[test]
fn a_fatal_line_waits_for_a_pipe_that_is_full() {
    let (reader, writer) = std::io::pipe().unwrap();
    let (logger, shared) = logger(Overflow::Drop, Box::new(Stream::new(writer)));
    let guard = logger.start_writer(Arc::new(|_| Ok(()))).unwrap();
    let log_to = logger.as_log();
    (0..2000).for_each(|number| log(&*log_to, number));
    while waiting(&logger) == 0 {
        std::thread::yield_now();
    }
    std::thread::scope(|scope| {
        let all = scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            std::io::read_to_string(reader).unwrap()
        });
        shared.submit_in(Phase::Running, &line(Severity::Fatal, "over"));
        assert_eq!(waiting(&logger), 0);
        assert!(guard.shutdown());
        let all = all.join().unwrap();
        assert_eq!(all.lines().count(), 2001);
        assert!(all.ends_with("FATAL over\n"));
    });
}

#[test]
fn a_fatal_line_that_a_sink_cant_write_goes_to_stderr_and_later_to_the_sink() {
    let name = "urgent::a_fatal_line_that_a_sink_cant_write_goes_to_stderr_and_later_to_the_sink";
    if let Some(said) = in_own_process(name) {
        return assert_eq!(said, ["ALERT before", "FATAL over", "FATAL over far away"]);
    }
    let (logger, shared, room) = full(Some("no space"), true);
    shared.submit_in(Phase::Before, &line(Severity::Alert, "before"));
    let guard = logger.start_writer(Arc::new(|_| Ok(()))).unwrap();
    // Who waited for a sink that fails would find it mended.
    let mender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        room.store(true, Ordering::SeqCst);
    });
    shared.submit_in(Phase::Running, &line(Severity::Info, "usual"));
    shared.submit_in(Phase::Running, &line(Severity::Fatal, "over"));
    // With a line that says the cause.
    assert_eq!(waiting(&logger), 4);
    assert!(!logger.flush(Duration::from_secs(60)));
    mender.join().unwrap();
    assert!(guard.shutdown());
    assert_eq!(logger.stats().sinks[0].written, 4);

    let (logger, shared, room) = full(None, false);
    let guard = logger.start_writer(Arc::new(|_| Ok(()))).unwrap();
    shared.submit_in(Phase::Running, &line(Severity::Fatal, "over far away"));
    assert!(logger.flush(Duration::from_secs(60)));
    room.store(true, Ordering::SeqCst);
    assert!(guard.shutdown());
    assert_eq!(logger.stats().sinks[0].written, 1);
}

#[test]
fn a_flush_waits_until_its_limit_and_the_next_may_succeed() {
    let (logger, shared, room) = full(None, true);
    shared.submit_in(Phase::Before, &line(Severity::Info, "x"));
    assert!(!logger.flush(Duration::ZERO));
    let guard = logger.start_writer(Arc::new(|_| Ok(()))).unwrap();
    assert!(!logger.flush(Duration::from_millis(20)));
    room.store(true, Ordering::SeqCst);
    assert!(logger.flush(Duration::from_secs(60)));
    assert_eq!(waiting(&logger), 0);
    assert!(guard.shutdown());
    assert!(logger.flush(Duration::ZERO));
}

#[test]
fn an_alert_without_room_is_counted_and_goes_to_stderr() {
    let name = "urgent::an_alert_without_room_is_counted_and_goes_to_stderr";
    if let Some(said) = in_own_process(name) {
        return assert_eq!(said, ["ALERT no room"]);
    }
    let setup = setup(Overflow::Drop, Duration::ZERO, false);
    let writer = setup.shared.take_writer();
    setup.shared.set_phase(Phase::Running);
    // Who writes waits for nobody.
    setup.shared.be_writer();
    while setup.shared.queue.push(&line(Severity::Alert, "x")).is_ok() {}
    let alert = line(Severity::Alert, "no room");
    setup.shared.submit_in(Phase::Running, &alert);
    let dropped = setup.shared.queue.dropped.take().unwrap();
    assert_eq!(dropped.by_severity()[Severity::Alert.index()], 1);
    drop(writer);
}
