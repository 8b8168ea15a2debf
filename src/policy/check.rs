//! The policy, and its verdict on one peer.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::authorized::Authorized;
use super::denial::{Denial, DenialReason, RuleKind, RuleRef};
use super::outcome::{Outcome, Value};
use super::rule::Rule;
use crate::ids::Uid;
use crate::peer::{Facts, Needs, Unreadable};

/// Who may enter. Immutable; a reload puts another one in its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    pub(super) allow: Vec<Rule>,
    pub(super) deny: Vec<Rule>,
    /// Rules of others, whose facts are learnt once a peer is admitted.
    pub(super) others: Vec<Rule>,
    own_user: Uid,
    /// Of all rules together, as each connection asks for them.
    needs: Needs,
}

impl Policy {
    /// Puts the rules in force, in their order. Without an allow rule, only the
    /// server's own user is admitted.
    pub fn new(allow: Vec<Rule>, deny: Vec<Rule>, own_user: Uid) -> Self {
        let allow = if allow.is_empty() {
            vec![Rule::own_user_only(own_user)]
        } else {
            allow
        };
        let needs = needs_of(allow.iter().chain(&deny));
        Self {
            allow,
            deny,
            others: Vec::new(),
            own_user,
            needs,
        }
    }

    /// Has the facts that other rules ask for learnt as well, once a peer is admitted,
    /// and their paths and pids pinned. They don't take part in the verdict; what
    /// can't be learnt for them does not change it.
    #[must_use]
    pub fn also_learning_for(self, others: Vec<Rule>) -> Self {
        let needs = self.needs.and(needs_of(&others));
        Self {
            others,
            needs,
            ..self
        }
    }

    /// The allow rules; number 1 comes first. Never empty.
    pub fn allow_rules(&self) -> &[Rule] {
        &self.allow
    }

    /// The deny rules; number 1 comes first.
    pub fn deny_rules(&self) -> &[Rule] {
        &self.deny
    }

    /// The server's own user, after any drop of privileges.
    pub fn own_user(&self) -> Uid {
        self.own_user
    }

    /// All facts that any rule may ask for.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// The facts to learn next, because they can still change the verdict. Empty
    /// once it stands.
    ///
    /// What the socket answers comes first, then the process, the digest last; what
    /// only other rules ask for, after the verdict that admits.
    pub fn asks(&self, facts: &Facts) -> Needs {
        // Rules that ask for nothing, or for nothing more, need not be gone through.
        if facts.unasked(self.needs).is_empty() {
            return Needs::NONE;
        }
        let asks = self.asks_for_verdict(facts);
        // A verdict that still asks for something does not admit yet.
        if self.others.is_empty() || self.decide(facts).is_err() {
            return asks;
        }
        next_stage(facts.unasked(needs_of(&self.others)))
    }

    fn asks_for_verdict(&self, facts: &Facts) -> Needs {
        let deny = outcomes(&self.deny, facts);
        let allow = outcomes(&self.allow, facts);
        let open_deny = union(deny.iter().filter(|rule| rule.worst == Value::False));
        let is_decided = deny.iter().any(|rule| rule.worst != Value::False);
        let may_admit = allow.iter().any(|rule| rule.best == Value::True);
        if is_decided || !may_admit {
            return Needs::NONE;
        }
        if !open_deny.is_empty() {
            return next_stage(facts.unasked(open_deny));
        }
        if allow.iter().any(|rule| rule.now == Value::True) {
            return Needs::NONE;
        }
        let open_allow = union(allow.iter().filter(|rule| rule.best == Value::True));
        next_stage(facts.unasked(open_allow))
    }

    /// The verdict. Facts that nobody asked for count as not to be had; call
    /// [`Policy::asks`] until it is empty for the least reading.
    ///
    /// # Errors
    ///
    /// The denial, with the rule that decided, and the fact that was missing.
    pub fn check(&self, facts: &Facts) -> Result<Authorized, Denial> {
        let (number, rule) = self.decide(facts)?;
        Ok(Authorized::new(Arc::new(facts.clone()), number, rule))
    }

    /// As [`Policy::check`], and keeps these very facts instead of a copy.
    ///
    /// # Errors
    ///
    /// As [`Policy::check`].
    pub(crate) fn check_shared(&self, facts: &Arc<Facts>) -> Result<Authorized, Denial> {
        let (number, rule) = self.decide(facts)?;
        Ok(Authorized::new(Arc::clone(facts), number, rule))
    }

