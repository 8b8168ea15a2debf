//! Every rule of every filter was seen to be needed: `audit/trace` made the table
//! that is compared here with the rules as they stand.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use serde_json::Value;

const RULES: &str = include_str!("../seccomp/x86_64.json");
const OTHER: &str = include_str!("../seccomp/aarch64.json");
const TRACED: &str = include_str!("../audit/syscalls-traced.txt");

/// Stands for the id of the process in a condition.
const OWN_PROCESS: u64 = 0x5E1F_5E1F;

fn conditions(rule: &Value) -> String {
    let conditions = rule["args"].as_array().into_iter().flatten();
    let texts: Vec<String> = conditions
        .map(|condition| {
            let (index, value) = (&condition["index"], &condition["val"]);
            match &condition["op"] {
                _ if value.as_u64() == Some(OWN_PROCESS) => format!("arg{index} own process"),
                Value::String(_) => format!("arg{index} = {value}"),
                op => format!("arg{index} & {} = {value}", op["masked_eq"]),
            }
        })
        .collect();
    texts.join(", ")
}

/// Filter, call and conditions, as the table has them.
fn rules(text: &str) -> BTreeSet<String> {
    let file: Value = serde_json::from_str(text).unwrap();
    let mut rules = BTreeSet::new();
    for (filter, spec) in file["filters"].as_object().unwrap() {
        if spec.get("answer").is_some() {
            continue;
        }
        for group in spec["groups"].as_array().unwrap() {
            for rule in file["groups"][group.as_str().unwrap()]["rules"]
                .as_array()
                .unwrap()
            {
                let call = rule["syscall"].as_str().unwrap();
                rules.insert(format!("{filter}\t{call}\t{}", conditions(rule)));
            }
        }
    }
    rules
}

fn traced() -> Vec<(String, String)> {
    TRACED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (rule, standing) = line.rsplit_once('\t').unwrap();
            (rule.to_owned(), standing.to_owned())
        })
        .collect()
}

#[test]
fn the_table_has_just_the_rules_that_are_compiled() {
    let table: BTreeSet<String> = traced().into_iter().map(|(rule, _)| rule).collect();
    let rules = rules(RULES);
    let difference: Vec<&String> = rules.symmetric_difference(&table).collect();
    assert!(
        difference.is_empty(),
        "run audit/trace, and exercise or remove what it does not see: {difference:#?}"
    );
}

#[test]
fn rules_were_seen_or_say_why_not() {
    let mut open = Vec::new();
    for (rule, standing) in traced() {
        match standing.strip_prefix("not here: ") {
            Some(why) => assert!(!why.trim().is_empty(), "{rule}"),
            None if standing == "seen" => {}
            None => open.push(rule),
        }
    }
    assert!(open.is_empty(), "to be exercised, or to go: {open:#?}");
}

/// What was traced on one architecture speaks for the other as well.
#[test]
fn the_other_architecture_has_no_rule_more() {
    // It has only the younger of two calls that do the same.
    let older = [("renameat", "rename"), ("unlinkat", "unlink")];
    let named_alike = |rule: &String| {
        older.iter().fold(rule.clone(), |rule, (young, old)| {
            rule.replace(&format!("\t{young}\t"), &format!("\t{old}\t"))
        })
    };
    let known: BTreeSet<String> = rules(RULES).iter().map(named_alike).collect();
    let other: BTreeSet<String> = rules(OTHER).iter().map(named_alike).collect();
    let more: Vec<&String> = other.difference(&known).collect();
    assert!(more.is_empty(), "{more:#?}");
}
