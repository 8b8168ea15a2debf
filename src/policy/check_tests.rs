//! What the verdict is for each shape of rules and facts.

use super::*;
use crate::peer::{Credentials, Exe, Fact, FactKind, FileId, IdMaps, Process};
use crate::policy::Numeric;

const OWN: u32 = 1_000;

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    let own_user = Uid::from_raw(OWN).unwrap();
    let names = Numeric { own_user };
    let rules = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| Rule::parse(text, &names).unwrap())
            .collect::<Vec<_>>()
    };
    Policy::new(rules(allow), rules(deny), own_user)
}

fn peer(uid: u32, gid: u32, pid: i32) -> Facts {
    Facts::of(Fact::Known(Credentials::from_raw(
        pid,
        uid,
        gid,
        IdMaps::FULL,
    )))
}

fn running(path: &str) -> Fact<Exe> {
    Fact::Known(Exe {
        file: FileId {
            device: 1,
            inode: 2,
        },
        path: path.into(),
        deleted: false,
        same_as: vec![path.into()],
    })
}

#[track_caller]
fn check(policy: &Policy, facts: &Facts, expected: &str) {
    let verdict = match policy.check(facts) {
        Ok(peer) => format!("rule {}", peer.rule_number()),
        Err(denial) => denial.reason.code().to_owned(),
    };
    assert_eq!(verdict, expected, "{}", policy.explain(facts));
}

#[test]
fn without_rules_only_the_own_user_is_admitted() {
    let policy = policy(&[], &[]);
    check(&policy, &peer(OWN, 5, 7), "rule 1");
    check(&policy, &peer(0, 0, 7), "no_rule");
    check(&policy, &peer(OWN - 1, OWN, 7), "no_rule");
    check(
        &policy,
        &Facts::of(Fact::Known(Credentials::NONE)),
        "no_rule",
    );
}

#[test]
fn credentials_that_can_not_be_read_deny() {
    let facts = Facts::of(Fact::Unreadable(Unreadable::Failed(5)));
    check(&policy(&[], &[]), &facts, "unreadable_credentials");
    check(
        &policy(&["any"], &["uid:5"]),
        &facts,
        "unreadable_credentials",
    );
    check(&policy(&["any"], &[]), &facts, "rule 1");
}

#[test]
fn deny_wins_even_over_an_earlier_allow() {
    let policy = policy(&["uid:33", "any"], &["uid:33,gid:9"]);
    let mut facts = peer(33, 9, 7);
    check(&policy, &facts, "deny_rule");
    facts = peer(33, 8, 7);
    facts.groups = Fact::Known(vec![]);
    check(&policy, &facts, "rule 1");
    facts = peer(34, 9, 7);
    facts.groups = Fact::Known(vec![]);
    check(&policy, &facts, "rule 2");
}

#[test]
fn an_unknown_deny_denies_and_an_unknown_allow_does_not_admit() {
    let mut facts = peer(33, 33, 7);
    facts.groups = Fact::Unreadable(Unreadable::Failed(12));
    check(
        &policy(&["uid:33"], &["gid:9"]),
        &facts,
        "unreadable_groups",
    );
    check(&policy(&["gid:9"], &[]), &facts, "unreadable_groups");
    check(&policy(&["gid:9", "uid:33"], &[]), &facts, "rule 2");
    // False and unknown is false: another user's groups don't matter.
    check(&policy(&["uid:34,gid:9"], &[]), &facts, "no_rule");
    check(&policy(&["uid:33"], &["uid:34,gid:9"]), &facts, "rule 1");
    // True or unknown is true.
    check(&policy(&["gid:9|uid:33"], &[]), &facts, "rule 1");
}

#[test]
fn a_process_that_is_gone_has_a_reason_of_its_own() {
    let mut facts = peer(33, 33, 7);
    facts.exe = Fact::Unreadable(Unreadable::Gone);
    check(&policy(&["exe:/a"], &[]), &facts, "peer_gone");
    check(&policy(&["any"], &["exe:/a"]), &facts, "peer_gone");
    facts.exe = Fact::Unreadable(Unreadable::Busy);
    check(&policy(&["exe:/a"], &[]), &facts, "checker_busy");
    facts.exe = Fact::Unreadable(Unreadable::Permission);
    check(&policy(&["exe:/a"], &[]), &facts, "unreadable_exe");
}

#[test]
fn a_pid_matches_only_the_process_that_was_pinned() {
    let policy = policy(&["pid:7"], &[]);
    let mut facts = peer(33, 33, 7);
    facts.process = Fact::Known(Process {
        pid: Pid7::PID,
        pinned: true,
    });
    check(&policy, &facts, "rule 1");
    facts.process = Fact::Known(Process {
        pid: Pid7::PID,
        pinned: false,
    });
    check(&policy, &facts, "no_rule");
    facts.process = Fact::Unreadable(Unreadable::Gone);
    check(&policy, &facts, "peer_gone");
    check(&policy, &peer(33, 33, 8), "no_rule");
    check(&policy, &peer(33, 33, 0), "no_rule");
}

