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
