//! Process rules against real processes: right and wrong programs, renamed,
//! copied, deleted, exec'ed and forked ones.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod identity_support;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use identity_support::*;

#[test]
fn helper() {
    run_script();
}

/// A verdict on one process under many policies.
struct Matrix<'c> {
    client: &'c Client,
    cases: usize,
}

impl Matrix<'_> {
    #[track_caller]
    fn check(&mut self, allow: &str, deny: &[&str], expected: &str) {
        let verdict = Judge::new(&[allow], deny).verdict(&self.client.stream);
        println!("{verdict:24} allow={allow} deny={deny:?}");
        assert_eq!(verdict, expected, "allow={allow} deny={deny:?}");
        self.cases += 1;
    }
}

/// Thirty policies and more against one and the same honest process.
#[test]
fn policies_on_the_trusted_program() {
    let Some(lab) = Lab::new("trusted") else {
        return;
    };
    let (trusted, other) = (lab.program("trusted"), lab.program("other"));
    std::fs::hard_link(&trusted, lab.path("linked")).unwrap();
    std::os::unix::fs::symlink(&trusted, lab.path("symlink")).unwrap();
    let listener = lab.listener();
    let script = format!("connect {};wait", lab.path("socket").display());
    let client = connect(&listener, command(&trusted, &WEB, &script));
    let pid = client.pid();
    let digest = sha256sum(&trusted);
    let wrong_digest = "0".repeat(64);
    let args = format!("{} --exact helper --nocapture", trusted.display());
    let exe = |name: &str| format!("exe:{}", lab.path(name).display());
    let mut matrix = Matrix {
        client: &client,
        cases: 0,
    };
    let m = &mut matrix;

    m.check(&exe("trusted"), &[], "rule 1");
    m.check(&exe("linked"), &[], "rule 1");
    m.check(&exe("symlink"), &[], "rule 1");
    m.check(&exe("other"), &[], "no_rule");
    m.check("exe:/bin/sh", &[], "no_rule");
    m.check(
        &format!("{}|{}", exe("other"), exe("trusted")),
        &[],
        "rule 1",
    );
    m.check(&format!("uid:33,{}", exe("trusted")), &[], "rule 1");
    m.check(&format!("uid:34,{}", exe("trusted")), &[], "no_rule");
    m.check(&format!("uid:0,{}", exe("trusted")), &[], "no_rule");
    m.check(&format!("gid:33,{}", exe("trusted")), &[], "rule 1");
    m.check(&format!("uid:33,{}", exe("other")), &[], "no_rule");
    m.check(&format!("sha256:{digest}"), &[], "rule 1");
    m.check(&format!("sha256:{wrong_digest}"), &[], "no_rule");
    m.check(
        &format!("{},sha256:{digest}", exe("trusted")),
        &[],
        "rule 1",
    );
    m.check(
        &format!("{},sha256:{wrong_digest}", exe("trusted")),
        &[],
        "no_rule",
    );
    m.check(&format!("{},sha256:{digest}", exe("other")), &[], "no_rule");
    m.check(&format!("pid:{pid}"), &[], "rule 1");
    m.check("pid:1", &[], "no_rule");
    m.check(&format!("pid:{pid},{}", exe("trusted")), &[], "rule 1");
    m.check(&format!("pid:{pid},{}", exe("other")), &[], "no_rule");
    m.check("name:trusted", &[], "rule 1");
    m.check("name:truste", &[], "no_rule");
    m.check("name:trusted\\x20", &[], "no_rule");
    m.check("name:TRUSTED", &[], "no_rule");
    m.check(&format!("args:{args}"), &[], "rule 1");
    m.check(&format!("args:{args}\\x20"), &[], "no_rule");
    m.check(&format!("args:{}", trusted.display()), &[], "no_rule");
    m.check(
        &format!("name:trusted,args:{args},{}", exe("trusted")),
        &[],
        "rule 1",
    );
    m.check(&format!("name:other,{}", exe("trusted")), &[], "no_rule");
    m.check("uid:33", &[&exe("trusted")], "deny_rule");
    m.check("uid:33", &[&exe("other")], "rule 1");
    m.check("any", &[&format!("sha256:{digest}")], "deny_rule");
    m.check("any", &[&format!("sha256:{wrong_digest}")], "rule 1");
    m.check("any", &[&format!("pid:{pid}")], "deny_rule");
    m.check("any", &["name:trusted"], "deny_rule");
    m.check("any", &[&format!("uid:34,{}", exe("trusted"))], "rule 1");
    println!("{} policies", matrix.cases);
    assert!(matrix.cases >= 30);
    let _ = other;
}

