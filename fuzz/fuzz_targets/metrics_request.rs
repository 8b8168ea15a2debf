//! See `src/metrics_request.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::metrics_request::check(data));
