//! The shape of the source: which room may use which, where `unsafe` may stand, how
//! long a file may be, what must not be left in it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
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

/// The part before the tests at the end of a file. Tests in a file of their own are
/// declared before the rest of the code: nothing ends there.
fn code(text: &str) -> &str {
    let end = text
        .match_indices("\n#[cfg(test)]\nmod ")
        .find(|(at, head)| {
            let declared = text[at + head.len()..].lines().next().unwrap();
            declared.ends_with('{')
        });
    end.map_or(text, |(at, _)| &text[..at])
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

/// What lets lints off in a file, or makes them warnings: the names of lints of clippy, and
/// of groups of them, in each `allow`, `expect` and `warn`, however it is laid out.
fn lets_off(text: &str) -> Vec<String> {
    let lines = code(text)
        .lines()
        .filter_map(|line| line.split("//").next());
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for word in ["allow", "expect", "warn"] {
        for (at, _) in text.match_indices(word) {
            let before = text[..at].chars().next_back();
            let is_name = before.is_some_and(|c| c.is_alphanumeric() || "_.".contains(c));
            let rest = text[at + word.len()..].trim_start().strip_prefix('(');
            let Some(rest) = rest.filter(|_| !is_name) else {
                continue;
            };
            let lints = rest.split(')').next().unwrap();
            let names = lints.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
            found.extend(names.filter_map(|name| name.strip_prefix("clippy::").map(str::to_owned)));
        }
    }
    found
}

#[test]
fn what_lets_a_lint_off_is_seen_however_it_is_written() {
    let all = [
        "#[allow(clippy::panic)]",
        "#![allow(clippy::panic)]",
        "#[expect(clippy::panic, reason = \"it can't\")]",
        "#[allow(\n    dead_code,\n    clippy::panic,\n    reason = \"it can't\"\n)]",
        "#![cfg_attr(unix, allow(clippy::panic))]",
        "#[cfg_attr(\n    unix,\n    expect(\n        clippy::panic\n    )\n)]",
        "#[warn(clippy::panic)]",
        "#[allow (clippy::panic)]",
        "#[allow(\n    // It can't (at all).\n    clippy::panic\n)]",
    ];
    for text in all {
        assert_eq!(lets_off(text), ["panic"], "{text}");
    }
    let two = "#[allow(clippy::panic, clippy::restriction)]";
    assert_eq!(lets_off(two), ["panic", "restriction"]);
    let none = [
        "#![cfg_attr(not(test), deny(clippy::panic))]",
        "// #[allow(clippy::panic)]",
        "#[allow(dead_code)]",
        "let it = list.allow(\"clippy::panic\");",
        "\n#[cfg(test)]\nmod tests {\n    #![allow(clippy::panic)]\n}",
    ];
    for text in none {
        assert!(lets_off(text).is_empty(), "{text}");
    }
}

#[test]
fn rooms_that_peers_reach_deny_what_panics() {
    const HEADS: [&str; 16] = [
        "frame/mod.rs",
        "proc/mod.rs",
        "peer/mod.rs",
        "policy/mod.rs",
        "service/mod.rs",
        "service/broker/mod.rs",
        "service/relay/proxy/mod.rs",
        "server/examination.rs",
        "server/metrics_reader.rs",
        "server/metrics_request.rs",
        "sys/peer.rs",
        "sys/unix_name.rs",
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
    // Groups that these lints are in.
    const GROUPS: [&str; 2] = ["all", "restriction"];
    // Where a lint is let off in them, and no more than that: each says why, there.
    const LET_OFF: [(&str, &str); 5] = [
        ("service/broker/outbox.rs", "arithmetic_side_effects"),
        ("service/broker/queue.rs", "arithmetic_side_effects"),
        ("service/broker/run.rs", "arithmetic_side_effects"),
        ("service/relay/proxy/checksum.rs", "arithmetic_side_effects"),
        ("service/relay/proxy/checksum.rs", "indexing_slicing"),
    ];
    let sources = sources();
    let mut found = BTreeSet::new();
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
            let lints = lets_off(text).into_iter();
            let lints =
                lints.filter(|lint| [&LINTS[..], &GROUPS].concat().contains(&lint.as_str()));
            found.extend(lints.map(|lint| (name.to_owned(), lint)));
        }
    }
    let known = LET_OFF.map(|(file, lint)| (file.to_owned(), lint.to_owned()));
    assert_eq!(found, BTreeSet::from(known));
}
