//! The recipes of the README do what it says: its own text is typed as it stands, by
//! the users that its prompts name, against the real programs, and what they print is
//! compared with what the README shows. Docker's engine alone is no real one: a few
//! lines of Python answer at its socket.
//!
//! A recipe begins at `<!-- recipe: NAME -->`. A block `sh` is a server that root
//! starts, a block `conf` is the configuration of the program behind it, and a block
//! `console` has lines `USER$ COMMAND`, each followed by what it prints; `...` there
//! stands for any text. Users, sockets and programs exist in namespaces of the test
//! alone (`readme_support/stage.sh`), so nothing of the machine is touched.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "daemon")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");

/// A fenced block: its language and its text.
struct Block {
    language: String,
    text: String,
}

/// The blocks of one recipe, in their order.
#[track_caller]
fn blocks(recipe: &str) -> Vec<Block> {
    let mark = format!("<!-- recipe: {recipe} -->");
    let start = README
        .find(&mark)
        .unwrap_or_else(|| panic!("the README has no {mark}"));
    let text = &README[start + mark.len()..];
    let ends = ["\n## ", "<!-- recipe: "].map(|end| text.find(end).unwrap_or(text.len()));
    let text = &text[..ends[0].min(ends[1])];
    let mut blocks = Vec::new();
    for piece in text.split("\n```").skip(1).step_by(2) {
        let (language, text) = piece.split_once('\n').unwrap();
        blocks.push(Block {
            language: language.to_owned(),
            text: text.to_owned(),
        });
    }
    assert!(!blocks.is_empty(), "{recipe} has blocks");
    blocks
}

/// A line `USER$ COMMAND`.
fn prompt(line: &str) -> Option<(&str, &str)> {
    let (user, command) = line.split_once("$ ")?;
    let is_name = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_lowercase());
    is_name.then_some((user, command))
}

/// Whether the text is what was shown, where `...` stands for any text.
fn is_as_shown(text: &str, shown: &str) -> bool {
    let mut rest = text;
    for (at, piece) in shown.split("...").enumerate() {
        match rest.find(piece) {
            Some(0) if at == 0 => rest = &rest[piece.len()..],
            Some(found) if at > 0 => rest = &rest[found + piece.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || shown.ends_with("...")
}

#[track_caller]
fn check(recipe: &str) {
    let folder = support::TempDir::new();
    let mut shown = Vec::new();
    let mut number = 10;
    let mut write = |kind: &str, text: &str| {
        number += 1;
        fs::write(folder.join(&format!("{number}.{kind}")), text).unwrap();
        number
    };
    for block in blocks(recipe) {
        match block.language.as_str() {
            "sh" => drop(write("server", &block.text)),
            "conf" => drop(write("conf", &block.text)),
            "console" => {
                for line in block.text.lines() {
                    match prompt(line) {
                        Some((user, command)) => {
                            let number = write(&format!("{user}.typed"), command);
                            shown.push((number, line.to_owned(), String::new()));
                        }
                        None => {
                            let (_, _, text) = shown.last_mut().unwrap();
                            text.push_str(line);
                            text.push('\n');
                        }
                    }
                }
            }
            other => panic!("{recipe}: a block {other:?} is no part of a recipe"),
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = Path::new(env!("CARGO_BIN_EXE_secure_socket"))
        .parent()
        .unwrap();
    let done = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--ipc",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["--propagation", "private", "--", "bash"])
        .arg(root.join("tests/readme_support/stage.sh"))
        .args([
            recipe.as_ref(),
            folder.path().as_os_str(),
            programs.as_os_str(),
        ])
        .output()
        .unwrap();
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{recipe}: {said}\n{log}");
    assert!(!shown.is_empty(), "{recipe} shows what it does");
    for (number, typed, shown) in shown {
        let out = fs::read_to_string(folder.join(&format!("{number}.out"))).unwrap();
        assert!(
            is_as_shown(&out, &shown),
            "{typed}\nprinted:\n{out}\nthe README shows:\n{shown}\nlog:\n{log}"
        );
    }
}

#[test]
fn one_program_of_one_user() {
    needs!(root, "unshare", "setpriv", "socat");
    check("program");
}

#[test]
fn one_group() {
    needs!(root, "unshare", "setpriv");
    check("group");
}

#[test]
fn redis() {
    needs!(root, "unshare", "setpriv", "redis-server", "redis-cli");
    check("redis");
}

#[test]
fn postgres() {
    needs!(root, "unshare", "setpriv", "psql");
    check("postgres");
}

#[test]
fn docker() {
    needs!(root, "unshare", "setpriv", "python3", "curl", "socat");
    check("docker");
}

#[test]
fn ssh_agent() {
    needs!(root, "unshare", "setpriv", "ssh-agent", "ssh-add");
    check("ssh_agent");
}

#[test]
fn broker() {
    needs!(root, "unshare", "setpriv");
    check("broker");
}

/// Each recipe of the README is run by a test above.
#[test]
fn no_recipe_is_left_out() {
    let marked: Vec<_> = README
        .split("<!-- recipe: ")
        .skip(1)
        .map(|rest| rest.split(" -->").next().unwrap())
        .collect();
    let run = [
        "program",
        "group",
        "redis",
        "postgres",
        "docker",
        "ssh_agent",
        "broker",
    ];
    assert_eq!(marked, run);
}

#[test]
fn dots_stand_for_any_text() {
    assert!(is_as_shown("ab 12 c", "ab ... c"));
    assert!(is_as_shown("ab 12", "ab ..."));
    assert!(!is_as_shown("ab 12 d", "ab ... c"));
    assert!(!is_as_shown("xab", "ab"));
    assert!(!is_as_shown("abx", "ab"));
    assert!(is_as_shown("", ""));
}

/// What the documents link to within the tree is there.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root.join(name)).unwrap();
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("http")) {
            assert!(root.join(target).exists(), "{name} links to {target}");
        }
    }
}
