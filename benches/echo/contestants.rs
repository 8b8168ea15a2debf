//! The echo servers that are compared, each started with its own command.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// One server that runs.
pub struct Contestant {
    pub name: &'static str,
    /// Where clients connect.
    pub socket: PathBuf,
    child: Child,
    log: File,
}

/// Ours, as they stand in the tables.
pub const OURS: [&str; 3] = ["multi", "2", "single"];
/// Those that are not the limit.
pub const PEERS: [&str; 3] = ["tokio", "socat", "s6"];
/// The limits of a round trip: a thread for each connection, and one for many.
pub const TALKERS: [&str; 2] = ["C thread", "C epoll"];
/// The limits of accepting, in every shape that there is.
pub const ACCEPTERS: [&str; 5] = ["C thread", "C pool 4", "C pool 16", "C handoff", "C epoll"];

/// A daemon with other options, or another build of it, to be measured beside the
/// rest: `ECHO_BENCH_ALSO="label program option...; label ..."`.
pub fn also() -> Vec<&'static str> {
    let entries = std::env::var("ECHO_BENCH_ALSO").unwrap_or_default();
    let entries: &'static str = entries.leak();
    entries
        .split(';')
        .map(str::trim)
        .filter(|one| !one.is_empty())
        .collect()
}

impl Contestant {
    /// The process and all below it.
    pub fn processes(&self) -> Vec<u32> {
        tree(self.child.id())
    }

    /// KiB of memory, shared pages in part, and how many threads there are.
    pub fn footprint(&self) -> (u64, u64) {
        let processes = self.processes();
        let memory = processes.iter().map(|pid| proportional_kib(*pid)).sum();
        let threads = processes
            .iter()
            .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok())
            .map(|tasks| tasks.count() as u64)
            .sum();
        (memory, threads)
    }

    /// The log is written, as by default, but need not fill the disk.
    pub fn trim_log(&self) {
        let _ = self.log.set_len(0);
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        for pid in self.processes() {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts one, the daemon with further options. `None`, and said so, if this
/// machine doesn't have it.
pub fn start(name: &'static str, dir: &Path, options: &[String]) -> Option<Contestant> {
    static STARTED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let own = dir.join(number.to_string());
    fs::create_dir(&own).unwrap();
    let socket = own.join("s/echo");
    if !OURS.contains(&name) && !name.contains('/') {
        fs::create_dir(own.join("s")).unwrap();
    }
    let Some(mut command) = command(name, dir, &socket) else {
        eprintln!("{name}: SKIPPED, not on this machine");
        return None;
    };
    command.args(options);
    let mut log = File::options();
    let log = log.create(true).append(true).open(own.join("log")).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log.try_clone().unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(&socket).is_err() {
        if Instant::now() > deadline || !matches!(child.try_wait(), Ok(None)) {
            let log = fs::read_to_string(own.join("log")).unwrap_or_default();
            panic!("{name} does not start: {log}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Some(Contestant {
        name,
        socket,
        child,
        log,
    })
}

fn command(name: &str, dir: &Path, socket: &Path) -> Option<Command> {
    if let Some((_, rest)) = name
        .split_once(' ')
        .filter(|(_, rest)| rest.starts_with('/'))
    {
        let mut words = rest.split_whitespace();
        let mut command = Command::new(words.next()?);
        command
            .arg(format!("socket_path={}", socket.display()))
            .args(words);
        return Some(command);
    }
    match name {
        "C thread" => c_server(dir, "thread", socket, 0),
        "C pool 4" => c_server(dir, "pool", socket, 4),
        "C pool 16" => c_server(dir, "pool", socket, 16),
        "C handoff" => c_server(dir, "handoff", socket, 16),
        "C epoll" => c_server(dir, "epoll", socket, 2),
        "multi" | "2" | "single" => Some(daemon(socket, name)),
        "tokio" => tokio(socket),
        "socat" => {
            let mut command = Command::new(find("socat")?);
            command
                .arg(format!(
                    "UNIX-LISTEN:{},fork,backlog=4096",
                    socket.display()
                ))
                .arg("PIPE");
            Some(command)
        }
        _ => {
            let mut command = Command::new(find("s6-ipcserver")?);
            command
                .args(["-q", "-c", "1000", "-C", "1000", "-b", "4096"])
                .arg(socket)
                .arg("cat");
            Some(command)
        }
    }
}

/// Everything as it is by default: policy, sandbox, seccomp, and the log to the output.
fn daemon(socket: &Path, threads: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secure_socket"));
    command.arg(format!("socket_path={}", socket.display()));
    command.arg(format!("threads={threads}"));
    command
}

fn c_server(dir: &Path, shape: &str, socket: &Path, threads: usize) -> Option<Command> {
    let program = dir.join("echo_c");
    if !program.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/echo/echo.c");
        let built = Command::new("cc")
            .args(["-O2", "-pthread", "-o"])
            .arg(&program)
            .arg(source)
            .status();
        built.ok().filter(std::process::ExitStatus::success)?;
    }
    let mut command = Command::new(program);
    command.arg(shape).arg(socket).arg(threads.to_string());
    Some(command)
}

/// Built on its first use, in a workspace of its own.
fn tokio(socket: &Path) -> Option<Command> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/echo/tokio/Cargo.toml");
    let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/echo-tokio");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--manifest-path", manifest, "--target-dir", target])
        .status();
    built.ok().filter(std::process::ExitStatus::success)?;
    let mut command = Command::new(Path::new(target).join("release/echo-tokio"));
    command.arg(socket);
    Some(command)
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(name));
    found.find(|program| program.exists())
}

fn tree(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let children = tasks.into_iter().flatten().flatten().map(|task| {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children
            .split_whitespace()
            .filter_map(|child| child.parse().ok())
            .collect::<Vec<u32>>()
    });
    let below: Vec<u32> = children.flatten().collect();
    let below = below.into_iter().flat_map(tree);
    std::iter::once(pid).chain(below).collect()
}

fn proportional_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