    fn decide(&self, facts: &Facts) -> Result<(u32, &Rule), Denial> {
        if let Some((number, rule, outcome)) = first_met(&self.deny, facts) {
            return Err(denied_by(RuleKind::Deny, number, rule, &outcome));
        }
        match first_met(&self.allow, facts) {
            Some((number, rule, outcome)) if outcome.now == Value::True => Ok((number, rule)),
            Some((number, rule, outcome)) => {
                Err(denied_by(RuleKind::Allow, number, rule, &outcome))
            }
            None => Err(Denial::without_rule(DenialReason::NoRule)),
        }
    }

    /// Learns what it must and no more, through `learn`, and judges. `learn` gets the
    /// facts and what to fill in; what it leaves out counts as not to be had.
    ///
    /// # Errors
    ///
    /// As [`Policy::check`].
    pub fn judge(
        &self,
        facts: &mut Facts,
        mut learn: impl FnMut(&mut Facts, Needs),
    ) -> Result<Authorized, Denial> {
        let mut asks = self.asks(facts);
        while !asks.is_empty() {
            learn(facts, asks);
            facts.give_up(asks, Unreadable::NoChecker);
            asks = self.asks(facts);
        }
        self.check(facts)
    }
}

fn outcomes(rules: &[Rule], facts: &Facts) -> Vec<Outcome> {
    rules.iter().map(|rule| rule.outcome(facts)).collect()
}

/// The first rule that holds, with its number; if none does, the first of which it
/// can't be said.
fn first_met<'r>(rules: &'r [Rule], facts: &Facts) -> Option<(u32, &'r Rule, Outcome)> {
    let mut unknown = None;
    for (number, rule) in (1..).zip(rules) {
        let outcome = rule.outcome(facts);
        match outcome.now {
            Value::True => return Some((number, rule, outcome)),
            Value::Unknown => unknown = unknown.or(Some((number, rule, outcome))),
            Value::False => {}
        }
    }
    unknown
}

fn needs_of<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Needs {
    let rules = rules.into_iter();
    rules.fold(Needs::NONE, |needs, rule| needs.and(rule.needs()))
}

/// What open rules still ask for. A rule that is decided asks for nothing more,
/// though it may hold criteria that nobody evaluated.
fn union<'o>(outcomes: impl Iterator<Item = &'o Outcome>) -> Needs {
    outcomes
        .filter(|outcome| outcome.now == Value::Unknown)
        .fold(Needs::NONE, |needs, outcome| needs.and(outcome.unasked))
}

/// A digest comes with the executable that it is of, read in one go.
fn next_stage(unasked: Needs) -> Needs {
    use crate::peer::FactKind::Sha256;
    let digest = Needs::only(Sha256);
    [
        unasked.within(Needs::SOCKET),
        unasked.within(Needs::PROCESS).without(digest),
        unasked,
    ]
    .into_iter()
    .find(|stage| !stage.is_empty())
    .unwrap_or(Needs::NONE)
}

fn denied_by(kind: RuleKind, number: u32, rule: &Rule, outcome: &Outcome) -> Denial {
    let rule = RuleRef {
        kind,
        number,
        text: rule.text().clone(),
    };
    if outcome.now == Value::True {
        return Denial {
            reason: DenialReason::DenyRule,
            rule: Some(rule),
            cause: None,
        };
    }
    match outcome.unreadable {
        Some((fact, why)) => Denial {
            reason: DenialReason::of_unreadable(fact, why),
            rule: Some(rule),
            cause: Some((fact, why)),
        },
        // Nobody asked: what is left is a fact that the caller did not read.
        None => Denial {
            reason: DenialReason::Unreadable(first_of(outcome.unasked)),
            rule: Some(rule),
            cause: None,
        },
    }
}

fn first_of(needs: Needs) -> crate::peer::FactKind {
    use crate::peer::FactKind::{Args, Credentials, Exe, Groups, Label, Name, Process, Sha256};
    [Groups, Label, Process, Exe, Sha256, Name, Args]
        .into_iter()
        .find(|kind| needs.has(*kind))
        .unwrap_or(Credentials)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
