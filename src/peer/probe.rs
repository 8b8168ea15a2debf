//! What this kernel and this user can find out about peers, tried at start-up, so
//! that a rule which could never be evaluated is refused then.

use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::process::ProcRoot;
use super::{FactKind, Needs};
use crate::sys;

/// CAP_SYS_PTRACE (capabilities(7)).
pub const CAP_SYS_PTRACE: u8 = 19;

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// `SO_PEERPIDFD`, Linux 6.5.
    pub peer_pidfd: bool,
    /// `SO_PEERGROUPS`, Linux 4.13.
    pub peer_groups: bool,
    /// `SO_PEERSEC`: a security module labels sockets.
    pub peer_label: bool,
    /// `/proc` is there and is one.
    pub proc: bool,
    /// CAP_SYS_PTRACE is in force for this thread.
    pub ptrace_capability: bool,
}

/// A fact that rules ask for and that can't be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Shortcoming {
    /// No `SO_PEERPIDFD`.
    Pidfd,
    /// No `SO_PEERGROUPS`.
    Groups,
    /// No `SO_PEERSEC`.
    Label,
    /// No `/proc`.
    Proc,
    /// No CAP_SYS_PTRACE, and executables of other users are asked for.
    PtraceCapability,
    /// Built without digests.
    Digest,
}

impl Shortcoming {
    /// What still holds without it, for `sandbox=best_effort`. `None` where the
    /// rules that ask for it would deny everyone.
    pub fn weaker(self) -> Option<&'static str> {
        match self {
            Self::Pidfd => Some(
                "processes are held by number: one that exits right after it connected may be \
                 mistaken for another that got its number",
            ),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Pidfd => "run Linux 6.5 or later, or remove pid, exe, sha256, name and args",
            Self::Groups => "run Linux 4.13 or later, or remove gid and group",
            Self::Label => "run a kernel with AppArmor, SELinux or Smack in force, or remove label",
            Self::Proc => "mount /proc, or remove exe, sha256, name and args",
            Self::PtraceCapability => {
                "start as root, or give CAP_SYS_PTRACE (systemd: \
                 AmbientCapabilities=CAP_SYS_PTRACE), or add uid:self to the rules that name exe \
                 or sha256"
            }
            Self::Digest => "build with the feature digest, or remove sha256",
        }
    }
}

impl fmt::Display for Shortcoming {
    /// What is missing, and the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pidfd => "rules name a process, and this kernel has no pidfd for sockets",
            Self::Groups => "rules name groups, and this kernel has no SO_PEERGROUPS",
            Self::Label => "rules name labels, and no security module labels sockets here",
            Self::Proc => "rules name facts of processes, and /proc is not there",
            Self::PtraceCapability => {
                "rules name executables of other users, and CAP_SYS_PTRACE is missing"
            }
            Self::Digest => "rules name digests, and this build computes none",
        })?;
        write!(f, "; {}", self.remedy())
    }
}

impl Kernel {
    /// Tries everything on a pair of sockets. Call it before any sandbox: it also
    /// reads the maps of the user namespace, which later stay as they were.
    pub fn probe() -> Self {
        let _ = super::id_maps();
        let pair = UnixStream::pair();
        let socket = pair.as_ref().ok().map(|(left, _)| left.as_fd());
        let status = std::fs::read("/proc/thread-self/status").unwrap_or_default();
        Self {
            peer_pidfd: socket.is_some_and(|socket| sys::peer::pidfd(socket).is_ok()),
            peer_groups: socket.is_some_and(|socket| sys::peer::groups(socket).is_ok()),
            peer_label: socket.is_some_and(|socket| sys::peer::label(socket).is_ok()),
            proc: ProcRoot::open().is_ok(),
            ptrace_capability: crate::proc::has_capability(&status, CAP_SYS_PTRACE),
        }
    }

