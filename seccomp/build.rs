//! Compiles the seccomp filters of this folder into constants of the library.

fn main() {
    println!("cargo::rerun-if-changed=seccomp");
}
