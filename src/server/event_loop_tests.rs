//! What a loop does with its seats.

use super::super::tests::Bench;
use super::*;

/// A loop that failed to watch its listener: whether it tries again, or ends all.
#[track_caller]
fn check(errno: Errno, tries_again: bool) {
    let bench = Bench::new();
    let inbox = Arc::new(Inbox::new().unwrap());
    let mut event_loop = EventLoop::new(Arc::clone(&bench.shared), inbox).unwrap();
    event_loop.listened(true, Err(errno.into()));
    assert_eq!(bench.shared.phase.is_running(), tries_again);
    assert_eq!(event_loop.resume.is_some(), tries_again);
    if tries_again {
        event_loop.resume = Some(Instant::now());
        event_loop.listen_or_not();
        assert!(event_loop.listening);
    }
}

#[test]
fn what_ran_out_for_the_listeners_watch_is_waited_for() {
    check(Errno::NOMEM, true);
    check(Errno::NOSPC, true);
    check(Errno::BADF, false);
}
