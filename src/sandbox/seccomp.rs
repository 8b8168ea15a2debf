//! Installs the filters that `seccomp/build.rs` compiled (seccomp(2)).
//!
//! `base` is for the main thread, and all that it starts inherit it; each role
//! adds its own; the kernel takes the strictest answer of all. A filter of its
//! own answers clone3 with ENOSYS, since the flags of a new thread can only be
//! read in those of clone; another answers openat with EACCES in threads that
//! need no file, since free(3) of glibc opens one. The resolver's answers EPERM
//! for all that it doesn't list, whatever the action: see its purpose.

use seccompiler::sock_filter;

use super::error::system;
use super::{Role, SandboxError, SeccompAction};

#[cfg(target_arch = "x86_64")]
mod compiled {
    use super::sock_filter;
    include!(concat!(env!("OUT_DIR"), "/filters_x86_64.rs"));
}
#[cfg(target_arch = "aarch64")]
mod compiled {
    use super::sock_filter;
    include!(concat!(env!("OUT_DIR"), "/filters_aarch64.rs"));
}

/// `BPF_RET | BPF_K`, and `BPF_JMP | BPF_JEQ | BPF_K` (linux/bpf_common.h).
const RETURN: u16 = 0x06;
const JUMP_IF_EQUAL: u16 = 0x15;

/// Stands in the filters for the id of the process, which is not known when
/// they are compiled.
const OWN_PROCESS: u32 = 0x5E1F_5E1F;

/// How many instructions at the start of a filter look at the architecture.
/// The death that they lead to is for every [`SeccompAction`].
const ARCHITECTURE_CHECK: usize = 3;

/// How many filters the main thread, and so every thread, lives behind.
pub(super) const FILTERS_OF_ALL: u32 = 2;

/// How many filters entering the role adds.
pub(super) const fn filters_of(role: Role) -> u32 {
    match role {
        Role::Supervisor => 0,
        _ if opens_nothing(role) => 2,
        _ => 1,
    }
}

/// Whether the kernel has filters, and the action that is asked for.
pub(super) fn missing(action: SeccompAction) -> Option<&'static str> {
    let code = returned(action)?;
    if crate::sys::seccomp::action_available(code) {
        return None;
    }
    Some("the kernel lacks CONFIG_SECCOMP_FILTER, or the action (Linux 4.14)")
}

/// What the filters need of the whole process; before any is installed.
pub(super) fn prepare(action: SeccompAction) -> Result<(), SandboxError> {
    if action == SeccompAction::Trap {
        crate::sys::trap::install(compiled::CALLS)
            .map_err(|source| system("can't install the handler of SIGSYS", source))?;
    }
    Ok(())
}

/// Puts the calling thread, and all that it will start, behind what is common.
pub(super) fn install_base(action: SeccompAction) -> Result<(), SandboxError> {
    install("no_clone3", action)?;
    install(Role::Supervisor.name(), action)
}

/// Puts the calling thread behind the filter of its role.
pub(super) fn install_role(role: Role, action: SeccompAction) -> Result<(), SandboxError> {
    if role == Role::Supervisor {
        return Ok(());
    }
    if opens_nothing(role) {
        install("no_open", action)?;
    }
    install(role.name(), action)
}

/// Roles whose filter knows openat only because the C library tries it.
const fn opens_nothing(role: Role) -> bool {
    matches!(
        role,
        Role::EchoWorker | Role::RelayWorker | Role::BrokerWorker | Role::Metrics | Role::Connector
    )
}

fn install(name: &'static str, action: SeccompAction) -> Result<(), SandboxError> {
    let Some(code) = returned(action) else {
        return Ok(());
    };
    let found = compiled::FILTERS.iter().find(|(filter, _)| *filter == name);
    let Some((_, program)) = found else {
        return Err(SandboxError::Wall {
            wall: "seccomp",
            missing: format!("filter {name}"),
        });
    };
    let program = for_process(program, std::process::id(), code);
    seccompiler::apply_filter(&program).map_err(|error| match error {
        seccompiler::Error::Prctl(source) | seccompiler::Error::Seccomp(source) => {
            system("can't install a seccomp filter", source)
        }
        other => SandboxError::Wall {
            wall: "seccomp",
            missing: other.to_string(),
        },
    })
}

/// The program with the id of the process and the action put in.
fn for_process(program: &[sock_filter], process: u32, action: u32) -> Vec<sock_filter> {
    let mut program = program.to_vec();
    for (index, instruction) in program.iter_mut().enumerate() {
        match (instruction.code, instruction.k) {
            (JUMP_IF_EQUAL, OWN_PROCESS) => instruction.k = process,
            (RETURN, libc::SECCOMP_RET_KILL_PROCESS) if index >= ARCHITECTURE_CHECK => {
                instruction.k = action;
            }
            _ => {}
        }
    }
    program
}

fn returned(action: SeccompAction) -> Option<u32> {
    match action {
        SeccompAction::Kill => Some(libc::SECCOMP_RET_KILL_PROCESS),
        SeccompAction::Trap => Some(libc::SECCOMP_RET_TRAP),
        SeccompAction::Log => Some(libc::SECCOMP_RET_LOG),
        SeccompAction::Off => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_and_action_are_put_in_and_nothing_else() {
        const PROCESS: u32 = 4711;
        for (name, program) in compiled::FILTERS {
            let made = for_process(program, PROCESS, libc::SECCOMP_RET_LOG);
            assert_eq!(made.len(), program.len());
            for (index, (from, to)) in program.iter().zip(&made).enumerate() {
                let expect = match (from.code, from.k) {
                    (JUMP_IF_EQUAL, OWN_PROCESS) => PROCESS,
                    // Another architecture dies whatever the action.
                    (RETURN, libc::SECCOMP_RET_KILL_PROCESS) if index > 2 => libc::SECCOMP_RET_LOG,
                    (_, other) => other,
                };
                let same = (from.code, from.jt, from.jf) == (to.code, to.jt, to.jf);
                assert!(same && to.k == expect, "{name}, instruction {index}");
            }
            assert_eq!(made[2].code, RETURN, "{name}");
            assert_eq!(made[2].k, libc::SECCOMP_RET_KILL_PROCESS, "{name}");
            let names_process = program.iter().any(|one| one.k == OWN_PROCESS);
            let has_it = made.iter().any(|one| one.k == PROCESS);
            assert_eq!(names_process, has_it, "{name}");
        }
        let of_all = compiled::FILTERS
            .iter()
            .filter(|(_, program)| program.iter().any(|one| one.k == OWN_PROCESS));
        assert!(of_all.count() > 0, "none names the process");
    }
}
