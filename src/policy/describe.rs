//! A peer in words, for `explain`: `uid:33,gid:33,groups:4+27,pid:812,exe:/a`.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::criterion::Criterion;
use super::names::Names;
use super::text::{Piece, split};
use crate::ids::{Gid, Pid, Uid};
use crate::peer::{Credentials, Exe, Fact, Facts, FileId, IdMaps, Process};

/// What is wrong with a description, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescriptionError {
    /// Characters from the start, from 1.
    pub column: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DescriptionError {}

/// Reads the description of a peer. What it does not mention stays unasked; a
/// process or executable that it mentions counts as the one that rules pinned.
///
/// # Errors
///
/// The first thing that is wrong, with its column: an unknown word, a value out of
/// range, or one thing said twice.
pub fn describe(text: &str, names: &dyn Names) -> Result<Facts, DescriptionError> {
    let mut peer = Description::default();
    for piece in split(Piece { column: 1, text }, ',') {
        peer.add(piece.text, names)
            .map_err(|message| DescriptionError {
                column: piece.column,
                message,
            })?;
    }
    if peer.uid.is_none() && peer.address.is_none() {
        let message = String::from("expected uid:N or address:ADDRESS among the facts");
        return Err(DescriptionError { column: 1, message });
    }
    Ok(peer.into_facts())
}

#[derive(Default)]
struct Description {
    uid: Option<Uid>,
    gid: Option<Gid>,
    pid: Option<Pid>,
    groups: Option<Vec<Gid>>,
    address: Option<IpAddr>,
    exe: Option<std::path::PathBuf>,
    sha256: Option<[u8; 32]>,
    label: Option<Vec<u8>>,
    name: Option<Vec<u8>>,
    args: Option<Vec<u8>>,
}

impl Description {
    fn add(&mut self, text: &str, names: &dyn Names) -> Result<(), String> {
        if let Some(list) = text.strip_prefix("groups:") {
            return once(&mut self.groups, groups(list, names)?, "groups");
        }
        if let Some(value) = text.strip_prefix("address:") {
            let address = value
                .parse()
                .map_err(|_| format!("address: expected an internet address, found {value:?}"))?;
            return once(&mut self.address, address, "address");
        }
        match Criterion::parse(text, names).map_err(|error| error.0)? {
            Criterion::User(uid, _) => once(&mut self.uid, uid, "uid"),
            Criterion::Group(gid, _) => once(&mut self.gid, gid, "gid"),
            Criterion::Pid(pid) => once(&mut self.pid, pid, "pid"),
            Criterion::Exe(path) => once(&mut self.exe, path, "exe"),
            Criterion::Sha256(digest) => once(&mut self.sha256, digest, "sha256"),
            Criterion::Label(label) => once(&mut self.label, label, "label"),
            Criterion::Name(name) => once(&mut self.name, name, "name"),
            Criterion::Args(args) => once(&mut self.args, args, "args"),
            Criterion::Address(_) | Criterion::Any => {
                Err(format!("expected a fact about one peer, found {text:?}"))
            }
        }
    }

    fn into_facts(self) -> Facts {
        let number = |id: Option<u32>| id.unwrap_or(u32::MAX);
        let credentials = if self.address.is_some() {
            Credentials::NONE
        } else {
            Credentials::from_raw(
                self.pid.map_or(0, Pid::as_raw),
                number(self.uid.map(Uid::as_raw)),
                number(self.gid.map(Gid::as_raw)),
                IdMaps::FULL,
            )
        };
        let exe = self.exe.map(|path| Exe {
            file: FileId {
                device: 0,
                inode: 0,
            },
            same_as: vec![path.clone()],
            path,
            deleted: false,
        });
        Facts {
            groups: given(self.groups),
            label: given(self.label),
            address: self.address.map(|address| SocketAddr::new(address, 0)),
            process: given(self.pid.map(|pid| Process { pid, pinned: true })),
            exe: given(exe),
            sha256: given(self.sha256),
            name: given(self.name),
            args: given(self.args),
            ..Facts::of(Fact::Known(credentials))
        }
    }
}

fn given<T>(value: Option<T>) -> Fact<T> {
    value.map_or(Fact::Unasked, Fact::Known)
}

fn once<T>(slot: &mut Option<T>, value: T, word: &str) -> Result<(), String> {
    if slot.is_some() {
        return Err(format!("{word}: said twice"));
    }
    *slot = Some(value);
    Ok(())
}

/// Numbers or names, joined by plus signs; nothing at all for no groups.
fn groups(list: &str, names: &dyn Names) -> Result<Vec<Gid>, String> {
    let items = list.split('+').filter(|item| !item.is_empty());
    items
        .map(|item| {
            let numeric = item.bytes().all(|byte| byte.is_ascii_digit());
            let keyword = if numeric { "gid" } else { "group" };
            match Criterion::from_parts(keyword, item, names) {
                Ok(Criterion::Group(gid, _)) => Ok(gid),
                Ok(other) => Err(format!("groups: expected a group, found {other}")),
                Err(error) => Err(error.0),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Numeric;

    const NAMES: Numeric = Numeric {
        own_user: Uid::ROOT,
    };

    #[test]
    fn what_is_not_said_stays_unasked() {
        let facts = describe("uid:33, gid:33, groups:4+27, pid:812, exe:/a", &NAMES).unwrap();
        assert_eq!(facts.to_string(), "uid=33 gid=33 pid=812");
        assert_eq!(facts.groups.known().map(Vec::len), Some(2));
        assert!(facts.exe.known().is_some());
        assert!(facts.sha256.is_unasked());
    }

    #[test]
    fn what_is_said_is_known() {
        let digest = "ab".repeat(32);
        let text = format!("uid:33,gid:4,pid:7,sha256:{digest},label:l,name:n,args:a\\,b,groups:");
        let facts = describe(&text, &NAMES).unwrap();
        let pid = Pid::from_raw(7).unwrap();
        assert_eq!(facts.to_string(), "uid=33 gid=4 pid=7");
        assert_eq!(facts.process, Fact::Known(Process { pid, pinned: true }));
        assert_eq!(facts.sha256, Fact::Known([0xab; 32]));
        assert_eq!(facts.label, Fact::Known(b"l".to_vec()));
        assert_eq!(facts.name, Fact::Known(b"n".to_vec()));
        assert_eq!(facts.args, Fact::Known(b"a,b".to_vec()));
        assert_eq!(facts.groups, Fact::Known(vec![]));
    }

    #[test]
    fn a_peer_with_an_address_has_no_credentials() {
        let facts = describe("address:::1", &NAMES).unwrap();
        assert_eq!(facts.to_string(), "address=[::1]:0");
        assert_eq!(facts.credentials, Fact::Known(Credentials::NONE));
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = describe(text, &NAMES).unwrap_err();
        assert_eq!(format!("{}: {error}", error.column), expected);
    }

    #[test]
    fn errors_point_at_their_place() {
        check_error(
            "gid:1",
            "1: expected uid:N or address:ADDRESS among the facts",
        );
        check_error("uid:1,uid:2", "7: uid: said twice");
        check_error(
            "uid:1, any",
            "8: expected a fact about one peer, found \"any\"",
        );
        check_error(
            "groups:4+x",
            "1: group: can not look up \"x\": this build resolves no names, write gid:NUMBER",
        );
        check_error(
            "address:x",
            "1: address: expected an internet address, found \"x\"",
        );
    }
}
