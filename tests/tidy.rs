//! The shape of the source: which room may use which, where `unsafe` may stand, how
//! long a file may be, what must not be left in it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up: a room uses only rooms that stand before it.
const ROOMS: [&str; 22] = [
    "ids",
    "text",
    "exit",
    "sys",
    "proc",
    "frame",
    "peer",
    "policy",
    "sandbox",
    "logging",
    "trail",
    "listener",
    "admission",
    "service",
    "client",
    "server",
    "config",
    "ctl",
    "daemon",
    "lib",
    "main",
    "bin",
];

/// Beyond this a file is two rooms; each that is over it says why it is one.
const LINES_MAX: usize = 500;
const LONG_FILES: [&str; 1] = [
    // What may happen to a file while lines go to it, in one place.
    "logging/sink/file.rs",
];

fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(&root).unwrap().to_path_buf(), text);
            }
        }
    }
    assert!(found.len() > 50, "the source is here");
    found
}

fn room_of(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

fn rank(room: &str) -> usize {
    let place = ROOMS.iter().position(|one| *one == room);
    place.unwrap_or_else(|| panic!("{room} is no known room"))
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    let by_name = name == "tests.rs" || name.ends_with("_tests.rs") || name == "simulated.rs";
    by_name || path.iter().any(|part| part == "tests")
}

/// The part before the tests at the end of a file.
fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap()
}

/// Names of rooms after `crate::`, in the use lines and in the code.
fn rooms_used(text: &str) -> Vec<String> {
    let lines = code(text)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let mut rooms = Vec::new();
    for line in lines {
        for (at, _) in line.match_indices("crate::") {
            if line[..at].ends_with('$') {
                continue;
            }
            let rest = &line[at + 7..];
            let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
            let word: String = rest.chars().take_while(is_word).collect();
            // A macro of the logging room, which all that do I/O may use.
            if rest[word.len()..].starts_with('!') {
                continue;
            }
            rooms.push(word);
        }
    }
    rooms
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = room_of(&path);
        for used in rooms_used(&text) {
            if ROOMS.contains(&used.as_str()) && used != own && rank(&used) >= rank(&own) {
                wrong.push(format!("{}: {own} uses {used}", path.display()));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_in_sys_alone() {
    for (path, text) in sources() {
        if room_of(&path) == "sys" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            assert!(
                words.all(|word| word != "unsafe"),
                "{}:{}",
                path.display(),
                number + 1
            );
        }
    }
}

/// The library for C is a crate of its own (`capi/`): what C hands in is looked at in
/// two files, and the body of each function that C calls stands inside a net.
#[test]
fn the_library_for_c_is_unsafe_at_its_boundary_alone() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("capi/src");
    let mut calls = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !["lib.rs", "pointers.rs"].contains(&name) {
            assert!(!text.contains("unsafe "), "{name}");
        }
        for call in text.split("#[unsafe(no_mangle)]").skip(1) {
            let end = call.find("\n}").unwrap();
            let body = &call[..end];
            let is_constant = body.contains("fn ss_status_text");
            let has_net = body.contains("guarded(") || body.contains("catch_unwind(");
            assert!(has_net || is_constant, "{name}: {body}");
            calls += 1;
        }
    }
    assert!(calls > 8, "{calls} functions");
}

/// The threads that roll files have renameat2(2) alone: another call ends the process. Not
/// every file system knows its flag, and what is left there stands in one place. The
/// listener needs the flag itself, where sockets lie.
#[test]
fn files_are_renamed_by_renameat2_alone() {
    let with_flag = ["sys/rename.rs", "listener/file.rs"].map(Path::new);
    for (path, text) in sources() {
        if is_test_file(&path) {
            continue;
        }
        let flag = (!with_flag.contains(&path.as_path())).then_some("renameat_with");
        for call in ["renameat(", "fs::rename("].into_iter().chain(flag) {
            let mut lines = code(&text)
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let found = lines.any(|line| line.contains(call));
            assert!(!found, "{} has {call}", path.display());
        }
    }
}

#[test]
fn files_are_short() {
    for (path, text) in sources() {
        let lines = code(&text).lines().count();
        let is_known = LONG_FILES.iter().any(|long| path == Path::new(long));
        let fits = lines <= LINES_MAX || is_known || is_test_file(&path);
        assert!(fits, "{} has {lines} lines", path.display());
    }
}

#[test]
fn a_module_opens_with_what_it_does() {
    for (path, text) in sources() {
        let opens = text.starts_with("//! ") || text.starts_with("#![doc");
        assert!(opens, "{}", path.display());
        let head = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .count();
        assert!(head < 30, "{} opens with {head} lines", path.display());
    }
}

#[test]
fn nothing_is_left_to_be_done() {
    for (path, text) in sources() {
        for word in ["todo!", "unimplemented!", "TODO", "FIXME"] {
            assert!(!text.contains(word), "{} contains {word}", path.display());
        }
    }
}

#[test]
fn pure_rooms_forbid_unsafe_code() {
    for (path, text) in sources() {
        let pure = ["policy", "frame", "admission"].contains(&room_of(&path).as_str());
        if pure && path.ends_with("mod.rs") && path.iter().count() == 2 {
            assert!(
                text.contains("#![forbid(unsafe_code)]"),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn rooms_that_peers_reach_deny_what_panics() {
    const HEADS: [&str; 9] = [
        "frame/mod.rs",
        "proc/mod.rs",
        "policy/mod.rs",
        "service/broker/mod.rs",
        "service/relay/proxy/mod.rs",
        "trail/chain.rs",
        "trail/json.rs",
        "trail/verify.rs",
        "logging/escape.rs",
    ];
    const LINTS: [&str; 6] = [
        "arithmetic_side_effects",
        "expect_used",
        "indexing_slicing",
        "panic",
        "unreachable",
        "unwrap_used",
    ];
    // Where a lint is let off in them: each says why, there.
    const LET_OFF: [(&str, &str); 4] = [
        ("service/broker/outbox.rs", "arithmetic_side_effects"),
        ("service/broker/queue.rs", "arithmetic_side_effects"),
        ("service/broker/run.rs", "arithmetic_side_effects"),
        ("service/relay/proxy/checksum.rs", "arithmetic_side_effects"),
    ];
    let sources = sources();
    for head in HEADS {
        let text = &sources[Path::new(head)];
        let denied = text
            .split_once("deny(")
            .and_then(|(_, rest)| rest.split_once(')'));
        let denied = denied.unwrap_or_else(|| panic!("{head} denies nothing")).0;
        for lint in LINTS {
            let name = format!("clippy::{lint}");
            assert!(denied.contains(&name), "{head} does not deny {lint}");
        }
        let room = head.trim_end_matches("mod.rs");
        for (path, text) in &sources {
            let name = path.to_str().unwrap();
            if !name.starts_with(room) || is_test_file(path) {
                continue;
            }
            for line in code(text)
                .lines()
                .filter(|line| line.contains("allow(clippy"))
            {
                for lint in LINTS {
                    let known = LET_OFF.iter().any(|(file, _)| *file == name);
                    let named = line.contains(&format!("clippy::{lint}"));
                    assert!(known || !named, "{name} allows {lint}");
                }
            }
        }
    }
}
