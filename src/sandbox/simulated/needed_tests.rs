//! Calls that must be allowed, written down by hand: the simulator compares the filters
//! with the rules, which says nothing of a rule that was removed.
//!
//! Here stand what findings brought (`audit/findings.md`), and each rule that no test of
//! this machine needs: another C library, another kernel, a fault. What remains is
//! needed by the programs' own tests, and by `audit/trace`.

use serde_json::Value;

use super::{
    ALLOW, ARCHITECTURES, Architecture, Call, Meant, collect, is_meant, numbers, simulate,
};
use crate::sandbox::Role;

const ALL: &[&str] = &[
    "base",
    "broker_worker",
    "connector",
    "echo_worker",
    "embedded_worker",
    "log_compressor",
    "log_writer",
    "metrics",
    "process_checker",
    "relay_worker",
    "resolver",
];
const BASE: &[&str] = &["base"];
const CHECKER: &[&str] = &["process_checker"];
const COMPRESSOR: &[&str] = &["log_compressor"];
const EMBEDDED: &[&str] = &["embedded_worker"];
const METRICS: &[&str] = &["metrics"];
const RESOLVER: &[&str] = &["resolver"];
/// Those that accept peers.
const ADMITTING: &[&str] = &[
    "broker_worker",
    "echo_worker",
    "embedded_worker",
    "metrics",
    "relay_worker",
];
const LOOPS: &[&str] = &["broker_worker", "echo_worker", "relay_worker"];

const BOTH: &[&str] = &["x86_64", "aarch64"];
const X86: &[&str] = &["x86_64"];
const ARM: &[&str] = &["aarch64"];

/// Stands in the filters for the id of the process.
const OWN: u64 = 0x5E1F_5E1F;
/// Something in memory, a length, a descriptor, a thread.
const PTR: u64 = 0x7F3A_5C7D_E9A0;
const LEN: u64 = 0x1000;
const FD: u64 = 7;
const TID: u64 = 4712;
/// -1 as a descriptor, and `AT_FDCWD`.
const NO_FD: u64 = u64::MAX;
const CWD: u64 = (-100_i64).cast_unsigned();

/// `O_CLOEXEC`, to read; the same on both architectures, as all that stands here.
const READ: u64 = 0x8_0000;
/// `PROT_READ | PROT_WRITE`.
const READ_WRITE: u64 = 3;
const MAP_DROPPABLE_ANONYMOUS: u64 = 0x28;
const MADV_HUGEPAGE: u64 = 14;
const MADV_NOHUGEPAGE: u64 = 15;
const MADV_GUARD_INSTALL: u64 = 102;
const PR_GET_NAME: u64 = 16;
const PR_SET_VMA: u64 = 0x5356_4D41;
const F_SETFD: u64 = 2;
const SIGABRT: u64 = 6;
const SIGBUS: u64 = 7;
const SIGSEGV: u64 = 11;
const SIGURG: u64 = 23;
const SIGNALS_BYTES: u64 = 8;
/// `DGRAM`, `NONBLOCK`, `CLOEXEC`.
const QUESTION: u64 = 0x8_0802;
/// `STREAM`, `NONBLOCK`, `CLOEXEC`.
const STREAM: u64 = 0x8_0801;
const IPPROTO_IPV6: u64 = 41;
const IPV6_RECVERR: u64 = 25;

/// Who makes the call, where, which, with which arguments; and why.
type Needed = (
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
    &'static [u64],
    &'static str,
);

