//! What is known about one peer, and what could not be learnt.
//!
//! Pure data: filled by this room, judged by `policy`.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::Credentials;
use crate::ids::{Gid, Pid};

/// One fact: not asked for yet, known, or not to be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact<T> {
    /// Nobody has asked the kernel.
    Unasked,
    /// As the kernel reported it.
    Known(T),
    /// The kernel was asked and gave no usable answer.
    Unreadable(Unreadable),
}

impl<T> Fact<T> {
    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unasked | Self::Unreadable(_) => None,
        }
    }

    /// Whether nobody has asked yet.
    pub fn is_unasked(&self) -> bool {
        matches!(self, Self::Unasked)
    }
}

impl<T> From<Result<T, Unreadable>> for Fact<T> {
    fn from(result: Result<T, Unreadable>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(why) => Self::Unreadable(why),
        }
    }
}

/// Why a fact could not be learnt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unreadable {
    /// The process has exited.
    Gone,
    /// The process lives in a PID namespace that isn't visible from here.
    NotVisible,
    /// The kernel refused, EACCES or EPERM: for another user's executable,
    /// CAP_SYS_PTRACE is missing.
    Permission,
    /// This kernel doesn't offer the fact.
    Unsupported,
    /// No descriptor was free, EMFILE or ENFILE.
    Descriptors,
    /// More bytes than the bound allows.
    TooLarge,
    /// Whoever checks processes had no time for it within the bound.
    Busy,
    /// It changed while it was read: written, or another program was executed.
    Changed,
    /// The process has no memory, and so no executable to be seen: it is on its way out,
    /// or in the middle of execve(2).
    NoMemory,
    /// Nobody was there to ask: the server runs without a process checker.
    NoChecker,
    /// Any other error, with its errno.
    Failed(i32),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the process has exited"),
            Self::NotVisible => f.write_str("the process is in a pid namespace not visible here"),
            Self::Permission => f.write_str("permission denied"),
            Self::Unsupported => f.write_str("this kernel does not offer it"),
            Self::Descriptors => f.write_str("no free descriptor"),
            Self::TooLarge => f.write_str("larger than the bound"),
            Self::Busy => f.write_str("the process checker is busy"),
            Self::Changed => f.write_str("it changed while it was read"),
            Self::NoMemory => f.write_str("the process is exiting, or in execve"),
            Self::NoChecker => f.write_str("no process checker runs"),
            Self::Failed(errno) => write!(f, "error {errno}"),
        }
    }
}

/// The kinds of facts that a rule can ask for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum FactKind {
    /// Process, user and group, `SO_PEERCRED`.
    Credentials,
    /// Supplementary groups, `SO_PEERGROUPS`.
    Groups,
    /// The label of a security module, `SO_PEERSEC`.
    Label,
    /// The process itself, held by a pidfd.
    Process,
    /// The running executable.
    Exe,
    /// The executable's SHA-256.
    Sha256,
    /// The process's `comm`, forgeable.
    Name,
    /// The process's command line, forgeable.
    Args,
}

impl FactKind {
    /// The word for it in reason codes and in text.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Groups => "groups",
            Self::Label => "label",
            Self::Process => "pid",
            Self::Exe => "exe",
            Self::Sha256 => "sha256",
            Self::Name => "name",
            Self::Args => "args",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Credentials => 0,
            Self::Groups => 1 << 0,
            Self::Label => 1 << 1,
            Self::Process => 1 << 2,
            Self::Exe => 1 << 3,
            Self::Sha256 => 1 << 4,
            Self::Name => 1 << 5,
            Self::Args => 1 << 6,
        }
    }
}

/// A set of facts to be learnt. Credentials are always read and never in it.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs(u8);

impl Needs {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// What the socket itself answers: groups and label.
    pub const SOCKET: Self = Self(FactKind::Groups.bit() | FactKind::Label.bit());
    /// What identifies or describes a process.
    pub const PROCESS: Self = Self(!Self::SOCKET.0 & 0x7f);
    /// What is read below `/proc`, by the process checker.
    pub const PROC: Self = Self(Self::PROCESS.0 & !FactKind::Process.bit());
    /// What tells which program runs.
    pub const EXECUTABLE: Self = Self(FactKind::Exe.bit() | FactKind::Sha256.bit());

    /// A set of one.
    pub const fn only(kind: FactKind) -> Self {
        Self(kind.bit())
    }

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the fact is in it. Never true for credentials.
    pub const fn has(self, kind: FactKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// The words for the facts in it.
    pub fn words(self) -> Vec<&'static str> {
        use FactKind::{Args, Exe, Groups, Label, Name, Process, Sha256};
        let all = [Groups, Label, Process, Exe, Sha256, Name, Args];
        all.into_iter()
            .filter(|kind| self.has(*kind))
            .map(FactKind::word)
            .collect()
    }

    /// Whether any of the other's facts is in it.
    pub const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Debug for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.words()).finish()
    }
}

