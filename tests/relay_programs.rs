//! The relay in front of the unmodified programs of a distribution: policy and
//! sandbox in force, the client another user than the server.
//!
//! `RELAY_LONG=1` runs the full sizes: 1 GiB each way, a minute of MONITOR.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod relay_support;
mod support;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use relay_support::{
    CLIENT, Upstream, amount, bytes_in_file, checksum, client, free_port, give, redis, relay_to,
    text, try_client,
};
use support::{Daemon, TempDir, as_user, set_mode};

#[test]
fn redis_benchmark_runs_with_and_without_pipelines() {
    needs!(root, "redis-server", "redis-benchmark");
    let dir = TempDir::new();
    let _redis = redis(&dir);
    for threads in ["threads=multi", "threads=2", "threads=single"] {
        let relay = relay_to(&dir.join("redis.sock"), &[threads]);
        let socket = relay.socket.to_str().unwrap();
        for (pipeline, count) in [("16", "50000"), ("1", "20000")] {
            let common = [
                "-s", socket, "-q", "-t", "set,get", "-n", count, "-P", pipeline,
            ];
            let output = client("redis-benchmark", &common);
            assert!(
                output.contains("SET:") && output.contains("GET:"),
                "{output}"
            );
            eprintln!(
                "{threads} -P {pipeline}: {}",
                output.replace('\r', "\n").trim()
            );
        }
        assert!(relay.stop().success());
    }
}

#[test]
fn redis_takes_a_million_commands_in_one_pipe_and_is_monitored() {
    needs!(root, "redis-server", "redis-cli");
    let dir = TempDir::new();
    let _redis = redis(&dir);
    let relay = relay_to(&dir.join("redis.sock"), &[]);
    let socket = relay.socket.to_str().unwrap();
    let mut monitor = as_user(CLIENT, CLIENT, "redis-cli")
        .args(["-s", socket, "monitor"])
        .stdout(Stdio::from(
            fs::File::create(dir.join("monitored")).unwrap(),
        ))
        .spawn()
        .unwrap();
    let monitored = || text(&dir.join("monitored"));
    while !monitored().contains("OK") {
        thread::sleep(Duration::from_millis(10));
    }
    for round in 0..amount(5, 60) {
        client(
            "redis-cli",
            &["-s", socket, "set", "seen", &round.to_string()],
        );
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(monitored().matches("\"seen\"").count(), amount(5, 60));
    monitor.kill().unwrap();
    monitor.wait().unwrap();

    let mut commands = String::new();
    for number in 0..1_000_000 {
        commands.push_str(&format!("SET key:{number} {number}\r\n"));
    }
    fs::write(dir.join("commands"), commands).unwrap();
    let mut pipe = as_user(CLIENT, CLIENT, "redis-cli");
    pipe.args(["-s", socket, "--pipe"]);
    pipe.stdin(fs::File::open(dir.join("commands")).unwrap());
    let output = pipe.output().unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.contains("errors: 0, replies: 1000000"), "{output}");
    assert_eq!(
        client("redis-cli", &["-s", socket, "dbsize"]).trim(),
        "1000001"
    );
    assert!(relay.stop().success());
}

/// PostgreSQL in a directory of its own, as the user postgres.
struct Postgres {
    _server: Upstream,
    dir: TempDir,
}

const PORT: &str = "5433";

