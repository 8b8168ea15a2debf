//! What the tests of the listener share: directories of their own, helpers that
//! run as another user, and a look at files.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

#[allow(
    clippy::duplicate_mod,
    reason = "some tests have two folders of support"
)]
#[path = "../support/skip.rs"]
mod skipping;

#[allow(unused_imports, reason = "each test program uses its own part of it")]
pub use skipping::{skip, skip_by_kernel};

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use secure_socket::listener::{Address, BindError, Bound, Listener, Options, SocketPath};

/// An unprivileged user that every test machine has.
pub const NOBODY: u32 = 65534;
/// Two ids that no account needs to have.
pub const SERVICE: u32 = 64_001;
pub const HOSTILE: u32 = 64_002;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory of mode 0755 that is removed in the end.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = fs::canonicalize(std::env::temp_dir()).unwrap();
        let path = base.join(format!("ss-test-{}-{number}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        set_mode(&path, 0o755);
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A directory in here with this mode and owner.
    pub fn directory(&self, name: &str, mode: u32, owner: Option<u32>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        set_mode(&path, mode);
        if let Some(owner) = owner {
            std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
        }
        path
    }

    /// Everything beneath, with type and mode, to compare.
    pub fn listing(&self) -> Vec<String> {
        listing(&self.0)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Everything beneath, with type, mode, owner, group and inode.
pub fn listing(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    list(directory, &mut found);
    found.sort();
    found
}

fn list(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        found.push(format!(
            "{} {:o} {}:{} {}",
            path.display(),
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.ino()
        ));
        if stat.is_dir() {
            list(&path, found);
        }
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Mode, owner and group of what lies at the path.
pub fn rights(path: &Path) -> (u32, u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.mode() & 0o7777, stat.uid(), stat.gid())
}

pub fn unix(path: &Path) -> Options {
    Options::new(Address::Unix(SocketPath::parse(path.as_os_str()).unwrap()))
}

pub fn bind(path: &Path) -> Result<Listener<Bound>, BindError> {
    Listener::bind(&unix(path))
}

/// The whole text of an error, with its causes.
pub fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a test that needs root can run. Where CI is set, it must.
pub fn needs_root() -> bool {
    if is_root() {
        return true;
    }
    skip("root");
    false
}

/// The task that this process was started for by [`helper`].
pub fn task() -> Option<PathBuf> {
    std::env::var_os("LISTENER_TEST_TASK").map(PathBuf::from)
}

/// Runs the test `name` of this binary in a process of its own, as `user`, with
/// `task` to work on.
pub fn helper(name: &str, user: Option<u32>, task: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env("LISTENER_TEST_TASK", task);
    // What it prints as a test would tear a line of the test that started it.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command
}

/// Leaves a socket at which nobody listens. A child that another test forks meanwhile has
/// it, too, until it executes its program.
#[track_caller]
pub fn stale(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
    for _ in 0..1000 {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    panic!("{} is in use", path.display());
}

/// Kills the child and waits for it, also when the test fails.
pub struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
