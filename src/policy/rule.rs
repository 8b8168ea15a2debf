//! A rule: every clause must hold, and of a clause any one criterion.
//!
//! As text, commas join clauses and bars join the alternatives of one:
//! `uid:33|uid:34,exe:/usr/sbin/nginx`.

#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::criterion::Criterion;
use super::names::Names;
use super::outcome::{Outcome, Value};
use super::text::{Piece, split};
use crate::ids::Uid;
use crate::peer::{Facts, Needs};

/// The longest text of a rule, in bytes.
pub const MAX_RULE_BYTES: usize = 65_536;
/// The most clauses in a rule.
pub const MAX_CLAUSES: usize = 64;
/// The most alternatives in a clause.
pub const MAX_ALTERNATIVES: usize = 1_024;

/// What is wrong with a rule, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleError {
    /// Characters from the start of the rule's text, from 1.
    pub column: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RuleError {}

/// One rule of a policy. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    clauses: Arc<[Vec<Criterion>]>,
    text: Arc<str>,
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its column: an empty or unknown
    /// criterion, a value out of range, a name that nobody has, or two criteria
    /// that no peer meets at once.
    pub fn parse(text: &str, names: &dyn Names) -> Result<Self, RuleError> {
        if text.len() > MAX_RULE_BYTES {
            let message = format!("expected a rule of at most {MAX_RULE_BYTES} bytes");
            return Err(RuleError { column: 1, message });
        }
        let mut builder = RuleBuilder::default();
        for clause in split(Piece { column: 1, text }, ',') {
            let mut alternatives = Vec::new();
            for piece in split(clause, '|') {
                let criterion = Criterion::parse(piece.text, names).map_err(|error| RuleError {
                    column: piece.column,
                    message: error.0,
                })?;
                alternatives.push(criterion);
            }
            builder.push(alternatives).map_err(|message| RuleError {
                column: clause.column,
                message,
            })?;
        }
        Ok(builder.finish())
    }

    /// The rule that holds where no other was given.
    pub(super) fn own_user_only(own_user: Uid) -> Self {
        RuleBuilder {
            clauses: vec![vec![Criterion::User(own_user, Some(String::from("self")))]],
            text_bytes: 0,
        }
        .finish()
    }

    /// Its canonical text, which parses again to the same rule.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Its clauses: all must hold, each if any of its criteria does.
    pub fn clauses(&self) -> &[Vec<Criterion>] {
        &self.clauses
    }

    /// All facts that it may ask for.
    pub fn needs(&self) -> Needs {
        self.criteria()
            .fold(Needs::NONE, |needs, criterion| needs.and(criterion.needs()))
    }

    /// Whether it holds only for chosen processes and not for all of a user:
    /// by pid, executable, digest, name or arguments.
    pub fn names_process(&self) -> bool {
        self.has_clause_within(Needs::PROCESS)
    }

    /// Whether it holds only for chosen programs.
    pub fn names_executable(&self) -> bool {
        self.has_clause_within(Needs::EXECUTABLE)
    }

    /// Whether one of its criteria is `exe:` with this path.
    pub(super) fn names_path(&self, path: &Path) -> bool {
        self.criteria()
            .any(|one| matches!(one, Criterion::Exe(named) if named == path))
    }

    /// Whether anyone could make it hold by choosing a name or arguments.
    pub fn is_forgeable(&self) -> bool {
        self.clauses.iter().all(|clause| {
            clause
                .iter()
                .any(|one| one.is_forgeable() || *one == Criterion::Any)
        })
    }

    /// All criteria of all clauses.
    pub(super) fn criteria(&self) -> impl Iterator<Item = &Criterion> {
        self.clauses.iter().flatten()
    }

    fn has_clause_within(&self, kinds: Needs) -> bool {
        let inside = |one: &Criterion| one.needs().has_any(kinds);
        self.clauses.iter().any(|clause| clause.iter().all(inside))
    }

    /// Whether it holds for certain: what could not be read does not make it hold.
    pub fn holds(&self, facts: &Facts) -> bool {
        self.outcome(facts).now == Value::True
    }

    /// Whether it holds, or may do so once more facts are learnt.
    pub(crate) fn may_hold(&self, facts: &Facts) -> bool {
        self.outcome(facts).best == Value::True
    }

    /// What the facts say about it. A clause that holds and one that does not are
    /// left at once: they ask for nothing more.
    pub(super) fn outcome(&self, facts: &Facts) -> Outcome {
        let mut rule = Outcome::TRUE;
        for clause in self.clauses.iter() {
            rule = rule.and(outcome_of(clause, facts));
            if rule.best == Value::False {
                return Outcome::FALSE;
            }
        }
        rule
    }
}

