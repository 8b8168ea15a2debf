//! Users and groups by name and number: getpwnam_r(3), getgrnam_r(3),
//! getgrouplist(3), through whatever nsswitch.conf(5) names.
//!
//! Only for start-up and reload: a name service may take seconds to answer.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::unistd;

use crate::ids::{Gid, Uid};

/// A user as the name service describes it (passwd(5)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// The user's name.
    pub name: String,
    /// The user.
    pub uid: Uid,
    /// The user's primary group.
    pub gid: Gid,
    /// The user's home directory.
    pub home: PathBuf,
}

/// A group as the name service describes it (group(5)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// The group's name.
    pub name: String,
    /// The group.
    pub gid: Gid,
}

/// The user with a name. `Ok(None)` if there is none.
///
/// # Errors
///
/// What the name service failed with: a failed look-up is never "no such user".
pub fn user_by_name(name: &str) -> io::Result<Option<Account>> {
    account(unistd::User::from_name(name)?)
}

/// The user with a number. `Ok(None)` if it has no entry.
///
/// # Errors
///
/// As for [`user_by_name`].
pub fn user_by_uid(uid: Uid) -> io::Result<Option<Account>> {
    account(unistd::User::from_uid(unistd::Uid::from_raw(uid.as_raw()))?)
}

/// The group with a name. `Ok(None)` if there is none.
///
/// # Errors
///
/// As for [`user_by_name`].
pub fn group_by_name(name: &str) -> io::Result<Option<Group>> {
    group(unistd::Group::from_name(name)?)
}

/// The group with a number. `Ok(None)` if it has no entry.
///
/// # Errors
///
/// As for [`user_by_name`].
pub fn group_by_gid(gid: Gid) -> io::Result<Option<Group>> {
    group(unistd::Group::from_gid(unistd::Gid::from_raw(
        gid.as_raw(),
    ))?)
}

/// All groups that a user belongs to, the given primary one included.
///
/// # Errors
///
/// EINVAL for a name with a NUL. getgrouplist(3) can't say that the name service failed:
/// then it is fewer groups, at least the primary one.
pub fn groups_of(name: &str, primary: Gid) -> io::Result<Vec<Gid>> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let groups = unistd::getgrouplist(&name, unistd::Gid::from_raw(primary.as_raw()))?;
    groups
        .into_iter()
        .map(|gid| valid_group(gid.as_raw()))
        .collect()
}

fn account(found: Option<unistd::User>) -> io::Result<Option<Account>> {
    let Some(user) = found else { return Ok(None) };
    let uid = Uid::from_raw(user.uid.as_raw()).ok_or(io::ErrorKind::InvalidData)?;
    let gid = valid_group(user.gid.as_raw())?;
    Ok(Some(Account {
        name: user.name,
        uid,
        gid,
        home: user.dir,
    }))
}

fn group(found: Option<unistd::Group>) -> io::Result<Option<Group>> {
    let Some(group) = found else { return Ok(None) };
    Ok(Some(Group {
        gid: valid_group(group.gid.as_raw())?,
        name: group.name,
    }))
}

/// The number that means "no id" is refused, whoever says it.
fn valid_group(raw: u32) -> io::Result<Gid> {
    Gid::from_raw(raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nonsense_is_not() {
        let root = user_by_name("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (Uid::ROOT, Gid::ROOT));
        assert_eq!(user_by_uid(Uid::ROOT).unwrap(), Some(root));
        assert_eq!(user_by_name("no such user, surely").unwrap(), None);
        assert_eq!(group_by_name("root").unwrap().unwrap().gid, Gid::ROOT);
        assert_eq!(group_by_gid(Gid::ROOT).unwrap().unwrap().name, "root");
        assert!(groups_of("root", Gid::ROOT).unwrap().contains(&Gid::ROOT));
    }
}
