//! Users and groups, as the values of options name them.
//!
//! A trait, so that tests and fuzz targets bring their own; the daemon asks the
//! name service of the system.

use std::ffi::OsString;
use std::io;

use super::settings::Surroundings;
use crate::ids::{Gid, Uid};
use crate::policy::Names;
use crate::sys::account;

/// Who is who.
pub trait Accounts {
    /// The user of that name: its uid and primary gid. `None` if there is none.
    ///
    /// # Errors
    ///
    /// What the name service failed with.
    fn user(&self, name: &str) -> io::Result<Option<(Uid, Gid)>>;

    /// Name and primary gid of a user. `None` if it has no entry.
    ///
    /// # Errors
    ///
    /// What the name service failed with.
    fn user_of(&self, uid: Uid) -> io::Result<Option<(String, Gid)>>;

    /// The group of that name. `None` if there is none.
    ///
    /// # Errors
    ///
    /// What the name service failed with.
    fn group(&self, name: &str) -> io::Result<Option<Gid>>;

    /// All groups of a user, the primary one included.
    ///
    /// # Errors
    ///
    /// What the name service failed with.
    fn groups_of(&self, name: &str, primary: Gid) -> io::Result<Vec<Gid>>;
}

/// The system's name service (nsswitch.conf(5)).
#[derive(Clone, Copy, Debug)]
pub struct SystemAccounts;

impl Accounts for SystemAccounts {
    fn user(&self, name: &str) -> io::Result<Option<(Uid, Gid)>> {
        Ok(account::user_by_name(name)?.map(|user| (user.uid, user.gid)))
    }

    fn user_of(&self, uid: Uid) -> io::Result<Option<(String, Gid)>> {
        Ok(account::user_by_uid(uid)?.map(|user| (user.name, user.gid)))
    }

    fn group(&self, name: &str) -> io::Result<Option<Gid>> {
        Ok(account::group_by_name(name)?.map(|group| group.gid))
    }

    fn groups_of(&self, name: &str, primary: Gid) -> io::Result<Vec<Gid>> {
        account::groups_of(name, primary)
    }
}

/// What this process is run by and with.
#[derive(Clone, Debug)]
pub struct OwnProcess {
    euid: Uid,
    egid: Gid,
    runtime_dir: Option<OsString>,
}

impl OwnProcess {
    /// Asks the kernel and the environment. `None` if an id has no number that
    /// could be one, which no process has (setresuid(2)).
    pub fn look() -> Option<Self> {
        Some(Self {
            euid: Uid::from_raw(rustix::process::geteuid().as_raw())?,
            egid: Gid::from_raw(rustix::process::getegid().as_raw())?,
            runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
        })
    }

    /// The same as [`parse`](super::parse) takes it, with the system's accounts.
    /// For a reload, ask once at the start: after a drop of privileges the
    /// process is another.
    pub fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            euid: self.euid,
            egid: self.egid,
            runtime_dir: self.runtime_dir.as_ref(),
            accounts: &SystemAccounts,
        }
    }
}

/// Accounts as rules ask for them.
pub(crate) struct RuleNames<'a> {
    pub(crate) accounts: &'a dyn Accounts,
    /// Whom `uid:self` stands for.
    pub(crate) own_user: Uid,
}

impl Names for RuleNames<'_> {
    fn user(&self, name: &str) -> Result<Option<Uid>, String> {
        let user = self
            .accounts
            .user(name)
            .map_err(|error| super::file::reason(&error))?;
        Ok(user.map(|(uid, _)| uid))
    }

    fn group(&self, name: &str) -> Result<Option<Gid>, String> {
        self.accounts
            .group(name)
            .map_err(|error| super::file::reason(&error))
    }

    fn own_user(&self) -> Uid {
        self.own_user
    }
}
