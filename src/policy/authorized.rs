//! The proof that a peer was admitted.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::denial::{DenialReason, RuleKind, RuleRef};
use super::rule::Rule;
use crate::ids::{Gid, Pid, Uid};
use crate::peer::{Credentials, Exe, Fact, Facts};

/// A peer that a policy admitted: by which rule, and on which facts. Only
/// [`Policy`](super::Policy) makes one. Cheap to clone.
///
/// ```
/// use secure_socket::policy::Authorized;
///
/// fn rule(admitted: &Authorized) -> u32 {
///     admitted.rule_number()
/// }
/// ```
///
/// Elsewhere there is no way to write one down, to have one made, or to take one for granted:
///
/// ```compile_fail,E0451
/// use secure_socket::policy::Authorized;
///
/// fn from_parts(admitted: Authorized) -> Authorized {
///     Authorized { number: 2, ..admitted }
/// }
/// ```
///
/// ```compile_fail,E0624
/// use secure_socket::policy::Authorized;
///
/// let _ = Authorized::new;
/// ```
///
/// ```compile_fail,E0277
/// use secure_socket::policy::Authorized;
///
/// fn taken_for_granted<T: Default>() -> T {
///     T::default()
/// }
/// let _: Authorized = taken_for_granted();
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authorized {
    facts: Arc<Facts>,
    number: u32,
    rule: Rule,
}

impl Authorized {
    /// Kept to this room, so that nobody admits himself.
    pub(super) fn new(facts: Arc<Facts>, number: u32, rule: &Rule) -> Self {
        Self {
            facts,
            number,
            rule: rule.clone(),
        }
    }

    /// The number of the allow rule, from 1.
    pub fn rule_number(&self) -> u32 {
        self.number
    }

    /// The canonical text of the rule.
    pub fn rule_text(&self) -> &Arc<str> {
        self.rule.text()
    }

    /// The rule by place and text.
    pub fn rule(&self) -> RuleRef {
        RuleRef {
            kind: RuleKind::Allow,
            number: self.number,
            text: Arc::clone(self.rule.text()),
        }
    }

    /// Whether the rule admits chosen processes only, so that the session ends
    /// with the process by default.
    pub fn names_process(&self) -> bool {
        self.rule.names_process()
    }

    /// Whether the rule admits chosen programs only, so that a proof of the
    /// process and repeated checks make sense.
    pub fn names_executable(&self) -> bool {
        self.rule.names_executable()
    }

    /// Whether the rule rests on nothing but what any program can choose.
    pub fn is_forgeable(&self) -> bool {
        self.rule.is_forgeable()
    }

    /// The facts that the verdict was based on.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Process, user and group; [`Credentials::NONE`] for an internet peer.
    pub fn credentials(&self) -> Credentials {
        self.facts
            .credentials
            .known()
            .copied()
            .unwrap_or(Credentials::NONE)
    }

    /// The user at connect. `None` for an internet or an unmapped peer.
    pub fn uid(&self) -> Option<Uid> {
        self.credentials().uid()
    }

    /// The primary group at connect.
    pub fn gid(&self) -> Option<Gid> {
        self.credentials().gid()
    }

    /// The process at connect.
    pub fn pid(&self) -> Option<Pid> {
        self.credentials().pid()
    }

    /// The executable, if a rule made the server read it.
    pub fn exe(&self) -> Option<&Exe> {
        self.facts.exe.known()
    }

    /// The path of the executable: one that the rule names, or else another that the
    /// policy names, and that led to the very file that runs. `None` where the policy
    /// names no such path. [`Exe::path`] is no proof: it is the name in the mount
    /// namespace of the peer, who may mount any file at any path there.
    pub fn exe_path(&self) -> Option<&Path> {
        let paths = &self.exe().filter(|exe| !exe.deleted)?.same_as;
        let named = paths.iter().find(|path| self.rule.names_path(path));
        named.or(paths.first()).map(PathBuf::as_path)
    }

    /// Whether the executable was read and the rule depended on it.
    pub fn exe_checked(&self) -> bool {
        self.names_executable() && self.exe().is_some()
    }

    /// Whether a rule had the executable read, be it one that allows, denies or gives
    /// rights later, so that it must be looked at again while the session lasts.
    pub fn watches_executable(&self) -> bool {
        self.exe().is_some()
    }

