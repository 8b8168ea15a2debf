//! The README's table, the manual pages and the completions say what the table of
//! options says. `UPDATE_EXPECT=1` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(feature = "daemon")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use secure_socket::config::{completion, help, manual};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[track_caller]
fn check(name: &str, expected: &str) {
    let path = path(name);
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    if found == expected {
        return;
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
        return;
    }
    let differs = |(found, expected): &(&str, &str)| found != expected;
    let line = found.lines().zip(expected.lines()).find(differs);
    panic!("{name} is not what src/config makes it: UPDATE_EXPECT=1 writes it anew; {line:?}");
}

#[test]
fn the_readme_has_the_table_of_options() {
    let readme = std::fs::read_to_string(path("README.md")).expect("README.md is there");
    let begin = readme
        .find(help::README_BEGIN)
        .expect("README.md has the first marker");
    let end = readme
        .find(help::README_END)
        .expect("README.md has the last marker");
    let (before, rest) = readme.split_at(begin);
    let (_, after) = rest.split_at(end - begin);
    let after = after
        .strip_prefix(help::README_END)
        .unwrap()
        .trim_start_matches('\n');
    let gap = if after.is_empty() { "" } else { "\n" };
    check(
        "README.md",
        &format!("{before}{}{gap}{after}", help::readme()),
    );
}

#[test]
fn the_manual_pages_have_every_option() {
    check("packaging/man/secure_socket.8", &manual::daemon_page());
    check("packaging/man/secure_socketctl.1", &manual::ctl_page());
    check("packaging/man/secure_socket.conf.5", &manual::file_page());
}

#[test]
fn the_completions_have_every_option() {
    let folder = Path::new("packaging/completions");
    let check = |name: &str, expected: &str| check(folder.join(name).to_str().unwrap(), expected);
    check("secure_socket.bash", &completion::bash());
    check("_secure_socket", &completion::zsh());
    check("secure_socket.fish", &completion::fish());
    check("secure_socketctl.fish", &completion::fish_ctl());
}

/// Two readers of the sources of manual pages have nothing to say about ours.
#[test]
fn the_manual_pages_are_clean() {
    needs!("mandoc", "man");
    for name in [
        "secure_socket.8",
        "secure_socketctl.1",
        "secure_socket.conf.5",
    ] {
        let page = path("packaging/man").join(name);
        let mandoc = Command::new("mandoc").arg("-Tlint").arg(&page).output();
        let man = Command::new("man")
            .env("MANWIDTH", "80")
            .args(["--warnings", "-l", "-Tutf8", "-P", "cat"])
            .arg(&page)
            .output();
        let (mandoc, man) = (mandoc.unwrap(), man.unwrap());
        let remarks = [mandoc.stdout, mandoc.stderr, man.stderr].concat();
        assert!(remarks.is_empty(), "{}", String::from_utf8_lossy(&remarks));
        assert!(
            man.status.success() && man.stdout.len() > 2_000,
            "{name} is empty"
        );
    }
}