#[test]
fn labels_that_no_module_gives_are_unreadable() {
    let Some(lab) = Lab::new("label") else { return };
    if secure_socket::peer::Kernel::probe().peer_label {
        return skip_by_kernel("a kernel without a module that labels sockets");
    }
    let listener = lab.listener();
    let script = format!("connect {};wait", lab.path("socket").display());
    let client = connect(&listener, command(&lab.program("trusted"), &WEB, &script));
    let mut matrix = Matrix {
        client: &client,
        cases: 0,
    };
    matrix.check("label:unconfined", &[], "unreadable_label");
    matrix.check("uid:33", &["label:unconfined"], "unreadable_label");
    matrix.check("uid:34,label:unconfined", &[], "no_rule");
}

#[test]
fn a_copy_is_another_program_but_the_same_digest() {
    let Some(lab) = Lab::new("copy") else { return };
    let (trusted, copied) = (lab.program("trusted"), lab.program("copied"));
    let listener = lab.listener();
    let script = format!("connect {};wait", lab.path("socket").display());
    let client = connect(&listener, command(&copied, &WEB, &script));
    let mut matrix = Matrix {
        client: &client,
        cases: 0,
    };
    matrix.check(&format!("exe:{}", trusted.display()), &[], "no_rule");
    matrix.check(&format!("sha256:{}", sha256sum(&trusted)), &[], "rule 1");
}

#[test]
fn names_and_arguments_are_forged_and_the_program_is_not() {
    let Some(lab) = Lab::new("forged") else {
        return;
    };
    let (trusted, other) = (lab.program("trusted"), lab.program("other"));
    let listener = lab.listener();
    let mut forged = Command::new(&other);
    forged.arg0(&trusted).args(HELPER_ARGS);
    prepare(
        &mut forged,
        &format!("comm trusted;connect {};wait", lab.path("socket").display()),
    );
    let client = connect(&listener, forged);
    let mut matrix = Matrix {
        client: &client,
        cases: 0,
    };
    let args = format!("args:{} --exact helper --nocapture", trusted.display());
    matrix.check("name:trusted", &[], "rule 1");
    matrix.check("name:other", &[], "no_rule");
    matrix.check(&args, &[], "rule 1");
    matrix.check(
        &format!("name:trusted,{args},exe:{}", trusted.display()),
        &[],
        "no_rule",
    );
    matrix.check("any", &["name:other"], "rule 1");
    matrix.check("any", &[&format!("exe:{}", other.display())], "deny_rule");
}

#[test]
fn deleted_and_replaced_programs_do_not_match() {
    let Some(lab) = Lab::new("deleted") else {
        return;
    };
    let program = lab.program("program");
    let listener = lab.listener();
    let script = format!("connect {};wait", lab.path("socket").display());
    let client = connect(&listener, command(&program, &WEB, &script));
    let rule = format!("exe:{}", program.display());
    let judge = Judge::new(&[&rule], &[]);
    let deny = Judge::new(&["any"], &[&rule]);
    assert_eq!(judge.verdict(&client.stream), "rule 1");
    assert_eq!(deny.verdict(&client.stream), "deny_rule");
    std::fs::remove_file(&program).unwrap();
    assert_eq!(judge.verdict(&client.stream), "no_rule", "deleted");
    lab.program("program");
    assert_eq!(judge.verdict(&client.stream), "no_rule", "replaced");
    // A new name for the old file does not bring it back.
    let digest = format!("sha256:{}", sha256sum(&program));
    assert_eq!(
        Judge::new(&[&digest], &[]).verdict(&client.stream),
        "rule 1"
    );
}

#[test]
fn a_program_in_memory_does_not_match() {
    let Some(lab) = Lab::new("memfd") else { return };
    let trusted = lab.program("trusted");
    let listener = lab.listener();
    let script = format!("memfd;connect {};wait", lab.path("socket").display());
    let client = connect(&listener, command(&trusted, &WEB, &script));
    let exe = std::fs::read_link(format!("/proc/{}/exe", client.pid())).unwrap();
    assert!(
        exe.to_string_lossy().starts_with("/memfd:trusted"),
        "{exe:?}"
    );
    let mut matrix = Matrix {
        client: &client,
        cases: 0,
    };
    matrix.check(&format!("exe:{}", trusted.display()), &[], "no_rule");
    matrix.check(&format!("uid:33,exe:{}", trusted.display()), &[], "no_rule");
}

