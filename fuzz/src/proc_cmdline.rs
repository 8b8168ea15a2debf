//! Names and command lines, from `/proc` to the criteria that compare them.
//!
//! - Any list of arguments becomes its text joined by blanks, without a NUL.
//! - A rule for that text, printed as an operator would write it, admits the
//!   process, and no other text.

use arbitrary::Arbitrary;
use secure_socket::ids::Uid;
use secure_socket::peer::{Fact, Facts, ProcessFacts};
use secure_socket::policy::{Numeric, Rule, escape};
use secure_socket::proc::{command_line, command_name};

#[derive(Arbitrary, Debug)]
pub struct Input {
    args: Vec<Vec<u8>>,
    /// As a process may have written over its arguments.
    raw: Vec<u8>,
    name: Vec<u8>,
}

pub fn check(input: Input) {
    let args: Vec<Vec<u8>> = input.args.into_iter().map(without_nul).collect();
    let kernel: Vec<u8> = args
        .iter()
        .flat_map(|arg| [&arg[..], b"\0"].concat())
        .collect();
    let line = command_line(kernel);
    assert_eq!(line, args.join(&b' '));

    let raw = command_line(input.raw.clone());
    assert!(!raw.contains(&0) && raw.len() <= input.raw.len() && raw.len() + 1 >= input.raw.len());
    let name = without_nul(input.name);
    assert_eq!(command_name([&name[..], b"\n"].concat()), name);

    let mut facts = Facts::of(Fact::Unasked);
    facts.absorb(ProcessFacts {
        exe: Fact::Unasked,
        sha256: Fact::Unasked,
        name: Fact::Known(name.clone()),
        args: Fact::Known(raw.clone()),
    });
    check_rule("args", &raw, &facts, usize::MAX);
    check_rule("name", &name, &facts, 15);
    if line != raw && !line.is_empty() {
        assert!(!rule("args", &line).is_some_and(|rule| rule.holds(&facts)));
    }
}

fn check_rule(keyword: &str, value: &[u8], facts: &Facts, most: usize) {
    match rule(keyword, value) {
        Some(rule) => assert!(rule.holds(facts), "{rule}"),
        None => assert!(value.is_empty() || value.len() > most || escape(value).len() > 60_000),
    }
}

fn rule(keyword: &str, value: &[u8]) -> Option<Rule> {
    let names = Numeric {
        own_user: Uid::ROOT,
    };
    let rule = Rule::parse(&format!("{keyword}:{}", escape(value)), &names).ok()?;
    let again = Rule::parse(rule.text(), &names);
    assert_eq!(again.as_ref(), Ok(&rule));
    Some(rule)
}

fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.retain(|byte| *byte != 0);
    bytes
}
