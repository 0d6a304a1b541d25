//! Arbitrary clients of a whole node.
#![no_main]

#[path = "../peer.rs"]
mod peer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| peer::run(data));
