//! See `src/proc_stat.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::proc_stat::check(data));