struct Pid7;
impl Pid7 {
    const PID: crate::ids::Pid = match crate::ids::Pid::from_raw(7) {
        Some(pid) => pid,
        None => panic!(),
    };
}

#[test]
fn an_executable_matches_by_file_and_not_by_its_shown_path() {
    let policy = policy(&["exe:/a"], &[]);
    let mut facts = peer(33, 33, 7);
    facts.exe = running("/a");
    check(&policy, &facts, "rule 1");
    let mut other = running("/a");
    if let Fact::Known(exe) = &mut other {
        exe.same_as.clear();
    }
    facts.exe = other;
    check(&policy, &facts, "no_rule");
    let mut deleted = running("/a");
    if let Fact::Known(exe) = &mut deleted {
        exe.deleted = true;
    }
    facts.exe = deleted;
    check(&policy, &facts, "no_rule");
}

#[test]
fn nobody_matches_a_peer_without_mapping_but_any() {
    let unmapped = Credentials::from_raw(7, 65_534, 65_534, IdMaps::PARTIAL);
    let mut facts = Facts::of(Fact::Known(unmapped));
    facts.groups = Fact::Known(vec![]);
    check(&policy(&["uid:65534", "gid:65534"], &[]), &facts, "no_rule");
    check(&policy(&["any"], &["uid:65534"]), &facts, "rule 1");
}

#[track_caller]
fn check_asks(policy: &Policy, facts: &Facts, expected: &[FactKind]) {
    let expected = expected
        .iter()
        .fold(Needs::NONE, |set, kind| set.and(Needs::only(*kind)));
    assert_eq!(policy.asks(facts), expected, "{}", policy.explain(facts));
}

#[test]
fn only_what_can_change_the_verdict_is_asked_for() {
    use FactKind::{Args, Exe, Groups, Sha256};
    let digest = format!("sha256:{}", "00".repeat(32));
    let all = policy(&[&format!("uid:33,gid:4,exe:/a,args:x,{digest}")], &[]);
    let mut facts = peer(34, 4, 7);
    check_asks(&all, &facts, &[]);
    facts = peer(33, 33, 7);
    check_asks(&all, &facts, &[Groups]);
    facts.groups = Fact::Known(vec![crate::ids::Gid::from_raw(4).unwrap()]);
    check_asks(&all, &facts, &[Exe, Args]);
    facts.exe = running("/a");
    facts.args = Fact::Known(b"x".to_vec());
    check_asks(&all, &facts, &[Sha256]);
    facts.args = Fact::Known(b"y".to_vec());
    check_asks(&all, &facts, &[]);
    facts.args = Fact::Unreadable(Unreadable::Failed(5));
    check_asks(&all, &facts, &[]);
}

#[test]
fn what_other_rules_ask_for_comes_after_the_verdict_and_never_turns_it() {
    let names = Numeric {
        own_user: Uid::ROOT,
    };
    let other = Rule::parse("gid:4,exe:/b", &names).unwrap();
    let policy = policy(&["uid:33"], &[]).also_learning_for(vec![other]);
    assert_eq!(policy.exe_paths().len(), 1);
    assert!(policy.needs_ptrace_capability());
    check_asks(&policy, &peer(34, 34, 7), &[]);
    let mut facts = peer(33, 33, 7);
    check_asks(&policy, &facts, &[FactKind::Groups]);
    facts.groups = Fact::Known(vec![]);
    check_asks(&policy, &facts, &[FactKind::Exe]);
    facts.exe = Fact::Unreadable(Unreadable::Permission);
    check_asks(&policy, &facts, &[]);
    check(&policy, &facts, "rule 1");
}

#[test]
fn an_identity_rule_that_admits_spares_the_process() {
    check_asks(
        &policy(&["uid:33,exe:/a", "uid:33"], &[]),
        &peer(33, 33, 7),
        &[],
    );
    let with_deny = policy(&["uid:33"], &["exe:/a"]);
    check_asks(&with_deny, &peer(33, 33, 7), &[FactKind::Exe]);
    check_asks(&with_deny, &peer(34, 33, 7), &[]);
    check_asks(
        &policy(&["exe:/b"], &["exe:/a", "uid:33"]),
        &peer(33, 33, 7),
        &[],
    );
}

#[test]
fn a_deny_rule_with_one_unreadable_fact_may_still_be_refuted_by_another() {
    let policy = policy(&["uid:33"], &["gid:4,exe:/a"]);
    let mut facts = peer(33, 33, 7);
    facts.groups = Fact::Unreadable(Unreadable::Failed(5));
    check_asks(&policy, &facts, &[FactKind::Exe]);
    facts.exe = running("/b");
    check_asks(&policy, &facts, &[]);
    check(&policy, &facts, "rule 1");
    facts.exe = running("/a");
    check(&policy, &facts, "unreadable_groups");
}

