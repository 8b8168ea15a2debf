//! Takes code as it stands and gives it the atomics and locks of a model checker: what is
//! modelled is the code that runs.

use std::path::{Path, PathBuf};
use std::{env, fs};

const SOURCE: &str = "../../src";

/// The broker without sockets, and without what only a connection's own thread runs.
const BROKER: [&str; 11] = [
    "deliver", "hub", "limits", "member", "outbox", "permit", "port", "request", "rights",
    "routes", "tree",
];

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}/logging/ring.rs");
    println!("cargo::rerun-if-changed={SOURCE}/service/broker");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    fs::write(out.join("ring.rs"), ring()).expect("written");
    fs::write(out.join("broker.rs"), broker()).expect("written");
}

/// A file without its tests and without the text about it.
fn source(path: &str) -> String {
    let text = fs::read_to_string(Path::new(SOURCE).join(path)).expect(path);
    let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let outer = |line: &&str| !line.starts_with("//!") && !line.starts_with("#![");
    code.lines()
        .filter(outer)
        .map(|line| format!("{line}\n"))
        .collect()
}

fn replaced(code: &str, what: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(code.to_owned(), |code, (here, there)| {
        assert!(code.contains(here), "{what} has no {here:?} any more");
        code.replace(here, there)
    })
}

/// For loom.
fn ring() -> String {
    let changes = [
        ("use std::sync::atomic::", "use loom::sync::atomic::"),
        (
            "use crossbeam::utils::CachePadded;",
            "use crate::ring::CachePadded;",
        ),
        ("pub(super)", "pub(crate)"),
    ];
    replaced(&source("logging/ring.rs"), "the ring", &changes)
}

/// For shuttle: one file, with a module for each.
fn broker() -> String {
    let nested =
        |path: &str, name: &str, inner: &str| format!("mod {name} {{\n{inner}{}}}\n", source(path));
    let mut code = String::new();
    for name in BROKER {
        code += &nested(&format!("service/broker/{name}.rs"), name, "");
    }
    code += &nested("service/broker/run.rs", "run", "");
    let mut queue = nested("service/broker/queue.rs", "queue", "");
    for name in ["dropping", "gaps"] {
        let inner = nested(&format!("service/broker/queue/{name}.rs"), name, "");
        queue = replaced(&queue, "the queue", &[(&format!("mod {name};\n"), &inner)]);
    }
    code += &queue;
    let changes = [
        ("pub(super)", "pub(crate)"),
        // Read by sessions, which are not modelled.
        ("OnceLock, ", ""),
        (", PoisonError}", "}"),
        ("PoisonError, ", ""),
        ("std::sync::", "shuttle::sync::"),
        ("OnceLock", "std::sync::OnceLock"),
        (
            "PoisonError::into_inner",
            "std::sync::PoisonError::into_inner",
        ),
    ];
    replaced(&code, "the broker", &changes)
}
