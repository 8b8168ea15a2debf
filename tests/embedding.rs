//! The library in programs of others: one that confines itself, one that has threads
//! already, one with a logger of its own, one with several servers.
//!
//! Each case starts this program again as such a program, and is its peers. Without
//! the standard test harness, since that starts threads, and a process is sealed
//! while it has one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

#[path = "embedding/programs.rs"]
mod programs;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use support::{PATIENCE, TempDir, is_root};

/// A program that embeds the library, in a directory of its own.
struct Program {
    child: Child,
    dir: TempDir,
}

impl Program {
    #[track_caller]
    fn start(name: &str, rule: &str) -> Self {
        let dir = TempDir::new();
        let log = std::fs::File::create(dir.join("output")).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["program", name, rule])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // It is looked for below, and must not be the death of the program.
            .env("RUST_BACKTRACE", "1")
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let program = Self { child, dir };
        assert_eq!(line, "ready\n", "{name}: {}", program.output());
        program
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.dir.join("output")).unwrap()
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(name)
    }

    /// Sends a line and gives what comes back until the end.
    #[track_caller]
    fn ask(&self, socket: &str, text: &str) -> String {
        let mut stream = UnixStream::connect(self.socket(socket)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // One that was turned away may be gone before the line is written.
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.write_all(b"\n");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    /// Ends its standard input, which is how these programs are asked to stop.
    #[track_caller]
    fn stop(&mut self) {
        drop(self.child.stdin.take());
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.output());
    }

    fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it did not end: {}", self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What another user gets from a socket: nothing.
fn as_nobody(socket: &Path) -> Vec<u8> {
    let output = Command::new("socat")
        .args(["-t2", "-"])
        .arg(format!("UNIX-CONNECT:{}", socket.display()))
        .uid(65_534)
        .gid(65_534)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    output.stdout
}

fn a_service_behind_the_walls_of_its_process() {
    let mut program = Program::start("confined", "uid:self");
    assert_eq!(program.ask("a", "hello"), "hello\n");
    assert_eq!(program.ask("a", "open /etc/passwd"), "PermissionDenied\n");
    assert_eq!(program.ask("a", "note"), "noted\n");
    let status = program.ask("a", "status");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    // A panic ends that connection only, and its backtrace does not end the process.
    assert_eq!(program.ask("a", "panic"), "");
    assert_eq!(program.ask("a", "hello"), "hello\n");
    program.stop();
    assert!(!program.socket("a").exists());
    let output = program.output();
    assert!(output.contains("on purpose"), "{output}");
    let noted = std::fs::read_to_string(program.dir.join("data/notes")).unwrap();
    assert_eq!(noted, "a note\n");
}

fn only_the_servers_threads_are_confined() {
    let mut program = Program::start("threads", "uid:self");
    assert_eq!(program.ask("a", "hello"), "hello\n");
    assert_eq!(program.ask("a", "open /etc/passwd"), "PermissionDenied\n");
    let status = program.ask("a", "status");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    // The other threads do what they like all the while, and say so at the end.
    program.stop();
    let output = program.output();
    assert!(output.contains("the others opened files"), "{output}");
    assert!(output.contains("the others ran a program"), "{output}");
}

fn rules_that_name_a_program(name: &str) {
    let mut program = Program::start(name, "uid:self,exe:/usr/bin/socat");
    assert_eq!(program.ask("a", "hello"), "", "another program");
    let mut socat = Command::new("socat")
        .args(["-t2", "-"])
        .arg(format!("UNIX-CONNECT:{}", program.socket("a").display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    socat.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = socat.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"hello\n", "{}", program.output());
    program.stop();
}

fn the_programs_own_logger_gets_the_lines() {
    let mut program = Program::start("logger", "uid:self");
    assert_eq!(program.ask("a", "hello"), "hello\n");
    program.stop();
    let output = program.output();
    let admitted = output.lines().find(|line| line.contains("peer admitted"));
    let admitted = admitted.unwrap_or_else(|| panic!("{output}"));
    assert!(admitted.starts_with("OWN INFO secure_socket::server"));
    assert!(admitted.contains("conn=1"), "{admitted}");
}

fn several_servers_at_once() {
    let mut program = Program::start("several", "uid:self");
    for round in 0..3 {
        assert_eq!(program.ask("a", "hello"), "hello\n", "{round}");
        assert_eq!(program.ask("b", "hello"), "olleh\n", "{round}");
    }
    // One is stopped by its handle, from a service of the other.
    assert_eq!(program.ask("b", "stop"), "pots\n", "{}", program.output());
    let until = Instant::now() + PATIENCE;
    while program.socket("a").exists() {
        assert!(Instant::now() < until, "{}", program.output());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(UnixStream::connect(program.socket("a")).is_err());
    assert_eq!(program.ask("b", "hello"), "olleh\n");
    program.stop();
}

fn others_are_turned_away() {
    let mut program = Program::start("confined", "uid:self|uid:65533");
    assert_eq!(program.ask("a", "hello"), "hello\n");
    // Widened by hand, so that the policy alone is left.
    support::set_mode(&program.socket("a"), 0o666);
    support::set_mode(program.socket("a").parent().unwrap(), 0o755);
    assert_eq!(as_nobody(&program.socket("a")), b"");
    program.stop();
    let output = program.output();
    assert!(output.contains("peer denied uid=65534"), "{output}");
}

fn run(name: &str, needs_root: bool, case: impl FnOnce()) {
    if needs_root && !is_root() {
        support::skip(&format!("root: {name}"));
        return;
    }
    case();
    println!("test {name} ... ok");
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if let [_, word, name, rule, dir] = &words[..]
        && word == "program"
    {
        programs::main(name, rule, Path::new(dir));
        return ExitCode::SUCCESS;
    }
    run(
        "a_service_behind_the_walls_of_its_process",
        false,
        a_service_behind_the_walls_of_its_process,
    );
    run(
        "only_the_servers_threads_are_confined",
        false,
        only_the_servers_threads_are_confined,
    );
    for name in ["confined", "threads"] {
        run(&format!("rules_that_name_a_program {name}"), true, || {
            rules_that_name_a_program(name);
        });
    }
    run(
        "the_programs_own_logger_gets_the_lines",
        false,
        the_programs_own_logger_gets_the_lines,
    );
    run("several_servers_at_once", false, several_servers_at_once);
    run("others_are_turned_away", true, others_are_turned_away);
    ExitCode::SUCCESS
}
