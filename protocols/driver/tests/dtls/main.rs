//! DTLS: handshakes with independent clients in virtual time and on real sockets, and what strangers send.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test file are part of its tests"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the other client wants an Instant to count from, and OpenSSL lives in real time"
)]

mod attacker;
#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod memory;
mod openssl;
mod settings;
mod setup;
mod webrtc;
