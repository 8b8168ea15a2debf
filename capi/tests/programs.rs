//! Programs in C against the header and the library: built with every warning an
//! error, and run.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
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

#[test]
fn the_example_serves_whom_its_rule_admits_and_logs() {
    if !has("gcc") {
        return skip("gcc");
    }
    let dir = Dir::new("echo");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/c/guarded_echo.c");
    let program = build(&source, &dir.0);
    let (socket, log) = (dir.0.join("run/echo.sock"), dir.0.join("log/echo.log"));
    let server = Command::new(&program)
        .arg(&socket)
        .arg("uid:self")
        .arg(&log)
        .spawn()
        .unwrap();
    let mut server = Server(server);
    wait_for(&socket);
    assert_eq!(ask(&socket, "from c"), "from c");
    if has("setpriv")
        && std::fs::metadata("/proc/self")
            .unwrap()
            .permissions()
            .mode()
            != 0
    {
        // Widened by hand, so that the policy alone is left.
        let run = socket.parent().unwrap();
        std::fs::set_permissions(run, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
        if let Ok(output) = Command::new("socat")
            .args(["-t2", "-"])
            .arg(format!("UNIX-CONNECT:{}", socket.display()))
            .stdin(Stdio::null())
            .uid(65_534)
            .gid(65_534)
            .output()
        {
            assert_eq!(output.stdout, b"");
        } else {
            skip("root and socat");
        }
    }
    assert_eq!(ask(&socket, "again"), "again");
    let pid = server.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(server.wait(), Some(0));
    assert!(!socket.exists(), "the socket is unlinked");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("serving uid"), "{log}");
    assert!(log.contains("guarded_echo.c:"), "{log}");
    assert!(log.contains(" main)"), "{log}");
    assert!(log.contains("peer admitted"), "{log}");
}

#[test]
fn wrong_uses_are_told_and_harm_nobody() {
    if !has("gcc") {
        return skip("gcc");
    }
    let dir = Dir::new("misuse");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/misuse.c");
    let program = build(&source, &dir.0);
    let output = Command::new(&program)
        .arg(dir.0.join("run/a.sock"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {said}", output.status);
}