/// A file as the kernel tells files apart (inode(7)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileId {
    /// The device that holds it.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// A living process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    /// Its number in this PID namespace.
    pub pid: Pid,
    /// Whether it is the very process that bore this number when the rules were
    /// pinned, and not a later one with the same number.
    pub pinned: bool,
}

/// The executable that a process runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exe {
    /// Device and inode.
    pub file: FileId,
    /// Its path as the kernel shows it, for display: it may be of another mount
    /// namespace, and a peer may have chosen it.
    pub path: PathBuf,
    /// Whether its last name is gone, as with a memfd.
    pub deleted: bool,
    /// The paths named by rules that lead to this very file now.
    pub same_as: Vec<PathBuf>,
}

/// All that is known about one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Process, user and group.
    pub credentials: Fact<Credentials>,
    /// Supplementary groups; those without a mapping are left out.
    pub groups: Fact<Vec<Gid>>,
    /// The label of a security module, without a final NUL.
    pub label: Fact<Vec<u8>>,
    /// The remote address; internet domains only.
    pub address: Option<SocketAddr>,
    /// The process, if it was alive after the last of its facts was read.
    pub process: Fact<Process>,
    /// The executable.
    pub exe: Fact<Exe>,
    /// The digest of the executable.
    pub sha256: Fact<[u8; 32]>,
    /// `comm`, without the final newline.
    pub name: Fact<Vec<u8>>,
    /// The command line, each NUL a space, without a final one.
    pub args: Fact<Vec<u8>>,
}

impl Facts {
    /// Credentials only; everything else is still unasked.
    pub fn of(credentials: Fact<Credentials>) -> Self {
        Self {
            credentials,
            groups: Fact::Unasked,
            label: Fact::Unasked,
            address: None,
            process: Fact::Unasked,
            exe: Fact::Unasked,
            sha256: Fact::Unasked,
            name: Fact::Unasked,
            args: Fact::Unasked,
        }
    }

    /// Those of a set that nobody has asked for yet.
    #[must_use]
    pub fn unasked(&self, needs: Needs) -> Needs {
        if needs.is_empty() {
            return Needs::NONE;
        }
        let kinds = [
            (FactKind::Groups, self.groups.is_unasked()),
            (FactKind::Label, self.label.is_unasked()),
            (FactKind::Process, self.process.is_unasked()),
            (FactKind::Exe, self.exe.is_unasked()),
            (FactKind::Sha256, self.sha256.is_unasked()),
            (FactKind::Name, self.name.is_unasked()),
            (FactKind::Args, self.args.is_unasked()),
        ];
        kinds
            .into_iter()
            .filter(|(kind, unasked)| *unasked && needs.has(*kind))
            .fold(Needs::NONE, |set, (kind, _)| set.and(Needs::only(kind)))
    }

    /// Marks each fact of a set that nobody has asked for as unreadable.
    pub fn give_up(&mut self, needs: Needs, why: Unreadable) {
        fn mark<T>(fact: &mut Fact<T>, wanted: bool, why: Unreadable) {
            if wanted && fact.is_unasked() {
                *fact = Fact::Unreadable(why);
            }
        }
        mark(&mut self.groups, needs.has(FactKind::Groups), why);
        mark(&mut self.label, needs.has(FactKind::Label), why);
        mark(&mut self.process, needs.has(FactKind::Process), why);
        mark(&mut self.exe, needs.has(FactKind::Exe), why);
        mark(&mut self.sha256, needs.has(FactKind::Sha256), why);
        mark(&mut self.name, needs.has(FactKind::Name), why);
        mark(&mut self.args, needs.has(FactKind::Args), why);
    }
}

impl fmt::Display for Facts {
    /// The form of the log line: `uid=33 gid=33 pid=812`, or the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            return write!(f, "address={address}");
        }
        match &self.credentials {
            Fact::Known(credentials) => fmt::Display::fmt(credentials, f),
            Fact::Unreadable(why) => write!(f, "credentials unreadable: {why}"),
            Fact::Unasked => f.write_str("credentials not asked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_up_leaves_what_is_known() {
        let mut facts = Facts::of(Fact::Known(Credentials::NONE));
        facts.groups = Fact::Known(vec![Gid::ROOT]);
        facts.give_up(
            Needs::SOCKET.and(Needs::only(FactKind::Exe)),
            Unreadable::Busy,
        );
        assert_eq!(facts.groups, Fact::Known(vec![Gid::ROOT]));
        assert_eq!(facts.label, Fact::Unreadable(Unreadable::Busy));
        assert_eq!(facts.exe, Fact::Unreadable(Unreadable::Busy));
        assert!(facts.args.is_unasked());
    }

    #[test]
    fn unasked_names_only_what_was_wanted() {
        let mut facts = Facts::of(Fact::Known(Credentials::NONE));
        facts.exe = Fact::Unreadable(Unreadable::Gone);
        let wanted = Needs::EXECUTABLE.and(Needs::only(FactKind::Groups));
        assert_eq!(
            format!("{:?}", facts.unasked(wanted)),
            r#"{"groups", "sha256"}"#
        );
    }
}
