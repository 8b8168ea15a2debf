//! What an attacker would call, and what must come of it.

use std::ffi::{CString, c_long};

use secure_socket::sandbox::Role;

/// What comes of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The process is killed by its filter.
    Killed,
    /// The call is on the list, and the kernel refuses it.
    Refused,
    /// It succeeds.
    Done,
}

/// One call.
pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    number: c_long,
    arguments: [u64; 6],
    /// Roles that have the call on their list, and what comes of it there.
    elsewhere: &'static [(Role, Fate)],
}

impl Attempt {
    pub(crate) fn fate(&self, role: Role) -> Fate {
        let unlisted = match role {
            // What the modules of the name service try must not end the process.
            Role::Resolver => Fate::Refused,
            _ => Fate::Killed,
        };
        self.elsewhere
            .iter()
            .find(|(of, _)| *of == role)
            .map_or(unlisted, |(_, fate)| *fate)
    }

    /// Makes the call: whether it succeeded.
    pub(crate) fn run(&self) -> bool {
        let path = CString::new("/etc/shadow").expect("no NUL");
        let mut a = self.arguments;
        for argument in &mut a {
            if *argument == PATH {
                *argument = path.as_ptr() as u64;
            } else if *argument == PAGE {
                *argument = std::ptr::from_ref(&path) as u64 & !0xfff;
            } else if *argument == PROCESS {
                *argument = u64::from(std::process::id());
            }
        }
        // SAFETY: the process is a child made for this call, and ends after it.
        unsafe { libc::syscall(self.number, a[0], a[1], a[2], a[3], a[4], a[5]) >= 0 }
    }
}

/// Stand for values that are known when the call is made.
const PATH: u64 = u64::MAX - 1;
const PAGE: u64 = u64::MAX - 2;
const PROCESS: u64 = u64::MAX - 3;

const fn attempt(name: &'static str, number: c_long, arguments: [u64; 6]) -> Attempt {
    Attempt {
        name,
        number,
        arguments,
        elsewhere: &[],
    }
}

const fn attempt_but(
    name: &'static str,
    number: c_long,
    arguments: [u64; 6],
    elsewhere: &'static [(Role, Fate)],
) -> Attempt {
    Attempt {
        name,
        number,
        arguments,
        elsewhere,
    }
}

const AT_FDCWD: u64 = (-100i64).cast_unsigned();
const PROT_EXEC: u64 = 5;
const PRIVATE: u64 = 0x22;