fn outcome_of(clause: &[Criterion], facts: &Facts) -> Outcome {
    let mut any = Outcome::FALSE;
    for criterion in clause {
        any = any.or(Outcome::from(criterion.holds(facts)));
        if any.worst == Value::True {
            return Outcome::TRUE;
        }
    }
    any
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Puts a rule together from lists, as the `authorised_peer_*` options give them.
#[derive(Clone, Default, Debug)]
pub struct RuleBuilder {
    clauses: Vec<Vec<Criterion>>,
    /// Bytes of the text so far, with its commas.
    text_bytes: usize,
}

impl RuleBuilder {
    /// Asks that one of these holds. An empty list asks for nothing.
    ///
    /// # Errors
    ///
    /// Says in words which bound is crossed, or which criteria no peer meets at once.
    pub fn any_of(&mut self, alternatives: Vec<Criterion>) -> Result<&mut Self, String> {
        if !alternatives.is_empty() {
            self.push(alternatives)?;
        }
        Ok(self)
    }

    /// The rule, or `None` if nothing was asked.
    pub fn build(self) -> Option<Rule> {
        (!self.clauses.is_empty()).then(|| self.finish())
    }

    fn finish(self) -> Rule {
        let text = self
            .clauses
            .iter()
            .map(|clause| joined(clause, "|"))
            .collect::<Vec<_>>();
        Rule {
            text: text.join(",").into(),
            clauses: self.clauses.into(),
        }
    }

    /// Escapes can make the text longer than it was given, and it must parse again.
    fn push(&mut self, alternatives: Vec<Criterion>) -> Result<(), String> {
        let comma = usize::from(!self.clauses.is_empty());
        self.text_bytes = self
            .text_bytes
            .saturating_add(joined(&alternatives, "|").len())
            .saturating_add(comma);
        self.clauses.push(alternatives);
        if self.text_bytes > MAX_RULE_BYTES {
            return Err(format!(
                "expected a rule of at most {MAX_RULE_BYTES} bytes with its escapes"
            ));
        }
        self.validate()
    }

    /// Holds after every clause, so that only the last can be at fault.
    fn validate(&self) -> Result<(), String> {
        if self.clauses.len() > MAX_CLAUSES {
            return Err(format!("expected at most {MAX_CLAUSES} criteria in a rule"));
        }
        let Some((last, before)) = self.clauses.split_last() else {
            return Ok(());
        };
        if last.len() > MAX_ALTERNATIVES {
            return Err(format!("expected at most {MAX_ALTERNATIVES} alternatives"));
        }
        let clash = before
            .iter()
            .find(|clause| exclude_each_other(clause, last));
        match clash {
            None => Ok(()),
            Some(other) => Err(format!(
                "no peer can match {} and {} at once; for either of them write {}",
                joined(other, "|"),
                joined(last, "|"),
                joined(&[other.as_slice(), last.as_slice()].concat(), "|"),
            )),
        }
    }
}

fn joined(criteria: &[Criterion], separator: &str) -> String {
    criteria
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(separator)
}

/// Whether each pair names two different values of one thing, of which a peer has one.
fn exclude_each_other(left: &[Criterion], right: &[Criterion]) -> bool {
    left.iter()
        .all(|one| right.iter().all(|other| differ(one, other)))
}

/// Groups, addresses and paths are left out: a peer may well be in two groups.
fn differ(one: &Criterion, other: &Criterion) -> bool {
    match (one, other) {
        (Criterion::User(a, _), Criterion::User(b, _)) => a != b,
        (Criterion::Pid(a), Criterion::Pid(b)) => a != b,
        (Criterion::Sha256(a), Criterion::Sha256(b)) => a != b,
        (Criterion::Label(a), Criterion::Label(b))
        | (Criterion::Name(a), Criterion::Name(b))
        | (Criterion::Args(a), Criterion::Args(b)) => a != b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Fact, Unreadable};
    use crate::policy::{Numeric, describe};

    const NAMES: Numeric = Numeric {
        own_user: Uid::ROOT,
    };

    #[track_caller]
    fn check(text: &str, expected: &str) {
        match Rule::parse(text, &NAMES) {
            Ok(rule) => {
                assert_eq!(rule.to_string(), expected);
                assert_eq!(Rule::parse(expected, &NAMES).as_ref(), Ok(&rule));
            }
            Err(error) => assert_eq!(format!("{}: {error}", error.column), expected),
        }
    }

    #[test]
    fn rules_print_as_they_parse() {
        check("uid:33", "uid:33");
        check(" uid:33 | uid:34 , exe:/a ", "uid:33|uid:34,exe:/a");
        check("args:a\\,b,any", "args:a\\,b,any");
        check("gid:1,gid:2", "gid:1,gid:2");
    }

    #[test]
    fn errors_point_at_their_place() {
        check("", "1: expected a criterion, keyword:value, found \"\"");
        check(
            "uid:33,",
            "8: expected a criterion, keyword:value, found \"\"",
        );
        check(
            "uid:33, usr:x",
            "9: unknown criterion, found \"usr\"; did you mean \"user\"",
        );
        check(
            "pid:1|pid:x",
            "7: pid: expected a number from 1 to 2147483647, found \"x\"",
        );
        check(
            "uid:33,uid:34",
            "8: no peer can match uid:33 and uid:34 at once; for either of them write uid:33|uid:34",
        );
    }

    #[test]
    fn bounds_hold_at_their_edge() {
        let clauses = |count: usize| vec!["gid:1"; count].join(",");
        assert!(Rule::parse(&clauses(MAX_CLAUSES), &NAMES).is_ok());
        assert!(Rule::parse(&clauses(MAX_CLAUSES + 1), &NAMES).is_err());
        let alternatives = |count: usize| vec!["gid:1"; count].join("|");
        assert!(Rule::parse(&alternatives(MAX_ALTERNATIVES), &NAMES).is_ok());
        assert!(Rule::parse(&alternatives(MAX_ALTERNATIVES + 1), &NAMES).is_err());
        let long = |bytes: usize| format!("args:{}", "a".repeat(bytes - 5));
        assert!(Rule::parse(&long(MAX_RULE_BYTES), &NAMES).is_ok());
        assert!(Rule::parse(&long(MAX_RULE_BYTES + 1), &NAMES).is_err());
        // A control character is written with four bytes.
        let escaped = |count: usize| format!("args:aaa{}", "\x7f".repeat(count));
        let most = (MAX_RULE_BYTES - 8) / 4;
        check(&escaped(most), &format!("args:aaa{}", "\\x7f".repeat(most)));
        check(
            &escaped(most + 1),
            "1: expected a rule of at most 65536 bytes with its escapes",
        );
    }

    #[test]
    fn two_values_of_what_a_peer_has_once_exclude_each_other() {
        let (zeros, ones) = ("00".repeat(32), "11".repeat(32));
        let sha256 = [format!("sha256:{zeros}"), format!("sha256:{ones}")];
        for [one, other] in [
            ["uid:1", "uid:2"],
            ["pid:1", "pid:2"],
            ["label:a", "label:b"],
            ["name:a", "name:b"],
            ["args:a", "args:b"],
            [&sha256[0], &sha256[1]],
        ] {
            let rule = |text: String| Rule::parse(&text, &NAMES);
            let wrong = rule(format!("{one},{other}")).unwrap_err();
            assert_eq!(
                wrong.message,
                format!(
                    "no peer can match {one} and {other} at once; for either of them write \
                     {one}|{other}"
                )
            );
            assert!(rule(format!("{one},{one}")).is_ok(), "{one} twice");
            assert!(rule(format!("{one}|{other},{other}")).is_ok(), "{other}");
        }
        for both in [
            "gid:1,gid:2",
            "exe:/a,exe:/b",
            "name:a,args:b",
            "uid:1,pid:2",
        ] {
            check(both, both);
        }
    }

    #[test]
    fn lists_that_ask_for_nothing_make_no_rule() {
        let mut builder = RuleBuilder::default();
        builder.any_of(vec![]).unwrap();
        assert_eq!(builder.clone().build(), None);
        let users = [1, 2].map(|raw| Criterion::User(Uid::from_raw(raw).unwrap(), None));
        builder
            .any_of(users.into())
            .unwrap()
            .any_of(vec![])
            .unwrap();
        builder.any_of(vec![Criterion::Any]).unwrap();
        assert_eq!(builder.build().unwrap().to_string(), "uid:1|uid:2,any");
    }

    #[test]
    fn what_is_not_known_for_certain_does_not_hold() {
        let rule = Rule::parse("uid:33,gid:4", &NAMES).unwrap();
        let holds = |peer: &str| rule.holds(&describe(peer, &NAMES).unwrap());
        assert!(holds("uid:33,gid:4"));
        assert!(!holds("uid:34,gid:4"));
        assert!(!holds("uid:33,gid:5"));
        let mut facts = describe("uid:33,gid:5", &NAMES).unwrap();
        facts.groups = Fact::Unreadable(Unreadable::Failed(5));
        assert!(!rule.holds(&facts));
    }

    #[test]
    fn a_rule_names_a_process_only_if_no_alternative_escapes() {
        let names = |text: &str| {
            let rule = Rule::parse(text, &NAMES).unwrap();
            (
                rule.names_process(),
                rule.names_executable(),
                rule.is_forgeable(),
            )
        };
        assert_eq!(names("uid:1"), (false, false, false));
        assert_eq!(names("uid:1,exe:/a"), (true, true, false));
        assert_eq!(names("exe:/a|uid:1"), (false, false, false));
        assert_eq!(names("pid:1|exe:/a"), (true, false, false));
        assert_eq!(names("name:a,args:b"), (true, false, true));
        assert_eq!(names("name:a|uid:1"), (false, false, true));
        assert_eq!(names("name:a,uid:1"), (true, false, false));
    }

    /// Pieces of rules, thrown together by a fixed sequence: whatever parses prints
    /// as something that parses to the same.
    #[test]
    fn whatever_parses_prints_as_it_parses() {
        const PIECES: [&str; 24] = [
            "uid:",
            "gid:",
            "pid:",
            "exe:",
            "name:",
            "args:",
            "label:",
            "address:",
            "any",
            "self",
            "0",
            "33",
            "4294967294",
            "/a",
            "/b c",
            "\\,",
            "\\|",
            "\\x0a",
            "\\\\",
            ",",
            "|",
            " ",
            "::1/128",
            "é",
        ];
        let mut state = 1_u64;
        let mut parsed = 0;
        for _ in 0..4_000 {
            let mut text = String::new();
            for _ in 0..8 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let index = usize::try_from((state >> 33) % 24).unwrap();
                text.push_str(PIECES[index]);
                if let Ok(rule) = Rule::parse(&text, &NAMES) {
                    parsed += 1;
                    let again = Rule::parse(rule.text(), &NAMES);
                    assert_eq!(again.as_ref(), Ok(&rule), "{text:?} {rule}");
                }
            }
        }
        assert!(parsed > 200, "{parsed}");
    }
}
