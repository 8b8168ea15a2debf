//! See `src/config_file.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::config_file::check(data));
