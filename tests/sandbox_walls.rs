//! The walls, tried from inside: each case starts this program again as a
//! child that seals itself and then does one thing.
//!
//! Without the standard test harness, since that starts threads, and a process
//! is sealed while it has one.
#![allow(unsafe_code)]
// A panic is how a case fails.
#![allow(clippy::expect_used, clippy::panic)]

#[path = "sandbox/attempts.rs"]
mod attempts;
#[path = "sandbox/children.rs"]
mod children;
#[path = "sandbox/embedded.rs"]
mod embedded;
#[path = "sandbox/logging.rs"]
mod logging;
#[path = "sandbox/serving.rs"]
mod serving;
#[path = "support/skip.rs"]
mod skipping;

use std::ffi::CString;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use secure_socket::sandbox::Role;

use attempts::{ATTEMPTS, Fate};

const SIGSYS: i32 = 31;

/// This program as a child with these words.
fn command(words: &[&str]) -> Command {
    let own = std::env::current_exe().expect("own path");
    let mut command = Command::new(own);
    command
        .arg("child")
        .args(words)
        // A backtrace opens files, and would be the death of the child.
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null());
    command
}

/// Runs such a child; its output is collected.
fn child(words: &[&str]) -> Output {
    command(words).output().expect("child starts")
}

/// A directory of its own, removed when dropped: the child may not.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sandbox_walls.{}.{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("directory");
        Self(path)
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A queue that the child creates; removed when dropped.
struct Queue(String);

impl Drop for Queue {
    fn drop(&mut self) {
        let name = CString::new(self.0.as_str()).expect("no NUL");
        // SAFETY: a string that ends in NUL.
        unsafe { libc::mq_unlink(name.as_ptr()) };
    }
}

