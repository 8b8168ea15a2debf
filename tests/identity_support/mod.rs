//! Real processes for the tests of identity: they connect, exec, fork and lie.
//!
//! A test's own binary is copied to a directory that only root may write, and run
//! from there as "the trusted program" or as another one; the script in its
//! environment says what it does. Everything here needs root.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::zombie_processes,
    unreachable_pub
)]

mod reuse;
#[allow(
    clippy::duplicate_mod,
    reason = "some tests have two folders of support"
)]
#[path = "../support/skip.rs"]
mod skipping;

#[allow(unused_imports, reason = "each test program uses its own part of it")]
pub use skipping::{skip, skip_by_kernel};

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use secure_socket::ids::Uid;
use secure_socket::peer::proof;
use secure_socket::peer::{
    Checker, CheckerConfig, Inspector, Kernel, Needs, Peer, PidfdSource, Pins,
};
use secure_socket::policy::{Authorized, Denial, Names, Numeric, Policy, Rule, SystemNames};

/// Long enough for a loaded machine, short enough for a failing test.
pub const PATIENCE: Duration = Duration::from_secs(20);
const SCRIPT: &str = "IDENTITY_SCRIPT";
const SOCKET: &str = "IDENTITY_SOCKET";

/// A directory for programs and sockets. Removed when dropped.
pub struct Lab {
    pub dir: PathBuf,
}

impl Lab {
    /// `None`, with a word about it, without root; with `CI` set that is a failure.
    pub fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("root");
            return None;
        }
        let name = format!("secure_socket-{name}-{}", std::process::id());
        let dir = Path::new("/var/lib").join(name);
        std::fs::create_dir(&dir).unwrap();
        set_mode(&dir, 0o755);
        Some(Self { dir })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A copy of this test's binary.
    pub fn program(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        copy(&std::env::current_exe().unwrap(), &path);
        path
    }

    /// A socket that everyone may reach, so that the policy alone decides.
    pub fn listener(&self) -> UnixListener {
        let path = self.path("socket");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        secure_socket::sys::peer::pass_credentials(listener.as_fd(), true).unwrap();
        set_mode(&path, 0o666);
        listener
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Copies a program by another process: were this one to hold it open for writing
/// while a thread forks, its execution could fail as busy (execve(2), ETXTBSY).
pub fn copy(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .arg(from)
            .arg(to)
            .status()
            .unwrap()
            .success()
    );
    set_mode(to, 0o755);
}

pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// How to run a program as a user.
#[derive(Clone)]
pub struct As {
    pub uid: u32,
    pub gid: u32,
    pub groups: &'static [u32],
}

pub const WEB: As = As {
    uid: 33,
    gid: 33,
    groups: &[],
};
pub const ROOT: As = As {
    uid: 0,
    gid: 0,
    groups: &[],
};

/// A command that runs `program` with a script, as a user.
pub fn command(program: &Path, user: &As, script: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid));
    if user.groups.is_empty() {
        command.arg("--clear-groups");
    } else {
        let groups: Vec<String> = user.groups.iter().map(ToString::to_string).collect();
        command.arg(format!("--groups={}", groups.join(",")));
    }
    command.arg("--").arg(program).args(HELPER_ARGS);
    prepare(&mut command, script);
    command
}

/// What makes a test's binary run the script and nothing else.
pub const HELPER_ARGS: [&str; 3] = ["--exact", "helper", "--nocapture"];

pub fn prepare(command: &mut Command, script: &str) {
    command.env(SCRIPT, script).current_dir("/");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
}

/// A process that connected, and the server's end of the connection.
pub struct Client {
    pub child: Child,
    pub stream: UnixStream,
}

impl Client {
    /// Lets the process go on past a `wait`.
    pub fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command and accepts its connection.
#[track_caller]
pub fn connect(listener: &UnixListener, mut command: Command) -> Client {
    let mut child = command.spawn().unwrap();
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return Client { child, stream };
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if Instant::now() > deadline {
                    let _ = child.kill();
                    panic!("nobody connected: {command:?}");
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("accept: {error}"),
        }
    }
}

