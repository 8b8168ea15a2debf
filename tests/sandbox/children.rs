//! What the children do. A child succeeds, or panics and so exits with 101.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread::Builder;
use std::time::Duration;

use secure_socket::ids::{Gid, Uid};
use secure_socket::sandbox::{
    self, Access, Capability, PathGrant, Plan, PrivilegedThread, Role, RunAs, SandboxError, Sealed,
    SeccompAction, Standing,
};

use crate::attempts::ATTEMPTS;

pub(crate) fn run(words: &[&str]) -> ExitCode {
    match words {
        ["work", role, action] => work(self::role(role), self::action(action)),
        ["attempt", role, action, name] => attempt(self::role(role), self::action(action), name),
        ["foreign", kind, action] => foreign(kind, self::action(action)),
        ["status"] => status(),
        ["pretended"] => pretended(),
        ["privileged"] => privileged(),
        ["landlock", directory] => landlock(Path::new(directory)),
        ["log", directory, queue] => crate::logging::log(Path::new(directory), queue),
        ["serve", socket, threads, walls, allowed @ ..] => {
            crate::serving::serve(Path::new(socket), threads, walls, allowed);
        }
        ["embedded", directory, order] => {
            crate::embedded::serve(Path::new(directory), *order == "exits");
        }
        ["threads"] => threads(),
        ["early"] => early(),
        ["abort", role, how] => abort(self::role(role), how),
        ["stopped", role] => stopped(self::role(role)),
        ["limit"] => limit(),
        _ => panic!("no such child: {words:?}"),
    }
    ExitCode::SUCCESS
}

fn role(name: &str) -> Role {
    Role::ALL
        .into_iter()
        .find(|role| role.name() == name)
        .expect("a role")
}

fn action(name: &str) -> SeccompAction {
    match name {
        "kill" => SeccompAction::Kill,
        "trap" => SeccompAction::Trap,
        "log" => SeccompAction::Log,
        _ => panic!("no such action: {name}"),
    }
}

/// A plan under which a call that is missed is named in the output.
fn trapping() -> Plan {
    plan(SeccompAction::Trap)
}

fn plan(seccomp: SeccompAction) -> Plan {
    Plan {
        seccomp,
        ..Plan::default()
    }
}

/// Runs `body` behind the walls of `role`, in a thread of that name.
fn in_role(plan: Plan, role: Role, body: impl FnOnce(&Sealed) + Send + 'static) {
    if role.stands_alone() {
        return in_privileged_role(plan, role, body);
    }
    let sealed = sandbox::enter(plan).expect("sealed");
    if role == Role::Supervisor {
        return body(&sealed);
    }
    let inner = sealed.clone();
    let thread = Builder::new().name(role.name().to_owned()).spawn(move || {
        inner.enter_role(role).expect("role entered");
        body(&inner);
    });
    thread
        .expect("thread starts")
        .join()
        .expect("thread succeeds");
    sealed.attest().expect("walls stand");
}

fn in_privileged_role(mut plan: Plan, role: Role, body: impl FnOnce(&Sealed) + Send + 'static) {
    let (hand, take) = channel::<Sealed>();
    let (done, is_done) = channel();
    plan.privileged.push(PrivilegedThread {
        name: role.name(),
        role,
        capabilities: vec![],
        outside_landlock: false,
        body: Box::new(move || {
            body(&take.recv().expect("sealed"));
            done.send(()).expect("main waits");
        }),
    });
    let sealed = sandbox::enter(plan).expect("sealed");
    hand.send(sealed).expect("thread waits");
    is_done.recv().expect("thread succeeds");
}

/// What std and the C library do anywhere: memory, locks, time, panics, random
/// numbers, threads that end.
fn work(role: Role, action: SeccompAction) {
    std::panic::set_hook(Box::new(|_| eprintln!("a panic")));
    in_role(plan(action), role, |_| {
        let mut map = HashMap::new();
        for size in [1usize, 100, 10_000, 1 << 18, 1 << 24] {
            let mut block = vec![1u8; size];
            block.resize(size * 2, 2);
            map.insert(size, block);
        }
        drop(map);
        // Enough for free to give the end of a thread's heap back.
        let blocks: Vec<Vec<u8>> = (0..4_000).map(|_| vec![1; 1_000]).collect();
        drop(blocks);
        std::thread::sleep(Duration::from_millis(1));
        std::thread::yield_now();
        assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err());
        let mut random = [0u8; 16];
        // SAFETY: the buffer is as long as is said.
        let filled = unsafe { libc::getrandom(random.as_mut_ptr().cast(), 16, 0) };
        assert_eq!(filled, 16);
        std::io::stdout().write_all(b"alive\n").expect("written");
    });
}

