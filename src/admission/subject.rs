//! Who is counted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ids::{Pid, Uid};

/// Who is counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Who {
    /// One user.
    User(Uid),
    /// All whose user id has no mapping in this user namespace, or could not be read.
    Nobody,
    /// One IPv4 address, or one IPv6 network of 64 bits: what one host can
    /// choose from at will is counted as one, and so is this machine, which has all
    /// of 127.0.0.0/8. An IPv4 address mapped into IPv6 counts as the IPv4 address.
    Address(IpAddr),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "uid={uid}"),
            Self::Nobody => f.write_str("uid=none"),
            Self::Address(address @ IpAddr::V4(_)) => write!(f, "address={address}"),
            Self::Address(address @ IpAddr::V6(_)) => write!(f, "address={address}/64"),
        }
    }
}

/// One process, told from a later one with the same number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ProcessKey {
    /// Its number.
    pub pid: Pid,
    /// What differs for each process that ever bore this number: the inode of
    /// its pidfd (Linux 6.9 and later), or its start time. 0 where neither is
    /// to be had; then a later process may inherit a penalty.
    pub identity: u64,
}

/// Who connects, for the purpose of limits.
#[derive(Clone, Debug)]
pub struct Subject {
    pub(super) who: Who,
    pub(super) process: Option<ProcessKey>,
}

impl Subject {
    /// A user of this machine.
    pub fn user(uid: Uid) -> Self {
        Self {
            who: Who::User(uid),
            process: None,
        }
    }

    /// A user that has no number here.
    pub fn nobody() -> Self {
        Self {
            who: Who::Nobody,
            process: None,
        }
    }

    /// A host.
    pub fn address(address: IpAddr) -> Self {
        Self {
            who: Who::Address(network_of(address)),
            process: None,
        }
    }

    /// Has denials, abuse and penalties counted for the process alone: where a
    /// rule tells the processes of one user apart.
    #[must_use]
    pub fn process(mut self, process: ProcessKey) -> Self {
        self.process = Some(process);
        self
    }

    /// Who is counted together with it.
    pub fn who(&self) -> Who {
        self.who
    }
}

impl fmt::Display for Subject {
    /// As in the log: `uid=33`, `uid=33 pid=812` or `address=127.0.0.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.who, f)?;
        match self.process {
            Some(process) => write!(f, " pid={}", process.pid),
            None => Ok(()),
        }
    }
}

fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // A client binds to any of them without asking (ip(7)).
        IpAddr::V4(v4) if v4.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, counted_as: &str) {
        let subject = Subject::address(address.parse().unwrap());
        assert_eq!(subject.to_string(), counted_as);
    }

    #[test]
    fn what_one_host_chooses_from_is_counted_as_one() {
        check("127.0.0.1", "address=127.0.0.1");
        check("127.8.9.10", "address=127.0.0.1");
        check("::ffff:127.0.0.2", "address=127.0.0.1");
        check("128.0.0.1", "address=128.0.0.1");
        check("::ffff:10.1.2.3", "address=10.1.2.3");
        check("2001:db8:1:2:3:4:5:6", "address=2001:db8:1:2::/64");
        check("::1", "address=::1/64");
    }

    #[test]
    fn a_process_is_shown_with_its_user() {
        let process = ProcessKey {
            pid: Pid::from_raw(812).unwrap(),
            identity: 9,
        };
        let subject = Subject::user(Uid::from_raw(33).unwrap()).process(process);
        assert_eq!(subject.to_string(), "uid=33 pid=812");
    }
}
