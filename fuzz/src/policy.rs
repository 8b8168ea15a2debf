//! Rules, and verdicts on a peer.
//!
//! Input: lines. `+RULE` allows, `-RULE` denies, `=PEER` is the peer as `explain`
//! takes it, `!abc` says which facts can't be read (by the initials below).
//!
//! - A rule's text leads to the same rule; a fault's column lies inside of it.
//! - The verdict is that of a naive evaluation in three values.
//! - Learning facts one stage at a time, as the server does, ends with the same
//!   verdict as having all of them, and never asks for one twice.
//! - Losing a fact never admits a peer that was denied.

use std::net::SocketAddr;

use secure_socket::ids::Uid;
use secure_socket::peer::{Credentials, Fact, FactKind, Facts, Needs, Unreadable};
use secure_socket::policy::{Authorized, Criterion, Names, Numeric, Policy, Rule, describe};

use crate::peer_spec::check_explained;
use crate::surroundings::World;

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (mut allow, mut deny) = (Vec::new(), Vec::new());
    let mut facts = Facts::of(Fact::Known(Credentials::NONE));
    facts.address = Some(SocketAddr::from(([127, 0, 0, 1], 1)));
    let mut lost = "";
    let mut builder = Policy::builder();
    for line in text.split('\n') {
        let rest = line.get(1..).unwrap_or_default();
        match line.as_bytes().first() {
            Some(b'+') => {
                allow.extend(parse(rest));
                builder = builder.allow(rest);
            }
            Some(b'-') => {
                deny.extend(parse(rest));
                builder = builder.deny(rest);
            }
            Some(b'=') => facts = describe(rest, &World).unwrap_or(facts),
            Some(b'!') => lost = rest,
            _ => {}
        }
    }
    facts.give_up(Needs::SOCKET.and(Needs::PROCESS), Unreadable::NoChecker);
    let faults = text
        .lines()
        .filter(|line| line.starts_with(['+', '-']))
        .count();
    let faults = faults - allow.len() - deny.len();
    let policy = Policy::new(allow, deny, World.own_user());
    match builder.build_with(&World) {
        Ok(built) => {
            assert_eq!(faults, 0);
            assert_eq!(built.allow_rules(), policy.allow_rules());
            assert_eq!(built.deny_rules(), policy.deny_rules());
        }
        Err(error) => assert!(faults > 0 && crate::is_quiet(&error.to_string())),
    }
    check_reach(&policy);
    let rules = policy.allow_rules().iter().chain(policy.deny_rules());
    rules.for_each(|rule| check_process(rule, &facts));
    let before = check_verdict(&policy, &facts);
    if let Ok(authorized) = policy.check(&facts) {
        check_later(&authorized, &facts);
    }
    lose(&mut facts, lost);
    let after = check_verdict(&policy, &facts);
    assert!(before || !after, "less is known, and it is admitted");
}

fn parse(text: &str) -> Option<Rule> {
    match Rule::parse(text, &World) {
        Ok(rule) => {
            assert!(crate::is_quiet(rule.text()));
            assert_eq!(Rule::parse(rule.text(), &World).as_ref(), Ok(&rule));
            // Without names it is the same rule, or a word on how to write it.
            let numbers = Numeric {
                own_user: World.own_user(),
            };
            match Rule::parse(text, &numbers) {
                Ok(numeric) => assert_eq!(numeric, rule),
                Err(error) => assert!(error.to_string().contains(":NUMBER"), "{error}"),
            }
            Some(rule)
        }
        Err(error) => {
            assert!(
                (1..=text.chars().count() + 1).contains(&error.column),
                "{error:?}"
            );
            assert!(crate::is_quiet(&error.to_string()));
            None
        }
    }
}

/// Of whom nothing is known but what the socket says, no rule holds that names a process.
fn check_process(rule: &Rule, facts: &Facts) {
    let mut facts = facts.clone();
    lose(&mut facts, "pesna");
    assert!(!rule.names_process() || !rule.holds(&facts), "{rule}");
    assert!(!rule.names_executable() || rule.names_process());
}

