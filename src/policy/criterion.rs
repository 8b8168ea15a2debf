//! One criterion of a rule, and whether it holds for a peer.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::text::escape;
use crate::ids::{Gid, Pid, Uid};
use crate::peer::{Fact, FactKind, Facts, Needs, Unreadable};

/// The words that start a criterion.
pub const KEYWORDS: [&str; 12] = [
    "uid", "user", "gid", "group", "pid", "exe", "sha256", "label", "name", "args", "address",
    "any",
];

/// A block of internet addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The block of all addresses that share the first `prefix` bits. An IPv4
    /// address written as IPv6 counts as IPv4. `None` for a prefix longer than the
    /// address, or bits set after it.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let (address, prefix) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), canonical @ IpAddr::V4(_)) => (canonical, prefix.checked_sub(96)?),
            (_, canonical) => (canonical, prefix),
        };
        let block = Self { address, prefix };
        let fits = prefix <= block.width();
        (fits && block.key(address)? == bits(address)).then_some(block)
    }

    /// Whether an address lies in the block.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && self.key(address) == self.key(self.address)
    }

    fn width(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The address with all bits after the prefix cleared.
    fn key(&self, address: IpAddr) -> Option<u128> {
        let free = u32::from(self.width().checked_sub(self.prefix)?);
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        Some(bits(address) & mask)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Why a criterion was refused, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CriterionError(pub(super) String);

impl fmt::Display for CriterionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CriterionError {}

/// One thing that a rule asks of a peer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Criterion {
    /// Effective user at connect, with the name that the rule gave, if it did.
    User(Uid, Option<String>),
    /// Primary or any supplementary group, with the name that the rule gave.
    Group(Gid, Option<String>),
    /// That process, as it was when the rules were pinned.
    Pid(Pid),
    /// The file that runs is the one at this path now.
    Exe(PathBuf),
    /// SHA-256 of the file that runs.
    Sha256([u8; 32]),
    /// Label of a security module.
    Label(Vec<u8>),
    /// `comm`, forgeable.
    Name(Vec<u8>),
    /// Command line, NULs as spaces, forgeable.
    Args(Vec<u8>),
    /// Remote address; never holds for a local peer.
    Address(Cidr),
    /// Holds for everyone.
    Any,
}

/// Whether something holds, where some facts may be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Truth {
    True,
    False,
    /// Nobody has asked for the fact yet.
    Unasked(FactKind),
    /// The fact can't be had.
    Unreadable(FactKind, Unreadable),
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Judges a fact where it is known.
fn judge<T>(fact: &Fact<T>, kind: FactKind, holds: impl FnOnce(&T) -> bool) -> Truth {
    match fact {
        Fact::Known(value) => holds(value).into(),
        Fact::Unasked => Truth::Unasked(kind),
        Fact::Unreadable(why) => Truth::Unreadable(kind, *why),
    }
}

impl Criterion {
    /// Whether it holds for this peer.
    pub(super) fn holds(&self, facts: &Facts) -> Truth {
        match self {
            Self::Any => Truth::True,
            Self::User(uid, _) => judge(&facts.credentials, FactKind::Credentials, |peer| {
                peer.uid() == Some(*uid)
            }),
            Self::Group(gid, _) => holds_group(*gid, facts),
            Self::Pid(pid) => holds_pid(*pid, facts),
            Self::Exe(path) => judge(&facts.exe, FactKind::Exe, |exe| {
                !exe.deleted && exe.same_as.iter().any(|same| same == path)
            }),
            Self::Sha256(digest) => judge(&facts.sha256, FactKind::Sha256, |is| is == digest),
            Self::Label(label) => judge(&facts.label, FactKind::Label, |is| is == label),
            Self::Name(name) => judge(&facts.name, FactKind::Name, |is| is == name),
            Self::Args(args) => judge(&facts.args, FactKind::Args, |is| is == args),
            Self::Address(block) => facts
                .address
                .is_some_and(|peer| block.contains(peer.ip()))
                .into(),
        }
    }

    /// The facts that it may ask for.
    pub fn needs(&self) -> Needs {
        match self {
            Self::Group(..) => Needs::only(FactKind::Groups),
            Self::Pid(_) => Needs::only(FactKind::Process),
            Self::Exe(_) => Needs::only(FactKind::Exe),
            Self::Sha256(_) => Needs::only(FactKind::Sha256),
            Self::Label(_) => Needs::only(FactKind::Label),
            Self::Name(_) => Needs::only(FactKind::Name),
            Self::Args(_) => Needs::only(FactKind::Args),
            Self::User(..) | Self::Address(_) | Self::Any => Needs::NONE,
        }
    }

    /// Whether any program of any user can make it hold by its own will.
    pub fn is_forgeable(&self) -> bool {
        matches!(self, Self::Name(_) | Self::Args(_))
    }

    /// The word that starts it, as in [`KEYWORDS`].
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::User(_, Some(name)) if name != "self" => "user",
            Self::User(..) => "uid",
            Self::Group(_, Some(_)) => "group",
            Self::Group(..) => "gid",
            Self::Pid(_) => "pid",
            Self::Exe(_) => "exe",
            Self::Sha256(_) => "sha256",
            Self::Label(_) => "label",
            Self::Name(_) => "name",
            Self::Args(_) => "args",
            Self::Address(_) => "address",
            Self::Any => "any",
        }
    }
}

