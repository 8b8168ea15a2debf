//! Names of users and groups, once the walls stand.
//!
//! At the start the system's name service is asked (nsswitch.conf(5)), and every
//! answer is remembered. Behind the walls it can't be: its modules open sockets
//! and load libraries. A reload takes what was remembered, and reads new names
//! from `/etc/passwd` and `/etc/group` alone; accounts that only a directory
//! service knows then need a restart, or a number.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::config::{Accounts, SystemAccounts};
use crate::ids::{Gid, Uid};

#[derive(Debug, Default)]
struct Memory {
    users: HashMap<String, (Uid, Gid)>,
    names: HashMap<Uid, (String, Gid)>,
    groups: HashMap<String, Gid>,
    members: HashMap<String, Vec<Gid>>,
    /// Whether the walls stand.
    walled: bool,
}

/// Asks the system, later its own memory and the two files.
#[derive(Debug)]
pub(super) struct Remembering {
    system: SystemAccounts,
    memory: Mutex<Memory>,
}

impl Remembering {
    pub(super) fn new(system: SystemAccounts) -> Self {
        Self {
            system,
            memory: Mutex::default(),
        }
    }

    /// From now on nothing but memory and files is asked.
    pub(super) fn wall_in(&self) {
        self.memory().walled = true;
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts for Remembering {
    fn user(&self, name: &str) -> io::Result<Option<(Uid, Gid)>> {
        let mut memory = self.memory();
        if let Some(known) = memory.users.get(name) {
            return Ok(Some(*known));
        }
        let found = if memory.walled {
            passwd_entry(name)?
        } else {
            self.system.user(name)?
        };
        if let Some(found) = found {
            memory.users.insert(name.to_owned(), found);
        }
        Ok(found)
    }

    fn user_of(&self, uid: Uid) -> io::Result<Option<(String, Gid)>> {
        let mut memory = self.memory();
        if let Some(known) = memory.names.get(&uid) {
            return Ok(Some(known.clone()));
        }
        if memory.walled {
            return Ok(None);
        }
        let found = self.system.user_of(uid)?;
        if let Some(found) = &found {
            memory.names.insert(uid, found.clone());
        }
        Ok(found)
    }

    fn group(&self, name: &str) -> io::Result<Option<Gid>> {
        let mut memory = self.memory();
        if let Some(known) = memory.groups.get(name) {
            return Ok(Some(*known));
        }
        let found = if memory.walled {
            group_entry(name)?
        } else {
            self.system.group(name)?
        };
        if let Some(found) = found {
            memory.groups.insert(name.to_owned(), found);
        }
        Ok(found)
    }

    fn groups_of(&self, name: &str, primary: Gid) -> io::Result<Vec<Gid>> {
        let mut memory = self.memory();
        if let Some(known) = memory.members.get(name) {
            return Ok(known.clone());
        }
        if memory.walled {
            return Ok(vec![primary]);
        }
        let found = self.system.groups_of(name, primary)?;
        memory.members.insert(name.to_owned(), found.clone());
        Ok(found)
    }
}

/// passwd(5): name, password, uid, gid, ...
fn passwd_entry(name: &str) -> io::Result<Option<(Uid, Gid)>> {
    let text = std::fs::read("/etc/passwd")?;
    let Some(fields) = entry(&text, name) else {
        return Ok(None);
    };
    let uid = number(&fields, 2).and_then(Uid::from_raw);
    let gid = number(&fields, 3).and_then(Gid::from_raw);
    Ok(uid.zip(gid))
}

/// group(5): name, password, gid, members.
fn group_entry(name: &str) -> io::Result<Option<Gid>> {
    let text = std::fs::read("/etc/group")?;
    let fields = entry(&text, name);
    Ok(fields
        .and_then(|fields| number(&fields, 2))
        .and_then(Gid::from_raw))
}

fn entry(text: &[u8], name: &str) -> Option<Vec<String>> {
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| str::from_utf8(line).ok());
    let mut entries = lines.map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    entries.find(|fields| fields.first().is_some_and(|first| first == name))
}

fn number(fields: &[String], place: usize) -> Option<u32> {
    fields.get(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_read_by_exact_name() {
        let text = b"root:x:0:0:root:/root:/bin/sh\nroot2:x:7:8::/:\n\xff:x:1:1\nbad:x:-1:0\n";
        let uid = |name| entry(text, name).and_then(|fields| number(&fields, 2));
        assert_eq!(uid("root"), Some(0));
        assert_eq!(uid("root2"), Some(7));
        assert_eq!(uid("roo"), None);
        assert_eq!(uid("bad"), None);
    }

    #[test]
    fn behind_the_walls_memory_and_files_answer() {
        let accounts = Remembering::new(SystemAccounts);
        assert!(accounts.user("root").unwrap().is_some());
        accounts.wall_in();
        assert_eq!(accounts.user("root").unwrap(), Some((Uid::ROOT, Gid::ROOT)));
        assert_eq!(accounts.group("root").unwrap(), Some(Gid::ROOT));
        assert_eq!(accounts.user("no-such-user").unwrap(), None);
    }
}