impl Postgres {
    fn start() -> Option<Self> {
        let programs = fs::read_dir("/usr/lib/postgresql")
            .ok()?
            .next()?
            .ok()?
            .path()
            .join("bin");
        let dir = TempDir::new();
        give(dir.path(), "postgres");
        let data = dir.join("data");
        let initdb = as_user("postgres", "postgres", programs.join("initdb").to_str()?)
            .args(["-A", "peer", "-N", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(
            initdb.status.success(),
            "{}",
            String::from_utf8_lossy(&initdb.stderr)
        );
        let mut command = as_user("postgres", "postgres", programs.join("postgres").to_str()?);
        command.arg("-D").arg(&data).arg("-k").arg(dir.path());
        command.args([
            "-p",
            PORT,
            "-h",
            "",
            "-c",
            "max_connections=150",
            "-c",
            "fsync=off",
        ]);
        command.stderr(Stdio::null());
        let server = Upstream::start(&mut command, || {
            let ready = psql(dir.path(), "postgres", &["-c", "select 1"]);
            ready.is_ok()
        });
        Some(Self {
            _server: server,
            dir,
        })
    }

    fn socket(&self) -> PathBuf {
        self.dir.join(&format!(".s.PGSQL.{PORT}"))
    }
}

/// The output of psql as a user, or what it complained of.
fn psql(host: &Path, user: &str, arguments: &[&str]) -> Result<String, String> {
    let host = host.to_str().unwrap();
    let mut all = vec!["-h", host, "-p", PORT, "-d", "postgres", "-qtA"];
    all.extend(arguments);
    let output = try_client(user, "psql", &all);
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(said(&output.stdout))
    } else {
        Err(said(&output.stderr))
    }
}

#[test]
fn postgres_sees_the_peer_and_lets_nobody_else_in() {
    needs!(root, "psql", "pgbench");
    let Some(postgres) = Postgres::start() else {
        return support::skip("postgresql");
    };
    let role = format!("create role \"{CLIENT}\" login; grant all on schema public to public");
    psql(postgres.dir.path(), "postgres", &["-c", &role]).unwrap();
    for threads in ["threads=multi", "threads=2"] {
        let front = TempDir::new();
        let socket = front.join(&format!("run/.s.PGSQL.{PORT}"));
        let path = format!("socket_path={}", socket.display());
        let relay = relay_to(
            &postgres.socket(),
            &[&path, "upstream_identity=peer", threads],
        );
        let host = socket.parent().unwrap();
        let who = psql(host, CLIENT, &["-c", "select current_user, session_user"]).unwrap();
        assert_eq!(who, format!("{CLIENT}|{CLIENT}"));
        let refused = psql(host, CLIENT, &["-U", "postgres", "-c", "select 1"]).unwrap_err();
        assert!(refused.contains("Peer authentication failed"), "{refused}");

        let host = host.to_str().unwrap();
        let common = ["-h", host, "-p", PORT, "postgres"];
        client("pgbench", &[&["-i", "-q"], &common[..]].concat());
        let each = amount(20, 500).to_string();
        let load = ["-c", "100", "-j", "2", "-S", "-t", &each];
        let run = client("pgbench", &[&load[..], &common[..]].concat());
        let all = 100 * amount(20, 500);
        assert!(run.contains(&format!("processed: {all}/{all}")), "{run}");
        assert!(run.contains("number of failed transactions: 0"), "{run}");
        eprintln!("{threads}: {}", run.lines().last().unwrap_or_default());
        drop(relay);
    }
    // As itself, the relay is root to everybody: a user whom Postgres doesn't know.
    let front = TempDir::new();
    let socket = front.join(&format!("run/.s.PGSQL.{PORT}"));
    let path = format!("socket_path={}", socket.display());
    let relay = relay_to(&postgres.socket(), &[&path]);
    let refused = psql(socket.parent().unwrap(), CLIENT, &["-c", "select 1"]).unwrap_err();
    assert!(refused.contains("Peer authentication failed"), "{refused}");
    assert!(
        relay
            .log()
            .contains("upstream_identity=peer passes on who they are")
    );
}

#[test]
fn nginx_takes_and_gives_files_and_keeps_connections() {
    needs!(root, "nginx", "curl", "openssl");
    let dir = TempDir::new();
    set_mode(dir.path(), 0o777);
    let size = amount(128, 1024);
    bytes_in_file(&dir.join("file"), size);
    fs::write(dir.join("small"), "small\n").unwrap();
    let socket = dir.join("nginx.sock");
    let config = format!(
        "daemon off; user root; worker_processes 1; pid {0}/pid; error_log stderr error;\n\
         events {{ worker_connections 200; }}\n\
         http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/p;\n\
         fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
         keepalive_requests 10000; client_max_body_size 0;\n\
         server {{ listen unix:{1}; root {0}; location / {{ dav_methods PUT; }} }} }}\n",
        dir.path().display(),
        socket.display()
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(dir.path())
        .arg("-c")
        .arg(dir.join("nginx.conf"));
    let _nginx = Upstream::start(&mut command, || UnixStream::connect(&socket).is_ok());
    let sum = checksum(&dir.join("file"));
    for threads in ["threads=multi", "threads=single"] {
        let relay = relay_to(&socket, &[threads]);
        let to = relay.socket.to_str().unwrap();
        let down = dir.join("down");
        let _ = fs::remove_file(&down);
        let common = ["-sSf", "--unix-socket", to];
        client(
            "curl",
            &[
                &common[..],
                &["-o", down.to_str().unwrap(), "http://x/file"],
            ]
            .concat(),
        );
        assert_eq!(checksum(&down), sum);
        let from = dir.join("file");
        let _ = fs::remove_file(dir.join("up"));
        client(
            "curl",
            &[&common[..], &["-T", from.to_str().unwrap(), "http://x/up"]].concat(),
        );
        assert_eq!(checksum(&dir.join("up")), sum);

        let many = ["http://x/small?[1-1000]", "-w", "%{num_connects}\n"];
        let answers = client("curl", &[&common[..], &many].concat());
        assert_eq!(answers.matches("small").count(), 1000);
        assert_eq!(
            answers.lines().filter(|line| *line == "1").count(),
            1,
            "one connection"
        );
        assert!(relay.stop().success());
    }
}

