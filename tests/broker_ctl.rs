//! `secure_socketctl` with a broker, as a shell uses it.
#![cfg(feature = "daemon")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod broker_support;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use broker_support::Running;
use secure_socket::client::{Client, Event, ServerIdentity};
use secure_socket::frame::FrameLimit;
use secure_socket::service::broker::{Limits, Permits};
use support::{Daemon, TempDir};

fn ctl(broker: &Running, arguments: &[&str]) -> Child {
    ctl_at(&broker.path, arguments)
}

fn ctl_at(socket: &Path, arguments: &[&str]) -> Child {
    let (verb, rest) = arguments.split_first().unwrap();
    Command::new(env!("CARGO_BIN_EXE_secure_socketctl"))
        .arg(verb)
        .arg(format!("socket_path={}", socket.display()))
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(broker: &Running, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = ctl(broker, arguments);
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str) {
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(code), "{text}{errors}");
    assert_eq!(text, stdout, "{errors}");
}

/// Waits until so many commands have told the broker what they want.
fn settle(broker: &Running, wishes: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let open = || {
        let stats = broker.broker.stats();
        stats.subscriptions + stats.registrations
    };
    while open() != wishes {
        assert!(Instant::now() < deadline, "{} have asked", open());
        std::thread::sleep(Duration::from_millis(1));
    }
    // They are counted just before they are entered.
    std::thread::sleep(Duration::from_millis(300));
}

#[test]
fn lines_and_lengths_are_published_and_seen() {
    let broker = Running::default();
    let lines = ctl(&broker, &["subscribe", "count=3", "a.>"]);
    let lengths = ctl(&broker, &["subscribe", "count=3", "framing=length", "a.>"]);
    let json = ctl(&broker, &["subscribe", "count=3", "--json", "a.>"]);
    settle(&broker, 3);
    check(&run(&broker, &["publish", "a.b"], b"one\n\nth\"ree"), 0, "");
    check(&lines.wait_with_output().unwrap(), 0, "one\n\nth\"ree\n");
    let expect = "\0\0\0\x03one\0\0\0\0\0\0\0\x06th\"ree";
    check(&lengths.wait_with_output().unwrap(), 0, expect);
    let seen = String::from_utf8(json.wait_with_output().unwrap().stdout).unwrap();
    let uid = format!("\"uid\":{},", broker_support::own_uid());
    assert!(
        seen.lines()
            .all(|l| l.starts_with("{\"subject\":\"a.b\",") && l.contains(&uid))
    );
    assert!(seen.ends_with("\"body\":\"th\\\"ree\"}\n"), "{seen}");

    let one = ctl(&broker, &["subscribe", "count=1", "b"]);
    settle(&broker, 1);
    let input = b"\0\0\0\x03a\nb";
    check(
        &run(
            &broker,
            &["publish", "framing=length", "confirm=yes", "b"],
            input,
        ),
        0,
        "",
    );
    check(&one.wait_with_output().unwrap(), 0, "a\nb\n");
}

#[test]
fn a_command_answers_requests() {
    let broker = Running::default();
    let none = run(&broker, &["request", "up.x"], b"");
    check(&none, 69, "");
    assert!(String::from_utf8_lossy(&none.stderr).contains("no responder"));
    let script = "tr a-z A-Z; echo \" $SECURE_SOCKET_SUBJECT $SECURE_SOCKET_UID\"";
    let arguments = ["respond", "count=2", "up.*", "--", "sh", "-c", script];
    let mut responder = ctl(&broker, &arguments);
    settle(&broker, 1);
    let uid = broker_support::own_uid();
    check(
        &run(&broker, &["request", "up.x"], b"what"),
        0,
        &format!("WHAT up.x {uid}\n"),
    );
    let long = vec![b'a'; 300_000];
    let answer = run(&broker, &["request", "up.y"], &long);
    assert_eq!(
        answer.stdout.len(),
        long.len() + format!(" up.y {uid}\n").len()
    );
    assert!(responder.wait().unwrap().success());
}

