//! Users, groups and supplementary groups: policies against real processes that
//! run under real ids, each with the verdict and the reason that it must have.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod identity_support;

use identity_support::*;

#[test]
fn helper() {
    run_script();
}

const NOBODY: As = As {
    uid: 65_534,
    gid: 65_534,
    groups: &[],
};
/// A user who has groups besides the primary one.
const MEMBER: As = As {
    uid: 1_001,
    gid: 1_001,
    groups: &[4, 27, 1_001],
};
/// Numbers at the edge of what an id can be.
const LAST: As = As {
    uid: 4_294_967_294,
    gid: 4_294_967_294,
    groups: &[],
};
const HIGH: As = As {
    uid: 2_147_483_648,
    gid: 2_147_483_648,
    groups: &[],
};
/// Someone else's group as his primary one.
const GUEST: As = As {
    uid: 1_002,
    gid: 33,
    groups: &[65_534],
};

/// Who, what is allowed, what is denied, and the verdict.
type Case = (
    As,
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
);

const CASES: [Case; 56] = [
    // Without rules: the server's own user, who is root here.
    (ROOT, &[], &[], "rule 1"),
    (WEB, &[], &[], "no_rule"),
    (NOBODY, &[], &[], "no_rule"),
    (LAST, &[], &[], "no_rule"),
    (HIGH, &[], &[], "no_rule"),
    // Users by number and name; root is not exempt.
    (WEB, &["uid:33"], &[], "rule 1"),
    (WEB, &["user:www-data"], &[], "rule 1"),
    (ROOT, &["uid:33"], &[], "no_rule"),
    (ROOT, &["user:www-data"], &[], "no_rule"),
    (ROOT, &["uid:0"], &[], "rule 1"),
    (ROOT, &["user:root"], &[], "rule 1"),
    (ROOT, &["uid:self"], &[], "rule 1"),
    (WEB, &["uid:self"], &[], "no_rule"),
    (NOBODY, &["uid:33"], &[], "no_rule"),
    (NOBODY, &["uid:65534"], &[], "rule 1"),
    (NOBODY, &["user:nobody"], &[], "rule 1"),
    (LAST, &["uid:4294967294"], &[], "rule 1"),
    (LAST, &["uid:0"], &[], "no_rule"),
    (HIGH, &["uid:2147483648"], &[], "rule 1"),
    (HIGH, &["uid:0"], &[], "no_rule"),
    (WEB, &["uid:33|uid:34"], &[], "rule 1"),
    (WEB, &["uid:34|uid:35"], &[], "no_rule"),
    (WEB, &["uid:34", "uid:33"], &[], "rule 2"),
    // Groups: primary or supplementary.
    (WEB, &["gid:33"], &[], "rule 1"),
    (WEB, &["group:www-data"], &[], "rule 1"),
    (GUEST, &["gid:33"], &[], "rule 1"),
    (GUEST, &["uid:33"], &[], "no_rule"),
    (GUEST, &["gid:1002"], &[], "no_rule"),
    (GUEST, &["gid:65534"], &[], "rule 1"),
    (MEMBER, &["gid:4"], &[], "rule 1"),
    (MEMBER, &["gid:27"], &[], "rule 1"),
    (MEMBER, &["group:sudo"], &[], "rule 1"),
    (MEMBER, &["gid:1001"], &[], "rule 1"),
    (MEMBER, &["gid:33"], &[], "no_rule"),
    (MEMBER, &["gid:0"], &[], "no_rule"),
    (MEMBER, &["gid:4,gid:27"], &[], "rule 1"),
    (MEMBER, &["gid:4,gid:33"], &[], "no_rule"),
    (MEMBER, &["gid:33|gid:27"], &[], "rule 1"),
    (ROOT, &["gid:4"], &[], "no_rule"),
    (ROOT, &["gid:0"], &[], "rule 1"),
    // Both.
    (MEMBER, &["uid:1001,gid:4"], &[], "rule 1"),
    (MEMBER, &["uid:1001,gid:5"], &[], "no_rule"),
    (MEMBER, &["uid:1002,gid:4"], &[], "no_rule"),
    (WEB, &["uid:33,gid:33"], &[], "rule 1"),
    // Everyone, and addresses, which nobody has here.
    (NOBODY, &["any"], &[], "rule 1"),
    (ROOT, &["any"], &[], "rule 1"),
    (WEB, &["address:127.0.0.1"], &[], "no_rule"),
    (WEB, &["uid:33,address:0.0.0.0/0"], &[], "no_rule"),
    // Deny wins, wherever it stands.
    (WEB, &["uid:33"], &["uid:33"], "deny_rule"),
    (WEB, &["any"], &["user:www-data"], "deny_rule"),
    (ROOT, &["any"], &["uid:0"], "deny_rule"),
    (MEMBER, &["uid:1001"], &["gid:27"], "deny_rule"),
    (MEMBER, &["uid:1001"], &["gid:28"], "rule 1"),
    (MEMBER, &["uid:1001"], &["gid:27,uid:1002"], "rule 1"),
    (MEMBER, &["uid:1001"], &["gid:28", "gid:4"], "deny_rule"),
    (NOBODY, &["uid:33"], &["any"], "deny_rule"),
];

#[test]
fn every_user_gets_his_verdict() {
    let Some(lab) = Lab::new("matrix") else {
        return;
    };
    let program = lab.program("client");
    let listener = lab.listener();
    for (user, allow, deny, expected) in &CASES {
        let script = format!("connect {};wait", lab.path("socket").display());
        let client = connect(&listener, command(&program, user, &script));
        let judge = Judge::with_names(allow, deny);
        let verdict = judge.verdict(&client.stream);
        println!(
            "{verdict:10} uid={} gid={} groups={:?} allow={allow:?} deny={deny:?}",
            user.uid, user.gid, user.groups
        );
        assert_eq!(
            &verdict, expected,
            "uid={} allow={allow:?} deny={deny:?}",
            user.uid
        );
    }
    println!("{} pairs of policy and peer", CASES.len());
}

#[test]
fn a_setuid_program_has_its_effective_user() {
    let Some(lab) = Lab::new("setuid") else {
        return;
    };
    let program = lab.program("client");
    std::os::unix::fs::chown(&program, Some(34), None).unwrap();
    set_mode(&program, 0o4755);
    let listener = lab.listener();
    let script = format!("connect {};wait", lab.path("socket").display());
    let client = connect(&listener, command(&program, &WEB, &script));
    assert_eq!(
        Judge::new(&["uid:34"], &[]).verdict(&client.stream),
        "rule 1"
    );
    assert_eq!(
        Judge::new(&["uid:33"], &[]).verdict(&client.stream),
        "no_rule"
    );
}

#[test]
fn the_most_groups_that_a_process_can_have_are_read() {
    let Some(lab) = Lab::new("groups") else {
        return;
    };
    let program = lab.program("client");
    let listener = lab.listener();
    let script = format!("connect {};wait", lab.path("socket").display());
    // setpriv takes them as one argument of at most 128 KiB.
    let groups: Vec<u32> = (100_000..116_000).collect();
    let many = As {
        groups: groups.leak(),
        ..WEB
    };
    let client = connect(&listener, command(&program, &many, &script));
    assert_eq!(
        Judge::new(&["gid:115999"], &[]).verdict(&client.stream),
        "rule 1"
    );
    assert_eq!(
        Judge::new(&["gid:116000"], &[]).verdict(&client.stream),
        "no_rule"
    );
}
