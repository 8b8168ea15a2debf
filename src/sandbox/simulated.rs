//! Runs the compiled filters of both architectures in a simulator, over every
//! call and the edges of every condition, and compares with a second reading of
//! the rules: straight from the text, without the compiler.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::sock_filter;
use serde_json::Value;

mod needed_tests;

mod x86_64 {
    use super::sock_filter;
    include!(concat!(env!("OUT_DIR"), "/filters_x86_64.rs"));
}
mod aarch64 {
    use super::sock_filter;
    include!(concat!(env!("OUT_DIR"), "/filters_aarch64.rs"));
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
const EACCES: u32 = libc::SECCOMP_RET_ERRNO | 13;

/// `AUDIT_ARCH_*` (linux/audit.h).
const X86_64: u32 = 0xC000_003E;
const AARCH64: u32 = 0xC000_00B7;
const I386: u32 = 0x4000_0003;
const ARM: u32 = 0x4000_0028;
/// `__X32_SYSCALL_BIT`.
const X32: u32 = 0x4000_0000;

type Filters = &'static [(&'static str, &'static [sock_filter])];

struct Architecture {
    name: &'static str,
    audit: u32,
    filters: Filters,
    calls: &'static [(u32, &'static str)],
    rules: &'static str,
    column: usize,
}

const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        name: "x86_64",
        audit: X86_64,
        filters: x86_64::FILTERS,
        calls: x86_64::CALLS,
        rules: include_str!("../../seccomp/x86_64.json"),
        column: 1,
    },
    Architecture {
        name: "aarch64",
        audit: AARCH64,
        filters: aarch64::FILTERS,
        calls: aarch64::CALLS,
        rules: include_str!("../../seccomp/aarch64.json"),
        column: 2,
    },
];

/// `struct seccomp_data`, as far as filters look at it.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: u32,
    audit: u32,
    arguments: [u64; 6],
}

impl Call {
    /// The word at an offset, little-endian.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.audit,
            16..64 => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                (if offset.is_multiple_of(8) {
                    argument
                } else {
                    argument >> 32
                }) as u32
            }
            other => panic!("load from {other}"),
        }
    }
}

/// What the kernel would make of it; panics where its verifier would refuse.
fn simulate(program: &[sock_filter], call: &Call) -> u32 {
    let mut accumulator = 0;
    let mut next = 0;
    loop {
        let i = &program[next];
        next += 1;
        let holds = match i.code {
            0x06 => return i.k,
            0x05 => {
                next += i.k as usize;
                continue;
            }
            0x20 => {
                accumulator = call.word(i.k);
                continue;
            }
            0x54 => {
                accumulator &= i.k;
                continue;
            }
            0x15 => accumulator == i.k,
            0x25 => accumulator > i.k,
            0x35 => accumulator >= i.k,
            code => panic!("instruction {code:#x}"),
        };
        next += usize::from(if holds { i.jt } else { i.jf });
    }
}

#[derive(Clone, Debug)]
struct Condition {
    argument: usize,
    mask: u64,
    value: u64,
}

impl Condition {
    fn parse(value: &Value) -> Self {
        let width = if value["type"] == "qword" {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        };
        let mask = match &value["op"] {
            Value::String(op) if op == "eq" => width,
            Value::Object(op) => op["masked_eq"].as_u64().unwrap() & width,
            other => panic!("operator {other}"),
        };
        Self {
            argument: value["index"].as_u64().unwrap() as usize,
            mask,
            value: value["val"].as_u64().unwrap(),
        }
    }

    fn holds(&self, call: &Call) -> bool {
        call.arguments[self.argument] & self.mask == self.value & self.mask
    }
}

/// Rules of a filter by number; no conditions at all means always.
type Meant = BTreeMap<u32, Vec<Vec<Condition>>>;

fn numbers(column: usize) -> BTreeMap<&'static str, u32> {
    include_str!("../../seccomp/calls.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            Some((words[0], words[column].parse().ok()?))
        })
        .collect()
}

