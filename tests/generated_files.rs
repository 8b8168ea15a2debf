//! The README's table, the manual page and the completion say what the table of
//! options says. `UPDATE_EXPECT=1` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(feature = "daemon")]

use std::path::{Path, PathBuf};

use secure_socket::config::{help, manual};

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
fn the_manual_page_has_every_option() {
    check("packaging/man/secure_socket.8", &manual::man_page());
}

#[test]
fn the_completion_has_every_option() {
    check(
        "packaging/completions/secure_socket.bash",
        &manual::bash_completion(),
    );
}