    /// What rules ask for and can't get. `executables_of_others`: some rule needs
    /// the executables of other users (`Policy::needs_ptrace_capability`).
    pub fn shortcomings(self, needs: Needs, executables_of_others: bool) -> Vec<Shortcoming> {
        let found = [
            (
                Shortcoming::Pidfd,
                needs.has_any(Needs::PROCESS) && !self.peer_pidfd,
            ),
            (
                Shortcoming::Groups,
                needs.has(FactKind::Groups) && !self.peer_groups,
            ),
            (
                Shortcoming::Label,
                needs.has(FactKind::Label) && !self.peer_label,
            ),
            (Shortcoming::Proc, needs.has_any(Needs::PROC) && !self.proc),
            (
                Shortcoming::PtraceCapability,
                executables_of_others && !self.ptrace_capability,
            ),
            (
                Shortcoming::Digest,
                needs.has(FactKind::Sha256) && !cfg!(feature = "digest"),
            ),
        ];
        found
            .into_iter()
            .filter_map(|(what, missing)| missing.then_some(what))
            .collect()
    }
}

/// What a process checker was started for. A reload can't widen it: its threads,
/// their walls and their capabilities stay as they were born.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CheckerReach {
    /// The facts below `/proc`.
    pub needs: Needs,
    /// Whether it holds CAP_SYS_PTRACE.
    pub ptrace_capability: bool,
}

impl CheckerReach {
    /// Whether a checker with this reach does for rules that ask for another.
    ///
    /// # Errors
    ///
    /// Says what is out of reach, and the remedy.
    pub fn covers(self, wanted: Self) -> Result<(), String> {
        let has_checker = !self.needs.is_empty();
        if !wanted.needs.is_empty() && !has_checker {
            return Err(format!(
                "rules name {}, and the server was started without a process checker; restart it",
                wanted.needs.words().join(", ")
            ));
        }
        if wanted.needs.has(FactKind::Sha256) && !self.needs.has(FactKind::Sha256) {
            return Err(String::from(
                "rules name sha256, and the server was started without threads for digests; \
                 restart it",
            ));
        }
        if wanted.ptrace_capability && !self.ptrace_capability {
            return Err(String::from(
                "rules name executables of other users, and the server was started without \
                 CAP_SYS_PTRACE for its process checker; restart it",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Kernel = Kernel {
        peer_pidfd: false,
        peer_groups: false,
        peer_label: false,
        proc: false,
        ptrace_capability: false,
    };

    #[test]
    fn only_what_rules_ask_for_is_missed() {
        assert_eq!(NOTHING.shortcomings(Needs::NONE, false), []);
        let groups = Needs::only(FactKind::Groups);
        assert_eq!(NOTHING.shortcomings(groups, false), [Shortcoming::Groups]);
        let exe = NOTHING.shortcomings(Needs::only(FactKind::Exe), true);
        use Shortcoming::{Pidfd, Proc, PtraceCapability};
        assert_eq!(exe, [Pidfd, Proc, PtraceCapability]);
        assert_eq!(
            NOTHING.shortcomings(Needs::only(FactKind::Process), false),
            [Pidfd]
        );
    }

    #[test]
    fn a_checker_reaches_as_far_as_it_was_started_for() {
        let reach = |kinds: &[FactKind], ptrace_capability| CheckerReach {
            needs: kinds
                .iter()
                .fold(Needs::NONE, |all, kind| all.and(Needs::only(*kind))),
            ptrace_capability,
        };
        use FactKind::{Exe, Name, Sha256};
        let nothing = CheckerReach::default();
        assert!(nothing.covers(nothing).is_ok());
        assert!(nothing.covers(reach(&[Name], false)).is_err());
        assert!(reach(&[Name], false).covers(reach(&[Exe], false)).is_ok());
        assert!(reach(&[Exe], false).covers(reach(&[Exe], true)).is_err());
        assert!(
            reach(&[Exe], true)
                .covers(reach(&[Exe, Sha256], true))
                .is_err()
        );
        assert!(
            reach(&[Sha256], true)
                .covers(reach(&[Exe, Sha256, Name], true))
                .is_ok()
        );
    }

    #[test]
    fn this_kernel_has_groups_and_proc() {
        let kernel = Kernel::probe();
        assert!(kernel.peer_groups && kernel.proc);
    }
}
