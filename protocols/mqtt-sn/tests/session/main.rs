//! Conversations of MQTT-SN clients with a node, in virtual time.

#![expect(clippy::unwrap_used, reason = "tests")]

mod connecting;
mod net;
mod probe;