fn holds_group(gid: Gid, facts: &Facts) -> Truth {
    let primary = judge(&facts.credentials, FactKind::Credentials, |peer| {
        peer.gid() == Some(gid)
    });
    let no_groups = facts
        .credentials
        .known()
        .is_some_and(|peer| !peer.are_known());
    if primary != Truth::False || no_groups {
        return primary;
    }
    judge(&facts.groups, FactKind::Groups, |groups| {
        groups.contains(&gid)
    })
}

/// The number is compared first: where it differs, nobody asks for the process.
fn holds_pid(pid: Pid, facts: &Facts) -> Truth {
    let number = judge(&facts.credentials, FactKind::Credentials, |peer| {
        peer.pid() == Some(pid)
    });
    if number != Truth::True {
        return number;
    }
    judge(&facts.process, FactKind::Process, |process| {
        process.pid == pid && process.pinned
    })
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.keyword())?;
        match self {
            Self::Any => Ok(()),
            Self::User(_, Some(name)) | Self::Group(_, Some(name)) => {
                write!(f, ":{}", escape(name.as_bytes()))
            }
            Self::User(uid, None) => write!(f, ":{uid}"),
            Self::Group(gid, None) => write!(f, ":{gid}"),
            Self::Pid(pid) => write!(f, ":{pid}"),
            Self::Exe(path) => write!(f, ":{}", escape(path.as_os_str().as_bytes())),
            Self::Sha256(digest) => {
                f.write_str(":")?;
                digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Label(bytes) | Self::Name(bytes) | Self::Args(bytes) => {
                write!(f, ":{}", escape(bytes))
            }
            Self::Address(block) => write!(f, ":{block}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Numeric, describe};

    #[track_caller]
    fn check(block: &str, inside: &[&str], outside: &[&str]) {
        let (address, prefix) = block.split_once('/').unwrap();
        let cidr = Cidr::new(address.parse().unwrap(), prefix.parse().unwrap()).unwrap();
        for address in inside {
            assert!(
                cidr.contains(address.parse().unwrap()),
                "{address} in {block}"
            );
        }
        for address in outside {
            assert!(
                !cidr.contains(address.parse().unwrap()),
                "{address} not in {block}"
            );
        }
    }

    #[test]
    fn blocks_hold_their_edges() {
        check(
            "127.0.0.0/8",
            &["127.0.0.0", "127.255.255.255", "::ffff:127.0.0.1"],
            &["128.0.0.0"],
        );
        check("0.0.0.0/0", &["1.2.3.4"], &["::1"]);
        check("::/0", &["::1", "fe80::1"], &["1.2.3.4", "::ffff:1.2.3.4"]);
        check("::1/128", &["::1"], &["::2", "0.0.0.1"]);
        check("::ffff:10.0.0.0/104", &["10.1.2.3"], &["11.0.0.0"]);
    }

    #[test]
    fn a_block_has_no_bits_after_its_prefix() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(Cidr::new(address("10.0.0.1"), 24), None);
        assert_eq!(Cidr::new(address("10.0.0.0"), 33), None);
        assert_eq!(Cidr::new(address("::"), 129), None);
        assert_eq!(Cidr::new(address("::ffff:1.2.3.4"), 95), None);
    }

    /// The process of a description counts as pinned, its executable as the one that
    /// the rule means.
    #[test]
    fn a_criterion_holds_for_its_value_and_no_other() {
        let names = Numeric {
            own_user: Uid::ROOT,
        };
        let (zeros, ones) = ("00".repeat(32), "11".repeat(32));
        for (criterion, equal, other) in [
            ("uid:33", "uid:33", "uid:34"),
            ("uid:self", "uid:0", "uid:1"),
            ("gid:4", "uid:1,gid:4", "uid:1,gid:5,groups:"),
            ("gid:4", "uid:1,gid:5,groups:6+4", "uid:1,gid:5,groups:6"),
            ("gid:4", "uid:1,gid:4", "address:10.0.0.1"),
            ("pid:7", "uid:1,pid:7", "uid:1,pid:8"),
            ("exe:/a", "uid:1,exe:/a", "uid:1,exe:/a/b"),
            ("label:l", "uid:1,label:l", "uid:1,label:ll"),
            ("name:n", "uid:1,name:n", "uid:1,name:N"),
            ("args:a b", "uid:1,args:a b", "uid:1,args:a"),
            ("address:10.0.0.0/8", "address:10.9.9.9", "address:11.0.0.0"),
            ("address:0.0.0.0/0", "address:10.9.9.9", "uid:0"),
            (
                &format!("sha256:{zeros}"),
                &format!("uid:1,sha256:{zeros}"),
                &format!("uid:1,sha256:{ones}"),
            ),
        ] {
            let criterion = Criterion::parse(criterion, &names).unwrap();
            let holds = |peer: &str| criterion.holds(&describe(peer, &names).unwrap());
            assert_eq!(holds(equal), Truth::True, "{criterion} of {equal}");
            assert_eq!(holds(other), Truth::False, "{criterion} of {other}");
        }
    }
}
