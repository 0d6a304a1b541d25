//! What a peer stands on.

use std::net::SocketAddr;

use broker_core::{Identity, Remote};

/// Whom a peer speaks with, and over what.
#[derive(Clone, Debug)]
pub struct Transport {
    /// The client. What is sent to a node behind a forwarder goes into an [envelope](crate::codec::Node).
    pub remote: Remote,
    /// The address that its first datagram was sent to.
    pub local: Option<SocketAddr>,
    /// What DTLS has proven about it.
    pub identity: Option<Identity>,
    /// Of random numbers.
    pub seed: u64,
}
