//! Arbitrary strangers of an endpoint.
#![no_main]

#[path = "../strangers.rs"]
mod strangers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| strangers::run(data));