#[test]
fn an_agent_lists_its_keys_and_signs() {
    needs!(root, "ssh-agent", "ssh-add", "ssh-keygen");
    let dir = TempDir::new();
    let (key, socket) = (dir.join("key"), dir.join("agent"));
    let key_path = key.to_str().unwrap();
    let mut keygen = Command::new("ssh-keygen");
    keygen.args([
        "-q", "-t", "ed25519", "-N", "", "-C", "relayed", "-f", key_path,
    ]);
    assert!(keygen.status().unwrap().success());
    let mut command = Command::new("ssh-agent");
    command.arg("-D").arg("-a").arg(&socket);
    let _agent = Upstream::start(&mut command, || UnixStream::connect(&socket).is_ok());
    let mut add = Command::new("ssh-add");
    add.arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket);
    assert!(add.status().unwrap().success());
    fs::remove_file(&key).unwrap();

    let relay = relay_to(&socket, &[]);
    let with_agent = |program: &str, arguments: &[&str]| {
        let variable = format!("SSH_AUTH_SOCK={}", relay.socket.display());
        let all = [&[variable.as_str(), program], arguments].concat();
        client("env", &all)
    };
    assert!(with_agent("ssh-add", &["-l"]).contains("relayed (ED25519)"));
    let message = dir.join("message");
    fs::write(&message, "signed by way of a relay\n").unwrap();
    set_mode(dir.path(), 0o777);
    let public = format!("{key_path}.pub");
    set_mode(Path::new(&public), 0o644);
    let message_path = message.to_str().unwrap();
    with_agent(
        "ssh-keygen",
        &[
            "-q",
            "-Y",
            "sign",
            "-f",
            &public,
            "-n",
            "test",
            message_path,
        ],
    );
    let signature = text(&dir.join("message.sig"));
    assert!(
        signature.starts_with("-----BEGIN SSH SIGNATURE-----"),
        "{signature}"
    );
}

#[test]
fn git_clones_over_tcp_on_both_sides() {
    needs!(root, "git");
    let dir = TempDir::new();
    let source = dir.join("source");
    let script = format!(
        "cd {0} && git init -q source && cd source && seq 1 200000 >numbers && git add . && \
         git -c user.name=x -c user.email=x@x commit -qm one && touch .git/git-daemon-export-ok && \
         chmod -R a+rX {0}",
        dir.path().display()
    );
    assert!(
        Command::new("sh")
            .arg("-c")
            .arg(script)
            .status()
            .unwrap()
            .success()
    );
    let (upstream, front) = (free_port(), free_port());
    let mut command = Command::new("git");
    command
        .args([
            "daemon",
            "--listen=127.0.0.1",
            "--export-all",
            "--reuseaddr",
        ])
        .arg(format!("--port={upstream}"))
        .arg(format!("--base-path={}", dir.path().display()))
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*");
    let _git = Upstream::start(&mut command, || {
        std::net::TcpStream::connect(("127.0.0.1", upstream)).is_ok()
    });
    for host in ["127.0.0.1", "localhost"] {
        let relay = Daemon::start(&[
            "service=relay",
            "domain=AF_INET",
            "socket_path=@unused",
            &format!("port={front}"),
            &format!("upstream=tcp:{host}:{upstream}"),
            "allow=address:127.0.0.0/8",
        ]);
        let url = format!("git://127.0.0.1:{front}/source");
        let copy = dir.join(&format!("copy-{host}"));
        fs::create_dir(&copy).unwrap();
        give(&copy, CLIENT);
        client("git", &["clone", "-q", &url, copy.to_str().unwrap()]);
        assert_eq!(
            checksum(&copy.join("numbers")),
            checksum(&source.join("numbers"))
        );
        assert!(relay.stop().success());
    }
}