fn attempt(role: Role, action: SeccompAction, name: &str) {
    let attempt = ATTEMPTS
        .iter()
        .find(|attempt| attempt.name == name)
        .expect("an attempt");
    in_role(plan(action), role, |_| {
        let text: &[u8] = if attempt.run() {
            b"done\n"
        } else {
            b"refused\n"
        };
        rustix::io::write(std::io::stdout(), text).expect("written");
    });
}

fn foreign(kind: &str, action: SeccompAction) {
    sandbox::enter(plan(action)).expect("sealed");
    match kind {
        // SAFETY: the process is a child made for this call; getpid of x32.
        "x32" => unsafe {
            libc::syscall(0x4000_0000 | libc::SYS_getpid);
        },
        #[cfg(target_arch = "x86_64")]
        "int80" => {
            // SAFETY: getpid of i386, which touches no memory.
            unsafe { std::arch::asm!("int 0x80", inout("eax") 20 => _) };
        }
        _ => {}
    }
}

fn run_as() -> Option<RunAs> {
    let root = rustix::process::geteuid().is_root();
    root.then(|| RunAs {
        uid: Uid::from_raw(12_345).expect("a uid"),
        gid: Gid::from_raw(12_346).expect("a gid"),
        groups: vec![Gid::from_raw(12_347).expect("a gid")],
    })
}

/// How many filters this process was started behind.
fn own_filters() -> u32 {
    let status = fs::read_to_string("/proc/self/status").expect("read");
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("Seccomp_filters:"));
    count.expect("Linux 5.9").trim().parse().expect("a number")
}

fn status() {
    let changed = run_as().is_some();
    let plan = Plan {
        run_as: run_as(),
        ..trapping()
    };
    let preview = sandbox::preview(&plan).to_string();
    let inherited = own_filters();
    let sealed = sandbox::enter(plan).expect("sealed");
    assert!(sealed.report().is_whole(), "{}", sealed.report());
    assert_eq!(preview, sealed.report().to_string());
    assert!(
        sealed
            .report()
            .walls()
            .iter()
            .all(|wall| wall.standing == Standing::Enforced)
    );
    let (ready, is_ready) = channel();
    for role in [Role::EchoWorker, Role::LogWriter, Role::LogCompressor] {
        let (sealed, ready) = (sealed.clone(), ready.clone());
        std::thread::spawn(move || {
            sealed.enter_role(role).expect("role entered");
            ready.send(()).expect("main waits");
            std::thread::park();
        });
        is_ready.recv().expect("thread ready");
    }
    let attestation = sealed.attest().expect("walls stand");
    assert_eq!(attestation.threads.len(), 4);
    for thread in &attestation.threads {
        // Two that all inherit, its role's own, and one where nothing may be opened.
        let filters = match thread.role {
            None => 2,
            Some(Role::EchoWorker) => 4,
            Some(_) => 3,
        };
        assert_eq!(thread.seccomp, 2, "{thread:?}");
        assert_eq!(thread.seccomp_filters, inherited + filters, "{thread:?}");
        assert!(thread.no_new_privs, "{thread:?}");
        if changed {
            assert_eq!(thread.capabilities, [0; 5], "{thread:?}");
            assert_eq!(thread.uids, [12_345; 4], "{thread:?}");
            assert_eq!(thread.gids, [12_346; 4], "{thread:?}");
            assert_eq!(thread.groups, [12_347], "{thread:?}");
        }
    }
    println!("threads {}", attestation.threads.len());
}