fn meant(architecture: &Architecture, filter: &str) -> Meant {
    let file: Value = serde_json::from_str(architecture.rules).unwrap();
    let numbers = numbers(architecture.column);
    let mut meant = Meant::new();
    collect(&file, filter, &numbers, &mut meant);
    meant
}

fn collect(file: &Value, filter: &str, numbers: &BTreeMap<&str, u32>, meant: &mut Meant) {
    let spec = &file["filters"][filter];
    for group in spec["groups"].as_array().unwrap() {
        for rule in file["groups"][group.as_str().unwrap()]["rules"]
            .as_array()
            .unwrap()
        {
            let conditions = rule["args"].as_array().into_iter().flatten();
            let number = numbers[rule["syscall"].as_str().unwrap()];
            meant
                .entry(number)
                .or_default()
                .push(conditions.map(Condition::parse).collect());
        }
    }
    for member in spec["union"].as_array().into_iter().flatten() {
        collect(file, member.as_str().unwrap(), numbers, meant);
    }
}

fn is_meant(meant: &Meant, call: &Call) -> bool {
    meant
        .get(&call.number)
        .is_some_and(|rules| rules.iter().any(|rule| rule.iter().all(|c| c.holds(call))))
}

/// Arguments that meet each rule, and those beside them: one bit more or less,
/// in either half, in each argument.
fn edges(rules: &[Vec<Condition>]) -> Vec<[u64; 6]> {
    let mut edges = vec![[0; 6], [u64::MAX; 6], [1; 6], [u64::from(u32::MAX); 6]];
    for rule in rules {
        let mut base = [0; 6];
        for condition in rule {
            base[condition.argument] = condition.value;
        }
        edges.push(base);
        for argument in 0..6 {
            for bit in 0..64 {
                let mut edge = base;
                edge[argument] ^= 1 << bit;
                edges.push(edge);
            }
            for value in [
                0,
                u64::MAX,
                base[argument].wrapping_add(1),
                base[argument].wrapping_sub(1),
            ] {
                let mut edge = base;
                edge[argument] = value;
                edges.push(edge);
            }
        }
    }
    edges
}

/// What a filter answers where its list has the call, and where it doesn't.
fn answers(filter: &str) -> (u32, u32) {
    match filter {
        "no_clone3" => (ENOSYS, ALLOW),
        "no_open" => (EACCES, ALLOW),
        "resolver" => (ALLOW, EPERM),
        _ => (ALLOW, KILL),
    }
}

#[test]
fn every_filter_does_what_its_rules_say() {
    for architecture in &ARCHITECTURES {
        for (filter, program) in architecture.filters {
            let meant = meant(architecture, filter);
            let (listed, otherwise) = answers(filter);
            for number in (0..1024).chain(X32..X32 + 1024).chain([u32::MAX, X32 - 1]) {
                let rules = meant.get(&number).map_or(&[][..], Vec::as_slice);
                for arguments in edges(rules) {
                    let call = Call {
                        number,
                        audit: architecture.audit,
                        arguments,
                    };
                    let expected = if is_meant(&meant, &call) {
                        listed
                    } else {
                        otherwise
                    };
                    assert_eq!(
                        simulate(program, &call),
                        expected,
                        "{} {filter} {call:x?}",
                        architecture.name
                    );
                }
            }
        }
    }
}

#[test]
fn calls_of_another_architecture_die_in_every_filter() {
    for architecture in &ARCHITECTURES {
        for (filter, program) in architecture.filters {
            for audit in [X86_64, AARCH64, I386, ARM, 0, u32::MAX] {
                if audit == architecture.audit {
                    continue;
                }
                for number in 0..1024 {
                    let call = Call {
                        number,
                        audit,
                        arguments: [0; 6],
                    };
                    assert_eq!(
                        simulate(program, &call),
                        KILL,
                        "{} {filter}",
                        architecture.name
                    );
                }
            }
        }
    }
}

