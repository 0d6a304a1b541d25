//! MQTT 3.1, 3.1.1 and 5.0: codec and peer.
//!
//! Specifications: [MQTT 5.0](https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html) and
//! [MQTT 3.1.1](https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html) of OASIS, and MQTT 3.1 of IBM and
//! Eurotech. Clauses are cited by their normative statement (`MQTT-3.1.2-3`) as MQTT 5 numbers them, with the
//! prefix `MQTT3` where only 3.1.1 has the statement.
//!
//! Left out on purpose: checks that the specifications leave to the receiver, such as whether a payload declared as
//! UTF-8 is UTF-8, or control characters and noncharacters in texts, which are accepted.

pub mod codec;
pub mod peer;