/// Behind a filter that says yes to every further one and lets none be installed, no
/// thread enters a role.
fn pretended() {
    let inherited = own_filters();
    let sealed = sandbox::enter(trapping()).expect("sealed");
    let filter = seccompiler::SeccompFilter::new(
        [(libc::SYS_seccomp, vec![])].into(),
        seccompiler::SeccompAction::Allow,
        seccompiler::SeccompAction::Errno(0),
        std::env::consts::ARCH.try_into().expect("an architecture"),
    );
    let program: seccompiler::BpfProgram = filter.expect("a filter").try_into().expect("compiled");
    seccompiler::apply_filter(&program).expect("installed");
    for (role, own) in [
        (Role::EchoWorker, 2),
        (Role::Metrics, 2),
        (Role::LogWriter, 1),
    ] {
        let sealed = sealed.clone();
        let thread = std::thread::spawn(move || sealed.enter_role(role));
        let error = thread
            .join()
            .expect("ends")
            .expect_err("not behind its filter");
        let (has, needed) = (inherited + 3, inherited + 3 + own);
        let expected = format!("{has} seccomp filters, expected {needed} or more");
        let SandboxError::Exposed { what, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(what, expected, "{role}");
    }
}

/// CAP_SETUID is bit 7, CAP_SETGID 6, CAP_SYS_PTRACE 19 (linux/capability.h).
fn privileged() {
    let (stop, stopped) = channel::<()>();
    let (impersonated, was_impersonated) = channel();
    let (read, was_read) = channel();
    // The parent still is root.
    let parent = rustix::process::getppid().expect("a parent");
    let exe = PathBuf::from(format!("/proc/{parent}/exe"));
    let checked = exe.clone();
    let plan = Plan {
        run_as: run_as(),
        privileged: vec![
            PrivilegedThread {
                name: "connector",
                role: Role::Connector,
                capabilities: vec![Capability::SetUid, Capability::SetGid],
                outside_landlock: false,
                body: Box::new(move || {
                    let (user, own) = (
                        rustix::process::Uid::from_raw(33),
                        rustix::process::Uid::from_raw(12_345),
                    );
                    let there = rustix::thread::set_thread_res_uid(None, user, None);
                    let back = rustix::thread::set_thread_res_uid(None, own, None);
                    impersonated.send((there, back)).expect("main waits");
                    let _ = stopped.recv();
                }),
            },
            PrivilegedThread {
                name: "checker",
                role: Role::ProcessChecker,
                capabilities: vec![Capability::SysPtrace],
                outside_landlock: true,
                body: Box::new(move || {
                    // Of another user, and hidden from a landlocked thread.
                    read.send(rustix::fs::readlink(&checked, Vec::new()))
                        .expect("main waits");
                    std::thread::park();
                }),
            },
        ],
        ..trapping()
    };
    let inherited = own_filters();
    let sealed = sandbox::enter(plan).expect("sealed");
    assert_eq!(was_impersonated.recv().expect("sent"), (Ok(()), Ok(())));
    was_read
        .recv()
        .expect("sent")
        .expect("the parent is visible to the checker");
    assert!(rustix::fs::readlink(&exe, Vec::new()).is_err());
    let detail = sealed.report().to_string();
    assert!(
        detail.contains("CAP_SETGID+CAP_SETUID in thread connector"),
        "{detail}"
    );
    assert!(
        detail.contains("CAP_SYS_PTRACE in thread checker"),
        "{detail}"
    );
    for thread in sealed.attest().expect("walls stand").threads {
        let permitted = match thread.name.as_str() {
            "connector" => 1 << 7 | 1 << 6,
            "checker" => 1 << 19,
            _ => 0,
        };
        // What stands alone was born before the two that all others inherit.
        let filters = match thread.role {
            Some(Role::ProcessChecker) => 1,
            _ => 2,
        };
        assert_eq!(
            thread.capabilities,
            [0, permitted, permitted, 0, 0],
            "{thread:?}"
        );
        assert_eq!(thread.seccomp, 2);
        assert_eq!(thread.seccomp_filters, inherited + filters, "{thread:?}");
    }
    drop(stop);
}

fn landlock(directory: &Path) {
    let directory = directory.to_owned();
    fs::write(directory.join("old"), "x").expect("file");
    let open_port = TcpListener::bind("127.0.0.1:0").expect("bound");
    let shut_port = TcpListener::bind("127.0.0.1:0").expect("bound");
    let (open, shut) = (
        open_port.local_addr().expect("address"),
        shut_port.local_addr().expect("address"),
    );
    // Listening sockets of another process: made before a fork would be the
    // same; what counts is the domain that they were made in.
    let name =
        SocketAddr::from_abstract_name(format!("walls{}", std::process::id())).expect("name");
    let _abstract = UnixListener::bind_addr(&name).expect("bound");
    let plan = Plan {
        paths: vec![PathGrant {
            path: directory.clone(),
            access: Access::Manage,
            roles: vec![Role::LogWriter],
        }],
        tcp_connect: vec![(open.port(), vec![Role::RelayWorker])],
        ..trapping()
    };
    let sealed = sandbox::enter(plan).expect("sealed");
    let in_thread = |role: Role, body: Box<dyn FnOnce() + Send>| {
        let sealed = sealed.clone();
        let thread = std::thread::spawn(move || {
            sealed.enter_role(role).expect("role entered");
            body();
        });
        thread.join().expect("thread succeeds");
    };
    let denied = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let inner = directory.clone();
    in_thread(
        Role::LogWriter,
        Box::new(move || {
            fs::write(inner.join("new"), "y").expect("inside its directory");
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                inner.join("old"),
                rustix::fs::CWD,
                inner.join("older"),
                rustix::fs::RenameFlags::NOREPLACE,
            )
            .expect("inside its directory");
            rustix::fs::unlinkat(
                rustix::fs::CWD,
                inner.join("older"),
                rustix::fs::AtFlags::empty(),
            )
            .expect("inside its directory");
            denied(fs::write("/tmp/sandbox_walls.outside", "z").expect_err("outside"));
            denied(fs::read("/etc/passwd").expect_err("outside"));
            denied(TcpStream::connect(open).expect_err("not its port"));
        }),
    );
    let inner = directory.clone();
    in_thread(
        Role::RelayWorker,
        Box::new(move || {
            TcpStream::connect(open).expect("its port");
            denied(TcpStream::connect(shut).expect_err("not its port"));
            let error = UnixStream::connect_addr(&name).expect_err("out of scope");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }),
    );
    in_thread(
        Role::EmbeddedWorker,
        Box::new(move || {
            denied(fs::read("/etc/passwd").expect_err("outside"));
            denied(fs::read(inner.join("new")).expect_err("another role's directory"));
        }),
    );
    denied(fs::read("/etc/passwd").expect_err("outside"));
    rustix::fs::unlinkat(
        rustix::fs::CWD,
        directory.join("new"),
        rustix::fs::AtFlags::empty(),
    )
    .expect("granted to the main thread too");
}

