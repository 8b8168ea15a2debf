//! See `src/proxy_header.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    |input: targets::proxy_header::Input| targets::proxy_header::check(input)
);