#[test]
fn commands_are_bounded_in_number_and_time() {
    let limits = Limits {
        request_timeout: Duration::from_secs(3),
        ..Limits::default()
    };
    let broker = Running::new(broker_support::multi(), limits, Permits::default());
    let parallel = [
        "respond",
        "respond_parallel=2",
        "p",
        "--",
        "sh",
        "-c",
        "sleep 0.5; echo x",
    ];
    let mut responder = ctl(&broker, &parallel);
    let slow = [
        "respond",
        "respond_timeout=500ms",
        "s",
        "--",
        "sh",
        "-c",
        "sleep 60",
    ];
    let mut stuck = ctl(&broker, &slow);
    settle(&broker, 2);
    let begin = Instant::now();
    let asking: Vec<Child> = (0..4).map(|_| ctl(&broker, &["request", "p"])).collect();
    for child in asking {
        check(&child.wait_with_output().unwrap(), 0, "x\n");
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(900),
        "more than two at once"
    );
    // It is killed, and answers nothing; the broker says so in its time.
    let timeout = run(&broker, &["request", "s"], b"");
    check(&timeout, 69, "");
    assert!(String::from_utf8_lossy(&timeout.stderr).contains("timeout"));
    for child in [&mut responder, &mut stuck] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// More than the responder takes in at once: the rest waits with the broker, and
/// each is answered.
#[test]
fn more_requests_than_wait_in_a_responder_are_all_answered() {
    const REQUESTS: usize = 600;
    let broker = Running::default();
    let arguments = ["respond", "respond_parallel=8", "q", "--", "cat"];
    let mut responder = ctl(&broker, &arguments);
    settle(&broker, 1);
    let timeout = Duration::from_secs(60);
    let mut client =
        Client::connect(&broker.path, &ServerIdentity::root_or_self(), timeout).unwrap();
    let mut open = std::collections::BTreeMap::new();
    for number in 0..REQUESTS {
        let body = number.to_string().into_bytes();
        open.insert(client.ask("q", &body).unwrap(), body);
    }
    while !open.is_empty() {
        match client.next(Some(Instant::now() + timeout)).unwrap() {
            Some(Event::Answer { id, body, .. }) => assert_eq!(open.remove(&id), Some(body)),
            other => panic!("{other:?} with {} to come", open.len()),
        }
    }
    responder.kill().unwrap();
    responder.wait().unwrap();
}

/// A broker of frames of 64 KiB at most, and of requests that don't take long.
fn small_and_quick() -> Running {
    let limits = Limits {
        frame: FrameLimit::new(64 << 10).unwrap(),
        request_timeout: Duration::from_secs(3),
        ..Limits::default()
    };
    Running::new(broker_support::multi(), limits, Permits::default())
}

#[test]
fn an_answer_that_the_broker_does_not_take_is_none_and_the_next_request_gets_its_own() {
    let broker = small_and_quick();
    let script = "head -c $(cat) /dev/zero | tr '\\0' x";
    let mut responder = ctl(&broker, &["respond", "n", "--", "sh", "-c", script]);
    settle(&broker, 1);
    for bytes in ["100000", "65537"] {
        let none = run(&broker, &["request", "n"], bytes.as_bytes());
        check(&none, 69, "");
        assert!(String::from_utf8_lossy(&none.stderr).contains("timeout"));
    }
    for bytes in [65_536, 5] {
        let answer = run(&broker, &["request", "n"], bytes.to_string().as_bytes());
        check(&answer, 0, &"x".repeat(bytes));
    }
    responder.kill().unwrap();
    responder.wait().unwrap();
}

/// The processes whose numbers a script wrote down, and whether each runs.
fn left_behind(file: &Path) -> Vec<(u32, bool)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let runs = |pid: &u32| {
        // Empty for one that nobody has waited for yet (proc_pid_cmdline(5)).
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
    };
    let pids = text.lines().map(|line| line.parse().unwrap());
    pids.map(|pid| (pid, runs(&pid))).collect()
}

#[test]
fn what_a_command_left_in_its_group_goes_with_it_unless_it_did_well() {
    let broker = small_and_quick();
    let dir = TempDir::new();
    let file = dir.join("pids");
    // The first of them holds the answer open beyond the time.
    let script = "case $(cat) in \
        held) sleep 7777 & echo $! >> $0; exit 0;; \
        failed) sleep 7777 > /dev/null & echo $! >> $0; exit 1;; \
        kept) sleep 7777 > /dev/null & echo $! >> $0; echo well;; esac";
    let arguments = [
        "respond",
        "respond_timeout=1s",
        "g",
        "--",
        "sh",
        "-c",
        script,
        file.to_str().unwrap(),
    ];
    let mut responder = ctl(&broker, &arguments);
    settle(&broker, 1);
    for (request, count) in [("held", 1), ("held", 2), ("failed", 3)] {
        check(&run(&broker, &["request", "g"], request.as_bytes()), 69, "");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = left_behind(&file);
            if left.len() == count && left.iter().all(|(_, runs)| !runs) {
                break;
            }
            assert!(Instant::now() < deadline, "{request}: {left:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    check(&run(&broker, &["request", "g"], b"kept"), 0, "well\n");
    let (pid, runs) = *left_behind(&file).last().unwrap();
    assert!(runs, "it was left by one that did well");
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    responder.kill().unwrap();
    responder.wait().unwrap();
}

/// No permission is what is missing then.
#[test]
fn a_broker_that_is_gone_is_a_service_that_is_not_there() {
    for signal in ["TERM", "KILL"] {
        let mut daemon = Daemon::start(&["service=broker", "stop_timeout=100ms"]);
        let mut subscriber = ctl_at(&daemon.socket, &["subscribe", "a"]);
        let responder = ctl_at(&daemon.socket, &["respond", "b", "--", "cat"]);
        let mut lines = BufReader::new(subscriber.stdout.take().unwrap());
        let mut client = Client::connect(
            &daemon.socket,
            &ServerIdentity::root_or_self(),
            Duration::from_secs(60),
        )
        .unwrap();
        // Until there is a responder, it is refused.
        while client.request("b", b"x").is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (seen, sees) = std::sync::mpsc::channel();
        let reading = std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
                let _ = seen.send(());
            }
        });
        while sees.try_recv().is_err() {
            client.publish("a", b"x").unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon.signal(signal);
        daemon.wait();
        for (name, child) in [("subscribe", subscriber), ("respond", responder)] {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(69), "{signal} {name}: {said}");
        }
        reading.join().unwrap();
    }
}

#[test]
fn a_broker_that_turns_somebody_away_gives_no_permission() {
    let daemon = Daemon::start(&["service=broker", "deny=any"]);
    let output = ctl_at(&daemon.socket, &["subscribe", "a"])
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(77));
}
