//! Peers that this process sees through the walls of a namespace, or with too few
//! privileges: mounts, PIDs, users, CAP_SYS_PTRACE, dumpability.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod identity_support;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use identity_support::*;

#[test]
fn helper() {
    run_script();
}

#[test]
fn a_program_mounted_over_the_trusted_path_does_not_match() {
    let Some(lab) = Lab::new("mounts") else {
        return;
    };
    let (trusted, other) = (lab.program("trusted"), lab.program("other"));
    let listener = lab.listener();
    let judge = Judge::new(&[&format!("exe:{}", trusted.display())], &[]);
    for (mount, expected) in [(true, "no_rule"), (false, "rule 1")] {
        let bind = format!("mount --bind {} {};", other.display(), trusted.display());
        let run = format!("exec {} {}", trusted.display(), HELPER_ARGS.join(" "));
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg(format!("{}{run}", if mount { &bind } else { "" }));
        prepare(
            &mut command,
            &format!("connect {};wait", lab.path("socket").display()),
        );
        let client = connect(&listener, command);
        let shown = std::fs::read_link(format!("/proc/{}/exe", client.pid())).unwrap();
        assert_eq!(
            shown, trusted,
            "the path that the kernel shows is the trusted one"
        );
        assert_eq!(judge.verdict(&client.stream), expected);
    }
}

/// A server in another process, which accepts one peer and says its verdict.
fn serve(mut server: Command, path: &Path, script: &str) -> Child {
    prepare(&mut server, script);
    server.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let child = server.spawn().unwrap();
    until("the server listens", || {
        path.exists()
            && std::fs::metadata(path).is_ok_and(|file| {
                use std::os::unix::fs::PermissionsExt;
                file.permissions().mode() & 0o777 == 0o666
            })
    });
    child
}

/// The verdict of a server that some command runs, on a peer that some user is.
#[track_caller]
fn check(
    lab: &Lab,
    server: &[&str],
    setup: &str,
    user: &As,
    peer: &str,
    rule: &str,
    expected: &str,
) {
    let path = lab.path("sockets").join("socket");
    let _ = std::fs::remove_file(&path);
    let (program, args) = server.split_first().unwrap();
    let mut command = Command::new(program);
    command
        .args(args)
        .arg(lab.path("trusted"))
        .args(HELPER_ARGS);
    let (setup, serve_step) = match setup {
        "starved" => ("", "serve-starved"),
        "old-kernel;by-number" => ("old-kernel;", "serve-by-number"),
        _ => (setup, "serve"),
    };
    let script = format!("{setup}{serve_step} {} {rule}", path.display());
    let mut server_process = serve(command, &path, &script);
    let script = format!("{peer}connect {};wait", path.display());
    let mut client = self::command(&lab.path("trusted"), user, &script)
        .spawn()
        .unwrap();
    let verdict = said_verdict(&mut server_process);
    client.kill().unwrap();
    client.wait().unwrap();
    server_process.wait().unwrap();
    println!(
        "{verdict:24} server={server:?} peer={peer:?} uid={} rule={rule}",
        user.uid
    );
    assert_eq!(
        verdict, expected,
        "server={server:?} uid={} rule={rule}",
        user.uid
    );
}

fn lab_with_sockets(name: &str) -> Option<Lab> {
    let lab = Lab::new(name)?;
    lab.program("trusted");
    std::fs::create_dir(lab.path("sockets")).unwrap();
    set_mode(&lab.path("sockets"), 0o777);
    Some(lab)
}

#[test]
fn a_process_that_this_pid_namespace_can_not_see_is_no_process() {
    let Some(lab) = lab_with_sockets("pids") else {
        return;
    };
    let server = ["unshare", "--pid", "--fork", "--mount-proc", "--"];
    let exe = format!("exe:{}", lab.path("trusted").display());
    check(&lab, &server, "", &WEB, "", "uid:33", "rule 1");
    check(&lab, &server, "", &WEB, "", &exe, "unreadable_exe");
    check(
        &lab,
        &server,
        "",
        &WEB,
        "",
        &format!("uid:34,{exe}"),
        "no_rule",
    );
    check(
        &lab,
        &server,
        "",
        &WEB,
        "",
        "name:trusted",
        "unreadable_name",
    );
    check(
        &lab,
        &server,
        "",
        &WEB,
        "",
        &format!("{exe}|uid:33"),
        "rule 1",
    );
}