/// What the server prepares for a policy is what its rules name.
fn check_reach(policy: &Policy) {
    let rules = || policy.allow_rules().iter().chain(policy.deny_rules());
    let criteria: Vec<&Criterion> = rules()
        .flat_map(|rule| rule.clauses().iter().flatten())
        .collect();
    for one in &criteria {
        match one {
            Criterion::Exe(path) => assert!(policy.exe_paths().contains(path)),
            Criterion::Pid(pid) => assert!(policy.pids().contains(pid)),
            _ => {}
        }
    }
    let allowed = policy.allow_rules().iter().flat_map(|rule| rule.clauses());
    for one in allowed.flatten() {
        if let Criterion::Group(gid, _) = one {
            assert!(policy.authorised_groups().contains(gid));
        }
    }
    let paths = criteria
        .iter()
        .filter(|one| matches!(one, Criterion::Exe(_)));
    assert!(policy.exe_paths().len() <= paths.count());
    let reads = criteria
        .iter()
        .any(|one| one.needs().has_any(Needs::EXECUTABLE));
    assert!(reads || !policy.needs_ptrace_capability());
    let process = criteria
        .iter()
        .any(|one| one.needs().has_any(Needs::PROCESS));
    for uid in [None, Some(Uid::ROOT), World.user("shop").unwrap_or(None)] {
        assert!(process || !policy.tells_processes_apart(uid));
    }
    for warning in policy.warnings() {
        assert!(crate::is_quiet(&warning.to_string()), "{warning}");
    }
}

/// What was found out stays; another executable, or none that can be read, ends a session
/// whose executable was read.
fn check_later(authorized: &Authorized, facts: &Facts) {
    assert_eq!(authorized.facts(), facts);
    assert_eq!(authorized.rule().to_string(), {
        let (number, text) = (authorized.rule_number(), authorized.rule_text());
        format!("allow rule {number} ({text})")
    });
    let ids = facts.credentials.known();
    assert_eq!(authorized.uid(), ids.and_then(|ids| ids.uid()));
    assert_eq!(authorized.gid(), ids.and_then(|ids| ids.gid()));
    assert_eq!(authorized.pid(), ids.and_then(|ids| ids.pid()));
    assert_eq!(authorized.watches_executable(), authorized.exe().is_some());
    assert!(!authorized.exe_checked() || authorized.names_executable());
    let _ = authorized.is_forgeable() && authorized.names_process();
    assert_eq!(authorized.still_holds(facts), Ok(()));
    let watched = authorized.watches_executable();
    for why in [
        Unreadable::Gone,
        Unreadable::Busy,
        Unreadable::Changed,
        Unreadable::Permission,
    ] {
        let mut later = facts.clone();
        later.exe = Fact::Unreadable(why);
        let ended = authorized.still_holds(&later);
        assert_eq!(ended.is_err(), watched);
        let code = ended.err().map_or("", |reason| reason.code());
        assert!(
            code.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        );
    }
    let mut later = facts.clone();
    later.exe = Fact::Unasked;
    assert_eq!(authorized.still_holds(&later).is_err(), watched);
}

fn check_verdict(policy: &Policy, all: &Facts) -> bool {
    let verdict = policy.check(all);
    assert_eq!(verdict.is_ok(), naive(policy, all));
    check_explained(policy, all);
    let mut learnt = Facts::of(all.credentials.clone());
    learnt.address = all.address;
    let mut asked = Needs::NONE;
    let staged = policy.judge(&mut learnt, |facts, needs| {
        assert!(!asked.has_any(needs), "asked twice: {needs:?}");
        assert!(policy.needs().without(needs).and(needs) == policy.needs());
        asked = asked.and(needs);
        learn(facts, all, needs);
    });
    assert_eq!(staged.is_ok(), verdict.is_ok());
    if let (Ok(staged), Ok(verdict)) = (&staged, &verdict) {
        let number = verdict.rule_number() as usize;
        assert!(policy.allow_rules()[number - 1].holds(all));
        // With less learnt a later rule may be the first that is known to hold.
        assert!(staged.rule_number() >= verdict.rule_number());
    }
    if let Err(denial) = &staged {
        assert!(crate::is_quiet(&denial.to_string()));
        assert!(!denial.is_for_lack_of_means() || denial.cause.is_some());
    }
    verdict.is_ok()
}

