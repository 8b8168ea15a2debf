//! The end of a logger while others go on logging.

use super::super::lines::Mark;
use super::super::shared::{HURRY_LIMIT, Phase, STOP_LIMIT};
use super::*;
use std::sync::mpsc::channel;

/// Longer than any stop takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Calls `each` with numbers in so many threads until the guard is stopped, and a
/// little longer. Gives how often it was called.
fn stopped_amid_calls(
    setup: &Setup,
    threads: usize,
    each: impl Fn(&dyn log::Log, usize) + Sync,
) -> usize {
    let guard = setup.logger.start_writer(Arc::new(|_| Ok(()))).unwrap();
    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let log_to = setup.logger.as_log();
                while !over.load(Ordering::SeqCst) {
                    each(&*log_to, calls.fetch_add(1, Ordering::Relaxed));
                }
            });
        }
        while setup.lines.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        let (done, wait) = channel();
        let stopper = std::thread::spawn(move || {
            let whole = guard.shutdown();
            let _ = done.send(whole);
        });
        let stopped = wait.recv_timeout(LIMIT);
        over.store(true, Ordering::SeqCst);
        assert_eq!(stopped, Ok(true));
        stopper.join().unwrap();
    });
    calls.load(Ordering::Relaxed)
}

#[test]
fn a_stop_ends_though_others_log_without_pause() {
    if let Some(said) = in_own_process("stop::a_stop_ends_though_others_log_without_pause") {
        return assert!(said.iter().any(|line| line.contains("peer admitted")));
    }
    // A batch takes longer than the callers stand still on a busy machine.
    let setup = setup(Overflow::Drop, Duration::from_millis(50), false);
    stopped_amid_calls(&setup, 2, log);
}

/// The caller saw that the writer runs, and was interrupted until it had ended.
#[test]
fn a_line_that_is_too_late_for_the_writer_goes_to_stderr() {
    let name = "stop::a_line_that_is_too_late_for_the_writer_goes_to_stderr";
    if let Some(said) = in_own_process(name) {
        return assert_eq!(said, ["INFO  too late", "NOTICE before it started"]);
    }
    let setup = setup(Overflow::Drop, Duration::ZERO, false);
    assert!(
        setup
            .logger
            .start_writer(Arc::new(|_| Ok(())))
            .unwrap()
            .shutdown()
    );
    for (phase, line) in [
        (Phase::Running, line(Severity::Info, "too late")),
        (Phase::Before, line(Severity::Notice, "before it started")),
    ] {
        setup.shared.submit_in(phase, &line);
        assert_eq!(setup.logger.stats().queued, 0);
    }
}

#[test]
fn a_stop_amid_calls_loses_none_of_them() {
    const UNWRITTEN: &str = "not in the log: ";
    if let Some(said) = in_own_process("stop::a_stop_amid_calls_loses_none_of_them") {
        let stated = said.iter().find_map(|line| line.strip_prefix(UNWRITTEN));
        let lines = said.iter().filter(|line| line.contains("peer admitted"));
        return assert_eq!(stated.unwrap(), lines.count().to_string());
    }
    let mut unwritten = 0;
    for _ in 0..30 {
        let setup = setup(Overflow::Block, Duration::ZERO, false);
        let calls = stopped_amid_calls(&setup, 3, log);
        unwritten += calls - setup.lines.load(Ordering::Relaxed);
        assert_eq!(setup.logger.stats().queued, 0);
    }
    eprintln!("{UNWRITTEN}{unwritten}");
}

#[test]
fn the_last_lines_wait_for_a_caller_that_is_at_its_own() {
    let setup = setup(Overflow::Drop, Duration::ZERO, false);
    let mut writer = setup.shared.take_writer().unwrap();
    setup.shared.set_phase(Phase::Running);
    let (first, second) = (
        line(Severity::Info, "first"),
        line(Severity::Info, "second"),
    );
    let go_on = setup.shared.queue.interrupted(&first);
    setup.shared.queue.push(&second).unwrap();
    setup.shared.set_phase(Phase::After);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            go_on();
        });
        writer.close(&setup.shared, &mut || ());
    });
    assert_eq!(setup.lines.load(Ordering::Relaxed), 2);
}

