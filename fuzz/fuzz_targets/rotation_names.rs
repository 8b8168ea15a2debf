//! See `src/rotation_names.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    |input: targets::rotation_names::Input| targets::rotation_names::check(input)
);