#[rustfmt::skip]
const NEEDED: &[Needed] = &[
    (LOOPS, BOTH, "epoll_pwait", &[FD, PTR, 64, 86_400_000, 0, 8], "12: a wait of a day, the longest"),
    (BASE, BOTH, "readlinkat", &[CWD, PTR, PTR, 256], "17: a reload reads the links of a path of a rule"),
    (ALL, BOTH, "madvise", &[PTR, LEN, MADV_HUGEPAGE], "18: malloc, glibc.malloc.hugetlb=1"),
    (ALL, BOTH, "madvise", &[PTR, LEN, MADV_NOHUGEPAGE], "18: a new stack, glibc.pthread.stack_hugetlb=0"),
    (ALL, BOTH, "madvise", &[PTR, LEN, MADV_GUARD_INSTALL], "glibc 2.42: the guard of a stack"),
    (ALL, BOTH, "prctl", &[PR_SET_VMA, 0, PTR, LEN, PTR], "18: glibc.mem.decorate_maps=1"),
    (ALL, BOTH, "mmap", &[0, LEN, READ_WRITE, MAP_DROPPABLE_ANONYMOUS, NO_FD, 0], "34: getrandom of glibc 2.41"),
    (ALL, BOTH, "tgkill", &[OWN, TID, SIGURG], "35: a thread is interrupted"),
    (ALL, BOTH, "tgkill", &[OWN, TID, SIGABRT], "35: abort"),
    (CHECKER, BOTH, "fstat", &[FD, PTR], "35: musl: metadata of an executable"),
    (CHECKER, BOTH, "newfstatat", &[FD, PTR, PTR, 0x1000], "35: musl: the same, where it is named by a path"),
    (CHECKER, X86, "stat", &[PTR, PTR], "35: musl: the same"),
    (BASE, X86, "lstat", &[PTR, PTR], "35: musl: a reload looks whether a path of a rule is a link"),
    (BASE, BOTH, "newfstatat", &[CWD, PTR, PTR, 0x100], "35: musl, aarch64: the same"),
    (BASE, X86, "stat", &[PTR, PTR], "musl: std asks by it"),
    (BASE, X86, "open", &[PTR, READ], "musl: the configuration at a reload"),
    (METRICS, BOTH, "fstat", &[FD, PTR], "35: musl: the number of descriptors"),
    (&["log_writer"], BOTH, "read", &[FD, PTR, LEN], "36: free asks what the kernel says of memory, without Landlock"),
    (COMPRESSOR, BOTH, "ppoll", &[PTR, 1, PTR, 0, 8], "36: standard error is a pipe"),
    (COMPRESSOR, BOTH, "sendto", &[2, PTR, LEN, 0x4040, 0, 0], "36: standard error is a socket"),
    (EMBEDDED, BOTH, "getcwd", &[PTR, LEN], "36: a backtrace"),
    (EMBEDDED, X86, "readlink", &[PTR, PTR, LEN], "36: the same looks for the program"),
    (EMBEDDED, BOTH, "readlinkat", &[CWD, PTR, PTR, LEN], "36: the same on aarch64; a service that reads links"),
    (ALL, BOTH, "rt_sigaction", &[SIGBUS, PTR, 0, SIGNALS_BYTES], "36: std, after a fault of memory"),
    (ALL, BOTH, "rt_sigaction", &[SIGSEGV, PTR, 0, SIGNALS_BYTES], "36: the same"),
    (ALL, BOTH, "rt_sigaction", &[SIGABRT, PTR, 0, SIGNALS_BYTES], "36: abort"),
    (ALL, BOTH, "writev", &[2, PTR, 3], "36: glibc says why it aborts"),
    (ALL, BOTH, "rt_sigreturn", &[], "the return from any handler"),
    (ALL, BOTH, "prctl", &[PR_GET_NAME, PTR], "the handler of a trap names its thread"),
    (ALL, BOTH, "clock_gettime", &[1, PTR], "a vDSO without a clock"),
    (ALL, BOTH, "nanosleep", &[PTR, PTR], "musl: thread::sleep"),
    (ALL, BOTH, "fcntl", &[FD, F_SETFD, 1], "musl: O_CLOEXEC once more"),
    (ADMITTING, BOTH, "pidfd_open", &[TID, 0], "a peer's process, before SO_PEERPIDFD (Linux 6.5)"),
    (ADMITTING, BOTH, "recvmsg", &[FD, PTR, 0x4000_0040], "before Linux 6.16: whether descriptors came"),
    (ADMITTING, BOTH, "shutdown", &[FD, 2], "a stop between the check of a peer and its entry"),
    (EMBEDDED, X86, "stat", &[PTR, PTR], "musl: metadata"),
    (EMBEDDED, X86, "lstat", &[PTR, PTR], "musl: metadata of what may be a link"),
    (EMBEDDED, X86, "open", &[PTR, READ], "musl: files"),
    (EMBEDDED, BOTH, "pwrite64", &[FD, PTR, LEN, 0], "std: write_at"),
    (EMBEDDED, ARM, "renameat", &[CWD, PTR, CWD, PTR], "std: rename"),
    (EMBEDDED, ARM, "unlinkat", &[CWD, PTR, 0], "std: remove_file"),
    (RESOLVER, X86, "open", &[PTR, READ], "musl: resolv.conf"),
    (RESOLVER, BOTH, "fstat", &[FD, PTR], "glibc: the size of a block"),
    (RESOLVER, BOTH, "uname", &[PTR], "the domain of this machine"),
    (RESOLVER, BOTH, "socket", &[1, STREAM, 0], "glibc: a cache of names"),
    (RESOLVER, BOTH, "socket", &[10, QUESTION, 0], "name servers over IPv6"),
    (RESOLVER, BOTH, "sendto", &[FD, PTR, LEN, 0x4000, PTR, 16], "a question"),
    (RESOLVER, BOTH, "sendmsg", &[FD, PTR, 0x4000], "musl: a question"),
    (RESOLVER, BOTH, "recvmsg", &[FD, PTR, 0], "an answer"),
    (RESOLVER, BOTH, "ppoll", &[PTR, 1, PTR, 0, 8], "waits for an answer"),
    (RESOLVER, BOTH, "getpeername", &[FD, PTR, PTR], "whether a server still is connected"),
    (RESOLVER, BOTH, "getsockname", &[FD, PTR, PTR], "the order of what was found"),
    (RESOLVER, BOTH, "setsockopt", &[FD, IPPROTO_IPV6, IPV6_RECVERR, PTR, 4], "a server that is not there"),
];

