//! Arbitrary bytes as packets of MQTT 3.1.1.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::decode(mqtt::codec::ProtocolVersion::V4, data));