#[test]
fn the_bus_knows_the_peer_by_its_own_name() {
    needs!(root, "dbus-daemon", "dbus-send");
    let dir = TempDir::new();
    let socket = dir.join("bus");
    let config = format!(
        "<!DOCTYPE busconfig PUBLIC '-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN' \
         'http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd'>\n\
         <busconfig><type>custom</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\n\
         <policy context='default'><allow user='*'/><allow own='*'/>\n\
         <allow send_destination='*' eavesdrop='true'/><allow receive_sender='*'/></policy>\n\
         </busconfig>\n",
        socket.display()
    );
    fs::write(dir.join("bus.conf"), config).unwrap();
    let mut command = Command::new("dbus-daemon");
    command
        .arg("--nofork")
        .arg(format!("--config-file={}", dir.join("bus.conf").display()));
    let _bus = Upstream::start(&mut command, || UnixStream::connect(&socket).is_ok());
    set_mode(&socket, 0o777);
    let ask = |relay: &Daemon| {
        let bus = format!("--bus=unix:path={}", relay.socket.display());
        try_client(
            CLIENT,
            "dbus-send",
            &[
                &bus,
                "--print-reply",
                "--dest=org.freedesktop.DBus",
                "/",
                "org.freedesktop.DBus.GetId",
            ],
        )
    };
    let relay = relay_to(&socket, &["upstream_identity=peer", "relay_descriptors=16"]);
    let answer = ask(&relay);
    assert!(
        answer.status.success(),
        "{}",
        String::from_utf8_lossy(&answer.stderr)
    );
    // Whoever the relay itself is, is not whom the client claims to be.
    let relay = relay_to(&socket, &[]);
    assert!(!ask(&relay).status.success());
}

#[test]
fn memcached_stores_and_finds() {
    needs!(root, "memcached", "socat");
    let dir = TempDir::new();
    set_mode(dir.path(), 0o777);
    let socket = dir.join("memcached");
    let mut command = Command::new("memcached");
    command
        .args(["-u", "nobody", "-a", "777", "-s"])
        .arg(&socket);
    let _memcached = Upstream::start(&mut command, || UnixStream::connect(&socket).is_ok());
    let relay = relay_to(&socket, &[]);
    let mut socat = as_user(CLIENT, CLIENT, "socat")
        .args(["-t", "5", "-"])
        .arg(format!("UNIX-CONNECT:{}", relay.socket.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let value = "v".repeat(100_000);
    let request = format!("set k 0 0 {}\r\n{value}\r\nget k\r\nquit\r\n", value.len());
    socat
        .stdin
        .take()
        .unwrap()
        .write_all(request.as_bytes())
        .unwrap();
    let output = socat.wait_with_output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(answer.starts_with("STORED\r\nVALUE k 0 100000\r\n") && answer.contains(&value));
}

#[test]
fn php_answers_by_fastcgi() {
    needs!(root, "php-fpm8.2", "cgi-fcgi");
    let dir = TempDir::new();
    let socket = dir.join("php.sock");
    let config = format!(
        "[global]\nerror_log = {0}/log\npid = {0}/pid\n[www]\nuser = nobody\ngroup = nogroup\n\
         listen = {1}\nlisten.mode = 0666\npm = static\npm.max_children = 2\n",
        dir.path().display(),
        socket.display()
    );
    fs::write(dir.join("fpm.conf"), config).unwrap();
    fs::write(dir.join("x.php"), "<?php echo 'sum ', 6 * 7, \"\\n\";").unwrap();
    let mut command = Command::new("php-fpm8.2");
    command
        .args(["-n", "-F", "-y"])
        .arg(dir.join("fpm.conf"))
        .stderr(Stdio::null());
    let _php = Upstream::start(&mut command, || UnixStream::connect(&socket).is_ok());
    let relay = relay_to(&socket, &[]);
    let script = format!("SCRIPT_FILENAME={}", dir.join("x.php").display());
    let to = relay.socket.to_str().unwrap();
    let arguments = [
        &script,
        "REQUEST_METHOD=GET",
        "cgi-fcgi",
        "-bind",
        "-connect",
        to,
    ];
    let answer = client("env", &arguments);
    assert!(answer.contains("sum 42"), "{answer}");
}