#[test]
fn a_script_is_its_interpreter() {
    let Some(lab) = Lab::new("script") else {
        return;
    };
    let interpreter = lab.program("interpreter");
    let script = lab.path("script");
    std::fs::write(lab.path("text"), format!("#!{}\n", interpreter.display())).unwrap();
    copy(&lab.path("text"), &script);
    let listener = lab.listener();
    // The kernel passes the script's path as the first argument: not a test's name,
    // so the binary is told by its environment alone.
    let mut command = command(&script, &WEB, "");
    prepare(
        &mut command,
        &format!("connect {};wait", lab.path("socket").display()),
    );
    let client = connect(&listener, command);
    let mut matrix = Matrix {
        client: &client,
        cases: 0,
    };
    matrix.check(&format!("exe:{}", script.display()), &[], "no_rule");
    matrix.check(&format!("exe:{}", interpreter.display()), &[], "rule 1");
    matrix.check("name:script", &[], "rule 1");
}

#[test]
fn another_user_with_the_trusted_program_is_another_user() {
    let Some(lab) = Lab::new("user") else { return };
    let trusted = lab.program("trusted");
    let listener = lab.listener();
    let script = format!("connect {};wait", lab.path("socket").display());
    for user in [
        ROOT,
        As {
            uid: 34,
            gid: 33,
            groups: &[33],
        },
    ] {
        let client = connect(&listener, command(&trusted, &user, &script));
        let mut matrix = Matrix {
            client: &client,
            cases: 0,
        };
        matrix.check(&format!("uid:33,exe:{}", trusted.display()), &[], "no_rule");
        matrix.check(&format!("exe:{}", trusted.display()), &[], "rule 1");
        matrix.check(
            &format!("exe:{}", trusted.display()),
            &["uid:34|uid:0"],
            "deny_rule",
        );
    }
}

#[test]
fn a_peer_that_is_gone_is_denied_as_gone() {
    let Some(lab) = Lab::new("gone") else { return };
    let trusted = lab.program("trusted");
    let listener = lab.listener();
    let script = format!("connect {}", lab.path("socket").display());
    let exe = format!("exe:{}", trusted.display());
    for reaped in [false, true] {
        let mut client = connect(&listener, command(&trusted, &WEB, &script));
        if reaped {
            client.child.wait().unwrap();
        } else {
            let state = format!("/proc/{}/stat", client.pid());
            until("a zombie", || {
                std::fs::read_to_string(&state).unwrap().contains(") Z ")
            });
        }
        let pid = format!("uid:33,pid:{}", client.pid());
        let mut matrix = Matrix {
            client: &client,
            cases: 0,
        };
        matrix.check(&exe, &[], "peer_gone");
        matrix.check("name:trusted", &[], "peer_gone");
        matrix.check("any", &[&exe], "peer_gone");
        matrix.check("uid:34,name:trusted", &[], "no_rule");
        matrix.check("uid:33", &[], "rule 1");
        if !reaped {
            matrix.check(&pid, &[], "peer_gone");
        }
    }
}

#[test]
fn the_number_of_a_process_that_is_gone_is_nobodys() {
    let Some(lab) = Lab::new("pinned") else {
        return;
    };
    let trusted = lab.program("trusted");
    let listener = lab.listener();
    let script = format!("connect {};wait", lab.path("socket").display());
    let mut client = connect(&listener, command(&trusted, &WEB, &script));
    let judge = Judge::new(&[&format!("pid:{}", client.pid())], &[]);
    let other = connect(&listener, command(&trusted, &WEB, &script));
    assert_eq!(judge.verdict(&client.stream), "rule 1");
    assert_eq!(judge.verdict(&other.stream), "no_rule");
    client.child.kill().unwrap();
    client.child.wait().unwrap();
    assert_eq!(judge.verdict(&client.stream), "peer_gone");
}

#[test]
fn exec_after_connect_passes_outside_checks_and_fails_the_proof() {
    let Some(lab) = Lab::new("exec") else { return };
    let (trusted, other) = (lab.program("trusted"), lab.program("other"));
    let listener = lab.listener();
    let socket = lab.path("socket");
    let judge = Judge::new(&[&format!("exe:{}", trusted.display())], &[]);
    let script = format!(
        "connect {};write evil command;exec {};forever",
        socket.display(),
        trusted.display()
    );
    let client = connect(&listener, command(&other, &WEB, &script));
    until_exe(client.pid(), &trusted);
    assert_eq!(
        judge.verdict(&client.stream),
        "rule 1",
        "the gap that the proof closes"
    );
    let short = Duration::from_millis(300);
    // What was written before is no proof, whether it is long enough or not.
    assert_eq!(
        judge.verdict_with_proof(&client.stream, short),
        "proof_timeout"
    );
    let long = script.replace("evil command", "evil command of sixteen");
    let client = connect(&listener, command(&other, &WEB, &long));
    until_exe(client.pid(), &trusted);
    assert_eq!(
        judge.verdict_with_proof(&client.stream, short),
        "proof_wrong"
    );
}

