//! A peer, and what its socket says of it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use super::error::{process_reason, reason};
use super::{Credentials, Fact, FactKind, Facts, IdMaps, Needs, Unreadable};
use crate::ids::{Gid, Pid};
use crate::sys;

/// How a process is held where the kernel has no `SO_PEERPIDFD`, before Linux 6.5.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum PidfdSource {
    /// By the socket alone. Without it, rules that name a process deny.
    #[default]
    Socket,
    /// By number where the socket can't: weaker, since the number may have passed
    /// to another process between connect and check. Only for `best_effort`.
    SocketOrNumber,
}

/// The other end of a connection. Its socket is asked once, when the peer is made;
/// the process is held only if a rule names one. Cheap to clone, may be shared.
#[derive(Clone, Debug)]
pub struct Peer {
    facts: Arc<Facts>,
    pidfd: Option<Result<Arc<OwnedFd>, Unreadable>>,
}

impl Peer {
    /// Asks an accepted (or connected) `AF_UNIX` socket for what `needs` names.
    ///
    /// Never fails: what can't be read is marked so in the facts, and denies
    /// wherever a rule asks for it. Never give it a listening socket, which vouches
    /// for the server itself.
    pub fn from_socket(socket: BorrowedFd<'_>, needs: Needs, source: PidfdSource) -> Self {
        let maps = id_maps();
        let raw = sys::peer::credentials(socket);
        let credentials = raw.map(|raw| Credentials::from_raw(raw.pid, raw.uid, raw.gid, maps));
        let facts = Facts::of(credentials.map_err(|error| reason(&error)).into());
        let bare = Self {
            facts: Arc::new(facts),
            pidfd: None,
        };
        bare.asked(socket, needs, source)
    }

    /// The same peer, and what `needs` names besides. What its socket has said stays,
    /// and the process that is held isn't opened again.
    pub(crate) fn asked(
        mut self,
        socket: BorrowedFd<'_>,
        needs: Needs,
        source: PidfdSource,
    ) -> Self {
        if needs.has(FactKind::Groups) && self.facts.groups.known().is_none() {
            Arc::make_mut(&mut self.facts).groups = groups(socket, id_maps()).into();
        }
        if needs.has(FactKind::Label) && self.facts.label.known().is_none() {
            let label = sys::peer::label(socket).map_err(|error| reason(&error));
            Arc::make_mut(&mut self.facts).label = label.into();
        }
        if needs.has_any(Needs::PROCESS) && self.pidfd().is_none() {
            self.pidfd = Some(hold(socket, self.pid(), source).map(Arc::new));
        }
        self
    }

    /// A peer over the internet: it has an address, and no credentials.
    pub fn from_address(address: SocketAddr) -> Self {
        let mut facts = Facts::of(Fact::Known(Credentials::NONE));
        facts.address = Some(address);
        facts.groups = Fact::Known(Vec::new());
        facts.label = Fact::Unreadable(Unreadable::Unsupported);
        Self {
            facts: Arc::new(facts),
            pidfd: Some(Err(Unreadable::Unsupported)),
        }
    }

    /// What the socket said.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The same, to be kept without a copy.
    pub(crate) fn shared_facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// Process, user and group, if they could be read.
    pub fn credentials(&self) -> Option<Credentials> {
        self.facts.credentials.known().copied()
    }

    /// The process that connected, if this PID namespace can see it.
    pub fn pid(&self) -> Option<Pid> {
        self.credentials().and_then(|credentials| credentials.pid())
    }

    /// The descriptor that holds the process: readable once it has exited. `None`
    /// if no rule names a process, or it can't be held.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.held().ok().map(AsFd::as_fd)
    }

    /// Why the process isn't held, if it was asked for and can't be.
    pub fn pidfd_error(&self) -> Option<Unreadable> {
        self.pidfd
            .as_ref()
            .and_then(|held| held.as_ref().err().copied())
    }

    /// Whether the process is held and lives.
    ///
    /// # Errors
    ///
    /// Why that can't be said, [`Unreadable::Gone`] if it has exited.
    pub fn is_alive(&self) -> Result<(), Unreadable> {
        still_alive(self.held()?.as_fd())
    }

    /// The held process, to be shared with whoever checks it.
    pub(super) fn held(&self) -> Result<&Arc<OwnedFd>, Unreadable> {
        match &self.pidfd {
            Some(Ok(pidfd)) => Ok(pidfd),
            Some(Err(why)) => Err(*why),
            None => Err(Unreadable::Unsupported),
        }
    }
}

/// Whether a pidfd's process still lives.
pub(super) fn still_alive(pidfd: BorrowedFd<'_>) -> Result<(), Unreadable> {
    match sys::process::has_exited(pidfd) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Unreadable::Gone),
        Err(error) => Err(reason(&error)),
    }
}

