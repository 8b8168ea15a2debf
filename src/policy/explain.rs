//! Says in words which rule decides about a peer, and why.

#![forbid(unsafe_code)]

use std::fmt::Write;

use super::check::Policy;
use super::criterion::{Criterion, Truth};
use super::outcome::Value;
use super::rule::Rule;
use crate::peer::{FactKind, Facts};

impl Policy {
    /// The verdict, then every rule with what each of its criteria says. Several
    /// lines, each ended by a newline; the first starts with `admitted`, `denied`, or
    /// `undecided` where facts that nobody gave would turn the verdict.
    pub fn explain(&self, facts: &Facts) -> String {
        let mut text = self.verdict_in_words(facts);
        let lists = [("deny", self.deny_rules()), ("allow", self.allow_rules())];
        for (list, rules) in lists {
            for (number, rule) in (1..).zip(rules) {
                explain_rule(&mut text, list, number, rule, facts);
            }
        }
        text
    }

    fn verdict_in_words(&self, facts: &Facts) -> String {
        let asks = self.asks(facts);
        if !asks.is_empty() {
            return format!(
                "undecided: it depends on the peer's {}\n",
                asks.words().join(", ")
            );
        }
        match self.check(facts) {
            Ok(peer) => {
                format!(
                    "admitted by allow rule {} ({})\n",
                    peer.rule_number(),
                    peer.rule_text()
                )
            }
            Err(denial) => format!("denied: {denial}\n"),
        }
    }
}

// Writing to a String can't fail, so results are dropped here.
fn explain_rule(text: &mut String, list: &str, number: u32, rule: &Rule, facts: &Facts) {
    let outcome = match rule.outcome(facts).now {
        Value::True => "matches",
        Value::False => "does not match",
        Value::Unknown if list == "deny" => "can not be decided, and so denies",
        Value::Unknown => "can not be decided, and so does not admit",
    };
    let _ = writeln!(text, "  {list} rule {number} ({rule}) {outcome}");
    for criterion in rule.criteria() {
        let verdict = match criterion.holds(facts) {
            Truth::True => String::from("yes"),
            Truth::False => format!("no, the peer has {}", shown(criterion, facts)),
            Truth::Unasked(kind) => format!("unknown, {} not given", kind.word()),
            Truth::Unreadable(kind, why) => format!("unknown, {} unreadable: {why}", kind.word()),
        };
        let worth = worth(criterion);
        let _ = writeln!(text, "    {criterion}: {verdict}{worth}");
    }
}

fn worth(criterion: &Criterion) -> &'static str {
    match criterion {
        Criterion::Name(_) | Criterion::Args(_) => " (forgeable)",
        Criterion::Any => " (everyone)",
        Criterion::Address(_) => " (network)",
        _ => "",
    }
}

