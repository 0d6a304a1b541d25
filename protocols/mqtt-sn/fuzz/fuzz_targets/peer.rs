//! Arbitrary clients of a whole node.
#![no_main]

#[path = "../peer.rs"]
#[expect(dead_code, reason = "the other target's")]
mod peer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| peer::run(data));
