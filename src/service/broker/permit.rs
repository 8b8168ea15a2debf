//! The `permit` rules.

use crate::frame::Pattern;
use crate::peer::{Fact, Facts, Needs};
use crate::policy::Rule;

use super::rights::{Action, Rights};

/// One `permit`: who may do what on which subjects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Permit {
    action: Action,
    pattern: Box<str>,
    rule: Rule,
}

impl Permit {
    /// Puts one together.
    pub fn new(action: Action, pattern: Pattern<'_>, rule: Rule) -> Self {
        Self {
            action,
            pattern: pattern.as_str().into(),
            rule,
        }
    }

    /// What it permits.
    pub fn action(&self) -> Action {
        self.action
    }

    /// On which subjects, as the text of a [`Pattern`].
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// To whom.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }
}

/// All `permit` rules. None means that every admitted peer may do everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Permits(Vec<Permit>);

impl Permits {
    /// These, in any order.
    pub fn new(permits: Vec<Permit>) -> Self {
        Self(permits)
    }

    /// Their rules, for the policy to learn what they ask for.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter().map(Permit::rule)
    }

    /// The facts that they ask for. A fact that was not learnt doesn't make a
    /// permit hold.
    pub fn needs(&self) -> Needs {
        self.0
            .iter()
            .fold(Needs::NONE, |needs, permit| needs.and(permit.rule.needs()))
    }

    /// Whether this peer holds a permit only for what it runs.
    pub(super) fn rest_on_executable(&self, facts: &Facts) -> bool {
        if !self.needs().has_any(Needs::EXECUTABLE) {
            return false;
        }
        let without = without_executable(facts.clone());
        let mut held = self.0.iter().filter(|permit| permit.rule.holds(facts));
        held.any(|permit| !permit.rule.holds(&without))
    }

    /// What a peer may do.
    pub fn rights_of(&self, facts: &Facts) -> Rights {
        if self.0.is_empty() {
            return Rights::everything();
        }
        let held = self.0.iter().filter(|permit| permit.rule.holds(facts));
        Rights::only(held.filter_map(|permit| {
            Pattern::new(permit.pattern.as_bytes()).map(|pattern| (permit.action, pattern))
        }))
    }
}

/// As if nobody had looked at what the process runs.
pub(super) fn without_executable(mut facts: Facts) -> Facts {
    facts.exe = Fact::Unasked;
    facts.sha256 = Fact::Unasked;
    facts
}
