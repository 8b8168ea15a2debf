//! Each example, run as its user would run it. `cargo test` builds them; for this test
//! alone: `cargo build --examples` first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "daemon")]

// Its own tests run here: cargo builds an example as a program or with its tests.
#[path = "../examples/policy_double.rs"]
#[allow(dead_code)]
mod policy_double;
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use support::{Daemon, PATIENCE, TempDir};

/// The example, as cargo builds it.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let path = tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        path.exists(),
        "{} is not built: cargo build --examples",
        path.display()
    );
    Command::new(path)
}

/// A server that is killed at the end.
struct Server(Child);

impl Server {
    #[track_caller]
    fn start(mut command: Command, socket: &Path) -> Self {
        let server = Self(command.stdin(Stdio::null()).spawn().unwrap());
        let until = Instant::now() + PATIENCE;
        while !socket.exists() {
            assert!(Instant::now() < until, "{} is not there", socket.display());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn text(output: Output) -> String {
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What a user of these groups gets for these bytes.
#[track_caller]
fn as_user(uid: u32, groups: &str, socket: &Path, sent: &[u8]) -> String {
    let mut client = Command::new("setpriv")
        .args([format!("--reuid={uid}"), format!("--regid={uid}")])
        .arg(if groups.is_empty() {
            String::from("--clear-groups")
        } else {
            format!("--groups={groups}")
        })
        .args(["socat", "-t2", "-"])
        .arg(format!("UNIX-CONNECT:{}", socket.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // One that may not connect is gone before it reads.
    let _ = client.stdin.take().unwrap().write_all(sent);
    let mut answer = String::new();
    client
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut answer)
        .unwrap();
    client.wait().unwrap();
    answer
}

#[test]
fn echo_serves_whoever_runs_it() {
    let dir = TempDir::new();
    let socket: PathBuf = dir.join("run/echo.sock");
    let mut command = example("echo");
    command.arg(&socket);
    let _server = Server::start(command, &socket);
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"ten lines").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "ten lines");
}

#[test]
fn the_store_is_for_one_group() {
    needs!(root, "setpriv", "socat");
    let dir = TempDir::new();
    let socket = dir.join("run/store.sock");
    let mut command = example("kv_store");
    command.arg(&socket).arg("www-data");
    let _server = Server::start(command, &socket);
    let answer = as_user(
        1234,
        "33",
        &socket,
        b"set colour deep blue\nget colour\ndel none\nhm\n",
    );
    let expected =
        "ok\n= deep blue (uid 1234)\nnone\nerror expected get KEY, set KEY VALUE or del KEY\n";
    assert_eq!(answer, expected);
    assert_eq!(
        as_user(1235, "33", &socket, b"get colour\n"),
        "= deep blue (uid 1234)\n"
    );
    assert_eq!(as_user(1234, "", &socket, b"get colour\n"), "");
    // Root is in no rule.
    assert_eq!(as_user(0, "", &socket, b"get colour\n"), "");
    let long = vec![b'x'; 5000];
    assert!(as_user(1234, "33", &socket, &long).starts_with("error the line is longer"));
}

/// What the example with privileges says to these guesses.
fn guess(guesses: &[u8]) -> Output {
    let dir = TempDir::new();
    let secret = dir.join("secret");
    std::fs::write(&secret, "xyzzy\n").unwrap();
    support::set_mode(&secret, 0o600);
    // The front runs the same program as nobody, who must be able to reach it.
    let program = dir.join("program");
    support::copy_program(example("privilege_separation").get_program(), &program);
    let mut helper = Command::new(&program)
        .arg(&secret)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    helper.stdin.take().unwrap().write_all(guesses).unwrap();
    helper.wait_with_output().unwrap()
}

#[test]
fn the_front_learns_whether_a_guess_is_right_and_no_more() {
    needs!(root);
    assert_eq!(
        text(guess(b"plugh\nxyzzy\n")),
        "uid 65534: \"plugh\" is wrong\nuid 65534: \"xyzzy\" is right\n"
    );
}

#[test]
fn a_guess_is_bounded_and_the_failure_of_the_front_is_the_helpers() {
    needs!(root);
    let longest = [&[b'x'; 1023][..], b"\nxyzzy"].concat();
    assert!(text(guess(&longest)).ends_with("\"xyzzy\" is right\n"));
    for beyond in [&[b'x'; 1024][..], &[b'x'; 1 << 15]] {
        let output = guess(&[b"plugh\n", beyond].concat());
        let (said, errors) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(output.status.code(), Some(1), "{said}{errors}");
        assert_eq!(said, "uid 65534: \"plugh\" is wrong\n");
        assert!(errors.contains("at most 1023 bytes"), "{errors}");
        assert!(errors.contains("the front has failed"), "{errors}");
    }
}

#[test]
fn the_broker_client_gets_its_message_and_its_answer() {
    let daemon = Daemon::start(&["service=broker"]);
    let said = text(
        example("broker_client")
            .arg(&daemon.socket)
            .output()
            .unwrap(),
    );
    let uid = rustix::process::geteuid().as_raw();
    let mut lines = said.lines();
    let first = format!("orders.new: three apples from uid {uid}");
    assert_eq!(lines.next(), Some(first.as_str()), "{said}");
    assert!(
        lines.next().unwrap().starts_with("QUIETLY by pid Some("),
        "{said}"
    );
}

#[test]
fn the_logger_alone_rolls_its_file_and_lets_nobody_forge_a_line() {
    let dir = TempDir::new();
    let file = dir.join("log/app.log");
    let said = text(example("log_alone").arg(&file).output().unwrap());
    let forged = said
        .lines()
        .find(|line| line.contains("no such user"))
        .unwrap();
    assert!(forged.contains("eve\\n2026"), "{forged}");
    assert!(!said.contains("request"), "{said}");
    let now = std::fs::read_to_string(&file).unwrap();
    assert!(now.contains("from elsewhere"), "{now}");
    // Compressed already, or to be at the next start.
    let files = std::fs::read_dir(dir.join("log")).unwrap();
    let rolled = files.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_str().unwrap().starts_with("app.log.2")
    });
    assert_eq!(rolled.count(), 2);
}

#[test]
fn the_double_says_what_becomes_of_a_peer() {
    let said = text(
        example("policy_double")
            .arg("uid:1000,gid:27")
            .output()
            .unwrap(),
    );
    assert!(
        said.starts_with("admitted by allow rule 2 (gid:27)"),
        "{said}"
    );
    let said = text(
        example("policy_double")
            .arg("uid:33,exe:/bin/sh,groups:33")
            .output()
            .unwrap(),
    );
    assert!(said.starts_with("denied: "), "{said}");
}