/// Takes lines when it is asked at last, and would else in an hour.
struct Away {
    is_back: bool,
    backlog: Backlog,
    lines: Arc<AtomicUsize>,
}

impl Sink for Away {
    fn write(&mut self, lines: &Lines, now: Instant) {
        self.backlog.take(lines);
        self.retry(now);
    }

    fn retry(&mut self, _now: Instant) {
        if self.is_back {
            self.lines.fetch_add(self.backlog.len(), Ordering::Relaxed);
            self.backlog.advance(self.backlog.unsent().len());
        }
    }

    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    fn retry_at(&self) -> Option<Instant> {
        Instant::now().checked_add(Duration::from_secs(3600))
    }

    fn try_at_last(&mut self) {
        self.is_back = true;
    }
}

#[test]
fn what_waits_for_a_later_try_is_tried_at_the_end() {
    let lines = Arc::default();
    let away = Away {
        is_back: false,
        backlog: Backlog::default(),
        lines: Arc::clone(&lines),
    };
    let (logger, _shared) = logger(Overflow::Drop, Box::new(away));
    let guard = logger.start_writer(Arc::new(|_| Ok(()))).unwrap();
    let log_to = logger.as_log();
    (0..10).for_each(|number| log(&*log_to, number));
    assert!(guard.shutdown());
    assert_eq!(lines.load(Ordering::Relaxed), 10);
}

/// Takes what it is told to, and tries again then.
struct Slow {
    backlog: Backlog,
    retry_at: Option<Instant>,
}

impl Sink for Slow {
    fn write(&mut self, _lines: &Lines, _now: Instant) {}

    fn retry(&mut self, _now: Instant) {}

    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

#[test]
fn a_stop_waits_for_a_sink_as_long_as_it_takes_something_now_and_then() {
    let begin = Instant::now();
    let (short, far) = (Duration::from_millis(1), begin + 100 * STOP_LIMIT);
    let outlet_that_tries = |retry_at| {
        let mut backlog = Backlog::default();
        let mark = Mark {
            end: 0,
            severity: Severity::Info,
            micros: 1,
        };
        backlog.add(b"0123456789", &mark);
        let state = SinkState {
            name: "slow".into(),
            counters: Counters::default(),
        };
        Outlet::new(Box::new(Slow { backlog, retry_at }), Arc::new(state), 0)
    };
    let mut outlet = outlet_that_tries(None);
    let mut now = begin;
    assert!(!outlet.was_tried(now) && outlet.has_hope(far));
    for _ in 0..9 {
        assert!(!outlet.was_tried(now + STOP_LIMIT - short) && outlet.has_hope(far));
        outlet.sink.backlog().advance(1);
        now += STOP_LIMIT;
        assert!(outlet.was_tried(now) && outlet.has_hope(far));
    }
    assert!(!outlet.was_tried(now + STOP_LIMIT) && !outlet.has_hope(far));
    outlet.sink.backlog().advance(1);
    assert!(outlet.was_tried(now + STOP_LIMIT) && !outlet.has_hope(far));

    for (later, stop_by, expected) in [
        (STOP_LIMIT - short, far, true),
        (STOP_LIMIT, far, false),
        (HURRY_LIMIT - short, begin + HURRY_LIMIT, true),
        (HURRY_LIMIT, begin + HURRY_LIMIT, false),
    ] {
        let mut outlet = outlet_that_tries(Some(begin + later));
        outlet.was_tried(begin);
        assert_eq!(outlet.has_hope(stop_by), expected, "{later:?}");
    }
}

#[test]
fn progress_puts_a_stop_off_unless_it_hurries() {
    let shared = setup(Overflow::Drop, Duration::ZERO, false).shared;
    let first = shared.stop_by();
    assert_eq!(shared.stop_by(), first);
    let later = first + 9 * STOP_LIMIT;
    shared.put_stop_off(later);
    shared.put_stop_off(first);
    assert_eq!(shared.stop_by(), later + STOP_LIMIT);
    shared.hurry();
    let hurried = shared.stop_by();
    assert!(hurried <= Instant::now() + HURRY_LIMIT);
    shared.put_stop_off(later);
    shared.hurry();
    assert_eq!(shared.stop_by(), hurried);
}
