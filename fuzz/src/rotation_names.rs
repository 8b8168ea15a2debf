//! Names of rolled files.
//!
//! - A name is ours only if it is exactly the one that its archive gives.
//! - Every time until the year 9999 gives a name that is read back, at each
//!   stage; names sort as times do.
//! - What follows a name in the order of rolling is such a name, and sorts behind it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use arbitrary::Arbitrary;
use secure_socket::logging::rotation_names::{Archive, Stage};

#[derive(Arbitrary, Debug)]
pub struct Input {
    base: Vec<u8>,
    name: Vec<u8>,
    /// Whether `name` is what follows `base`.
    appended: bool,
    times: (u64, u64),
}

/// Microseconds from 1970 to the end of the year 9999.
const END: u64 = 253_402_300_800_000_000;

pub fn check(input: Input) {
    let base = OsString::from_vec(input.base.clone());
    let name = if input.appended {
        [input.base, input.name].concat()
    } else {
        input.name
    };
    let name = OsString::from_vec(name);
    if let Some(archive) = Archive::parse(&base, &name) {
        assert_eq!(archive.name(&base), name);
        // The next one is ours as well, and behind it.
        if let Some(next) = archive.next() {
            let plain = archive.at_stage(Stage::Plain);
            assert!(next.name(&base) > plain.name(&base));
            assert_eq!(Archive::parse(&base, &next.name(&base)), Some(next));
        }
    }
    let (one, other) = (input.times.0 % END, input.times.1 % END);
    let (first, second) = (named(&base, one), named(&base, other));
    assert_eq!(one.cmp(&other), first.cmp(&second), "{one} {other}");
    // Beyond, a name may be none of ours, but is made without harm.
    let _ = Archive::at(input.times.0).name(&base);
}

fn named(base: &OsStr, micros: u64) -> OsString {
    let archive = Archive::at(micros);
    for stage in [Stage::Plain, Stage::Compressed, Stage::Temporary] {
        let staged = archive.at_stage(stage);
        assert_eq!(Archive::parse(base, &staged.name(base)), Some(staged));
    }
    archive.name(base)
}