/// Waits until a condition holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a process runs a program.
#[track_caller]
pub fn until_exe(pid: i32, path: &Path) {
    until(&format!("{pid} runs {path:?}"), || {
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == path)
    });
}

/// A policy and all that it takes to judge peers by it.
pub struct Judge {
    pub policy: Policy,
    pub inspector: Inspector,
}

fn checker() -> Checker {
    static CHECKER: OnceLock<Checker> = OnceLock::new();
    let config = CheckerConfig {
        digest_wait: PATIENCE * 3,
        ..CheckerConfig::default()
    };
    let start = || Checker::start(config).unwrap();
    CHECKER.get_or_init(start).clone()
}

pub fn own_user() -> Uid {
    Uid::from_raw(rustix::process::geteuid().as_raw()).unwrap()
}

fn policy(allow: &[&str], deny: &[&str], names: &dyn Names) -> Policy {
    let rules = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| Rule::parse(text, names).unwrap())
            .collect::<Vec<_>>()
    };
    Policy::new(rules(allow), rules(deny), names.own_user())
}

impl Judge {
    pub fn new(allow: &[&str], deny: &[&str]) -> Self {
        Self::with_checker(allow, deny, checker())
    }

    /// With users and groups by name, as the system knows them.
    pub fn with_names(allow: &[&str], deny: &[&str]) -> Self {
        let names = SystemNames {
            own_user: own_user(),
        };
        Self::of(policy(allow, deny, &names), checker())
    }

    pub fn with_checker(allow: &[&str], deny: &[&str], checker: Checker) -> Self {
        let names = Numeric {
            own_user: own_user(),
        };
        Self::of(policy(allow, deny, &names), checker)
    }

    fn of(policy: Policy, checker: Checker) -> Self {
        let _ = Kernel::probe();
        let pins = Pins::open(&policy.exe_paths(), &policy.pids(), None).unwrap();
        Self {
            policy,
            inspector: Inspector::new(pins, Some(checker)),
        }
    }

    /// The peer of an accepted connection.
    pub fn peer(&self, stream: &UnixStream) -> Peer {
        Peer::from_socket(stream.as_fd(), self.policy.needs(), PidfdSource::Socket)
    }

    pub fn judge(&self, peer: &Peer) -> Result<Authorized, Denial> {
        let mut facts = peer.facts().clone();
        self.policy.judge(&mut facts, |facts, needs| {
            self.inspector.learn(peer, facts, needs)
        })
    }

    /// `rule N` or the code of the denial.
    pub fn verdict(&self, stream: &UnixStream) -> String {
        word(&self.judge(&self.peer(stream)))
    }

    /// As a server with `process_proof=yes` does it: check, proof, check.
    pub fn verdict_with_proof(&self, stream: &UnixStream, wait: Duration) -> String {
        let peer = self.peer(stream);
        let first = self.judge(&peer);
        if first.is_err() {
            return word(&first);
        }
        let deadline = Instant::now() + wait;
        match proof::challenge(stream.as_fd(), peer.pid().unwrap(), deadline) {
            Ok(()) => word(&self.judge(&peer)),
            Err(failure) => secure_socket::policy::DenialReason::from(&failure)
                .code()
                .to_owned(),
        }
    }
}

pub fn word(verdict: &Result<Authorized, Denial>) -> String {
    match verdict {
        Ok(peer) => format!("rule {}", peer.rule_number()),
        Err(denial) => denial.reason.code().to_owned(),
    }
}