/// A group without mapping is dropped: its number stands for any other such group.
fn groups(socket: BorrowedFd<'_>, maps: IdMaps) -> Result<Vec<Gid>, Unreadable> {
    let raw = sys::peer::groups(socket).map_err(|error| reason(&error))?;
    Ok(raw.into_iter().filter_map(|gid| maps.group(gid)).collect())
}

fn hold(
    socket: BorrowedFd<'_>,
    pid: Option<Pid>,
    source: PidfdSource,
) -> Result<OwnedFd, Unreadable> {
    let pid = pid.ok_or(Unreadable::NotVisible)?;
    let why = match sys::peer::pidfd(socket) {
        Ok(pidfd) => return Ok(pidfd),
        Err(error) => error,
    };
    // Kernels before 6.16 say so of a peer that has been reaped.
    if matches!(why.raw_os_error(), Some(libc::EINVAL | libc::ESRCH)) {
        return Err(Unreadable::Gone);
    }
    let unsupported = process_reason(&why) == Unreadable::Unsupported;
    if unsupported && source == PidfdSource::SocketOrNumber {
        return sys::process::open_pidfd(pid).map_err(|error| process_reason(&error));
    }
    Err(process_reason(&why))
}

/// The maps of this process's user namespace, read once. A map that can't be read
/// counts as partial, so that the overflow ids are nobody's.
///
/// Call it before Landlock hides `/proc`; [`super::Kernel::probe`] does.
pub fn id_maps() -> IdMaps {
    static MAPS: OnceLock<IdMaps> = OnceLock::new();
    *MAPS.get_or_init(|| read_id_maps("/proc").unwrap_or(IdMaps::PARTIAL))
}

fn read_id_maps(proc: &str) -> io::Result<IdMaps> {
    let read = |name: &str| std::fs::read(format!("{proc}/{name}"));
    let overflow = |name: &str| {
        read(name)
            .ok()
            .and_then(|text| crate::proc::overflow_id(&text))
    };
    let full = |map: Vec<u8>| crate::proc::covers_all_ids(&map).unwrap_or(false);
    Ok(IdMaps {
        users_full: full(read("self/uid_map")?),
        groups_full: full(read("self/gid_map")?),
        overflow_uid: overflow("sys/kernel/overflowuid")
            .and_then(crate::ids::Uid::from_raw)
            .unwrap_or(crate::ids::Uid::OVERFLOW),
        overflow_gid: overflow("sys/kernel/overflowgid")
            .and_then(Gid::from_raw)
            .unwrap_or(Gid::OVERFLOW),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn nothing_is_held_that_no_rule_asks_for() {
        let (left, _right) = UnixStream::pair().unwrap();
        let plain = Peer::from_socket(left.as_fd(), Needs::NONE, PidfdSource::Socket);
        assert!(plain.pidfd().is_none());
        assert!(plain.facts().groups.is_unasked());
        let held = Peer::from_socket(left.as_fd(), Needs::PROCESS, PidfdSource::Socket);
        assert!(held.pidfd().is_some());
        assert_eq!(held.is_alive(), Ok(()));
        let own = std::process::id();
        assert_eq!(
            held.pid().and_then(|pid| u32::try_from(pid.as_raw()).ok()),
            Some(own)
        );
    }

    #[test]
    fn what_is_held_is_not_opened_again() {
        let (left, _right) = UnixStream::pair().unwrap();
        let ask = |peer: &Peer, needs| peer.clone().asked(left.as_fd(), needs, PidfdSource::Socket);
        let plain = Peer::from_socket(left.as_fd(), Needs::NONE, PidfdSource::Socket);
        let held = ask(&plain, Needs::PROCESS);
        assert!(plain.pidfd().is_none() && held.facts().groups.is_unasked());
        let more = ask(&held, Needs::PROCESS.and(Needs::only(FactKind::Groups)));
        assert!(Arc::ptr_eq(more.held().unwrap(), held.held().unwrap()));
        assert!(more.facts().groups.known().is_some());
        let again = ask(&more, Needs::only(FactKind::Groups));
        assert!(Arc::ptr_eq(&again.facts, &more.facts));
    }

    #[test]
    fn a_missing_map_is_partial() {
        assert!(read_id_maps("/nonexistent").is_err());
    }

    #[test]
    fn an_internet_peer_has_nothing_but_its_address() {
        let peer = Peer::from_address("127.0.0.1:9".parse().unwrap());
        assert_eq!(peer.pid(), None);
        assert!(peer.pidfd().is_none());
        assert_eq!(peer.facts().to_string(), "address=127.0.0.1:9");
    }
}