pub(crate) const ATTEMPTS: &[Attempt] = &[
    attempt("execve", libc::SYS_execve, [PATH, 0, 0, 0, 0, 0]),
    attempt("execveat", libc::SYS_execveat, [AT_FDCWD, PATH, 0, 0, 0, 0]),
    attempt("ptrace", libc::SYS_ptrace, [0, 0, 0, 0, 0, 0]),
    attempt("socket netlink", libc::SYS_socket, [16, 3, 0, 0, 0, 0]),
    attempt("socket packet", libc::SYS_socket, [17, 3, 0, 0, 0, 0]),
    attempt("socket vsock", libc::SYS_socket, [40, 1, 0, 0, 0, 0]),
    attempt("socketpair", libc::SYS_socketpair, [1, 1, 0, 0, 0, 0]),
    attempt("bind", libc::SYS_bind, [0, 0, 0, 0, 0, 0]),
    attempt("listen", libc::SYS_listen, [0, 0, 0, 0, 0, 0]),
    attempt_but(
        "open shadow",
        libc::SYS_openat,
        [AT_FDCWD, PATH, 0, 0, 0, 0],
        // Landlock says which files are to be read; threads that serve peers
        // are told that there are none.
        &[
            (Role::Supervisor, Fate::Refused),
            (Role::EchoWorker, Fate::Refused),
            (Role::RelayWorker, Fate::Refused),
            (Role::BrokerWorker, Fate::Refused),
            (Role::EmbeddedWorker, Fate::Refused),
            (Role::LogWriter, Fate::Refused),
            (Role::LogCompressor, Fate::Refused),
            (Role::ProcessChecker, Fate::Refused),
            (Role::Connector, Fate::Refused),
            (Role::Metrics, Fate::Refused),
        ],
    ),
    attempt_but(
        "open shadow for writing",
        libc::SYS_openat,
        [AT_FDCWD, PATH, 1, 0, 0, 0],
        // They write files; Landlock says which.
        &[
            (Role::Supervisor, Fate::Refused),
            (Role::EmbeddedWorker, Fate::Refused),
            (Role::LogWriter, Fate::Refused),
            (Role::LogCompressor, Fate::Refused),
        ],
    ),
    attempt(
        "mprotect exec",
        libc::SYS_mprotect,
        [PAGE, 4096, PROT_EXEC, 0, 0, 0],
    ),
    attempt(
        "pkey_mprotect",
        libc::SYS_pkey_mprotect,
        [PAGE, 4096, 1, 0, 0, 0],
    ),
    attempt(
        "mmap exec",
        libc::SYS_mmap,
        [0, 4096, PROT_EXEC, PRIVATE, u64::MAX, 0],
    ),
    attempt("mmap file", libc::SYS_mmap, [0, 4096, 1, 2, 0, 0]),
    attempt(
        "mmap shared",
        libc::SYS_mmap,
        [0, 4096, 3, 0x21, u64::MAX, 0],
    ),
    attempt(
        "mremap fixed",
        libc::SYS_mremap,
        [PAGE, 4096, 4096, 3, 0x10000, 0],
    ),
    attempt("madvise", libc::SYS_madvise, [PAGE, 4096, 21, 0, 0, 0]),
    attempt(
        "memfd_create",
        libc::SYS_memfd_create,
        [PATH, 0, 0, 0, 0, 0],
    ),
    // A fork: no CLONE_THREAD, SIGCHLD.
    attempt("clone process", libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
    // A thread with a user namespace of its own.
    attempt(
        "clone newuser",
        libc::SYS_clone,
        [0x1000_0000 | 0x3d0f00, 0, 0, 0, 0, 0],
    ),
    attempt_but(
        "clone3",
        libc::SYS_clone3,
        [0, 0, 0, 0, 0, 0],
        // There it is answered as if it did not exist.
        &[(Role::Supervisor, Fate::Refused)],
    ),
    attempt("unshare", libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0]),
    attempt("setns", libc::SYS_setns, [0, 0, 0, 0, 0, 0]),
    attempt("kill", libc::SYS_kill, [PROCESS, 0, 0, 0, 0, 0]),
    attempt("tkill", libc::SYS_tkill, [PROCESS, 0, 0, 0, 0, 0]),
    attempt("tgkill of init", libc::SYS_tgkill, [1, 1, 0, 0, 0, 0]),
    attempt(
        "rt_sigqueueinfo",
        libc::SYS_rt_sigqueueinfo,
        [1, 0, 0, 0, 0, 0],
    ),
    attempt(
        "pidfd_send_signal",
        libc::SYS_pidfd_send_signal,
        [0, 0, 0, 0, 0, 0],
    ),
    attempt("pidfd_getfd", libc::SYS_pidfd_getfd, [0, 0, 0, 0, 0, 0]),
    attempt("mount", libc::SYS_mount, [0, 0, 0, 0, 0, 0]),
    attempt("umount2", libc::SYS_umount2, [PATH, 0, 0, 0, 0, 0]),
    attempt("pivot_root", libc::SYS_pivot_root, [PATH, PATH, 0, 0, 0, 0]),
    attempt("chroot", libc::SYS_chroot, [PATH, 0, 0, 0, 0, 0]),
    attempt("chdir", libc::SYS_chdir, [PATH, 0, 0, 0, 0, 0]),
    attempt("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0, 0]),
    attempt(
        "perf_event_open",
        libc::SYS_perf_event_open,
        [0, 0, 0, 0, 0, 0],
    ),
    attempt(
        "io_uring_setup",
        libc::SYS_io_uring_setup,
        [1, 0, 0, 0, 0, 0],
    ),
    attempt("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0, 0, 0]),
    attempt("keyctl", libc::SYS_keyctl, [0, 0, 0, 0, 0, 0]),
    attempt("add_key", libc::SYS_add_key, [0, 0, 0, 0, 0, 0]),
    attempt(
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        [1, 0, 0, 0, 0, 0],
    ),
    attempt(
        "process_vm_writev",
        libc::SYS_process_vm_writev,
        [1, 0, 0, 0, 0, 0],
    ),
    attempt("setuid", libc::SYS_setuid, [0, 0, 0, 0, 0, 0]),
    attempt("setgid", libc::SYS_setgid, [0, 0, 0, 0, 0, 0]),
    attempt_but(
        "setresuid",
        libc::SYS_setresuid,
        // Its work; -1 three times changes nothing, which needs no capability.
        [u64::MAX, u64::MAX, u64::MAX, 0, 0, 0],
        &[(Role::Connector, Fate::Done)],
    ),
    attempt("capset", libc::SYS_capset, [0, 0, 0, 0, 0, 0]),
    attempt("prctl dumpable", libc::SYS_prctl, [4, 1, 0, 0, 0, 0]),
    attempt("prctl seccomp", libc::SYS_prctl, [22, 1, 0, 0, 0, 0]),
    attempt("prlimit64", libc::SYS_prlimit64, [0, 7, 0, 0, 0, 0]),
    attempt("personality", libc::SYS_personality, [0, 0, 0, 0, 0, 0]),
    attempt("init_module", libc::SYS_init_module, [0, 0, 0, 0, 0, 0]),
    attempt("finit_module", libc::SYS_finit_module, [0, 0, 0, 0, 0, 0]),
    attempt("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0, 0, 0]),
    attempt("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0, 0]),
    attempt("sethostname", libc::SYS_sethostname, [0, 0, 0, 0, 0, 0]),
    attempt("settimeofday", libc::SYS_settimeofday, [0, 0, 0, 0, 0, 0]),
    attempt("acct", libc::SYS_acct, [0, 0, 0, 0, 0, 0]),
    attempt("quotactl", libc::SYS_quotactl, [0, 0, 0, 0, 0, 0]),
    attempt(
        "fchmodat",
        libc::SYS_fchmodat,
        [AT_FDCWD, PATH, 0o777, 0, 0, 0],
    ),
    attempt("fchownat", libc::SYS_fchownat, [AT_FDCWD, PATH, 0, 0, 0, 0]),
    attempt("mknodat", libc::SYS_mknodat, [AT_FDCWD, PATH, 0, 0, 0, 0]),
    attempt("mkdirat", libc::SYS_mkdirat, [AT_FDCWD, PATH, 0, 0, 0, 0]),
    attempt(
        "symlinkat",
        libc::SYS_symlinkat,
        [PATH, AT_FDCWD, PATH, 0, 0, 0],
    ),
    attempt("truncate", libc::SYS_truncate, [PATH, 0, 0, 0, 0, 0]),
    attempt("setxattr", libc::SYS_setxattr, [PATH, PATH, 0, 0, 0, 0]),
    attempt(
        "name_to_handle_at",
        libc::SYS_name_to_handle_at,
        [AT_FDCWD, PATH, 0, 0, 0, 0],
    ),
    attempt(
        "open_by_handle_at",
        libc::SYS_open_by_handle_at,
        [0, 0, 0, 0, 0, 0],
    ),
    attempt("fanotify_init", libc::SYS_fanotify_init, [0, 0, 0, 0, 0, 0]),
    attempt("inotify_init1", libc::SYS_inotify_init1, [0, 0, 0, 0, 0, 0]),
    attempt("ioctl TIOCSTI", libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]),
    attempt("fcntl F_SETOWN", libc::SYS_fcntl, [0, 8, 1, 0, 0, 0]),
    attempt(
        "setsockopt netfilter",
        libc::SYS_setsockopt,
        [0, 0, 64, 0, 0, 0],
    ),
    attempt("dup3", libc::SYS_dup3, [0, 7, 0, 0, 0, 0]),
    attempt("vmsplice", libc::SYS_vmsplice, [0, 0, 0, 0, 0, 0]),
    attempt("tee", libc::SYS_tee, [0, 1, 0, 0, 0, 0]),
    attempt("shmget", libc::SYS_shmget, [0, 4096, 0o1000, 0, 0, 0]),
    attempt("msgget", libc::SYS_msgget, [0, 0o1000, 0, 0, 0, 0]),
    attempt("timer_create", libc::SYS_timer_create, [0, 0, 0, 0, 0, 0]),
    attempt("setpriority", libc::SYS_setpriority, [0, 0, 0, 0, 0, 0]),
    attempt(
        "sched_setscheduler",
        libc::SYS_sched_setscheduler,
        [0, 0, 0, 0, 0, 0],
    ),
    attempt("getppid", libc::SYS_getppid, [0, 0, 0, 0, 0, 0]),
];
