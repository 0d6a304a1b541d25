//! Arbitrary bytes as packets of MQTT 5.0.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::decode(mqtt::codec::ProtocolVersion::V5, data));
