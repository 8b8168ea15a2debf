//! See `src/broker_session.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    |input: targets::broker_session::Input| targets::broker_session::check(input)
);