fn threads() {
    let (stop, stopped) = channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    let error = sandbox::enter(Plan::default()).expect_err("two threads");
    assert!(
        matches!(error, SandboxError::Threads { found: 2 }),
        "{error}"
    );
    drop(stop);
    let _ = thread.join();
}

fn early() {
    sandbox::early_hardening().expect("hardened");
    let open: Vec<_> = fs::read_dir("/proc/self/fd")
        .expect("listed")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("a number")
        })
        .collect();
    // 3 is the listing itself.
    assert!(
        open.iter()
            .all(|name| ["0", "1", "2", "3"].contains(&name.as_str())),
        "{open:?}"
    );
    assert_eq!(std::env::var_os("LD_LIBRARY_PATH"), None);
    assert_eq!(std::env::var_os("SECRET"), None);
    assert_eq!(std::env::var("NO_COLOR").as_deref(), Ok("1"));
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    assert_eq!(mask.as_raw_mode(), 0o077);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    let dumpable = rustix::process::dumpable_behavior().expect("asked");
    assert_eq!(dumpable, rustix::process::DumpableBehavior::NotDumpable);
}

fn abort(role: Role, how: &str) {
    if how == "ignored" {
        // SAFETY: a disposition that runs no code.
        unsafe { libc::signal(libc::SIGABRT, libc::SIG_IGN) };
    }
    in_role(plan(SeccompAction::Kill), role, |_| std::process::abort());
}

/// The kernel restarts a timed wait on a futex by a call of its own,
/// restart_syscall(2), after SIGSTOP and SIGCONT.
fn stopped(role: Role) {
    use rustix::process::{Signal, kill_process};
    let pause = Duration::from_millis(50);
    let own = rustix::process::getpid();
    let (go, ready) = rustix::pipe::pipe().expect("pipe");
    // SAFETY: the child makes only calls that are safe after a fork.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // It is outside the walls of its parent, and so may signal it.
        let _ = rustix::io::read(&go, &mut [0_u8]);
        for signal in [Signal::STOP, Signal::CONT] {
            std::thread::sleep(pause);
            let _ = kill_process(own, signal);
        }
        // SAFETY: ends the child without what its parent wants done at exit.
        unsafe { libc::_exit(0) };
    }
    assert!(child > 0, "forked");
    in_role(plan(SeccompAction::Kill), role, move |_| {
        let (_kept, never) = channel::<()>();
        rustix::io::write(&ready, b"!").expect("told");
        never.recv_timeout(pause * 10).expect_err("nothing is sent");
    });
}

fn limit() {
    let sealed = sandbox::enter(Plan {
        max_descriptors: 64,
        ..trapping()
    });
    sealed.expect("sealed");
    let mut held = Vec::new();
    let error = loop {
        match rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) {
            Ok(pair) => held.push(pair),
            Err(errno) => break errno,
        }
    };
    assert_eq!(error, rustix::io::Errno::MFILE);
    assert!(held.len() <= 31);
}
