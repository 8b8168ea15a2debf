//! A connection ends with its process, and once that runs another program, however
//! busy it is: what it is busy with may be somebody else's.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod identity_support;
mod server_support;
mod support;

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use identity_support::{HELPER_ARGS, own_user, prepare, run_script};
use secure_socket::peer::{Checker, CheckerConfig, Inspector, Pins};
use secure_socket::policy::{Numeric, Policy, Rule};
use secure_socket::server::{Acceptor, Choice, Observer, Outcome, Rules};
use secure_socket::service::{
    CloseReason, Echo, Next, Opened, Protocol, Session, Timeouts, Turn, Waker,
};
use secure_socket::{Connection, Listener};
use server_support::{ALL, Running, limits, policy, start_by, start_service, until};
use support::{PATIENCE, TempDir};

#[test]
fn helper() {
    run_script();
}

/// Always has more to do.
struct Busy;

impl Session for Busy {
    fn step(&mut self, _connection: &Connection, _turn: &mut Turn<'_>) -> Next {
        Next::Again
    }
}

impl Protocol for Busy {
    fn name(&self) -> &'static str {
        "busy"
    }

    fn open(&self, _connection: &Arc<Connection>, _waker: Option<Waker>) -> io::Result<Opened> {
        Ok(Box::new(Self))
    }
}

/// Why connections have ended.
#[derive(Default)]
struct Ends(Mutex<Vec<CloseReason>>);

impl Observer for Ends {
    fn closed(&self, _connection: &Connection, reason: CloseReason, _lasted: Duration) {
        self.0.lock().unwrap().push(reason);
    }
}

impl Ends {
    #[track_caller]
    fn wait_for(&self, expected: CloseReason) {
        until("it has ended", || !self.0.lock().unwrap().is_empty());
        assert_eq!(*self.0.lock().unwrap(), [expected]);
    }
}

/// This program again, which does what a script says.
fn run(script: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(HELPER_ARGS);
    prepare(&mut command, script);
    command.spawn().unwrap()
}

fn check(rules: &Rules, threads: usize, after_connect: &str, expected: CloseReason) {
    check_after(
        rules,
        None,
        Arc::new(Busy),
        threads,
        after_connect,
        expected,
    );
}

/// `reload`: the rules by which it goes on.
fn check_after(
    rules: &Rules,
    reload: Option<&Rules>,
    protocol: Arc<dyn Protocol>,
    threads: usize,
    after_connect: &str,
    expected: CloseReason,
) {
    let ends = Arc::<Ends>::default();
    let observer = Arc::clone(&ends);
    let server: Running = start_by(protocol, rules.clone(), |builder| {
        builder.threads(ALL[threads]()).observer(observer)
    });
    let script = format!("connect {};wait;{after_connect}", server.path.display());
    let mut child = run(&script);
    server.await_open(1);
    if let Some(rules) = reload {
        assert_eq!(server.handle.reload(rules.clone(), limits(10)), 0);
    }
    // Busy for a while with a process that is as it was.
    std::thread::sleep(Duration::from_millis(200));
    assert!(ends.0.lock().unwrap().is_empty());
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    ends.wait_for(expected);
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(server.stop(), Outcome::Drained);
}

#[test]
fn a_busy_connection_ends_with_its_process() {
    let mut rules = Rules::new(policy(&[]));
    rules.session_ends_with_peer = Choice::Yes;
    for threads in 0..ALL.len() {
        // The child that it leaves behind holds the socket.
        check(&rules, threads, HELD, CloseReason::PeerExited);
    }
    // Nobody does, and the session doesn't look for the end of what came.
    rules.timeouts = Arc::new(Timeouts {
        half_close: Some(Duration::from_millis(50)),
        ..Timeouts::default()
    });
    for threads in 0..ALL.len() {
        check(&rules, threads, "", CloseReason::PeerExited);
    }
}

/// Rules that have the executable read, and looked at again ever after. `None` where
/// there is none to name.
fn by_executable() -> Option<Rules> {
    // Read because of the rule that denies, and looked at again ever after.
    let names = Numeric {
        own_user: own_user(),
    };
    let deny = Rule::parse("exe:/bin/cat", &names).unwrap();
    let policy = Policy::new(Vec::new(), vec![deny], own_user());
    let Ok(pins) = Pins::open(&policy.exe_paths(), &policy.pids(), None) else {
        support::skip("a /bin/cat that only root may write");
        return None;
    };
    let mut rules = Rules::new(policy);
    let checker = Checker::start(CheckerConfig::default()).unwrap();
    rules.inspector = Inspector::new(pins, Some(checker));
    rules.recheck_interval = Duration::from_millis(20);
    Some(rules)
}

