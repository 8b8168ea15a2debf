//! The programs as they were linked: read from their ELF headers (elf(5)),
//! because a flag in a build file is a wish.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::hint::black_box;
use std::panic::catch_unwind;

const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const EXECUTABLE: u32 = 1;
const WRITABLE: u32 = 2;
const DT_TEXTREL: u64 = 22;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const DT_BIND_NOW: u64 = 24;
const DT_FLAGS: u64 = 30;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_TEXTREL: u64 = 4;
const DF_BIND_NOW: u64 = 8;
const DF_1_NOW: u64 = 1;
const DF_1_PIE: u64 = 0x0800_0000;

struct Segment {
    kind: u32,
    flags: u32,
    offset: usize,
    size: usize,
}

/// A little-endian 64-bit file.
struct Elf {
    bytes: Vec<u8>,
}

impl Elf {
    fn read(path: &str) -> Self {
        let bytes = fs::read(path).expect("the program was built");
        assert_eq!(&bytes[..6], b"\x7fELF\x02\x01", "{path}");
        Self { bytes }
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes[at..at + 2].try_into().expect("two"))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight"))
    }

    fn usize(&self, at: usize) -> usize {
        usize::try_from(self.u64(at)).expect("fits")
    }

    fn segments(&self) -> Vec<Segment> {
        let (start, each, count) = (self.usize(32), self.u16(54), self.u16(56));
        (0..usize::from(count))
            .map(|number| start + number * usize::from(each))
            .map(|at| Segment {
                kind: self.u32(at),
                flags: self.u32(at + 4),
                offset: self.usize(at + 8),
                size: self.usize(at + 32),
            })
            .collect()
    }

    fn dynamic(&self) -> Vec<(u64, u64)> {
        let segments = self.segments();
        let dynamic = segments
            .iter()
            .find(|s| s.kind == PT_DYNAMIC)
            .expect("dynamic section");
        (dynamic.offset..dynamic.offset + dynamic.size)
            .step_by(16)
            .map(|at| (self.u64(at), self.u64(at + 8)))
            .take_while(|(tag, _)| *tag != 0)
            .collect()
    }
}

#[track_caller]
fn check(path: &str) {
    let elf = Elf::read(path);
    let segments = elf.segments();
    let dynamic = elf.dynamic();
    let value = |tag| {
        dynamic
            .iter()
            .find(|(t, _)| *t == tag)
            .map(|(_, value)| *value)
    };

    assert_eq!(elf.u16(16), ET_DYN, "{path} is not position independent");
    assert!(
        value(DT_FLAGS_1).unwrap_or(0) & DF_1_PIE != 0,
        "{path} is not a PIE"
    );

    let now = value(DT_FLAGS).unwrap_or(0) & DF_BIND_NOW != 0
        || value(DT_FLAGS_1).unwrap_or(0) & DF_1_NOW != 0
        || value(DT_BIND_NOW).is_some();
    let relro = segments.iter().any(|segment| segment.kind == PT_GNU_RELRO);
    assert!(relro && now, "{path} has no full RELRO");

    let stack = segments.iter().find(|segment| segment.kind == PT_GNU_STACK);
    assert!(
        stack.is_some_and(|s| s.flags & EXECUTABLE == 0),
        "{path}: executable stack"
    );

    for segment in segments.iter().filter(|segment| segment.kind == PT_LOAD) {
        let both = EXECUTABLE | WRITABLE;
        assert!(
            segment.flags & both != both,
            "{path}: writable and executable segment"
        );
    }

    assert_eq!(value(DT_TEXTREL), None, "{path}: text relocations");
    assert!(
        value(DT_FLAGS).unwrap_or(0) & DF_TEXTREL == 0,
        "{path}: text relocations"
    );
    assert_eq!(
        (value(DT_RPATH), value(DT_RUNPATH)),
        (None, None),
        "{path}: library path"
    );

    let interpreted = segments.iter().any(|segment| segment.kind == PT_INTERP);
    let dynamic = !cfg!(target_feature = "crt-static");
    assert_eq!(interpreted, dynamic, "{path}: a dynamic linker");
}

const PROGRAMS: [&str; 2] = [
    env!("CARGO_BIN_EXE_secure_socket"),
    env!("CARGO_BIN_EXE_secure_socketctl"),
];

#[test]
fn the_programs_are_linked_hardened() {
    PROGRAMS.into_iter().for_each(check);
}

/// Those of a release build, as `audit/run elf` makes it, and those that
/// `SECURE_SOCKET_RELEASED` names: what `audit/reproduce` and `packaging/tarball` keep.
fn released() -> Vec<String> {
    if cfg!(debug_assertions) {
        panic!("no release build: audit/run elf makes one");
    }
    let named = std::env::var("SECURE_SOCKET_RELEASED").unwrap_or_default();
    let named = named.split(':').filter(|path| !path.is_empty());
    named.chain(PROGRAMS).map(str::to_owned).collect()
}

#[test]
#[cfg_attr(debug_assertions, ignore = "needs a release build: audit/run elf")]
fn released_programs_are_linked_hardened() {
    for path in released() {
        check(&path);
    }
}

/// This program is built as the others are: by the profile, for release. That it
/// holds for these as well is seen from the words they would die with.
#[test]
#[cfg_attr(debug_assertions, ignore = "needs a release build: audit/run elf")]
fn arithmetic_is_checked_in_release() {
    let (most, one) = (black_box(u32::MAX), black_box(1_u32));
    for (name, panicked) in [
        ("add", catch_unwind(|| black_box(most + one))),
        ("subtract", catch_unwind(|| black_box(one - most))),
        ("multiply", catch_unwind(|| black_box(most * most))),
    ] {
        let panic = panicked.expect_err(name);
        let said = panic.downcast_ref::<&str>().expect("a text");
        assert_eq!(*said, format!("attempt to {name} with overflow"));
        for path in released() {
            let bytes = fs::read(&path).expect("the program was built");
            let found = bytes.windows(said.len()).any(|at| at == said.as_bytes());
            assert!(found, "{path}: nothing would say {said:?}");
        }
    }
}
