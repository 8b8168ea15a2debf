//! See `src/proc_cmdline.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    |input: targets::proc_cmdline::Input| targets::proc_cmdline::check(input)
);
