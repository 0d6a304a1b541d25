//! The tokio loops that carry a peer over TCP, TLS and WebSocket.