#[test]
fn the_honest_program_proves_itself() {
    let Some(lab) = Lab::new("honest") else {
        return;
    };
    let trusted = lab.program("trusted");
    let listener = lab.listener();
    let judge = Judge::new(&[&format!("exe:{}", trusted.display())], &[]);
    let script = format!("connect {};answer;wait", lab.path("socket").display());
    let client = connect(&listener, command(&trusted, &WEB, &script));
    assert_eq!(judge.verdict_with_proof(&client.stream, PATIENCE), "rule 1");
}

#[test]
fn a_child_that_kept_the_descriptor_proves_nothing() {
    let Some(lab) = Lab::new("child") else { return };
    let (trusted, other) = (lab.program("trusted"), lab.program("other"));
    let listener = lab.listener();
    let judge = Judge::new(&[&format!("exe:{}", trusted.display())], &[]);
    // The child of an untrusted program answers, while its parent runs the trusted one.
    let script = format!(
        "connect {};child;answer;forever;parent;exec {};forever",
        lab.path("socket").display(),
        trusted.display()
    );
    let client = connect(&listener, command(&other, &WEB, &script));
    until_exe(client.pid(), &trusted);
    assert_eq!(
        judge.verdict(&client.stream),
        "rule 1",
        "the gap that the proof closes"
    );
    assert_eq!(
        judge.verdict_with_proof(&client.stream, PATIENCE),
        "proof_foreign"
    );
    end_children(&other);
}

#[test]
fn exec_of_another_program_after_the_proof_is_noticed() {
    let Some(lab) = Lab::new("later") else { return };
    let (trusted, other) = (lab.program("trusted"), lab.program("other"));
    let listener = lab.listener();
    let judge = Judge::new(&[&format!("exe:{}", trusted.display())], &[]);
    let script = format!(
        "connect {};wait;exec {};forever",
        lab.path("socket").display(),
        other.display()
    );
    let mut client = connect(&listener, command(&trusted, &WEB, &script));
    let peer = judge.peer(&client.stream);
    let admitted = judge.judge(&peer).unwrap();
    let again = |judge: &Judge| {
        let mut facts = peer.facts().clone();
        judge
            .inspector
            .learn(&peer, &mut facts, judge.policy.needs());
        admitted.still_holds(&facts).map_err(|reason| reason.code())
    };
    assert_eq!(again(&judge), Ok(()));
    client.go_on();
    until_exe(client.pid(), &other);
    assert_eq!(again(&judge), Err("exe_changed"));
    client.child.kill().unwrap();
    client.child.wait().unwrap();
    assert_eq!(again(&judge), Err("peer_gone"));
}

#[test]
fn the_process_ends_though_its_child_holds_the_socket() {
    let Some(lab) = Lab::new("ends") else { return };
    let trusted = lab.program("trusted");
    let listener = lab.listener();
    let judge = Judge::new(&[&format!("exe:{}", trusted.display())], &[]);
    let script = format!(
        "connect {};child;forever;parent;wait",
        lab.path("socket").display()
    );
    let mut client = connect(&listener, command(&trusted, &WEB, &script));
    let peer = judge.peer(&client.stream);
    assert_eq!(word(&judge.judge(&peer)), "rule 1");
    assert_eq!(peer.is_alive(), Ok(()));
    client.child.kill().unwrap();
    let killed = std::time::Instant::now();
    until("the pidfd says so", || peer.is_alive().is_err());
    let waited = killed.elapsed();
    println!("noticed after {waited:?}");
    assert!(waited < Duration::from_millis(100), "{waited:?}");
    end_children(&trusted);
}

/// Ends what a test's program left behind: the test has no handle on grandchildren.
fn end_children(program: &Path) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let exe = std::fs::read_link(entry.path().join("exe"));
        let pid = entry.file_name().to_string_lossy().parse::<i32>().ok();
        let (Ok(exe), Some(pid)) = (exe, pid) else {
            continue;
        };
        if exe == program {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
