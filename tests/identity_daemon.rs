//! Process rules in the daemon, behind its walls: who is served, which threads keep
//! what, and when a session ends.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod identity_support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use identity_support::*;

#[test]
fn helper() {
    run_script();
}

/// A daemon of its own, ended when dropped.
struct Daemon {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Daemon {
    fn start(lab: &Lab, options: &[&str]) -> Self {
        Self::start_program(lab, Path::new(env!("CARGO_BIN_EXE_secure_socket")), options)
    }

    fn start_program(lab: &Lab, program: &Path, options: &[&str]) -> Self {
        // Another server's, under another user, is not for this one.
        let _ = std::fs::remove_dir_all(lab.path("run"));
        Self::start_in(lab, "run", program, options)
    }

    /// In a directory of its own, beside others.
    fn start_in(lab: &Lab, name: &str, program: &Path, options: &[&str]) -> Self {
        let socket = lab.path(&format!("{name}/socket"));
        let log = lab.path(&format!("{name}.log"));
        let child = daemon_of(program, &socket, options)
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let daemon = Self { child, log, socket };
        until("the daemon is ready", || daemon.logged("ready: "));
        daemon
    }

    fn logged(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn daemon(socket: &Path, options: &[&str]) -> Command {
    daemon_of(
        Path::new(env!("CARGO_BIN_EXE_secure_socket")),
        socket,
        options,
    )
}

fn daemon_of(program: &Path, socket: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .arg(format!("socket_path={}", socket.display()))
        .args(options);
    command
}

fn lab_with_out(name: &str) -> Option<Lab> {
    let lab = Lab::new(name)?;
    std::fs::create_dir(lab.path("out")).unwrap();
    set_mode(&lab.path("out"), 0o777);
    Some(lab)
}

/// What a client wrote about its fate.
fn said(path: &Path) -> String {
    until(&format!("{path:?}"), || path.exists());
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::remove_file(path).unwrap();
    text
}

fn run(program: &Path, user: &As, script: &str) -> Child {
    command(program, user, script).spawn().unwrap()
}

#[test]
fn only_the_trusted_program_is_served_and_only_the_checker_keeps_anything() {
    let Some(lab) = lab_with_out("daemon") else {
        return;
    };
    let (trusted, other) = (lab.program("trusted"), lab.program("other"));
    let rule = format!("allow=uid:33,exe:{}", trusted.display());
    for extra in [&["run_as_user=nobody"][..], &[], &["threads=single"]] {
        let daemon = Daemon::start(&lab, &[&[rule.as_str()], extra].concat());
        let out = lab.path("out/fate");
        let script = format!("connect {};ask {}", daemon.socket.display(), out.display());
        for (program, expected) in [(&trusted, "served"), (&other, "closed")] {
            let mut client = run(program, &WEB, &script);
            assert_eq!(said(&out), expected, "{program:?} {extra:?}");
            client.wait().unwrap();
        }
        check_threads(daemon.child.id());
        until("the denial is logged", || daemon.logged("reason=no_rule"));
    }
}

/// Every thread stands behind a filter; capabilities are the checker's alone.
fn check_threads(pid: u32) {
    let mut checkers = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        let is_checker = field("Name").starts_with("process-");
        let expected = if is_checker {
            "0000000000080000"
        } else {
            "0000000000000000"
        };
        println!(
            "{}: CapEff {} Seccomp {}",
            field("Name"),
            field("CapEff"),
            field("Seccomp")
        );
        assert_eq!(field("CapEff"), expected, "{status}");
        assert_eq!(field("CapPrm"), expected, "{status}");
        assert_eq!(
            (field("Seccomp").as_str(), field("NoNewPrivs").as_str()),
            ("2", "1")
        );
        checkers += u32::from(is_checker);
    }
    assert_eq!(checkers, 1);
}

#[test]
fn names_arguments_digests_and_pids_are_read_behind_the_walls() {
    let Some(lab) = lab_with_out("daemon-facts") else {
        return;
    };
    let trusted = lab.program("trusted");
    let digest = sha256sum(&trusted);
    let args = format!("{} --exact helper --nocapture", trusted.display());
    let out = lab.path("out/fate");
    let socket = lab.path("run/socket");
    let script = format!("wait;connect {};ask {}", socket.display(), out.display());
    for (criterion, expected) in [
        ("name:trusted", "served"),
        ("name:other", "closed"),
        (&format!("args:{args}"), "served"),
        (&format!("sha256:{digest}"), "served"),
        (&format!("sha256:{}", "0".repeat(64)), "closed"),
        ("pid:PID", "served"),
        ("pid:1", "closed"),
    ] {
        let mut client = run(&trusted, &WEB, &script);
        let criterion = criterion.replace("PID", &client.id().to_string());
        let _daemon = Daemon::start(&lab, &[&format!("allow=uid:33,{criterion}")]);
        drop(client.stdin.take());
        assert_eq!(said(&out), expected, "{criterion}");
        client.wait().unwrap();
    }
}

#[test]
fn the_session_ends_with_the_process_though_its_child_holds_the_socket() {
    let Some(lab) = lab_with_out("daemon-ends") else {
        return;
    };
    let trusted = lab.program("trusted");
    let rule = format!("allow=uid:33,exe:{}", trusted.display());
    for threads in ["threads=multi", "threads=single"] {
        let daemon = Daemon::start(&lab, &[&rule, threads]);
        let (fate, end) = (lab.path("out/fate"), lab.path("out/end"));
        let script = format!(
            "connect {};ask {};child;eof {};parent;wait",
            daemon.socket.display(),
            fate.display(),
            end.display()
        );
        let mut client = run(&trusted, &WEB, &script);
        assert_eq!(said(&fate), "served");
        std::thread::sleep(Duration::from_millis(300));
        let killed = monotonic_ms();
        client.kill().unwrap();
        let ended: i64 = said(&end).parse().unwrap();
        println!("{threads}: closed {} ms after the exit", ended - killed);
        assert!(ended - killed < 100, "{} ms", ended - killed);
        client.wait().unwrap();
    }
}

#[test]
fn exec_of_another_program_ends_the_session() {
    let Some(lab) = lab_with_out("daemon-exec") else {
        return;
    };
    let (trusted, other) = (lab.program("trusted"), lab.program("other"));
    let rule = format!("allow=uid:33,exe:{}", trusted.display());
    for threads in ["threads=multi", "threads=single"] {
        let daemon = Daemon::start(&lab, &[&rule, threads]);
        let (fate, end) = (lab.path("out/fate"), lab.path("out/end"));
        let script = format!(
            "connect {};ask {};exec {};eof {}",
            daemon.socket.display(),
            fate.display(),
            other.display(),
            end.display()
        );
        let mut client = run(&trusted, &WEB, &script);
        assert_eq!(said(&fate), "served");
        let begun = monotonic_ms();
        let ended: i64 = said(&end).parse().unwrap();
        println!(
            "{threads}: closed {} ms after the first answer",
            ended - begun
        );
        assert!(ended - begun < 2_500, "{} ms", ended - begun);
        client.wait().unwrap();
    }
}

#[test]
fn a_proof_is_asked_for_and_keeps_out_who_execs_after_connect() {
    let Some(lab) = lab_with_out("daemon-proof") else {
        return;
    };
    let (trusted, other) = (lab.program("trusted"), lab.program("other"));
    let rule = format!("allow=uid:33,exe:{}", trusted.display());
    let daemon = Daemon::start(&lab, &[&rule, "process_proof=yes"]);
    let out = lab.path("out/fate");
    let socket = daemon.socket.display();
    let mut honest = run(
        &trusted,
        &WEB,
        &format!("connect {socket};answer;ask {}", out.display()),
    );
    assert_eq!(said(&out), "served");
    honest.wait().unwrap();
    // The child of another program answers, its parent has become the trusted one.
    let script = format!(
        "connect {socket};child;answer;ask {};parent;exec {};forever",
        out.display(),
        trusted.display()
    );
    let mut attacker = run(&other, &WEB, &script);
    let pid = attacker.id();
    assert_eq!(said(&out), "closed");
    attacker.kill().unwrap();
    attacker.wait().unwrap();
    // The check may come before, in and after the exec.
    until("the reason is logged", || {
        let reasons = ["proof_foreign", "no_rule", "exe_changed"];
        reasons
            .iter()
            .any(|reason| daemon.logged(&format!("denied uid=33 gid=33 pid={pid} reason={reason}")))
    });
}

#[test]
fn a_reload_may_name_a_process_that_lives() {
    let Some(lab) = lab_with_out("daemon-reload") else {
        return;
    };
    let file = lab.path("conf");
    let rules = |text: String| std::fs::write(&file, text).unwrap();
    rules("allow=uid:33\n".into());
    let daemon = Daemon::start(&lab, &[&format!("config={}", file.display())]);
    let is_served = || {
        let mut stream = UnixStream::connect(&daemon.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Whoever is closed may be so before it has written.
        let _ = stream.write_all(b"x");
        stream.read(&mut [0]).is_ok_and(|length| length == 1)
    };
    let reload = || {
        let pid = rustix::process::Pid::from_child(&daemon.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    };
    assert!(!is_served());
    rules(format!("allow=uid:0,pid:{}\n", std::process::id()));
    reload();
    until("the process is named", || daemon.logged("reloaded:"));
    assert!(is_served());
    rules("allow=uid:0,pid:4194304\n".into());
    reload();
    until("a process that is not there is refused", || {
        daemon.logged("pid:4194304 can not be held")
    });
    assert!(is_served(), "the rules before stay in force");
}

/// What a start that is refused says.
#[track_caller]
fn check_refused(mut command: Command, expected: &[&str]) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    for expected in expected {
        assert!(said.contains(expected), "expected {expected:?} in {said}");
    }
}

#[test]
fn rules_that_can_not_be_evaluated_are_refused_at_start() {
    let Some(lab) = lab_with_out("daemon-refused") else {
        return;
    };
    let trusted = lab.program("trusted");
    let socket = lab.path("run/socket");
    let rule = |path: &Path| format!("allow=uid:34,exe:{}", path.display());
    set_mode(&trusted, 0o775);
    let who = "expected owner 0 and no write permission";
    check_refused(daemon(&socket, &[&rule(&trusted)]), &["mode 0775", who]);
    set_mode(&trusted, 0o755);
    set_mode(&lab.dir, 0o777);
    check_refused(daemon(&socket, &[&rule(&trusted)]), &["mode 0777", who]);
    set_mode(&lab.dir, 0o755);
    std::os::unix::fs::chown(&trusted, Some(33), None).unwrap();
    check_refused(daemon(&socket, &[&rule(&trusted)]), &["has owner 33", who]);
    check_refused(
        daemon(&socket, &[&rule(&lab.path("none"))]),
        &["can not be followed"],
    );
    check_refused(daemon(&socket, &[&rule(&lab.path("out"))]), &["mode 0777"]);
    check_refused(
        daemon(&socket, &["allow=pid:4194304"]),
        &["pid:4194304 can not be held"],
    );
    check_refused(
        daemon(&socket, &["allow=label:unconfined"]),
        &["no security module labels sockets here"],
    );
    assert!(!socket.exists(), "nothing is left behind");
    // A server that is not root can't see what others run.
    let mut plain = Command::new("setpriv");
    plain.args(["--reuid=33", "--regid=33", "--clear-groups", "--"]);
    let binary = lab.path("secure_socket");
    copy(Path::new(env!("CARGO_BIN_EXE_secure_socket")), &binary);
    let path = lab.path("out/socket");
    plain
        .arg(&binary)
        .arg(format!("socket_path={}", path.display()))
        .arg("allow=uid:34,exe:/usr/bin/env");
    check_refused(
        plain,
        &[
            "CAP_SYS_PTRACE is missing",
            "start as root, or give CAP_SYS_PTRACE",
        ],
    );
}

#[test]
fn a_reload_can_not_ask_for_a_checker_that_was_never_started() {
    let Some(lab) = lab_with_out("daemon-reload") else {
        return;
    };
    let trusted = lab.program("trusted");
    let config = lab.path("config");
    std::fs::write(&config, "allow=uid:33\n").unwrap();
    let daemon = Daemon::start(&lab, &[&format!("config={}", config.display())]);
    std::fs::write(&config, format!("allow=uid:33,exe:{}\n", trusted.display())).unwrap();
    let pid = rustix::process::Pid::from_child(&daemon.child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    until("the reload is refused", || {
        daemon.logged("started without a process checker")
    });
    let out = lab.path("out/fate");
    let script = format!("connect {};ask {}", daemon.socket.display(), out.display());
    let mut client = run(&trusted, &WEB, &script);
    assert_eq!(said(&out), "served", "everything stays as it was");
    client.wait().unwrap();
    // Nor for what this kernel doesn't tell, which a start refuses as well.
    if !secure_socket::peer::Kernel::probe().peer_label {
        std::fs::write(&config, "allow=uid:33\ndeny=label:unconfined\n").unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        until("the reload is refused", || {
            daemon.logged("reload: rules name labels, and no security module labels sockets here")
        });
    }
}

/// The broker asks for the proof in its own protocol, and waits as long as for the others.
#[test]
fn the_broker_waits_for_a_proof_as_long_as_it_is_told() {
    let Some(lab) = lab_with_out("daemon-broker-proof") else {
        return;
    };
    let trusted = lab.program("trusted");
    let rule = format!("allow=uid:33,exe:{}", trusted.display());
    let program = Path::new(env!("CARGO_BIN_EXE_secure_socket"));
    let begin = |name: &str, timeout: &str| {
        let options = [&rule[..], "service=broker", timeout];
        let daemon = Daemon::start_in(&lab, name, program, &options);
        let out = lab.path(&format!("out/{name}"));
        // It proves nothing, and says when it is closed.
        let script = format!("connect {};eof {}", daemon.socket.display(), out.display());
        (daemon, run(&trusted, &WEB, &script), out)
    };
    let (_later, mut patient, patient_out) = begin("long", "proof_timeout=1h");
    let (_sooner, mut client, out) = begin("short", "proof_timeout=200ms");
    assert!(!said(&out).is_empty());
    assert!(!patient_out.exists(), "closed though it had an hour");
    client.wait().unwrap();
    patient.kill().unwrap();
    patient.wait().unwrap();
}

/// What becomes of clients of the trusted program after a reload: one that answers
/// the server's proof, and one that does not wait for it.
#[track_caller]
fn check_after_reload(
    name: &str,
    fixed: &[&str],
    [before, after]: [&str; 2],
    expected: &[(&str, &str)],
) {
    let Some(lab) = lab_with_out(name) else {
        return;
    };
    let trusted = lab.program("trusted");
    let text = |text: &str| text.replace("TRUSTED", &trusted.display().to_string());
    let config = lab.path("config");
    std::fs::write(&config, text(before)).unwrap();
    let metrics = format!("metrics_socket={}", lab.path("metrics/socket").display());
    let fixed: Vec<_> = fixed.iter().copied().map(text).collect();
    let mut options = vec![format!("config={}", config.display()), metrics];
    options.extend(fixed);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&lab, &options);
    std::fs::write(&config, text(after)).unwrap();
    let pid = rustix::process::Pid::from_child(&daemon.child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    until("the reload is done", || daemon.logged("reloaded: "));
    for (answer, expected) in expected {
        let out = lab.path(&format!("out/fate{}", answer.len()));
        let script = format!(
            "connect {};{answer}ask {}",
            daemon.socket.display(),
            out.display()
        );
        let mut client = run(&trusted, &WEB, &script);
        assert_eq!(said(&out), *expected, "{after} {answer}");
        client.wait().unwrap();
    }
}

#[test]
fn a_reload_may_be_the_first_to_ask_for_a_proof() {
    // The checker is there for the metrics' rule: no rule of the socket's names a program.
    let metrics = "metrics_allow=uid:0,exe:TRUSTED";
    let fixed = ["process_proof=yes", "proof_timeout=1s", metrics];
    let files = ["allow=uid:33\n", "allow=uid:33,exe:TRUSTED\n"];
    let expected = [("answer;", "served"), ("", "closed")];
    check_after_reload("first-proof", &fixed, files, &expected);
}

#[test]
fn a_reload_does_not_bring_or_take_the_proof() {
    let with = "allow=uid:33,exe:TRUSTED\nprocess_proof=yes\nproof_timeout=1s\n";
    let without = "allow=uid:33,exe:TRUSTED\nprocess_proof=no\n";
    let expected = [("answer;", "served"), ("", "closed")];
    check_after_reload("proof-stays", &[], [with, without], &expected);
    check_after_reload("no-proof-stays", &[], [without, with], &[("", "served")]);
}

/// The kernel is made to answer as one before 6.5 by a filter.
#[test]
fn without_pidfds_rules_on_processes_are_refused_unless_less_is_good_enough() {
    let Some(lab) = lab_with_out("daemon-old") else {
        return;
    };
    let trusted = lab.program("trusted");
    let start = |options: &str| {
        let words = [
            env!("CARGO_BIN_EXE_secure_socket"),
            &format!("socket_path={}", lab.path("run/socket").display()),
            &format!("allow=uid:33,exe:{}", trusted.display()),
            options,
        ]
        .join("\u{1f}");
        let mut command = Command::new(&trusted);
        command.args(HELPER_ARGS);
        prepare(&mut command, &format!("old-kernel;run {words}"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let no_pidfd = "this kernel has no pidfd for sockets";
    check_refused(
        start("sandbox=enforce"),
        &[no_pidfd, "run Linux 6.5 or later"],
    );
    let log = lab.path("log");
    let mut command = start("sandbox=best_effort");
    command.stdout(std::fs::File::create(&log).unwrap());
    let child = command.spawn().unwrap();
    let daemon = Daemon {
        child,
        log,
        socket: lab.path("run/socket"),
    };
    until("the daemon is ready", || daemon.logged("ready: "));
    assert!(daemon.logged(no_pidfd) && daemon.logged("processes are held by number"));
    let out = lab.path("out/fate");
    let script = format!("connect {};ask {}", daemon.socket.display(), out.display());
    let mut client = run(&trusted, &WEB, &script);
    assert_eq!(said(&out), "served");
    client.wait().unwrap();
}

#[test]
fn the_client_program_verifies_its_server_and_proves_itself() {
    let Some(lab) = lab_with_out("daemon-ctl") else {
        return;
    };
    let (ctl, server) = (lab.path("ctl"), lab.path("server"));
    copy(Path::new(env!("CARGO_BIN_EXE_secure_socketctl")), &ctl);
    copy(Path::new(env!("CARGO_BIN_EXE_secure_socket")), &server);
    let rule = format!("allow=uid:33|uid:0,exe:{}", ctl.display());
    let daemon = Daemon::start_program(&lab, &server, &[&rule, "process_proof=yes"]);
    let ask = |user: &As, proof: &str, server: &str| {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid));
        command
            .args(["--clear-groups", "--"])
            .arg(&ctl)
            .arg("connect");
        command.arg(format!("socket_path={}", daemon.socket.display()));
        command.args([proof, server]).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"hello");
        let output = child.wait_with_output().unwrap();
        println!("{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let exe = format!("server=uid:0,exe:{}", server.display());
    assert_eq!(ask(&WEB, "process_proof=yes", "server=uid:0"), "hello");
    assert_eq!(ask(&ROOT, "process_proof=yes", &exe), "hello");
    // Without the proof, with another server expected, and unable to see its program.
    assert!(!ask(&WEB, "process_proof=no", "server=uid:0").contains("hello"));
    assert_eq!(ask(&WEB, "process_proof=yes", "server=uid:33"), "");
    assert_eq!(
        ask(&ROOT, "process_proof=yes", "server=uid:0,exe:/bin/sh"),
        ""
    );
    assert_eq!(ask(&WEB, "process_proof=yes", &exe), "");
}
