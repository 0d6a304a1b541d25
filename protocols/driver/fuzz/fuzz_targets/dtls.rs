//! Arbitrary datagrams, among those of a client that means well.
#![no_main]

#[path = "../dtls.rs"]
mod dtls;

libfuzzer_sys::fuzz_target!(|data: &[u8]| dtls::run(data));
