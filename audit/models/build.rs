//! Takes the log's ring as it stands and gives it loom's atomics: what is modelled is
//! the code that runs.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let source = Path::new("../../src/logging/ring.rs");
    println!("cargo::rerun-if-changed={}", source.display());
    let text = fs::read_to_string(source).expect("the log's ring");
    let (code, _) = text
        .split_once("\n#[cfg(test)]")
        .expect("tests at the end of it");
    let mut code: String = code
        .lines()
        .filter(|line| !line.starts_with("//!"))
        .map(|line| format!("{line}\n"))
        .collect();
    for (here, there) in [
        ("use std::sync::atomic::", "use loom::sync::atomic::"),
        (
            "use crossbeam::utils::CachePadded;",
            "use crate::CachePadded;",
        ),
        ("pub(super)", "pub(crate)"),
    ] {
        assert!(code.contains(here), "the ring has no {here:?} any more");
        code = code.replace(here, there);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    fs::write(out.join("ring.rs"), code).expect("written");
}
