//! `cargo bench --bench logging`: starts the comparison with other loggers,
//! which is a workspace of its own in `benches/logging`.

use std::process::{Command, exit};

fn main() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/logging/Cargo.toml");
    let only = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--release", "--manifest-path", manifest, "--"])
        .args(only)
        .status();
    match status {
        Ok(status) => exit(status.code().unwrap_or(1)),
        Err(error) => {
            eprintln!("cargo can't be started: {error}");
            exit(1);
        }
    }
}