/// SHA-256 of a file, by the system's own program.
pub fn sha256sum(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// Runs a server with a script of its own, in another process: returns the line
/// that it says its verdict in.
pub fn said_verdict(child: &mut Child) -> String {
    let mut said = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    let line = said
        .lines()
        .find_map(|line| line.split_once("VERDICT "))
        .map(|(_, word)| word);
    line.unwrap_or_else(|| panic!("no verdict in {said:?}"))
        .trim()
        .to_owned()
}

/// The other side: what a copied binary does. Steps are separated by `;`.
pub fn run_script() {
    let Ok(script) = std::env::var(SCRIPT) else {
        return;
    };
    // A program before this one may have left its connection in place of stderr.
    let mut stream = std::env::var_os(SOCKET)
        .map(|_| UnixStream::from(std::io::stderr().as_fd().try_clone_to_owned().unwrap()));
    let mut rest = script.as_str();
    while !rest.is_empty() {
        let (step, after) = rest.split_once(';').unwrap_or((rest, ""));
        rest = after;
        let (verb, value) = step.trim().split_once(' ').unwrap_or((step.trim(), ""));
        match verb {
            "connect" => stream = Some(UnixStream::connect(value).unwrap()),
            "write" => stream
                .as_mut()
                .unwrap()
                .write_all(value.as_bytes())
                .unwrap(),
            // As much as the other side takes.
            "flood" => while stream.as_mut().unwrap().write_all(&[7; 512]).is_ok() {},
            "drain" => {
                while stream
                    .as_mut()
                    .unwrap()
                    .read(&mut [0; 512])
                    .is_ok_and(|n| n > 0)
                {}
            }
            "bulk" => {
                let bytes = vec![7; value.parse().unwrap()];
                stream.as_mut().unwrap().write_all(&bytes).unwrap();
            }
            // As much as all buffers on the way take, and says how much that was.
            "fill" => {
                let stream = stream.as_mut().unwrap();
                let pause = Some(Duration::from_millis(500));
                stream.set_write_timeout(pause).unwrap();
                let mut written = 0;
                while let Ok(length) = stream.write(&[7; 4096]) {
                    written += length;
                }
                say(value, &written.to_string());
            }
            "packets" => send_packets(value),
            // Held to the end.
            "memory" => std::mem::forget(vec![7_u8; value.parse().unwrap()]),
            "wait" => drop(std::io::stdin().read(&mut [0; 1])),
            "comm" => std::fs::write("/proc/self/comm", value).unwrap(),
            "ask" => {
                let stream = stream.as_mut().unwrap();
                let mut answer = [0; 4];
                let asked = stream
                    .write_all(b"ping")
                    .and_then(|()| stream.read_exact(&mut answer));
                let said = if asked.is_ok() && &answer == b"ping" {
                    "served"
                } else {
                    "closed"
                };
                say(value, said);
            }
            "eof" => {
                let _ = stream.as_mut().unwrap().read_to_end(&mut Vec::new());
                say(value, &monotonic_ms().to_string());
            }
            "answer" => {
                let deadline = Instant::now() + PATIENCE;
                let answered = proof::answer(stream.as_ref().unwrap().as_fd(), deadline);
                drop(answered);
            }
            "exec" => exec(Command::new(value), stream.as_ref(), rest),
            "memfd" => exec(memfd(), stream.as_ref(), rest),
            "child" => {
                // The child does the rest of the script up to "parent", the parent what follows.
                let (child, parent) = rest.split_once("parent;").unwrap();
                let mut command = Command::new(std::env::current_exe().unwrap());
                hand_over(&mut command, stream.as_ref(), child);
                command.spawn().unwrap();
                rest = parent;
            }
            "undumpable" => {
                use rustix::process::{DumpableBehavior, set_dumpable_behavior};
                set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap();
            }
            "listen" => {
                let _listener = UnixListener::bind(value).unwrap();
                set_mode(Path::new(value), 0o666);
                std::thread::sleep(Duration::from_secs(600));
            }
            "old-kernel" => forget_pidfds(),
            "run" => {
                let mut words = value.split('\u{1f}');
                let mut command = Command::new(words.next().unwrap());
                panic!("exec: {}", command.args(words).env_remove(SCRIPT).exec());
            }
            "serve-by-number" => serve_by(value, PidfdSource::SocketOrNumber),
            "serve" => serve(value),
            "serve-starved" => serve_starved(value),
            "reuse" => reuse::of_the_peer(Path::new(value)),
            "reuse-pinned" => reuse::of_the_rules_process(Path::new(value)),
            "forever" => std::thread::sleep(Duration::from_secs(600)),
            _ => panic!("no such step: {step}"),
        }
    }
    std::process::exit(0);
}

/// `packets COUNT PATH`: numbers, each in a message of its own.
fn send_packets(value: &str) {
    use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType};
    let (count, path) = value.split_once(' ').unwrap();
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = rustix::net::socket(family, kind, None).unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    for number in 0..count.parse::<u32>().unwrap() {
        rustix::net::send(&socket, &number.to_ne_bytes(), SendFlags::empty()).unwrap();
    }
}

