//! The peer that `explain` is asked about, in words.
//!
//! - It leads to facts, or to an error whose column lies inside of it.
//! - The facts, written in words again, lead to the same facts.
//! - What `explain` says is one line for each rule and criterion, steers no
//!   terminal, and begins with the verdict that the policy gives.

use std::os::unix::ffi::OsStrExt;

use secure_socket::ids::Uid;
use secure_socket::peer::{Fact, Facts};
use secure_socket::policy::{Policy, Rule, describe, escape};

use crate::surroundings::World;

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let facts = match describe(text, &World) {
        Ok(facts) => facts,
        Err(error) => {
            assert!(
                (1..=text.chars().count() + 1).contains(&error.column),
                "{error:?}"
            );
            assert!(crate::is_quiet(&error.to_string()));
            return;
        }
    };
    let words = in_words(&facts);
    assert!(crate::is_quiet(&words), "{words:?}");
    assert_eq!(describe(&words, &World).as_ref(), Ok(&facts), "{words}");
    for text in [
        "uid:33|gid:27|name:a,exe:/a|args:b|label:c",
        "address:10.0.0.0/8",
        "pid:7",
    ] {
        let rule = Rule::parse(text, &World).expect("a rule");
        let deny = Rule::parse("user:shop,group:wheel", &World).expect("a rule");
        check_explained(&Policy::new(vec![rule], vec![deny], Uid::ROOT), &facts);
    }
}

pub(crate) fn check_explained(policy: &Policy, facts: &Facts) {
    let text = policy.explain(facts);
    assert!(text.lines().all(crate::is_quiet), "{text:?}");
    let rules = policy.allow_rules().iter().chain(policy.deny_rules());
    let lines: usize = rules.map(|rule| 1 + rule.clauses().concat().len()).sum();
    assert_eq!(text.lines().count(), 1 + lines, "{text}");
    let word = match policy.check(facts) {
        _ if !policy.asks(facts).is_empty() => "undecided",
        Ok(_) => "admitted",
        Err(_) => "denied",
    };
    assert!(text.starts_with(word), "{text}");
}

/// The facts as `explain` takes them.
fn in_words(facts: &Facts) -> String {
    let mut words = Vec::new();
    let ids = facts.credentials.known().copied();
    if let Some(uid) = ids.and_then(|ids| ids.uid()) {
        words.push(format!("uid:{uid}"));
    }
    if let Some(gid) = ids.and_then(|ids| ids.gid()) {
        words.push(format!("gid:{gid}"));
    }
    if let Some(address) = facts.address {
        words.push(format!("address:{}", address.ip()));
    }
    if let Fact::Known(process) = &facts.process {
        words.push(format!("pid:{}", process.pid));
    }
    if let Fact::Known(groups) = &facts.groups {
        let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
        words.push(format!("groups:{}", groups.join("+")));
    }
    if let Fact::Known(exe) = &facts.exe {
        words.push(format!("exe:{}", escape(exe.path.as_os_str().as_bytes())));
    }
    if let Fact::Known(digest) = &facts.sha256 {
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        words.push(format!("sha256:{digits}"));
    }
    let texts = [
        ("label", &facts.label),
        ("name", &facts.name),
        ("args", &facts.args),
    ];
    for (word, fact) in texts {
        if let Fact::Known(bytes) = fact {
            words.push(format!("{word}:{}", escape(bytes)));
        }
    }
    words.join(",")
}
