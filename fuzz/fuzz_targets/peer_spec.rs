//! See `src/peer_spec.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::peer_spec::check(data));
