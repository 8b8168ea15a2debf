//! Who is counted for what a peer does.

use super::rules::Rules;
use crate::admission::{ProcessKey, Subject};
use crate::peer::Peer;

pub(super) fn subject_of(peer: &Peer, rules: &Rules) -> Subject {
    if let Some(address) = peer.facts().address {
        return Subject::address(address.ip());
    }
    let uid = peer.credentials().and_then(|credentials| credentials.uid());
    let subject = uid.map_or_else(Subject::nobody, Subject::user);
    match peer
        .pid()
        .filter(|_| rules.policy.tells_processes_apart(uid))
    {
        Some(pid) => subject.process(ProcessKey {
            pid,
            identity: identity_of(peer),
        }),
        None => subject,
    }
}

/// What no later process with the same number shares: the inode of the pidfd
/// (Linux 6.9), 0 where it can't be had.
fn identity_of(peer: &Peer) -> u64 {
    let Some(pidfd) = peer.pidfd() else { return 0 };
    let stat = rustix::fs::fstat(pidfd);
    stat.map_or(0, |stat| stat.st_ino)
}
