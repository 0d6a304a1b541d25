//! MQTT-SN 1.2 (Stanford-Clark and Truong, 2013, as OASIS publishes it): codec, peer and endpoint.
//!
//! Clauses are cited by their number in that document.

pub mod codec;
mod config;
pub mod endpoint;
mod map;
pub mod peer;
mod topics;
mod transport;

pub use config::{ClientInfoOverride, Predefined, Roaming, Settings};
pub use endpoint::Endpoint;
pub use peer::Peer;
pub use transport::Transport;
