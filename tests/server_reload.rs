//! One who connects while the rules change is judged by those that are in force when
//! he is let in, and nobody waits for that.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod server_support;
mod support;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use secure_socket::Connection;
use secure_socket::peer::{Checker, CheckerConfig, CheckerThread, Facts, Inspector, Pins};
use secure_socket::policy::{Denial, DenialReason};
use secure_socket::server::{Observer, Outcome, Rules, Threads};
use secure_socket::service::Echo;
use server_support::{ALL, Running, limits, ping, policy, start_by, until};
use support::is_turned_away;

/// Rules by this process's name, and the threads that would read it, which nobody runs
/// yet.
fn by_name(name: &str) -> (Rules, Vec<CheckerThread>) {
    let config = CheckerConfig {
        digest_wait: Duration::from_secs(60),
        ..CheckerConfig::default()
    };
    let (checker, threads) = Checker::new(config).unwrap();
    let mut rules = Rules::new(policy(&[&format!("uid:self,name:{name}")]));
    rules.inspector = Inspector::new(Pins::default(), Some(checker));
    (rules, threads)
}

fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    name.trim_end().to_owned()
}

fn run(checker: Vec<CheckerThread>) {
    for part in checker {
        thread::spawn(move || part.run());
    }
}

/// A server between two reloads.
struct Between {
    server: Running,
    /// Served since before.
    first: UnixStream,
    /// The checker looked at it when the second reload came, and has answered since.
    second: UnixStream,
    /// The threads that would tell whether both meet the rules now in force.
    checker: Vec<CheckerThread>,
    /// The second reload, which waits for those who were open.
    reloading: JoinHandle<usize>,
}

fn start_between(threads: Threads, observer: Arc<dyn Observer>, name_after: &str) -> Between {
    let rules = Rules::new(policy(&[]));
    let server = start_by(Arc::new(Echo), rules, |builder| {
        builder.threads(threads).observer(observer)
    });
    let first = server.connect();
    ping(&first);
    let reload = |rules: Rules| {
        let handle = server.handle.clone();
        let address = Arc::as_ptr(&handle.rules().unwrap()).addr();
        let reloading = thread::spawn({
            let handle = handle.clone();
            move || handle.reload(rules, limits(10))
        });
        until("other rules are in force", || {
            Arc::as_ptr(&handle.rules().unwrap()).addr() != address
        });
        reloading
    };
    let (before, checker_before) = by_name(&own_name());
    let reloading = reload(before);
    let second = server.connect();
    (&second).write_all(b"x").unwrap();
    until("it has come", || server.handle.state().accepted == 2);
    // It knows the rules of a moment ago; that is a moment after it was counted.
    thread::sleep(Duration::from_millis(50));
    let (after, checker_after) = by_name(name_after);
    let reloading_again = reload(after);
    run(checker_before);
    assert_eq!(reloading.join().unwrap(), 0);
    Between {
        server,
        first,
        second,
        checker: checker_after,
        reloading: reloading_again,
    }
}

#[test]
fn a_reload_freezes_nobody_for_one_who_is_on_the_way_in() {
    for threads in ALL {
        let Between {
            server,
            first,
            second,
            checker,
            reloading,
        } = start_between(threads(), Arc::new(()), &own_name());
        // The checker does not answer yet.
        for _ in 0..20 {
            ping(&first);
            thread::sleep(Duration::from_millis(10));
        }
        run(checker);
        assert_eq!(reloading.join().unwrap(), 0);
        { &second }.read_exact(&mut [0; 1]).unwrap();
        ping(&first);
        drop((first, second));
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

/// Who was denied, by number, and why.
#[derive(Default)]
struct Denied(Mutex<Vec<(u64, DenialReason)>>);

impl Observer for Denied {
    fn admitted(&self, connection: &Connection) -> io::Result<()> {
        assert_eq!(connection.id(), 1);
        Ok(())
    }

    fn denied(&self, id: u64, _facts: &Facts, denial: &Denial) {
        self.0.lock().unwrap().push((id, denial.reason));
    }
}

#[test]
fn one_who_is_on_the_way_in_is_judged_by_the_rules_that_came_into_force() {
    for threads in ALL {
        let denied = Arc::<Denied>::default();
        let observer = Arc::clone(&denied);
        let Between {
            server,
            first,
            second,
            checker,
            reloading,
        } = start_between(threads(), observer, "somebody");
        run(checker);
        assert_eq!(reloading.join().unwrap(), 1);
        assert!(is_turned_away(&first));
        assert!(is_turned_away(&second));
        until("it was told", || !denied.0.lock().unwrap().is_empty());
        assert_eq!(*denied.0.lock().unwrap(), [(2, DenialReason::NoRule)]);
        assert_eq!(server.stop(), Outcome::Drained);
    }
}