/// What the peer has instead, with bytes that it chose escaped.
fn shown(criterion: &Criterion, facts: &Facts) -> String {
    let escaped = |bytes: Option<&Vec<u8>>| {
        bytes.map_or_else(|| String::from("none"), |bytes| super::text::escape(bytes))
    };
    match criterion.needs() {
        needs if needs.has(FactKind::Groups) => {
            let primary = facts.credentials.known().and_then(|peer| peer.gid());
            let others = facts.groups.known().into_iter().flatten().copied();
            let all: Vec<String> = primary
                .into_iter()
                .chain(others)
                .map(|g| g.to_string())
                .collect();
            if all.is_empty() {
                String::from("no group")
            } else {
                format!("gid {}", all.join("+"))
            }
        }
        needs if needs.has(FactKind::Exe) => match facts.exe.known() {
            Some(exe) if exe.deleted => String::from("a deleted executable"),
            Some(exe) => {
                use std::os::unix::ffi::OsStrExt;
                super::text::escape(exe.path.as_os_str().as_bytes())
            }
            None => String::from("none"),
        },
        needs if needs.has(FactKind::Sha256) => String::from("another digest"),
        needs if needs.has(FactKind::Label) => escaped(facts.label.known()),
        needs if needs.has(FactKind::Name) => escaped(facts.name.known()),
        needs if needs.has(FactKind::Args) => escaped(facts.args.known()),
        _ => facts.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uid;
    use crate::peer::{Fact, Unreadable};
    use crate::policy::{Numeric, describe};

    const NAMES: Numeric = Numeric {
        own_user: Uid::ROOT,
    };

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        let mut builder = Policy::builder();
        for rule in allow {
            builder = builder.allow(*rule);
        }
        for rule in deny {
            builder = builder.deny(*rule);
        }
        builder.build_with(&NAMES).unwrap()
    }

    #[test]
    fn the_verdict_comes_first_then_each_rule_and_criterion() {
        let policy = policy(&["uid:34", "uid:33,gid:4"], &["gid:9"]);
        let facts = describe("uid:33,gid:4,pid:7,groups:5", &NAMES).unwrap();
        let expected = "\
admitted by allow rule 2 (uid:33,gid:4)
  deny rule 1 (gid:9) does not match
    gid:9: no, the peer has gid 4+5
  allow rule 1 (uid:34) does not match
    uid:34: no, the peer has uid=33 gid=4 pid=7
  allow rule 2 (uid:33,gid:4) matches
    uid:33: yes
    gid:4: yes
";
        assert_eq!(policy.explain(&facts), expected);
    }

    #[test]
    fn a_fact_that_nobody_gave_leaves_the_verdict_undecided() {
        let policy = policy(&["gid:4,exe:/a"], &[]);
        let facts = describe("uid:33,gid:4", &NAMES).unwrap();
        let expected = "\
undecided: it depends on the peer's exe
  allow rule 1 (gid:4,exe:/a) can not be decided, and so does not admit
    gid:4: yes
    exe:/a: unknown, exe not given
";
        assert_eq!(policy.explain(&facts), expected);
    }

    #[test]
    fn a_fact_that_can_not_be_read_denies_and_says_why() {
        let policy = policy(&["uid:33"], &["exe:/a"]);
        let mut facts = describe("uid:33,gid:4", &NAMES).unwrap();
        facts.exe = Fact::Unreadable(Unreadable::Permission);
        let expected = "\
denied: reason=unreadable_exe (exe: permission denied) deny rule 1 (exe:/a)
  deny rule 1 (exe:/a) can not be decided, and so denies
    exe:/a: unknown, exe unreadable: permission denied
  allow rule 1 (uid:33) matches
    uid:33: yes
";
        assert_eq!(policy.explain(&facts), expected);
    }

    #[track_caller]
    fn check(criterion: &str, facts: &Facts, expected: &str) {
        let text = policy(&[criterion], &[]).explain(facts);
        let said = text.lines().last().and_then(|line| line.split_once(": "));
        assert_eq!(said.map(|(_, verdict)| verdict), Some(expected), "{text}");
    }

    #[test]
    fn a_criterion_that_fails_says_what_the_peer_has_instead() {
        let (zeros, ones) = ("00".repeat(32), "11".repeat(32));
        for (criterion, peer, expected) in [
            ("uid:34", "uid:33,gid:4,pid:7", "uid=33 gid=4 pid=7"),
            ("pid:8", "uid:33,gid:4,pid:7", "uid=33 gid=4 pid=7"),
            ("gid:4", "address:::1", "no group"),
            ("gid:4", "uid:33,gid:9,groups:5+6", "gid 9+5+6"),
            ("exe:/a", "uid:33,exe:/b\\x0a", "/b\\x0a"),
            ("label:l", "uid:33,label:k\\x1b", "k\\x1b"),
            ("name:n", "uid:33,name:m\\x1b", "m\\x1b (forgeable)"),
            ("args:a", "uid:33,args:b\\,c", "b\\,c (forgeable)"),
            ("address:::2", "address:::1", "address=[::1]:0 (network)"),
            (
                &format!("sha256:{zeros}"),
                &format!("uid:33,sha256:{ones}"),
                "another digest",
            ),
        ] {
            let facts = describe(peer, &NAMES).unwrap();
            check(criterion, &facts, &format!("no, the peer has {expected}"));
        }
        let mut facts = describe("uid:33,exe:/a", &NAMES).unwrap();
        if let Fact::Known(exe) = &mut facts.exe {
            exe.deleted = true;
        }
        check("exe:/a", &facts, "no, the peer has a deleted executable");
    }

    #[test]
    fn a_criterion_that_holds_says_what_it_is_worth() {
        for (criterion, peer, expected) in [
            ("uid:33", "uid:33", "yes"),
            ("name:n", "uid:33,name:n", "yes (forgeable)"),
            ("args:a", "uid:33,args:a", "yes (forgeable)"),
            ("any", "uid:33", "yes (everyone)"),
            ("address:::1", "address:::1", "yes (network)"),
        ] {
            check(criterion, &describe(peer, &NAMES).unwrap(), expected);
        }
    }
}
