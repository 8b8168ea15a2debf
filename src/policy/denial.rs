//! Why a peer is denied. A denial is a decision, not an error.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use crate::peer::proof::ProofFailure;
use crate::peer::{FactKind, Unreadable};

/// Which of the two lists a rule stands in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RuleKind {
    /// It admits.
    Allow,
    /// It denies.
    Deny,
}

/// A rule by its place and text, for logs and the trail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleRef {
    /// The list.
    pub kind: RuleKind,
    /// Its number in that list, from 1; the rule of the `authorised_peer_*`
    /// options comes first.
    pub number: u32,
    /// Its canonical text.
    pub text: Arc<str>,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.kind {
            RuleKind::Allow => "allow",
            RuleKind::Deny => "deny",
        };
        write!(f, "{list} rule {} ({})", self.number, self.text)
    }
}

/// Why a peer is denied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DenialReason {
    /// No allow rule matches.
    NoRule,
    /// A deny rule matches.
    DenyRule,
    /// The process had exited before it could be checked.
    PeerGone,
    /// The process checker had no time for it within its bound.
    CheckerBusy,
    /// The executable changed while it was checked, or after.
    ExeChanged,
    /// A fact that a rule asks for could not be read.
    Unreadable(FactKind),
    /// The 16 bytes did not come back in time.
    ProofTimeout,
    /// Other bytes came back.
    ProofWrong,
    /// They came back from another process.
    ProofForeign,
    /// The peer closed, or its socket failed, before they came back.
    ProofClosed,
}

impl DenialReason {
    /// A stable word for logs, the trail and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoRule => "no_rule",
            Self::DenyRule => "deny_rule",
            Self::PeerGone => "peer_gone",
            Self::CheckerBusy => "checker_busy",
            Self::ExeChanged => "exe_changed",
            Self::Unreadable(FactKind::Credentials) => "unreadable_credentials",
            Self::Unreadable(FactKind::Groups) => "unreadable_groups",
            Self::Unreadable(FactKind::Label) => "unreadable_label",
            Self::Unreadable(FactKind::Process) => "unreadable_pid",
            Self::Unreadable(FactKind::Exe) => "unreadable_exe",
            Self::Unreadable(FactKind::Sha256) => "unreadable_sha256",
            Self::Unreadable(FactKind::Name) => "unreadable_name",
            Self::Unreadable(FactKind::Args) => "unreadable_args",
            Self::ProofTimeout => "proof_timeout",
            Self::ProofWrong => "proof_wrong",
            Self::ProofForeign => "proof_foreign",
            Self::ProofClosed => "proof_closed",
        }
    }

    pub(super) fn of_unreadable(kind: FactKind, why: Unreadable) -> Self {
        match why {
            Unreadable::Gone => Self::PeerGone,
            Unreadable::Busy => Self::CheckerBusy,
            Unreadable::Changed | Unreadable::NoMemory => Self::ExeChanged,
            _ => Self::Unreadable(kind),
        }
    }
}

impl From<&ProofFailure> for DenialReason {
    fn from(failure: &ProofFailure) -> Self {
        match failure {
            ProofFailure::Timeout => Self::ProofTimeout,
            ProofFailure::ForeignProcess => Self::ProofForeign,
            ProofFailure::WrongBytes | ProofFailure::Descriptors => Self::ProofWrong,
            ProofFailure::Closed | ProofFailure::Io(_) => Self::ProofClosed,
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The verdict on a peer that may not enter. For the operator: the peer learns nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// Why.
    pub reason: DenialReason,
    /// The rule that decided, if one did.
    pub rule: Option<RuleRef>,
    /// What stood in the way, where a fact could not be read.
    pub cause: Option<(FactKind, Unreadable)>,
}

impl Denial {
    /// A denial that no rule decided: by the proof of the process, or a later check.
    pub const fn without_rule(reason: DenialReason) -> Self {
        Self {
            reason,
            rule: None,
            cause: None,
        }
    }

    /// Whether the server lacked what it takes to learn the fact: time of the
    /// checker, a descriptor. It says nothing about the peer, and others may be
    /// the cause.
    pub const fn is_for_lack_of_means(&self) -> bool {
        matches!(
            self.cause,
            Some((
                _,
                Unreadable::Busy | Unreadable::Descriptors | Unreadable::NoChecker
            ))
        )
    }
}

impl fmt::Display for Denial {
    /// Stable code first: `reason=unreadable_exe (exe: permission denied) allow rule 1 (exe:/a)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reason={}", self.reason)?;
        if let Some((kind, why)) = self.cause {
            write!(f, " ({}: {why})", kind.word())?;
        }
        if let Some(rule) = &self.rule {
            write!(f, " {rule}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(why: Unreadable, expect: bool) {
        let denial = Denial {
            reason: DenialReason::of_unreadable(FactKind::Exe, why),
            rule: None,
            cause: Some((FactKind::Exe, why)),
        };
        assert_eq!(denial.is_for_lack_of_means(), expect, "{why}");
    }

    #[test]
    fn what_the_server_lacked_is_told_from_what_the_peer_did() {
        check(Unreadable::Busy, true);
        check(Unreadable::Descriptors, true);
        check(Unreadable::NoChecker, true);
        check(Unreadable::Gone, false);
        check(Unreadable::Changed, false);
        check(Unreadable::TooLarge, false);
        check(Unreadable::NotVisible, false);
        assert!(!Denial::without_rule(DenialReason::NoRule).is_for_lack_of_means());
    }

    #[track_caller]
    fn check_reason(why: Unreadable, expected: &str) {
        let reason = DenialReason::of_unreadable(FactKind::Exe, why);
        assert_eq!(reason.to_string(), expected, "{why}");
    }

    #[test]
    fn what_happened_to_the_process_is_told_from_what_could_not_be_read() {
        check_reason(Unreadable::Gone, "peer_gone");
        check_reason(Unreadable::Busy, "checker_busy");
        check_reason(Unreadable::Changed, "exe_changed");
        check_reason(Unreadable::NoMemory, "exe_changed");
        check_reason(Unreadable::Permission, "unreadable_exe");
        check_reason(Unreadable::NoChecker, "unreadable_exe");
    }

    #[test]
    fn a_denial_says_the_code_then_the_cause_then_the_rule() {
        let mut denial = Denial::without_rule(DenialReason::NoRule);
        assert_eq!(denial.to_string(), "reason=no_rule");
        denial.reason = DenialReason::Unreadable(FactKind::Exe);
        denial.cause = Some((FactKind::Exe, Unreadable::Permission));
        denial.rule = Some(RuleRef {
            kind: RuleKind::Allow,
            number: 1,
            text: "exe:/a".into(),
        });
        assert_eq!(
            denial.to_string(),
            "reason=unreadable_exe (exe: permission denied) allow rule 1 (exe:/a)"
        );
    }
}