    /// Judges a later reading of the process's facts: whether it still runs the
    /// executable that it was admitted with.
    ///
    /// # Errors
    ///
    /// Why the session must end: the executable is another one, the process is
    /// gone, or it can no longer be read.
    pub fn still_holds(&self, now: &Facts) -> Result<(), DenialReason> {
        let Some(admitted) = self.exe() else {
            return Ok(());
        };
        match &now.exe {
            Fact::Known(exe) if exe.file == admitted.file => Ok(()),
            Fact::Known(_) => Err(DenialReason::ExeChanged),
            Fact::Unasked => Err(DenialReason::Unreadable(crate::peer::FactKind::Exe)),
            Fact::Unreadable(why) => Err(DenialReason::of_unreadable(
                crate::peer::FactKind::Exe,
                *why,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{FactKind, FileId, Unreadable};
    use crate::policy::{Numeric, Policy, describe};

    const NAMES: Numeric = Numeric {
        own_user: Uid::ROOT,
    };

    fn admitted(rule: &str, facts: &Facts) -> Authorized {
        let policy = Policy::builder().allow("uid:1").allow(rule);
        policy.build_with(&NAMES).unwrap().check(facts).unwrap()
    }

    #[test]
    fn a_proof_keeps_the_rule_and_the_ids_of_the_kernel() {
        let facts = describe("uid:33,gid:4,pid:7", &NAMES).unwrap();
        let proof = admitted("uid:33|uid:34", &facts);
        assert_eq!(proof.rule_number(), 2);
        assert_eq!(&**proof.rule_text(), "uid:33|uid:34");
        assert_eq!(proof.rule().to_string(), "allow rule 2 (uid:33|uid:34)");
        assert_eq!(proof.uid(), Uid::from_raw(33));
        assert_eq!(proof.gid(), Gid::from_raw(4));
        assert_eq!(proof.pid(), Pid::from_raw(7));
        assert_eq!(proof.facts(), &facts);
    }

    #[test]
    fn an_internet_peer_has_no_ids() {
        let facts = describe("address:10.0.0.1", &NAMES).unwrap();
        let proof = admitted("address:10.0.0.0/8", &facts);
        assert_eq!(proof.credentials(), Credentials::NONE);
    }

    #[test]
    fn a_proof_says_what_its_rule_rests_on() {
        let digest = "00".repeat(32);
        let sha256 = format!("sha256:{digest}");
        let both = format!("uid:33,exe:/a,{sha256}");
        // Rule, peer: names process, names executable, forgeable, checked, watched.
        for (rule, peer, expected) in [
            ("uid:33", "uid:33", [false, false, false, false, false]),
            (
                "uid:33",
                "uid:33,exe:/a",
                [false, false, false, false, true],
            ),
            ("exe:/a", "uid:33,exe:/a", [true, true, false, true, true]),
            (&sha256, &both, [true, true, false, true, true]),
            (
                &sha256,
                &format!("uid:33,{sha256}"),
                [true, true, false, false, false],
            ),
            ("pid:7", "uid:33,pid:7", [true, false, false, false, false]),
            ("name:n", "uid:33,name:n", [true, false, true, false, false]),
            ("any", "uid:33", [false, false, true, false, false]),
        ] {
            let proof = admitted(rule, &describe(peer, &NAMES).unwrap());
            let found = [
                proof.names_process(),
                proof.names_executable(),
                proof.is_forgeable(),
                proof.exe_checked(),
                proof.watches_executable(),
            ];
            assert_eq!(found, expected, "{rule} admits {peer}");
        }
    }

    fn running(file: FileId) -> Fact<Exe> {
        Fact::Known(Exe {
            file,
            path: "/a".into(),
            deleted: false,
            same_as: vec!["/a".into()],
        })
    }

    #[test]
    fn a_session_holds_only_while_the_same_file_runs() {
        let here = FileId {
            device: 1,
            inode: 2,
        };
        let mut facts = describe("uid:33", &NAMES).unwrap();
        facts.exe = running(here);
        let proof = admitted("exe:/a", &facts);
        for (now, expected) in [
            (running(here), Ok(())),
            (
                running(FileId { device: 9, ..here }),
                Err(DenialReason::ExeChanged),
            ),
            (
                running(FileId { inode: 9, ..here }),
                Err(DenialReason::ExeChanged),
            ),
            (Fact::Unasked, Err(DenialReason::Unreadable(FactKind::Exe))),
            (
                Fact::Unreadable(Unreadable::Permission),
                Err(DenialReason::Unreadable(FactKind::Exe)),
            ),
            (
                Fact::Unreadable(Unreadable::Gone),
                Err(DenialReason::PeerGone),
            ),
        ] {
            facts.exe = now;
            assert_eq!(proof.still_holds(&facts), expected, "{:?}", facts.exe);
        }
    }

    #[test]
    fn a_session_admitted_without_its_executable_may_run_any() {
        let mut facts = describe("uid:33", &NAMES).unwrap();
        let proof = admitted("uid:33", &facts);
        facts.exe = Fact::Unreadable(Unreadable::Gone);
        assert_eq!(proof.still_holds(&facts), Ok(()));
    }
}