/// Writes a file as a whole.
fn say(path: &str, text: &str) {
    let other = format!("{path}.tmp");
    std::fs::write(&other, text).unwrap();
    std::fs::rename(other, path).unwrap();
}

/// Milliseconds of the clock that all processes share.
pub fn monotonic_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}

fn hand_over(command: &mut Command, stream: Option<&UnixStream>, script: &str) {
    command.args(HELPER_ARGS).env(SCRIPT, script);
    if let Some(stream) = stream {
        command
            .env(SOCKET, "stderr")
            .stderr(OwnedFd::from(stream.try_clone().unwrap()));
    }
}

fn exec(mut command: Command, stream: Option<&UnixStream>, rest: &str) {
    hand_over(&mut command, stream, rest);
    panic!("exec: {}", command.exec());
}

fn memfd() -> Command {
    let file = rustix::fs::memfd_create("trusted", rustix::fs::MemfdFlags::empty()).unwrap();
    let mut file = std::fs::File::from(file);
    let mut own = std::fs::File::open("/proc/self/exe").unwrap();
    std::io::copy(&mut own, &mut file).unwrap();
    let raw = std::os::fd::IntoRawFd::into_raw_fd(file);
    Command::new(format!("/proc/self/fd/{raw}"))
}

/// `serve PATH RULE`: binds, accepts one peer, says the verdict.
fn serve(value: &str) {
    let (path, rule) = value.split_once(' ').unwrap();
    let judge = Judge::new(&[rule], &[]);
    let listener = UnixListener::bind(path).unwrap();
    set_mode(Path::new(path), 0o666);
    let (stream, _) = listener.accept().unwrap();
    println!("\nVERDICT {}", judge.verdict(&stream));
}

/// The same with a process that may be held by its number.
fn serve_by(value: &str, source: PidfdSource) {
    let (path, rule) = value.split_once(' ').unwrap();
    let judge = Judge::new(&[rule], &[]);
    let listener = UnixListener::bind(path).unwrap();
    set_mode(Path::new(path), 0o666);
    let (stream, _) = listener.accept().unwrap();
    let peer = Peer::from_socket(stream.as_fd(), judge.policy.needs(), source);
    println!("\nVERDICT {}", word(&judge.judge(&peer)));
}

/// Makes the kernel answer as one before 6.5: SO_PEERPIDFD is no option.
fn forget_pidfds() {
    use seccompiler::{
        SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    };
    let is_pidfd = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 77);
    let rule = SeccompRule::new(vec![is_pidfd.unwrap()]).unwrap();
    let no_such_option = u32::try_from(rustix::io::Errno::NOPROTOOPT.raw_os_error()).unwrap();
    let filter = SeccompFilter::new(
        [(libc::SYS_getsockopt, vec![rule])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(no_such_option),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// The same without a free descriptor, then with some again.
fn serve_starved(value: &str) {
    let (path, rule) = value.split_once(' ').unwrap();
    let judge = Judge::new(&[rule], &[]);
    let listener = UnixListener::bind(path).unwrap();
    set_mode(Path::new(path), 0o666);
    let (stream, _) = listener.accept().unwrap();
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    let starved = judge.verdict(&stream);
    drop(files);
    println!("\nVERDICT {starved}, {}", judge.verdict(&stream));
}

/// Facts that rules of all kinds ask for.
pub fn all_needs() -> Needs {
    Needs::SOCKET.and(Needs::PROCESS)
}

/// A set of one.
pub fn one<T: Ord>(item: T) -> BTreeSet<T> {
    BTreeSet::from([item])
}