const OTHER: &str = "run /bin/sleep\u{1f}600";
/// Exits, and leaves a child behind that holds the socket.
const HELD: &str = "child;wait;parent;";

#[test]
fn a_busy_connection_ends_when_its_process_runs_another_program() {
    let Some(rules) = by_executable() else {
        return;
    };
    for threads in 0..ALL.len() {
        check(&rules, threads, OTHER, CloseReason::ExecutableChanged);
    }
}

/// The name of this program, as the kernel cuts it off.
fn by_name() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    format!("uid:self,name:{}", name.trim_end())
}

#[test]
fn who_stays_after_a_reload_does_so_under_the_duties_of_its_rules() {
    let before = Rules::new(policy(&[]));
    let mut by_process = Rules::new(policy(&[&by_name()]));
    let checker = Checker::start(CheckerConfig::default()).unwrap();
    by_process.inspector = Inspector::new(Pins::default(), Some(checker));
    let by_executable = by_executable();
    for threads in 0..ALL.len() {
        let exited = CloseReason::PeerExited;
        let go_on = |rules: &Rules, script: &str, reason| {
            check_after(
                &before,
                Some(rules),
                Arc::new(Echo),
                threads,
                script,
                reason,
            );
        };
        go_on(&by_process, HELD, exited);
        if let Some(rules) = &by_executable {
            let script = format!("{HELD}{OTHER}");
            go_on(rules, &script, CloseReason::ExecutableChanged);
        }
    }
}

/// Echo under a name that no thread of another test has.
struct Quiet;

impl Protocol for Quiet {
    fn name(&self) -> &'static str {
        "quiet"
    }

    fn open(&self, connection: &Arc<Connection>, waker: Option<Waker>) -> io::Result<Opened> {
        Echo.open(connection, waker)
    }
}

/// Processor time of the threads of [`Quiet`].
fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let of_quiet = tasks.filter(|task| {
        let name = std::fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.starts_with("quiet-"))
    });
    let spent = of_quiet.map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(spent.sum())
}

#[test]
fn a_loop_rests_though_others_hold_what_is_left_of_a_connection() {
    let mut rules = Rules::new(policy(&[]));
    rules.session_ends_with_peer = Choice::Yes;
    let ends = Arc::<Ends>::default();
    let observer = Arc::clone(&ends);
    let server: Running = start_by(Arc::new(Quiet), rules, |builder| {
        builder.threads(ALL[1]()).observer(observer)
    });
    let script = format!("connect {};wait;{HELD}", server.path.display());
    let mut child = run(&script);
    server.await_open(1);
    let held = server.handle.connections();
    assert_eq!(held.len(), 1);
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    ends.wait_for(CloseReason::PeerExited);
    let before = processor_time();
    let watched = Duration::from_millis(500);
    std::thread::sleep(watched);
    let spent = processor_time() - before;
    // One that has nothing to do takes none.
    assert!(spent < watched / 100, "{spent:?} of {watched:?}");
    drop(held);
    drop(child.stdin.take());
    let _ = child.wait();
    assert_eq!(server.stop(), Outcome::Drained);
}

/// An acceptor of processes by this program's name, and one that does what a script says.
fn accept_by_name(dir: &TempDir, script: &str) -> (Arc<Connection>, Child) {
    let path = dir.join("run/a.sock");
    let listener = Listener::builder(&path)
        .unwrap()
        .policy(Policy::parse(&by_name()).unwrap())
        .bind()
        .unwrap()
        .dangerously_unconfined();
    let acceptor = Acceptor::new(listener).unwrap();
    let script = format!("connect {};{script}", path.display());
    let mut parent = Command::new(std::env::current_exe().unwrap());
    parent.args(HELPER_ARGS);
    prepare(&mut parent, &script);
    let parent = parent.stderr(Stdio::null()).spawn().unwrap();
    let connection = acceptor.accept(Some(PATIENCE)).unwrap().unwrap();
    assert!(connection.authorized().names_process());
    (connection, parent)
}

#[test]
fn a_connection_of_an_acceptor_ends_with_its_process() {
    let dir = TempDir::new();
    // The child that it leaves behind holds the socket.
    let (connection, mut parent) = accept_by_name(&dir, "child;wait;parent;wait");
    let short = Some(Duration::from_millis(100));
    connection.set_read_timeout(short).unwrap();
    let error = (&*connection).read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "it lives");
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    parent.kill().unwrap();
    let error = (&*connection).read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(connection.forced(), Some(CloseReason::PeerExited));
    parent.wait().unwrap();
}

