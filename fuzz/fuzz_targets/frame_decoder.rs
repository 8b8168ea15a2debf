//! See `src/frame_decoder.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::frame_decoder::check(data));
