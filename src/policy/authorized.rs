//! The proof that a peer was admitted.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::denial::{DenialReason, RuleKind, RuleRef};
use super::rule::Rule;
use crate::ids::{Gid, Pid, Uid};
use crate::peer::{Credentials, Exe, Fact, Facts};

/// A peer that a policy admitted: by which rule, and on which facts. Only
/// [`Policy`](super::Policy) makes one. Cheap to clone.
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
