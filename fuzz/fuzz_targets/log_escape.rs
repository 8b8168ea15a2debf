//! See `src/log_escape.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::log_escape::check(data));
