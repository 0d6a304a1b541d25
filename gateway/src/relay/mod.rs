//! A stand-alone MQTT-SN gateway in front of any broker that speaks MQTT 3.1.1: `tidegate mqttsn-gateway`.
//!
//! ```text
//! datagrams ─► endpoint, peers ── requests ─► upstream ── bytes ─► broker
//!            ◄─    (mqtt_sn)   ◄─  events  ── (a trait) ◄─        ──
//! ```
//!
//! Peers are those of the crate `mqtt_sn`, which otherwise speak with a shard; here a state machine stands in its place, one for each
//! [`Mode`]. Everything but the module `driver` is pure. Nothing is stored: what is kept for clients ends with the process.

mod aggregated;
mod client;
mod connection;
mod deliveries;
mod driver;
#[cfg(test)]
mod script;
mod settings;
mod transparent;
mod upstream;

pub use driver::{RunError, run};
pub use settings::{BrokerUrl, BrokerUrlError, Mode, Upstream, read_password};
