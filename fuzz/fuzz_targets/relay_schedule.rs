//! See `src/relay_schedule.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    |input: targets::relay_schedule::Input| targets::relay_schedule::check(input)
);