#[test]
fn a_user_without_mapping_is_nobody() {
    let Some(lab) = lab_with_sockets("users") else {
        return;
    };
    let server = ["unshare", "--user", "--map-root-user", "--"];
    if !Command::new("unshare")
        .args(["--user", "true"])
        .status()
        .unwrap()
        .success()
    {
        return skip("user namespaces");
    }
    let exe = format!("exe:{}", lab.path("trusted").display());
    for rule in ["uid:65534", "uid:33", "gid:65534", "gid:33", "uid:self"] {
        check(&lab, &server, "", &WEB, "", rule, "no_rule");
    }
    // Nobody, where the map has a place for it, is a user like others.
    check(
        &lab,
        &["setpriv", "--"],
        "",
        &As { uid: 65_534, ..WEB },
        "",
        "uid:65534",
        "rule 1",
    );
    check(
        &lab,
        &server,
        "",
        &As { uid: 65_534, ..WEB },
        "",
        "uid:65534",
        "no_rule",
    );
    check(&lab, &server, "", &WEB, "", "any", "rule 1");
    check(&lab, &server, "", &ROOT, "", "uid:0", "rule 1");
    // Root in there is not root out here, and may read neither executable.
    check(
        &lab,
        &server,
        "",
        &WEB,
        "",
        &format!("any,{exe}"),
        "unreadable_exe",
    );
}

#[test]
fn executables_of_others_need_the_capability() {
    let Some(lab) = lab_with_sockets("ptrace") else {
        return;
    };
    let exe = format!("exe:{}", lab.path("trusted").display());
    let plain = [
        "setpriv",
        "--reuid=33",
        "--regid=33",
        "--clear-groups",
        "--",
    ];
    let with_capability = [
        "setpriv",
        "--reuid=33",
        "--regid=33",
        "--clear-groups",
        "--inh-caps=+sys_ptrace",
        "--ambient-caps=+sys_ptrace",
        "--",
    ];
    let other = As {
        uid: 34,
        gid: 34,
        groups: &[],
    };
    check(&lab, &plain, "", &WEB, "", &exe, "rule 1");
    check(&lab, &plain, "", &other, "", &exe, "unreadable_exe");
    check(&lab, &plain, "", &ROOT, "", &exe, "unreadable_exe");
    check(
        &lab,
        &plain,
        "",
        &other,
        "",
        &format!("{exe},sha256:{}", "0".repeat(64)),
        "unreadable_exe",
    );
    check(&lab, &with_capability, "", &other, "", &exe, "rule 1");
    check(&lab, &with_capability, "", &ROOT, "", &exe, "rule 1");
    // Who is not dumpable can't be read by his own user either.
    check(
        &lab,
        &plain,
        "",
        &WEB,
        "undumpable;",
        &exe,
        "unreadable_exe",
    );
    check(
        &lab,
        &with_capability,
        "",
        &WEB,
        "undumpable;",
        &exe,
        "rule 1",
    );
    // A server that is not dumpable still finds its own descriptors in /proc.
    check(&lab, &plain, "undumpable;", &WEB, "", &exe, "rule 1");
}

#[test]
fn without_a_free_descriptor_processes_are_unreadable_and_users_are_not() {
    let Some(lab) = lab_with_sockets("starved") else {
        return;
    };
    let server = ["prlimit", "--nofile=40", "--"];
    let exe = format!("exe:{}", lab.path("trusted").display());
    check(
        &lab,
        &server,
        "starved",
        &WEB,
        "",
        "uid:33,gid:33",
        "rule 1, rule 1",
    );
    check(
        &lab,
        &server,
        "starved",
        &WEB,
        "",
        &exe,
        "unreadable_exe, rule 1",
    );
    check(
        &lab,
        &server,
        "starved",
        &WEB,
        "",
        "name:trusted",
        "unreadable_name, rule 1",
    );
}

/// The kernel is made to answer as one before 6.5 by a filter.
#[test]
fn without_pidfds_a_process_is_unreadable_or_by_best_effort_held_by_number() {
    let Some(lab) = lab_with_sockets("old") else {
        return;
    };
    let server = ["setpriv", "--"];
    let exe = format!("exe:{}", lab.path("trusted").display());
    check(&lab, &server, "old-kernel;", &WEB, "", "uid:33", "rule 1");
    check(
        &lab,
        &server,
        "old-kernel;",
        &WEB,
        "",
        &exe,
        "unreadable_exe",
    );
    let weaker = "old-kernel;by-number";
    check(&lab, &server, weaker, &WEB, "", &exe, "rule 1");
    check(&lab, &server, weaker, &WEB, "", "exe:/bin/sh", "no_rule");
}