fn learn(facts: &mut Facts, all: &Facts, needs: Needs) {
    fn take<T: Clone>(to: &mut Fact<T>, from: &Fact<T>, wanted: bool) {
        if wanted {
            *to = from.clone();
        }
    }
    take(&mut facts.groups, &all.groups, needs.has(FactKind::Groups));
    take(&mut facts.label, &all.label, needs.has(FactKind::Label));
    take(
        &mut facts.process,
        &all.process,
        needs.has(FactKind::Process),
    );
    take(&mut facts.exe, &all.exe, needs.has(FactKind::Exe));
    take(&mut facts.sha256, &all.sha256, needs.has(FactKind::Sha256));
    take(&mut facts.name, &all.name, needs.has(FactKind::Name));
    take(&mut facts.args, &all.args, needs.has(FactKind::Args));
}

fn lose(facts: &mut Facts, which: &str) {
    let mut gone = Unreadable::Permission;
    for initial in which.chars() {
        match initial {
            'c' => facts.credentials = Fact::Unreadable(gone),
            'g' => facts.groups = Fact::Unreadable(gone),
            'l' => facts.label = Fact::Unreadable(gone),
            'p' => facts.process = Fact::Unreadable(gone),
            'e' => facts.exe = Fact::Unreadable(gone),
            's' => facts.sha256 = Fact::Unreadable(gone),
            'n' => facts.name = Fact::Unreadable(gone),
            'a' => facts.args = Fact::Unreadable(gone),
            // Why those that follow can't be read.
            'G' => gone = Unreadable::Gone,
            'B' => gone = Unreadable::Busy,
            'C' => gone = Unreadable::Changed,
            'N' => gone = Unreadable::NoChecker,
            _ => {}
        }
    }
}

fn naive(policy: &Policy, facts: &Facts) -> bool {
    let denied = policy
        .deny_rules()
        .iter()
        .any(|rule| truth(rule, facts) != Some(false));
    !denied
        && policy
            .allow_rules()
            .iter()
            .any(|rule| truth(rule, facts) == Some(true))
}

/// `None` is unknown.
fn truth(rule: &Rule, facts: &Facts) -> Option<bool> {
    let clauses: Vec<Option<bool>> = rule
        .clauses()
        .iter()
        .map(|clause| {
            let values: Vec<Option<bool>> = clause.iter().map(|one| holds(one, facts)).collect();
            if values.contains(&Some(true)) {
                Some(true)
            } else if values.contains(&None) {
                None
            } else {
                Some(false)
            }
        })
        .collect();
    if clauses.contains(&Some(false)) {
        Some(false)
    } else if clauses.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn holds(criterion: &Criterion, facts: &Facts) -> Option<bool> {
    let ids = facts.credentials.known();
    match criterion {
        Criterion::Any => Some(true),
        Criterion::User(uid, _) => ids.map(|ids| ids.uid() == Some(*uid)),
        Criterion::Group(gid, _) => {
            let ids = ids?;
            if ids.gid() == Some(*gid) {
                return Some(true);
            }
            if !ids.are_known() {
                return Some(false);
            }
            facts.groups.known().map(|groups| groups.contains(gid))
        }
        Criterion::Pid(pid) => {
            if ids?.pid() != Some(*pid) {
                return Some(false);
            }
            facts
                .process
                .known()
                .map(|process| process.pid == *pid && process.pinned)
        }
        Criterion::Exe(path) => facts
            .exe
            .known()
            .map(|exe| !exe.deleted && exe.same_as.contains(path)),
        Criterion::Sha256(digest) => facts.sha256.known().map(|is| is == digest),
        Criterion::Label(label) => facts.label.known().map(|is| is == label),
        Criterion::Name(name) => facts.name.known().map(|is| is == name),
        Criterion::Args(args) => facts.args.known().map(|is| is == args),
        Criterion::Address(block) => Some(
            facts
                .address
                .is_some_and(|address| block.contains(address.ip())),
        ),
        _ => unreachable!("a criterion that this evaluation doesn't know"),
    }
}
