//! Turns the plan into Landlock domains: one for the main thread, which all
//! later threads are born into, and a narrower one for each role (landlock(7)).
//!
//! Up to ABI 7 a domain is one thread's, and doesn't stop connect(2) to a
//! socket that has a path.

use crate::sys::landlock::{Handled, Ruleset, abi, open_place};

use super::error::system;
use super::{Access, Mode, PathGrant, Plan, Role, SandboxError};

/// The first interface that has all that is asked for here: scopes.
const WANTED_ABI: u32 = 6;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_REG: u64 = 1 << 8;
const TRUNCATE: u64 = 1 << 14;
/// Rights that a file can have; a rule for one with any other is an error.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 1 << 1;

/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`.
const ABSTRACT_SOCKETS: u64 = 1;
/// The same, and `LANDLOCK_SCOPE_SIGNAL`.
const SCOPES: u64 = ABSTRACT_SOCKETS | 1 << 1;

/// What this kernel can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// All that is wanted.
    Whole(u32),
    /// Less: the version, and what lacks.
    Part(u32, String),
    /// Nothing: why.
    None(String),
}

/// One domain for each role; made before the wall is up, since afterwards the
/// paths can't be opened.
#[derive(Debug, Default)]
pub(super) struct Domains {
    domains: Vec<(Role, Ruleset)>,
}

/// Asks the kernel.
pub(super) fn offer() -> Offer {
    match abi() {
        Ok(version) => judge(version),
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            Offer::None("the kernel lacks CONFIG_SECURITY_LANDLOCK (Linux 5.13)".to_owned())
        }
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Offer::None("landlock is not in the kernel's lsm= list".to_owned())
        }
        Err(error) => Offer::None(error.to_string()),
    }
}

fn judge(version: u32) -> Offer {
    let lacks: Vec<&str> = [
        (3, "truncation of files (Linux 6.2)"),
        (4, "TCP ports (Linux 6.7)"),
        (5, "ioctl of devices (Linux 6.10)"),
        (6, "scopes of signals and abstract sockets (Linux 6.12)"),
    ]
    .into_iter()
    .filter(|(since, _)| version < *since)
    .map(|(_, what)| what)
    .collect();
    if version >= WANTED_ABI {
        Offer::Whole(version)
    } else {
        Offer::Part(version, format!("ABI {version} lacks {}", lacks.join(", ")))
    }
}

/// Everything that this version can deny.
fn handled(version: u32) -> Handled {
    // Thirteen rights from the start; then came refer with ABI 2, truncate
    // with 3, ioctl of devices with 5, each the next bit.
    let files: u64 = match version {
        0 | 1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    };
    Handled {
        files,
        network: if version >= 4 {
            BIND_TCP | CONNECT_TCP
        } else {
            0
        },
        scoped: if version >= 6 { SCOPES } else { 0 },
    }
}

const fn rights(access: Access) -> u64 {
    match access {
        Access::Read => READ_FILE | READ_DIR,
        Access::Manage => READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | MAKE_REG | REMOVE_FILE,
        Access::Remove => REMOVE_FILE,
    }
}

impl Domains {
    /// Opens all paths of the plan, and makes a domain for each role.
    ///
    /// With [`Mode::BestEffort`] a path that isn't there is left out and named.
    pub(super) fn prepare(plan: &Plan, version: u32) -> Result<(Self, Vec<String>), SandboxError> {
        let mut handled = handled(version);
        if plan.abstract_sockets {
            handled.scoped &= !ABSTRACT_SOCKETS;
        }
        let mut domains = Vec::new();
        for role in Role::ALL {
            let ruleset = Ruleset::new(&handled)
                .map_err(|source| system("can't create a Landlock ruleset", source))?;
            domains.push((role, ruleset));
        }
        let domains = Self { domains };
        let mut left_out = Vec::new();
        for grant in &plan.paths {
            match domains.grant_path(grant, handled.files) {
                Err(SandboxError::Path { path, source }) if plan.mode == Mode::BestEffort => {
                    left_out.push(format!("{} not granted: {source}", path.display()));
                }
                other => other?,
            }
        }
        if handled.network != 0 {
            for port in &plan.tcp_bind {
                domains.grant_port(*port, BIND_TCP, &[])?;
            }
            for (port, roles) in &plan.tcp_connect {
                domains.grant_port(*port, CONNECT_TCP, roles)?;
            }
        }
        Ok((domains, left_out))
    }

    /// Restricts the calling thread to the domain of its role.
    pub(super) fn enter(&self, role: Role) -> Result<(), SandboxError> {
        for (of, ruleset) in &self.domains {
            if *of == role {
                ruleset
                    .restrict_thread()
                    .map_err(|source| system("can't enter a Landlock domain", source))?;
            }
        }
        Ok(())
    }

    fn grant_path(&self, grant: &PathGrant, handled: u64) -> Result<(), SandboxError> {
        let failed = |source| SandboxError::Path {
            path: grant.path.clone(),
            source,
        };
        let (place, is_directory) = open_place(&grant.path).map_err(failed)?;
        let mut allowed = rights(grant.access) & handled;
        if !is_directory {
            allowed &= OF_FILES;
        }
        if allowed == 0 {
            return Ok(());
        }
        for (role, ruleset) in &self.domains {
            if is_granted(*role, &grant.roles) {
                ruleset
                    .allow_path(std::os::fd::AsFd::as_fd(&place), allowed)
                    .map_err(failed)?;
            }
        }
        Ok(())
    }

    fn grant_port(&self, port: u16, allowed: u64, roles: &[Role]) -> Result<(), SandboxError> {
        for (role, ruleset) in &self.domains {
            if is_granted(*role, roles) {
                ruleset
                    .allow_port(port, allowed)
                    .map_err(|source| system("can't grant a TCP port", source))?;
            }
        }
        Ok(())
    }
}

/// The supervisor has what those have that are born behind its walls.
fn is_granted(role: Role, roles: &[Role]) -> bool {
    let all_alone = !roles.is_empty() && roles.iter().all(|role| role.stands_alone());
    roles.contains(&role) || (role == Role::Supervisor && !all_alone)
}

/// Tries what the wall forbids: to list the root directory.
pub(super) fn verify_stands(plan: &Plan) -> Result<(), SandboxError> {
    let root = std::path::Path::new("/");
    if plan.paths.iter().any(|grant| grant.path == root) {
        return Ok(());
    }
    match std::fs::read_dir(root) {
        Err(_) => Ok(()),
        Ok(_) => Err(SandboxError::Wall {
            wall: "landlock",
            missing: "the root directory can still be listed".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_is_named_with_its_version() {
        assert_eq!(judge(6), Offer::Whole(6));
        assert_eq!(judge(7), Offer::Whole(7));
        let Offer::Part(2, text) = judge(2) else {
            panic!()
        };
        assert_eq!(
            text,
            "ABI 2 lacks truncation of files (Linux 6.2), TCP ports (Linux 6.7), \
             ioctl of devices (Linux 6.10), scopes of signals and abstract sockets (Linux 6.12)"
        );
    }

    #[test]
    fn the_supervisor_has_what_is_born_behind_it_and_no_more() {
        #[track_caller]
        fn check(role: Role, roles: &[Role], expected: bool) {
            assert_eq!(is_granted(role, roles), expected, "{role} {roles:?}");
        }
        check(Role::Supervisor, &[], true);
        check(Role::EchoWorker, &[], false);
        check(Role::Supervisor, &[Role::LogWriter], true);
        check(Role::Supervisor, &[Role::Resolver], false);
        check(Role::Supervisor, &[Role::Resolver, Role::LogWriter], true);
        check(Role::Supervisor, &[Role::Supervisor, Role::Resolver], true);
        check(Role::Resolver, &[Role::Resolver], true);
        check(Role::RelayWorker, &[Role::Resolver], false);
    }

    #[test]
    fn each_version_handles_all_that_it_knows() {
        #[track_caller]
        fn check(version: u32, files: u64, network: u64, scoped: u64) {
            assert_eq!(
                handled(version),
                Handled {
                    files,
                    network,
                    scoped
                }
            );
        }
        check(1, 0x1fff, 0, 0);
        check(2, 0x3fff, 0, 0);
        check(3, 0x7fff, 0, 0);
        check(4, 0x7fff, 3, 0);
        check(5, 0xffff, 3, 0);
        check(6, 0xffff, 3, 3);
        check(7, 0xffff, 3, 3);
    }
}