#[test]
fn what_every_role_must_not_call_is_on_no_list() {
    let never = [
        "execve",
        "execveat",
        "ptrace",
        "kill",
        "tkill",
        "mount",
        "umount2",
        "bpf",
        "io_uring_setup",
        "io_uring_enter",
        "userfaultfd",
        "keyctl",
        "process_vm_readv",
        "process_vm_writev",
        "setuid",
        "setgid",
        "unshare",
        "setns",
        "chroot",
        "pivot_root",
        "init_module",
        "finit_module",
        "kexec_load",
        "perf_event_open",
        "memfd_create",
        "pkey_mprotect",
        "personality",
        "bind",
        "listen",
        "socketpair",
        "pidfd_getfd",
        "pidfd_send_signal",
        "prlimit64",
        "fchmodat",
        "fchownat",
        "mknodat",
        "symlinkat",
        "open_by_handle_at",
        "dup3",
        "wait4",
        "waitid",
        "add_key",
        "clock_settime",
        "delete_module",
        "fsopen",
        "move_mount",
        "process_madvise",
        "reboot",
        "request_key",
        "sethostname",
        "swapon",
    ];
    for architecture in &ARCHITECTURES {
        let numbers = numbers(architecture.column);
        for (filter, program) in architecture.filters {
            let meant = meant(architecture, filter);
            for name in never {
                // No rule names it, whatever the conditions.
                assert!(!meant.contains_key(&numbers[name]), "{filter} {name}");
                for arguments in edges(&[]) {
                    let call = Call {
                        number: numbers[name],
                        audit: architecture.audit,
                        arguments,
                    };
                    let (_, otherwise) = answers(filter);
                    assert_eq!(simulate(program, &call), otherwise, "{filter} {name}");
                }
            }
        }
    }
}

/// Written down apart from the rules: what a call that is on a list must not be given.
/// The other arguments are such as are allowed.
#[test]
fn what_every_role_must_not_pass_is_refused() {
    // From the headers in include/uapi: the same on both architectures.
    let private = 0x22;
    let never: [(&str, &str, [u64; 6]); 16] = [
        ("mmap", "PROT_EXEC", [0, 4096, 4, private, u64::MAX, 0]),
        (
            "mmap",
            "PROT_WRITE, EXEC",
            [0, 4096, 6, private, u64::MAX, 0],
        ),
        (
            "mmap",
            "PROT_EXEC, MAP_DROPPABLE",
            [0, 4096, 4, 0x28, u64::MAX, 0],
        ),
        ("mmap", "a file", [0, 4096, 1, 2, 3, 0]),
        ("mmap", "a shared file", [0, 4096, 3, 1, 3, 0]),
        ("mprotect", "PROT_EXEC", [4096, 4096, 4, 0, 0, 0]),
        ("mprotect", "PROT_READ, EXEC", [4096, 4096, 5, 0, 0, 0]),
        ("mremap", "MREMAP_FIXED", [4096, 4096, 4096, 3, 8192, 0]),
        ("clone", "SIGCHLD alone: a fork", [17, 0, 0, 0, 0, 0]),
        ("clone", "CLONE_NEWUSER", [0x1000_0011, 0, 0, 0, 0, 0]),
        ("socket", "AF_NETLINK", [16, 3, 0, 0, 0, 0]),
        ("socket", "AF_PACKET", [17, 3, 0, 0, 0, 0]),
        ("socket", "AF_VSOCK", [40, 1, 0, 0, 0, 0]),
        ("prctl", "PR_SET_DUMPABLE", [4, 1, 0, 0, 0, 0]),
        ("prctl", "PR_SET_MM", [35, 1, 0, 0, 0, 0]),
        ("ioctl", "TIOCSTI", [0, 0x5412, 0, 0, 0, 0]),
    ];
    for architecture in &ARCHITECTURES {
        let numbers = numbers(architecture.column);
        for (filter, program) in architecture.filters {
            // Filters that answer what they list pass on the rest.
            let (_, otherwise) = answers(filter);
            for (name, what, arguments) in never {
                let call = Call {
                    number: numbers[name],
                    audit: architecture.audit,
                    arguments,
                };
                let answer = simulate(program, &call);
                assert_eq!(answer, otherwise, "{filter}: {name} with {what}");
            }
        }
    }
}

