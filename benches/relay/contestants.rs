//! The relays that are compared, each started with its own configuration.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// One relay, or none: once in front of the echo, once in front of Redis.
pub struct Contestant {
    pub name: &'static str,
    /// Where clients connect.
    pub socket: PathBuf,
    /// The same in front of Redis.
    pub redis: Option<PathBuf>,
    children: Vec<Running>,
    /// KiB when it had served nobody yet.
    pub fresh_kib: u64,
}

/// A process that is ended with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.0.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Contestant {
    /// KiB that the process in front of the echo and its children have to
    /// themselves, shared pages in part.
    pub fn resident_kib(&self) -> u64 {
        let Some(Running(child)) = self.children.first() else {
            return 0;
        };
        tree(child.id()).into_iter().map(proportional_kib).sum()
    }
}

fn tree(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let below = children
        .split_whitespace()
        .flat_map(|child| tree(child.parse().unwrap()));
    std::iter::once(pid).chain(below).collect()
}

fn proportional_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// In the order of the table.
pub const NAMES: [&str; 9] = [
    "direct",
    "ss multi",
    "ss threads=2",
    "ss single",
    "C relay",
    "C relay splice",
    "haproxy splice",
    "nginx stream",
    "socat",
];

/// Starts one. `None` if this machine doesn't have it.
pub fn start(
    name: &'static str,
    dir: &Path,
    echo: &Path,
    redis: Option<&Path>,
) -> Option<Contestant> {
    if name == "direct" {
        return Some(Contestant {
            name,
            socket: echo.to_owned(),
            redis: redis.map(Path::to_owned),
            children: Vec::new(),
            fresh_kib: 0,
        });
    }
    let place = dir.join(name.replace(' ', "-"));
    let (socket, child) = launch(name, &place.join("echo"), echo)?;
    let mut children = vec![child];
    let redis = redis.and_then(|redis| launch(name, &place.join("redis"), redis));
    let redis = redis.map(|(socket, child)| {
        children.push(child);
        socket
    });
    let mut contestant = Contestant {
        name,
        socket,
        redis,
        children,
        fresh_kib: 0,
    };
    contestant.fresh_kib = contestant.resident_kib();
    Some(contestant)
}

/// One process, in a directory of its own, and where it listens.
fn launch(name: &str, dir: &Path, upstream: &Path) -> Option<(PathBuf, Running)> {
    let socket = dir.join("run/relay");
    fs::create_dir_all(dir.join("run")).unwrap();
    let mut command = match name {
        "ss multi" => daemon(&socket, upstream, "multi"),
        "ss threads=2" => daemon(&socket, upstream, "2"),
        "ss single" => daemon(&socket, upstream, "single"),
        "C relay" => c_relay(dir, &socket, upstream, None)?,
        "C relay splice" => c_relay(dir, &socket, upstream, Some("-s"))?,
        "haproxy splice" => haproxy(dir, &socket, upstream)?,
        "nginx stream" => nginx(dir, &socket, upstream)?,
        _ => socat(&socket, upstream)?,
    };
    let log = fs::File::create(dir.join("log")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let mut child = command.spawn().ok()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(&socket).is_err() {
        if Instant::now() > deadline || !matches!(child.try_wait(), Ok(None)) {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            eprintln!("{name} does not start: {log}");
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
    Some((socket, Running(child)))
}

/// Sandbox and policy as they are by default: in force.
fn daemon(socket: &Path, upstream: &Path, threads: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secure_socket"));
    command.args([
        format!("socket_path={}", socket.display()),
        "service=relay".into(),
        format!("upstream=unix:{}", upstream.display()),
        format!("threads={threads}"),
        "max_connections=2000".into(),
        "backlog=4096".into(),
    ]);
    command
}

fn c_relay(dir: &Path, socket: &Path, upstream: &Path, flag: Option<&str>) -> Option<Command> {
    let program = dir.join("c_relay");
    if !program.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/relay/relay.c");
        let mut cc = Command::new("cc");
        let built = cc
            .args(["-O2", "-pthread", "-o"])
            .arg(&program)
            .arg(source)
            .status();
        built.ok().filter(std::process::ExitStatus::success)?;
    }
    let mut command = Command::new(program);
    command.arg(socket).arg(upstream).args(flag);
    Some(command)
}

fn haproxy(dir: &Path, socket: &Path, upstream: &Path) -> Option<Command> {
    let file = dir.join("haproxy.cfg");
    let text = format!(
        "global\n nbthread 2\n maxconn 4000\n\
         defaults\n mode tcp\n option splice-auto\n timeout connect 5s\n timeout client 1h\n \
         timeout server 1h\n\
         listen relay\n bind unix@{} backlog 4096\n server one unix@{}\n",
        socket.display(),
        upstream.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(find("haproxy")?);
    command.arg("-db").arg("-f").arg(file);
    Some(command)
}

fn nginx(dir: &Path, socket: &Path, upstream: &Path) -> Option<Command> {
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    let load = match module.exists() {
        true => format!("load_module {};\n", module.display()),
        false => String::new(),
    };
    let file = dir.join("nginx.conf");
    let text = format!(
        "{load}daemon off; worker_processes 2; worker_rlimit_nofile 8000;\n\
         user root; pid {}; error_log stderr error;\n\
         events {{ worker_connections 4000; }}\n\
         stream {{ server {{ listen unix:{} backlog=4096; proxy_pass unix:{};\
         proxy_timeout 1h; proxy_half_close on; }} }}\n",
        dir.join("nginx.pid").display(),
        socket.display(),
        upstream.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(find("nginx")?);
    command.arg("-p").arg(dir).arg("-c").arg(file);
    Some(command)
}

fn socat(socket: &Path, upstream: &Path) -> Option<Command> {
    let mut command = Command::new(find("socat")?);
    command
        .args(["-b", "65536", "-t", "60"])
        .arg(format!(
            "UNIX-LISTEN:{},fork,backlog=4096",
            socket.display()
        ))
        .arg(format!("UNIX-CONNECT:{}", upstream.display()));
    Some(command)
}

/// Where a program is.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let more = ["/usr/sbin".into(), "/sbin".into()];
    let mut found = std::env::split_paths(&path)
        .chain(more)
        .map(|folder: PathBuf| folder.join(name));
    found.find(|program| program.exists())
}