/// Every policy of two small rules over every combination of facts: once nothing
/// more is asked for, reading the rest never turns the verdict.
#[test]
fn what_is_not_asked_for_never_turns_the_verdict() {
    let rules = [
        "uid:33",
        "gid:4",
        "exe:/a",
        "gid:4,exe:/a",
        "gid:4|exe:/a",
        "uid:33,exe:/a",
    ];
    let groups = [
        Fact::Unasked,
        Fact::Unreadable(Unreadable::Failed(5)),
        Fact::Known(vec![crate::ids::Gid::from_raw(4).unwrap()]),
        Fact::Known(vec![]),
    ];
    let exes = [
        Fact::Unasked,
        Fact::Unreadable(Unreadable::Gone),
        running("/a"),
        running("/b"),
    ];
    let mut decided = 0;
    for allow in rules {
        for deny in rules {
            let policy = policy(&[allow], &[deny]);
            for uid in [33, 34] {
                for group in &groups {
                    for exe in &exes {
                        let mut facts = peer(uid, 33, 7);
                        (facts.groups, facts.exe) = (group.clone(), exe.clone());
                        if !policy.asks(&facts).is_empty() {
                            continue;
                        }
                        decided += 1;
                        let verdict = policy.check(&facts).is_ok();
                        for more_groups in groups.iter().filter(|_| facts.groups.is_unasked()) {
                            for more_exe in exes.iter().filter(|_| facts.exe.is_unasked()) {
                                let mut more = facts.clone();
                                more.groups = more_groups.clone();
                                more.exe = more_exe.clone();
                                assert_eq!(policy.check(&more).is_ok(), verdict, "{policy:?}");
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(decided > 500, "{decided}");
}

#[test]
fn a_verdict_names_its_rule_by_list_number_and_text() {
    let policy = policy(&["uid:1", "uid:33", "gid:4"], &["gid:9", "exe:/a,name:n"]);
    let named = |facts: &Facts| match policy.check(facts) {
        Ok(peer) => peer.rule(),
        Err(denial) => denial.rule.unwrap(),
    };
    let mut facts = peer(33, 9, 7);
    let denied = named(&facts);
    assert_eq!(denied.to_string(), "deny rule 1 (gid:9)");
    assert_eq!(&denied.text, policy.deny_rules()[0].text());
    facts = peer(33, 33, 7);
    facts.groups = Fact::Known(vec![]);
    facts.exe = running("/a");
    assert_eq!(named(&facts).to_string(), "deny rule 2 (exe:/a,name:n)");
    facts.name = Fact::Known(b"m".to_vec());
    let admitted = named(&facts);
    assert_eq!(admitted.to_string(), "allow rule 2 (uid:33)");
    assert_eq!(&admitted.text, policy.allow_rules()[1].text());
}

#[test]
fn a_policy_needs_what_any_of_its_rules_may_ask_for() {
    let names = Numeric {
        own_user: Uid::ROOT,
    };
    let policy = policy(&["uid:33", "exe:/a"], &["label:l"]);
    assert_eq!(policy.needs().words(), ["label", "exe"]);
    let other = Rule::parse("gid:4", &names).unwrap();
    let policy = policy.also_learning_for(vec![other]);
    assert_eq!(policy.needs().words(), ["groups", "label", "exe"]);
}

#[test]
fn judging_learns_stage_by_stage_until_the_verdict_stands() {
    let digest = format!("sha256:{}", "00".repeat(32));
    let policy = policy(&[&format!("gid:4,exe:/a,{digest}")], &["args:x"]);
    let judge = |args: &[u8]| {
        let mut stages = Vec::new();
        let verdict = policy.judge(&mut peer(33, 4, 7), |facts, asks| {
            stages.push(asks.words());
            facts.args = Fact::Known(args.to_vec());
            facts.exe = running("/a");
            if asks.has(FactKind::Sha256) {
                facts.sha256 = Fact::Known([0; 32]);
            }
        });
        (stages, verdict.map(|peer| peer.rule_number()))
    };
    let (stages, verdict) = judge(b"y");
    assert_eq!(stages, [["args"], ["sha256"]]);
    assert_eq!(verdict, Ok(1));
    let (stages, verdict) = judge(b"x");
    assert_eq!(stages, [["args"]]);
    assert_eq!(verdict.unwrap_err().reason, DenialReason::DenyRule);
}

#[test]
fn what_is_asked_for_and_not_learnt_denies() {
    let mut asked = 0;
    let verdict = policy(&["exe:/a"], &[]).judge(&mut peer(33, 33, 7), |_, _| asked += 1);
    assert_eq!(
        verdict.unwrap_err().to_string(),
        "reason=unreadable_exe (exe: no process checker runs) allow rule 1 (exe:/a)"
    );
    assert_eq!(asked, 1);
}
