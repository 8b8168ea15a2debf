//! Callers that are interrupted between the place of their line and the line.

use super::*;

#[test]
fn the_writer_does_not_spin_behind_an_interrupted_caller() {
    let setup = setup(Overflow::Drop, Duration::ZERO, false);
    let guard = setup.logger.start_writer(Arc::new(|_| Ok(()))).unwrap();
    let line = line(Severity::Info, "x");
    let go_on = setup.shared.queue.interrupted(&line);
    // Longer than the naps before the writer would park.
    std::thread::sleep(Duration::from_millis(100));
    let (before, begun) = (setup.retries.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(Duration::from_millis(100));
    let passes = setup.retries.load(Ordering::Relaxed) - before;
    let naps = begun.elapsed().as_micros() / 100;
    assert!(
        passes as u128 <= 2 * naps + 10,
        "{passes} passes in {naps} naps"
    );
    go_on();
    assert!(guard.shutdown());
    assert_eq!(setup.lines.load(Ordering::Relaxed), 1);
}
