//! Datagram sockets: UDP, and DTLS over it.

mod config;

pub use config::{DatagramConfig, DtlsSettings, EndpointFactory, EndpointMeta, PskLookup};
