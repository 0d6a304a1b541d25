//! Tidegate: the gateway binary and the embeddable broker.

pub mod auth;
pub mod cli;
pub mod config;
mod control;
pub mod embed;
pub mod node;
pub mod relay;
pub mod server;
pub mod telemetry;

pub use embed::{Broker, Client};