fn call(architecture: &Architecture, number: u32, given: &[u64]) -> Call {
    let mut arguments = [0; 6];
    arguments[..given.len()].copy_from_slice(given);
    Call {
        number,
        audit: architecture.audit,
        arguments,
    }
}

fn program(architecture: &Architecture, filter: &str) -> &'static [super::sock_filter] {
    let mut all = architecture.filters.iter();
    all.find(|(name, _)| *name == filter).unwrap().1
}

#[test]
fn what_must_be_allowed_is() {
    let mut missing = Vec::new();
    for architecture in &ARCHITECTURES {
        let numbers = numbers(architecture.column);
        let file: Value = serde_json::from_str(architecture.rules).unwrap();
        for filter in ALL {
            // By its own groups: not only because another role may.
            let own = own_rules(&file, filter, architecture.column);
            let alone = |role: &Role| role.stands_alone() && role.name() == *filter;
            let alone = Role::ALL.iter().any(alone);
            let behind = if alone { *filter } else { "base" };
            for (filters, on, name, given, why) in NEEDED {
                if !filters.contains(filter) || !on.contains(&architecture.name) {
                    continue;
                }
                let call = call(architecture, numbers[name], given);
                let allowed = [*filter, behind]
                    .iter()
                    .all(|one| simulate(program(architecture, one), &call) == ALLOW);
                if !allowed || !is_meant(&own, &call) {
                    missing.push(format!("{} {filter} {name}: {why}", architecture.name));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Findings 12 and 35: calls that are made by another way, and must not come back.
#[test]
fn what_is_done_by_another_call_is_on_no_list() {
    for architecture in &ARCHITECTURES {
        let numbers = numbers(architecture.column);
        for filter in ALL {
            let program = program(architecture, filter);
            for name in ["epoll_pwait2", "tkill", "renameat2"] {
                let files = ["base", "log_writer", "log_compressor"].contains(filter);
                let allowed = name == "renameat2" && files;
                let call = call(architecture, numbers[name], &[CWD, PTR, CWD, PTR, 1]);
                let found = simulate(program, &call) == ALLOW;
                assert_eq!(found, allowed, "{} {filter} {name}", architecture.name);
            }
            // Nobody else is killed.
            for process in [0, 1, OWN + 1, u64::from(u32::MAX)] {
                let call = call(architecture, numbers["tgkill"], &[process, TID, SIGURG]);
                assert_ne!(simulate(program, &call), ALLOW, "{filter} {process}");
            }
        }
    }
}

/// The rules of a filter's own groups.
fn own_rules(file: &Value, filter: &str, column: usize) -> Meant {
    let mut file = file.clone();
    file["filters"][filter]["union"] = Value::Null;
    let mut meant = Meant::new();
    collect(&file, filter, &numbers(column), &mut meant);
    meant
}

/// Each rule that nothing on this machine was seen to need is needed by a line above:
/// without the rule that call would be forbidden.
#[test]
fn each_rule_that_was_not_seen_to_be_needed_is_needed_here() {
    let mut open = Vec::new();
    for architecture in &ARCHITECTURES {
        let numbers = numbers(architecture.column);
        let file: Value = serde_json::from_str(architecture.rules).unwrap();
        for (filter, group, at) in unseen(&file) {
            let with = own_rules(&file, &filter, architecture.column);
            let mut file = file.clone();
            let rules = file["groups"][&group]["rules"].as_array_mut().unwrap();
            let rule = rules.remove(at);
            let without = own_rules(&file, &filter, architecture.column);
            let needs = |(filters, on, name, given, _): &Needed| {
                if !filters.contains(&filter.as_str()) || !on.contains(&architecture.name) {
                    return false;
                }
                let call = call(architecture, numbers[name], given);
                is_meant(&with, &call) && !is_meant(&without, &call)
            };
            if !NEEDED.iter().any(needs) {
                open.push(format!("{} {filter}: {rule}", architecture.name));
            }
        }
    }
    assert!(open.is_empty(), "{}", open.join("\n"));
}

/// Filter, group, and the place in it.
fn unseen(file: &Value) -> Vec<(String, String, usize)> {
    let mut found = Vec::new();
    for (filter, spec) in file["filters"].as_object().unwrap() {
        for group in spec["groups"].as_array().unwrap() {
            let group = group.as_str().unwrap();
            let rules = file["groups"][group]["rules"].as_array().unwrap();
            for (at, rule) in rules.iter().enumerate() {
                let here = match &rule["unseen"] {
                    Value::String(_) => true,
                    by_filter => by_filter.get(filter).is_some(),
                };
                if here {
                    found.push((filter.clone(), group.to_owned(), at));
                }
            }
        }
    }
    assert!(found.len() > 100, "{} rules", found.len());
    found
}
