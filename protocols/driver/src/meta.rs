//! What a listener knows about a new connection, and how a protocol turns that into a peer.

use std::{net::SocketAddr, sync::Arc};

use broker_core::{CertificateInfo, Peer};

/// A connection that is ready for its protocol: TLS and WebSocket handshakes, where there are any, are done.
#[derive(Clone, Debug)]
pub struct ConnectionMeta {
    /// The listener that accepted it.
    pub listener: Arc<ListenerInfo>,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// The verified client certificate, if the client presented one.
    pub certificate: Option<Arc<CertificateInfo>>,
    /// The opening handshake, on a WebSocket listener.
    pub websocket: Option<Box<WebSocketMeta>>,
}

/// What all connections of one listener have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Name as `type:name`, such as `tcp:default`.
    pub name: Arc<str>,
    /// Zone of the listener.
    pub zone: Arc<str>,
    /// Template of the mountpoint; mostly empty.
    pub mountpoint: Arc<str>,
}

/// What the opening handshake of a WebSocket said (RFC 6455 §4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSocketMeta {
    /// Path of the request, without the query.
    pub path: String,
    /// The sub-protocol agreed upon.
    pub subprotocol: Option<String>,
    /// The `Cookie` header as sent.
    pub cookie: Option<String>,
    /// The `Origin` header as sent.
    pub origin: Option<String>,
}

/// Makes the peer of a new connection. Called on the worker that will run it.
pub type PeerFactory = Arc<dyn Fn(ConnectionMeta) -> Box<dyn Peer> + Send + Sync>;
