//! Programs in C against the header and the library: built with every warning an
//! error, and run.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Leaves a test, visibly, unless in CI, where nothing is skipped.
fn skip(what: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "needs {what}, and in CI nothing is skipped"
    );
    eprintln!("SKIP: needs {what}");
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// By the owner of what describes this process (proc(5)).
fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A directory that others may cross, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/tmp/ssc-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The library, as cargo builds it: beside the tests, or where their dependencies are.
fn library() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let deps = tests.parent().unwrap();
    let name = "libsecure_socket_c.so";
    let places = [deps.join(name), deps.parent().unwrap().join(name)];
    let found = places.iter().find(|path| path.exists());
    found
        .unwrap_or_else(|| panic!("{name} is not built: cargo build"))
        .clone()
}

/// Builds a program for the library in a directory.
fn build(source: &Path, dir: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = library();
    let program = dir.join("program");
    let output = Command::new("gcc")
        .args(["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-g"])
        .args([
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Wconversion",
            "-Werror",
            "-I",
        ])
        .arg(root.join("include"))
        .arg(source)
        .arg("-o")
        .arg(&program)
        .arg(&library)
        .arg(format!(
            "-Wl,-rpath,{}",
            library.parent().unwrap().display()
        ))
        .arg("-pthread")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    program
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// The example, for its own user.
    fn of_the_example(dir: &Dir) -> (Self, PathBuf, PathBuf) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/c/guarded_echo.c");
        let program = build(&source, &dir.0);
        let (socket, log) = (dir.0.join("run/echo.sock"), dir.0.join("log/echo.log"));
        let server = Command::new(&program)
            .arg(&socket)
            .arg("uid:self")
            .arg(&log)
            .spawn()
            .unwrap();
        let server = Self(server);
        wait_for(&socket);
        (server, socket, log)
    }

    /// Asks it to end, and gives its exit code.
    fn stop(&mut self) -> Option<i32> {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
        self.wait()
    }

    fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it did not end");
    }
}

fn wait_for(path: &Path) {
    let until = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < until, "{} is not there", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ask(socket: &Path, text: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// What a user in no rule is answered, once nothing but the policy is in his way.
fn ask_as_nobody(socket: &Path, text: &str) -> Vec<u8> {
    for (path, mode) in [(socket.parent().unwrap(), 0o755), (socket, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut stranger = Command::new("socat")
        .args(["-t2", "-"])
        .arg(format!("UNIX-CONNECT:{}", socket.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .uid(65_534)
        .gid(65_534)
        .spawn()
        .unwrap();
    // One that is turned away may be gone before it reads.
    let _ = stranger.stdin.take().unwrap().write_all(text.as_bytes());
    stranger.wait_with_output().unwrap().stdout
}

#[test]
fn the_example_serves_whom_its_rule_admits_and_logs() {
    if !has("gcc") {
        return skip("gcc");
    }
    let dir = Dir::new("echo");
    let (mut server, socket, log) = Server::of_the_example(&dir);
    assert_eq!(ask(&socket, "from c"), "from c");
    let has_stranger = is_root() && has("socat");
    if has_stranger {
        assert_eq!(ask_as_nobody(&socket, "let me in"), b"");
    } else {
        skip("root and socat");
    }
    assert_eq!(ask(&socket, "again"), "again");
    assert_eq!(server.stop(), Some(0));
    assert!(!socket.exists(), "the socket is unlinked");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("serving uid"), "{log}");
    assert!(log.contains("guarded_echo.c:"), "{log}");
    assert!(log.contains(" main)"), "{log}");
    assert!(log.contains("peer admitted"), "{log}");
    let is_denial = |line: &str| line.contains("peer denied") && line.contains("uid=65534");
    assert_eq!(log.lines().any(is_denial), has_stranger, "{log}");
}

#[test]
fn the_example_is_held_up_by_no_silent_peer_and_ends_when_told() {
    if !has("gcc") {
        return skip("gcc");
    }
    let dir = Dir::new("silent");
    let (mut server, socket, _) = Server::of_the_example(&dir);
    let silent = UnixStream::connect(&socket).unwrap();
    assert_eq!(ask(&socket, "next"), "next");
    drop(silent);
    let mut silent = UnixStream::connect(&socket).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    silent.write_all(b"x").unwrap();
    silent.read_exact(&mut [0]).unwrap();
    // It is being served, and says nothing more.
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn the_example_outlives_a_lack_of_descriptors() {
    if !has("gcc") || !has("prlimit") {
        return skip("gcc and prlimit");
    }
    let dir = Dir::new("descriptors");
    let (mut server, socket, _) = Server::of_the_example(&dir);
    let limit = |soft: &str| {
        let pid = server.0.id().to_string();
        let set = Command::new("prlimit")
            .args(["--pid", &pid])
            .arg(format!("--nofile={soft}:"))
            .status();
        assert!(set.unwrap().success());
    };
    limit("3");
    let waiting = std::thread::spawn({
        let socket = socket.clone();
        move || ask(&socket, "patient")
    });
    // Two calls of accept fail meanwhile.
    std::thread::sleep(Duration::from_millis(1500));
    limit("256");
    let _ = waiting.join().unwrap();
    assert_eq!(ask(&socket, "again"), "again");
    assert_eq!(server.stop(), Some(0));
}

/// A program of the tests, run with one argument: what it says, and its log on stderr.
fn run(name: &str, dir: &Dir, argument: &Path) -> (String, String) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name);
    let program = build(&source, &dir.0);
    let output = Command::new(&program).arg(argument).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    (said, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn wrong_uses_are_told_and_harm_nobody() {
    if !has("gcc") {
        return skip("gcc");
    }
    let dir = Dir::new("misuse");
    let (_, log) = run("misuse.c", &dir, &dir.0.join("run/a.sock"));
    assert!(log.contains("eve \\xff"), "{log}");
    assert!(!log.lines().any(|line| line.starts_with("forged")), "{log}");
    for place in ["by one (wrapper.c:7 one)", "by two (wrapper.c:7 two)"] {
        assert!(log.contains(place), "{place}: {log}");
    }
    assert!(log.contains("of many (many.c:1 main)"), "{log}");
    assert!(log.contains("of many (elsewhere:0 elsewhere)"), "{log}");
    assert_eq!(log.matches("of many").count(), 5000);
}

#[test]
fn children_log_whatever_the_threads_of_their_parent_are_at() {
    if !has("gcc") {
        return skip("gcc");
    }
    let dir = Dir::new("forks");
    let (said, log) = run("forks.c", &dir, &dir.0.join("log/a.log"));
    assert_eq!(said, "100 of 100 children have logged\n");
    assert_eq!(log.matches("in a child").count(), 100, "{log}");
}
