//! Tidegate: the gateway binary and the embeddable broker.

pub mod cli;
pub mod config;