fn describe(output: &Output) -> String {
    format!(
        "{:?}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[track_caller]
fn check_succeeds(words: &[&str]) -> String {
    let output = child(words);
    assert!(output.status.success(), "{words:?}: {}", describe(&output));
    String::from_utf8(output.stdout).expect("utf-8")
}

fn the_ordinary_work_of_each_role_lives() {
    for role in Role::ALL {
        let words = ["work", role.name(), "trap"];
        check_succeeds(&words);
        // One heap for all threads, as where there are more of them than heaps.
        let output = command(&words).env("MALLOC_ARENA_MAX", "1").output();
        let output = output.expect("child starts");
        assert!(output.status.success(), "{words:?}: {}", describe(&output));
    }
}

fn an_abort_in_each_role_is_an_abort() {
    for role in Role::ALL {
        // Ignored, as a parent may leave it, abort(3) has to undo that first.
        for how in ["plain", "ignored"] {
            let output = child(&["abort", role.name(), how]);
            assert_eq!(
                output.status.signal(),
                Some(libc::SIGABRT),
                "{role} {how}: {}",
                describe(&output)
            );
        }
    }
}

fn calls_off_the_list_die_in_each_role() {
    let mut wrong = Vec::new();
    for role in Role::ALL {
        for attempt in ATTEMPTS {
            let output = child(&["attempt", role.name(), "kill", attempt.name]);
            let found = match output.status.signal() {
                Some(SIGSYS) => Fate::Killed,
                _ if output.stdout.starts_with(b"refused") => Fate::Refused,
                _ => Fate::Done,
            };
            if found != attempt.fate(role) {
                wrong.push(format!(
                    "{role} {}: {found:?}: {}",
                    attempt.name,
                    describe(&output)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn a_trap_names_the_call_and_the_thread() {
    for role in Role::ALL {
        if role == Role::Resolver {
            // What is not on its list is refused, and does not kill.
            continue;
        }
        let output = child(&["attempt", role.name(), "trap", "ptrace"]);
        let told = describe(&output);
        assert_eq!(output.status.signal(), Some(SIGSYS), "{role}: {told}");
        let text = String::from_utf8_lossy(&output.stderr);
        if role != Role::Supervisor {
            let named = format!("thread {} called ptrace (", role.name());
            assert!(text.contains(&named), "{text}");
        }
        assert!(text.contains(" with 0x0 0x0 0x0"), "{text}");
    }
}

fn a_dry_run_lets_the_call_pass() {
    let output = child(&["attempt", "echo_worker", "log", "getppid"]);
    assert!(output.status.success(), "{}", describe(&output));
    assert!(output.stdout.starts_with(b"done"));
}

fn calls_of_other_architectures_die() {
    for action in ["kill", "trap", "log"] {
        if cfg!(target_arch = "x86_64") {
            let output = child(&["foreign", "int80", action]);
            assert_eq!(
                output.status.signal(),
                Some(SIGSYS),
                "{}",
                describe(&output)
            );
        }
    }
    let output = child(&["foreign", "x32", "kill"]);
    assert_eq!(
        output.status.signal(),
        Some(SIGSYS),
        "{}",
        describe(&output)
    );
}

fn every_thread_stands_behind_every_wall() {
    let text = check_succeeds(&["status"]);
    assert!(text.contains("threads 4"), "{text}");
}

/// Says so where it is not, and what needs it is left out; in CI nothing is.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipping::skip("root");
    }
    root
}

fn a_privileged_thread_keeps_its_capability_and_no_other() {
    if is_root() {
        check_succeeds(&["privileged"]);
    }
}

fn a_worker_is_confined_to_its_paths_and_ports() {
    let directory = Directory::new();
    check_succeeds(&["landlock", &directory.path()]);
}

fn the_log_with_every_sink_lives() {
    let directory = Directory::new();
    let queue = Queue(format!("/sandbox_walls.{}", std::process::id()));
    check_succeeds(&["log", &directory.path(), &queue.0]);
}

fn a_server_lives_under_each_choice_of_threads() {
    let own = std::env::current_exe().expect("own path");
    // Its file may be anybody's to write; a rule is for programs that are not.
    let by_name = format!(
        "name:{}",
        &own.file_name().expect("name").to_string_lossy()[..15]
    );
    let comparable = Path::new("/bin/true").canonicalize().expect("a program");
    let by_program = format!("exe:{}", comparable.display());
    // Looking at the programs of others takes a capability.
    let sees_programs = is_root();
    for threads in ["multi", "1", "3"] {
        use_server(threads, &[]);
        if sees_programs {
            use_server(threads, &[by_name.as_str(), by_program.as_str()]);
        }
    }
}

/// Peers that talk, are silent, leave early, send a lot, close half.
fn use_server(threads: &str, rules: &[&str]) {
    let directory = Directory::new();
    let socket = directory.0.join("s/echo");
    let mut words = vec![
        "child",
        "serve",
        socket.to_str().expect("utf-8"),
        threads,
        "trap",
    ];
    words.extend(rules);
    let mut server = Command::new(std::env::current_exe().expect("own path"))
        .args(&words)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("server starts");
    let mut line = [0; 6];
    let mut answered = false;
    let ready = server.stdout.as_mut().expect("piped").read_exact(&mut line);
    if ready.is_ok() {
        let peers: Vec<_> = (0..20)
            .map(|number| {
                let socket = socket.clone();
                std::thread::spawn(move || talk(&socket, number))
            })
            .collect();
        answered = peers.into_iter().all(|peer| peer.join().is_ok());
    }
    drop(server.stdin.take());
    let output = server.wait_with_output().expect("ended");
    assert!(output.status.success(), "{words:?}: {}", describe(&output));
    assert!(answered, "{words:?}");
}

fn talk(socket: &Path, number: usize) {
    let mut stream = UnixStream::connect(socket).expect("accepted");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout");
    let sent = vec![7; 1 << number];
    match number % 4 {
        0 => drop(stream),
        1 => {
            let mut writer = stream.try_clone().expect("another");
            let copy = sent.clone();
            let writing = std::thread::spawn(move || {
                writer.write_all(&copy).expect("sent");
                writer.shutdown(Shutdown::Write).expect("half closed");
            });
            let mut back = Vec::new();
            stream.read_to_end(&mut back).expect("answered");
            writing.join().expect("written");
            assert_eq!(back, sent);
        }
        2 => {
            std::thread::sleep(Duration::from_millis(20));
            let _ = stream.write_all(&[1]);
        }
        _ => {
            for _ in 0..50 {
                stream.write_all(&[1; 64]).expect("sent");
                stream.read_exact(&mut [0; 64]).expect("answered");
            }
        }
    }
}

fn an_embedded_service_does_what_std_does() {
    for order in ["stays", "exits"] {
        let directory = Directory::new();
        check_succeeds(&["embedded", &directory.path(), order]);
    }
}

fn a_role_whose_filter_only_seems_to_stand_is_not_entered() {
    check_succeeds(&["pretended"]);
}

fn a_second_thread_is_refused() {
    check_succeeds(&["threads"]);
}

fn a_start_sheds_descriptors_and_variables() {
    let own = std::env::current_exe().expect("own path");
    // The shell leaves a descriptor open, and sets variables.
    let script = format!(
        "umask 000; exec 9</etc/passwd; \
         LD_LIBRARY_PATH=/nowhere NO_COLOR=1 SECRET=x exec {} child early",
        own.display()
    );
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .output()
        .expect("shell");
    assert!(output.status.success(), "{}", describe(&output));
}

fn a_stop_and_a_continue_in_mid_call_are_survived() {
    for role in Role::ALL {
        check_succeeds(&["stopped", role.name()]);
    }
}

fn a_descriptor_limit_is_exact() {
    check_succeeds(&["limit"]);
}

/// A name and what it runs.
macro_rules! cases {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}

const CASES: &[(&str, fn())] = cases![
    the_ordinary_work_of_each_role_lives,
    an_abort_in_each_role_is_an_abort,
    calls_off_the_list_die_in_each_role,
    a_trap_names_the_call_and_the_thread,
    a_dry_run_lets_the_call_pass,
    calls_of_other_architectures_die,
    every_thread_stands_behind_every_wall,
    a_privileged_thread_keeps_its_capability_and_no_other,
    a_worker_is_confined_to_its_paths_and_ports,
    the_log_with_every_sink_lives,
    a_server_lives_under_each_choice_of_threads,
    an_embedded_service_does_what_std_does,
    a_role_whose_filter_only_seems_to_stand_is_not_entered,
    a_second_thread_is_refused,
    a_start_sheds_descriptors_and_variables,
    a_stop_and_a_continue_in_mid_call_are_survived,
    a_descriptor_limit_is_exact,
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["child", rest @ ..] = words.as_slice() {
        return children::run(rest);
    }
    if words.contains(&"--list") {
        for (name, _) in CASES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&&str> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let mut failed = 0;
    for (name, case) in CASES {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(**word)) {
            continue;
        }
        let passed = std::panic::catch_unwind(case).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u32::from(!passed);
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
