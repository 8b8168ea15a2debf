//! Gives up identity and capabilities, and tries to take them back.
//!
//! The order is the one that setresuid(2) and capabilities(7) dictate: the
//! bounding set and the secure bits while `CAP_SETPCAP` is there, groups while
//! `CAP_SETGID` is, then the user, then all capabilities that no feature needs.

use rustix::process::{Resource, Rlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::attest::Attestation;
use super::error::system;
use super::{RunAs, SandboxError};

/// Sets `RLIMIT_NOFILE` to what is needed, no more and no less. Gives the hard limit
/// where that is lower and may not be raised: the server then takes fewer
/// connections at once, and the others wait.
pub(super) fn limit_descriptors(needed: u64) -> Result<Option<u64>, SandboxError> {
    let set = |number| {
        let limit = Rlimit {
            current: Some(number),
            maximum: Some(number),
        };
        rustix::process::setrlimit(Resource::Nofile, limit)
    };
    let Err(errno) = set(needed) else {
        return Ok(None);
    };
    let refused = |errno: rustix::io::Errno| system("can't set RLIMIT_NOFILE", errno.into());
    match crate::sys::process::most_descriptors() {
        Ok(hard) if hard < needed => set(hard).map(|()| Some(hard)).map_err(refused),
        _ => Err(refused(errno)),
    }
}

/// How far the capabilities could be given up, or kept.
pub(super) struct Kept {
    /// Asked for, and never had.
    pub(super) missing: CapabilitySet,
    /// Whether the bounding set is empty.
    pub(super) bounding_empty: bool,
}

/// Becomes `run_as` if given, and keeps no capability but those in `wanted`.
///
/// The calling thread must be the only one: the calls are for one thread.
pub(super) fn shed(run_as: Option<&RunAs>, wanted: CapabilitySet) -> Result<Kept, SandboxError> {
    let had = capabilities(None)
        .map_err(|errno| system("can't read the capabilities", errno.into()))?
        .permitted;
    let held = had & wanted;
    // What is permitted may not be in effect: then the calls below would fail.
    set_all(had)?;
    let bounding_empty = if had.contains(CapabilitySet::SETPCAP) {
        lock_secure_bits()?;
        empty_bounding_set()?;
        true
    } else {
        set_keep_capabilities(!held.is_empty())
            .map_err(|errno| system("can't set PR_SET_KEEPCAPS", errno.into()))?;
        bounding_is_empty()
    };
    if let Some(run_as) = run_as {
        assume(run_as)?;
    }
    clear_ambient_capability_set()
        .map_err(|errno| system("can't clear the ambient capabilities", errno.into()))?;
    set_all(held)?;
    Ok(Kept {
        missing: wanted - had,
        bounding_empty,
    })
}

/// Makes `set` all that the calling thread has, inheritable none.
pub(super) fn set_all(set: CapabilitySet) -> Result<(), SandboxError> {
    let sets = CapabilitySets {
        effective: set,
        permitted: set,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(|errno| system("can't set capabilities", errno.into()))
}

/// Tries to become root again, as an attacker would; to be called once the
/// thread has no capabilities.
pub(super) fn verify_no_way_back(run_as: &RunAs) -> Result<(), SandboxError> {
    let way_back = |what: &str| {
        Err(SandboxError::WayBack {
            what: what.to_owned(),
        })
    };
    let root = rustix::fs::Uid::ROOT;
    if run_as.uid.as_raw() != 0 {
        if set_thread_res_uid(None, root, None).is_ok() {
            return way_back("seteuid(0) succeeded");
        }
        if set_thread_res_uid(root, root, root).is_ok() {
            return way_back("setresuid(0, 0, 0) succeeded");
        }
    }
    let group = rustix::fs::Gid::ROOT;
    if run_as.gid.as_raw() != 0
        && !run_as.groups.iter().any(|gid| gid.as_raw() == 0)
        && set_thread_res_gid(None, group, None).is_ok()
    {
        return way_back("setegid(0) succeeded");
    }
    if run_as.uid.as_raw() != 0 && set_thread_groups(&[group]).is_ok() {
        return way_back("setgroups succeeded");
    }
    Ok(())
}

/// From here on neither uid 0 nor a change of uid has any bearing on
/// capabilities, and none can become ambient (capabilities(7), securebits).
fn lock_secure_bits() -> Result<(), SandboxError> {
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits)
        .map_err(|errno| system("can't lock the secure bits", errno.into()))
}

/// Every capability that this kernel knows; it says EINVAL past the last one.
fn known_to_kernel() -> impl Iterator<Item = (CapabilitySet, bool)> {
    (0..u64::BITS).map_while(|bit| {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        capability_is_in_bounding_set(one)
            .ok()
            .map(|present| (one, present))
    })
}

fn bounding_is_empty() -> bool {
    known_to_kernel().all(|(_, present)| !present)
}

fn empty_bounding_set() -> Result<(), SandboxError> {
    for (capability, present) in known_to_kernel() {
        if present {
            remove_capability_from_bounding_set(capability)
                .map_err(|errno| system("can't empty the bounding set", errno.into()))?;
        }
    }
    Ok(())
}

/// Groups first, then gid, then uid; steps that would change nothing are left
/// out, so that a server that already is who it should be needs no privilege.
fn assume(run_as: &RunAs) -> Result<(), SandboxError> {
    let now = Attestation::read()?;
    let [now] = now.threads.as_slice() else {
        return Err(SandboxError::Threads {
            found: now.threads.len(),
        });
    };
    if now.groups != sorted_groups(run_as) {
        let groups: Vec<_> = run_as
            .groups
            .iter()
            .map(|gid| rustix::fs::Gid::from_raw(gid.as_raw()))
            .collect();
        set_thread_groups(&groups)
            .map_err(|errno| system("can't set the groups of run_as_user", errno.into()))?;
    }
    let gid = run_as.gid.as_raw();
    if now.gids != [gid; 4] {
        let gid = rustix::fs::Gid::from_raw(gid);
        set_thread_res_gid(gid, gid, gid)
            .map_err(|errno| system("can't become run_as_group", errno.into()))?;
    }
    let uid = run_as.uid.as_raw();
    if now.uids != [uid; 4] {
        let uid = rustix::fs::Uid::from_raw(uid);
        set_thread_res_uid(uid, uid, uid)
            .map_err(|errno| system("can't become run_as_user", errno.into()))?;
    }
    Ok(())
}

/// The groups in the order in which a status file is read.
pub(super) fn sorted_groups(run_as: &RunAs) -> Vec<u32> {
    let mut groups: Vec<u32> = run_as.groups.iter().map(|gid| gid.as_raw()).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}
