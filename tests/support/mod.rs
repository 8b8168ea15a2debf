//! Starts the daemon for a test, talks to it as other users, and says plainly
//! what a test needs that this machine lacks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part of it"
)]

#[path = "skip.rs"]
mod skipping;

#[allow(unused_imports, reason = "each test program uses its own part of it")]
pub use skipping::skip;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Leaves the test, visibly, if this machine lacks what it needs. Where `CI` is
/// set nothing may be lacking.
#[macro_export]
macro_rules! needs {
    (root $(, $program:literal)*) => {
        if !$crate::support::is_root() {
            return $crate::support::skip("root");
        }
        $crate::needs!($($program),*);
    };
    ($($program:literal),*) => {
        $(if !$crate::support::has_program($program) {
            return $crate::support::skip($program);
        })*
    };
}

/// Whether the test runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a program is in the PATH, or where servers are.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    folders.iter().any(|folder| folder.join(name).exists())
}

/// A directory of its own below `/tmp`, removed at the end. Others may cross it.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/sst-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        set_mode(&path, 0o755);
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// chmod(2).
pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Copies a program by another process: were this one to hold it open for writing
/// while a thread forks, its execution could fail as busy (execve(2), ETXTBSY).
pub fn copy_program(from: impl AsRef<Path>, to: &Path) {
    let status = Command::new("cp").arg(from.as_ref()).arg(to).status();
    assert!(status.unwrap().success());
    set_mode(to, 0o755);
}

/// Sends a signal by name, e.g. `TERM`, to a child that was not waited for.
#[track_caller]
pub fn signal(child: &Child, name: &str) {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = match name {
        "ALRM" => Signal::ALARM,
        "CONT" => Signal::CONT,
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "KILL" => Signal::KILL,
        "PIPE" => Signal::PIPE,
        "QUIT" => Signal::QUIT,
        "STOP" => Signal::STOP,
        "TERM" => Signal::TERM,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        other => panic!("no signal {other} here"),
    };
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A running daemon, killed at the end if it still runs.
pub struct Daemon {
    child: Child,
    log: PathBuf,
    pub socket: PathBuf,
    _dir: TempDir,
}

impl Daemon {
    /// Starts it with a socket of its own and these further options; waits until
    /// it serves.
    #[track_caller]
    pub fn start(options: &[&str]) -> Self {
        let mut daemon = Self::spawn(options);
        daemon.wait_until_ready();
        daemon
    }

    /// Starts it and doesn't wait.
    #[track_caller]
    pub fn spawn(options: &[&str]) -> Self {
        Self::spawn_by(Command::new(env!("CARGO_BIN_EXE_secure_socket")), options)
    }

    /// Starts it by another command (`setpriv`, `strace`), to which the daemon's
    /// options are appended.
    #[track_caller]
    pub fn spawn_by(mut command: Command, options: &[&str]) -> Self {
        let dir = TempDir::new();
        let socket = dir.join("run/test.sock");
        let log = dir.join("stdout");
        let given = options
            .iter()
            .find_map(|option| option.strip_prefix("socket_path="));
        let socket = given.map_or(socket, PathBuf::from);
        if given.is_none() {
            command.arg(format!("socket_path={}", socket.display()));
        }
        command.args(options).stdin(Stdio::null());
        command.stdout(fs::File::create(&log).unwrap());
        command.stderr(fs::File::options().append(true).open(&log).unwrap());
        let child = command.spawn().unwrap();
        Self {
            child,
            log,
            socket,
            _dir: dir,
        }
    }

    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        self.wait_for_log("ready:");
    }

    /// Waits until the log has such a text.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it wrote last may have come since.
                assert!(
                    self.log().contains(text),
                    "ended with {status}, no {text:?} in:\n{}",
                    self.log()
                );
                return;
            }
            assert!(Instant::now() < end, "no {text:?} in:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// All that it wrote to stdout and stderr.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// TERM, and the exit status.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < end,
                "did not end; its log:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A connection as the user that runs the test.
    #[track_caller]
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Number of threads and of open descriptors.
    pub fn resources(&self) -> (usize, usize) {
        let count = |what: &str| {
            fs::read_dir(format!("/proc/{}/{what}", self.pid())).map_or(0, Iterator::count)
        };
        (count("task"), count("fd"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends text, ends the sending side, and reads to the end.
#[track_caller]
pub fn round_trip(mut stream: &UnixStream, text: &[u8]) -> Vec<u8> {
    stream.write_all(text).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Whether the peer closes without a byte. A reset is a close.
#[track_caller]
pub fn is_turned_away(mut stream: &UnixStream) -> bool {
    let mut answer = [0; 1];
    match stream.read(&mut answer) {
        Ok(length) => length == 0,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
        Err(error) => panic!("neither served nor closed: {error}"),
    }
}

/// Runs the daemon to its end and gives what it printed.
pub fn run(options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_secure_socket"))
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A command that runs as another user and group without supplementary groups:
/// numbers or names, as setpriv(1) takes them.
pub fn as_user(user: &str, group: &str, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        user,
        "--regid",
        group,
        "--clear-groups",
        "--",
        program,
    ]);
    command
}
