//! The end of a logger while others go on logging.

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
