//! A peer between an arbitrary client and an arbitrary broker.
#![no_main]

#[path = "../peer.rs"]
#[expect(dead_code, reason = "the other target's")]
mod peer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| peer::run_alone(data));
