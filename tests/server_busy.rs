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
use std::time::Duration;

use identity_support::{HELPER_ARGS, own_user, prepare, run_script};
use secure_socket::peer::{Checker, CheckerConfig, Inspector, Pins};
use secure_socket::policy::{Numeric, Policy, Rule};
use secure_socket::server::{Acceptor, Choice, Observer, Outcome, Rules};
use secure_socket::service::{CloseReason, Next, Opened, Protocol, Session, Turn, Waker};
use secure_socket::{Connection, Listener};
use server_support::{ALL, Running, policy, start_by, until};
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
    let ends = Arc::<Ends>::default();
    let observer = Arc::clone(&ends);
    let server: Running = start_by(Arc::new(Busy), rules.clone(), |builder| {
        builder.threads(ALL[threads]()).observer(observer)
    });
    let script = format!("connect {};wait;{after_connect}", server.path.display());
    let mut child = run(&script);
    server.await_open(1);
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
        check(&rules, threads, "", CloseReason::PeerExited);
    }
}

#[test]
fn a_busy_connection_ends_when_its_process_runs_another_program() {
    // Read because of the rule that denies, and looked at again ever after.
    let names = Numeric {
        own_user: own_user(),
    };
    let deny = Rule::parse("exe:/bin/cat", &names).unwrap();
    let policy = Policy::new(Vec::new(), vec![deny], own_user());
    let Ok(pins) = Pins::open(&policy.exe_paths(), &policy.pids(), None) else {
        return support::skip("a /bin/cat that only root may write");
    };
    let mut rules = Rules::new(policy);
    let checker = Checker::start(CheckerConfig::default()).unwrap();
    rules.inspector = Inspector::new(pins, Some(checker));
    rules.recheck_interval = Duration::from_millis(20);
    let other = "run /bin/sleep\u{1f}600";
    for threads in 0..ALL.len() {
        check(&rules, threads, other, CloseReason::ExecutableChanged);
    }
}

#[test]
fn a_connection_of_an_acceptor_ends_with_its_process() {
    let dir = TempDir::new();
    let path = dir.join("run/a.sock");
    // The name of this program, as the kernel cuts it off.
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    let rule = format!("uid:self,name:{}", name.trim_end());
    let listener = Listener::builder(&path)
        .unwrap()
        .policy(Policy::parse(&rule).unwrap())
        .bind()
        .unwrap()
        .dangerously_unconfined();
    let acceptor = Acceptor::new(listener).unwrap();
    // The child that it leaves behind holds the socket.
    let script = format!("connect {};child;wait;parent;wait", path.display());
    let mut parent = Command::new(std::env::current_exe().unwrap());
    parent.args(HELPER_ARGS);
    prepare(&mut parent, &script);
    let mut parent = parent.stderr(Stdio::null()).spawn().unwrap();
    let connection = acceptor.accept(Some(PATIENCE)).unwrap().unwrap();
    assert!(connection.authorized().names_process());
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
