//! The header in the repository is the one that the sources make; `UPDATE_EXPECT=1`
//! writes it anew.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

#[test]
fn the_header_is_the_one_that_the_sources_make() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut made = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/status.rs"))
        .with_src(root.join("src/lib.rs"))
        .generate()
        .unwrap()
        .write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let path = root.join("include/secure_socket.h");
    if std::fs::read_to_string(&path).is_ok_and(|found| found == made) {
        return;
    }
    if std::env::var_os("UPDATE_EXPECT").is_none() {
        panic!("include/secure_socket.h is stale: UPDATE_EXPECT=1 writes it anew");
    }
    std::fs::create_dir_all(root.join("include")).unwrap();
    std::fs::write(&path, made).unwrap();
}