#[track_caller]
fn check_flood(child: &str, mut call: impl FnMut(&Connection) -> io::Result<usize>) {
    let dir = TempDir::new();
    let script = format!("child;{child};parent;wait");
    let (connection, mut parent) = accept_by_name(&dir, &script);
    // Slower than the child: there is always something to do.
    let mut call = |connection: &Connection| {
        std::thread::sleep(Duration::from_millis(1));
        call(connection)
    };
    for _ in 0..100 {
        assert_ne!(call(&connection).unwrap(), 0);
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    let end = Instant::now() + PATIENCE;
    let error = loop {
        assert!(Instant::now() < end, "served on and on");
        match call(&connection) {
            Ok(length) => assert_ne!(length, 0),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(connection.forced(), Some(CloseReason::PeerExited));
}

#[test]
fn data_that_keep_coming_hide_no_exit_from_who_reads_and_writes_by_itself() {
    check_flood("flood", |mut connection| connection.read(&mut [0; 64]));
    check_flood("drain", |mut connection| connection.write(&[0; 64]));
}

#[test]
fn what_a_process_left_behind_is_read_to_its_end() {
    const BULK: usize = 100_000;
    let dir = TempDir::new();
    let (connection, mut parent) = accept_by_name(&dir, &format!("wait;bulk {BULK}"));
    parent.stdin.take().unwrap().write_all(b"\n").unwrap();
    parent.wait().unwrap();
    let mut read = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        match (&*connection).read(&mut buffer).unwrap() {
            0 => break,
            length => read.extend_from_slice(&buffer[..length]),
        }
        // Several looks at the process.
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(read.len(), BULK);
    assert_eq!(connection.forced(), None);
}

/// Reads to the end, slowly, and says how much that was.
fn read_slowly(mut connection: &Connection, said: &Mutex<Option<usize>>) -> io::Result<()> {
    let (mut sum, mut buffer) = (0, [0; 1000]);
    loop {
        match connection.read(&mut buffer)? {
            0 => break,
            length => sum += length,
        }
        // Several looks at the executable.
        std::thread::sleep(Duration::from_millis(2));
    }
    *said.lock().unwrap() = Some(sum);
    Ok(())
}

#[track_caller]
fn check_left_behind(before_writing: &str) {
    const BULK: usize = 150_000;
    let Some(mut rules) = by_executable() else {
        return;
    };
    for choice in [Choice::Yes, Choice::No] {
        rules.session_ends_with_peer = choice;
        let (ends, said) = (Arc::<Ends>::default(), Arc::default());
        let (observer, place) = (Arc::clone(&ends), Arc::clone(&said));
        let service = move |connection: &Connection| read_slowly(connection, &place);
        let server = start_service(service, rules.clone(), observer);
        let script = format!(
            "connect {};wait;{before_writing}bulk {BULK}",
            server.path.display()
        );
        let mut child = run(&script);
        // Before that it is not admitted, as one that has exited is not.
        until("it is admitted", || !server.handle.connections().is_empty());
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(child.wait().unwrap().success());
        ends.wait_for(CloseReason::Finished);
        assert_eq!(*said.lock().unwrap(), Some(BULK), "{choice:?}");
        assert_eq!(server.stop(), Outcome::Drained);
    }
}

#[test]
fn a_service_reads_to_its_end_what_a_process_known_by_its_executable_left_behind() {
    check_left_behind("");
}

#[test]
fn a_process_that_takes_long_to_exit_runs_no_other_program() {
    // While its memory is freed it lives, and has no executable any more.
    check_left_behind("memory 300000000;");
}

#[test]
fn what_is_left_after_a_reload_is_served_for_half_close_timeout_at_most() {
    let mut before = Rules::new(policy(&[]));
    before.timeouts = Arc::new(Timeouts {
        half_close: Some(Duration::from_millis(50)),
        ..Timeouts::default()
    });
    let mut by_process = Rules::new(policy(&[&by_name()]));
    let checker = Checker::start(CheckerConfig::default()).unwrap();
    by_process.inspector = Inspector::new(Pins::default(), Some(checker));
    for threads in 0..ALL.len() {
        // Nobody holds the socket, and the session doesn't look for the end of what came.
        check_after(
            &before,
            Some(&by_process),
            Arc::new(Busy),
            threads,
            "",
            CloseReason::PeerExited,
        );
    }
}