/// The one call on a list that no role makes: the compressor is nice before it enters its
/// role, so it is on the list of all, and only to be as nice as can be.
#[test]
fn a_thread_is_made_nice_before_its_role_and_nothing_else() {
    for architecture in &ARCHITECTURES {
        let number = numbers(architecture.column)["setpriority"];
        let base = meant(architecture, "base");
        for (filter, program) in architecture.filters {
            let (listed, otherwise) = answers(filter);
            for arguments in edges(&base[&number]) {
                let call = Call {
                    number,
                    audit: architecture.audit,
                    arguments,
                };
                let [which, _, nice, ..] = arguments.map(|argument| argument as u32);
                let nicest = *filter == "base" && which == 0 && nice == 19;
                let expected = if nicest { listed } else { otherwise };
                assert_eq!(simulate(program, &call), expected, "{filter} {call:x?}");
            }
        }
    }
}

#[test]
fn the_filter_of_all_is_as_wide_as_each_that_is_added() {
    for architecture in &ARCHITECTURES {
        let find = |name| {
            architecture
                .filters
                .iter()
                .find(|(filter, _)| *filter == name)
                .unwrap()
                .1
        };
        let base = find("base");
        for (filter, program) in architecture.filters {
            let alone = super::Role::ALL
                .iter()
                .any(|role| role.stands_alone() && role.name() == *filter);
            if alone || ["no_clone3", "no_open"].contains(filter) {
                continue;
            }
            for (number, rules) in meant(architecture, filter) {
                for arguments in edges(&rules) {
                    let call = Call {
                        number,
                        audit: architecture.audit,
                        arguments,
                    };
                    if simulate(program, &call) == ALLOW {
                        assert_eq!(simulate(base, &call), ALLOW, "{filter} {call:x?}");
                    }
                }
            }
        }
    }
}

#[test]
fn both_architectures_have_the_same_filters() {
    let names = |filters: Filters| {
        filters
            .iter()
            .map(|(name, _)| *name)
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(names(x86_64::FILTERS), names(aarch64::FILTERS));
    for role in super::Role::ALL {
        assert!(names(x86_64::FILTERS).contains(role.name()));
    }
    // The longest that the kernel takes is 4096 (BPF_MAXINSNS).
    for (name, program) in x86_64::FILTERS.iter().chain(aarch64::FILTERS) {
        assert!(program.len() < 1024, "{name}: {}", program.len());
    }
}

#[test]
fn the_numbers_of_the_host_are_those_of_libc() {
    let column = if cfg!(target_arch = "x86_64") { 1 } else { 2 };
    let numbers = numbers(column);
    for (name, number) in [
        ("accept4", libc::SYS_accept4),
        ("clone", libc::SYS_clone),
        ("futex", libc::SYS_futex),
        ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
        ("openat2", libc::SYS_openat2),
        ("seccomp", libc::SYS_seccomp),
        ("setresuid", libc::SYS_setresuid),
        ("tgkill", libc::SYS_tgkill),
    ] {
        assert_eq!(i64::from(numbers[name]), number, "{name}");
    }
}

#[test]
fn a_trap_finds_the_name_of_every_call() {
    for architecture in &ARCHITECTURES {
        let numbers = numbers(architecture.column);
        assert_eq!(architecture.calls.len(), numbers.len());
        assert!(
            architecture
                .calls
                .iter()
                .all(|(number, name)| numbers[name] == *number)
        );
    }
}
