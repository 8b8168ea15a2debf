//! See `src/trail_verify.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    |input: targets::trail_verify::Input| targets::trail_verify::check(input)
);
