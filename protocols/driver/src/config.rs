//! Settings of workers and listeners. Plain values; the gateway reads them from its configuration.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use crate::{ListenerInfo, PeerFactory};

/// Limits of a worker. The same for all workers of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Bytes read from one socket before another gets its turn. One such buffer exists per worker.
    pub read_buffer_bytes: usize,
    /// Bytes waiting for one client above which its shard is told that it is congested, and above which nothing
    /// is read from it.
    pub high_water_bytes: usize,
    /// Bytes waiting for one client below which its congestion is over.
    pub low_water_bytes: usize,
    /// Bytes waiting for one client above which it is closed (counted, logged).
    pub outbox_bytes_max: usize,
    /// Bytes produced in one turn after which sockets are written before the turn goes on: what bounds the memory
    /// that a fan-out takes between two flushes.
    pub flush_bytes: usize,
    /// A client that takes no byte of what waits for it during this time is closed (counted, logged).
    pub send_timeout: Duration,
    /// After the last bytes of a connection that this side ends: how long the other side's bytes are still read
    /// and dropped. Closing at once would make the kernel reset the connection and discard those last bytes.
    pub linger: Duration,
    /// Batches of other shards that wait for this worker. At the limit the senders keep their batches and stop
    /// reading their sockets until this worker has caught up.
    pub mailbox_batches_max: usize,
    /// Bytes that these batches account for: above it nothing is added, with the same effect.
    pub mailbox_bytes_max: usize,
    /// Bytes for other workers produced in one turn after which they are handed over before the turn goes on: so a
    /// worker that has more sockets to read than others can follow is held up in time.
    pub batch_bytes: usize,
    /// Bytes of datagrams that other workers have forwarded and that wait for this one, with what it takes to say whose
    /// they are. Above it they are dropped (counted, logged).
    pub mailbox_datagram_bytes_max: usize,
    /// Calls of the control plane and new sockets that wait for this worker. At the limit a call is refused with
    /// [`CallError::Busy`](crate::CallError), and a new socket is closed (counted).
    pub mailbox_calls_max: usize,
}

impl Default for WorkerConfig {
    fn default() -> WorkerConfig {
        WorkerConfig {
            read_buffer_bytes: 64 << 10,
            high_water_bytes: 256 << 10,
            low_water_bytes: 64 << 10,
            outbox_bytes_max: 32 << 20,
            flush_bytes: 4 << 20,
            send_timeout: Duration::from_secs(15),
            linger: Duration::from_secs(1),
            mailbox_batches_max: 256,
            mailbox_bytes_max: 64 << 20,
            batch_bytes: 1 << 20,
            mailbox_datagram_bytes_max: 4 << 20,
            mailbox_calls_max: 16_384,
        }
    }
}

/// One listening socket: `tcp`, `ssl`, `ws` or `wss`, by what `tls` and `service` say.
#[derive(Clone)]
pub struct ListenerConfig {
    /// Name, zone and mountpoint, passed on to every peer.
    pub info: Arc<ListenerInfo>,
    /// Address and port; port 0 lets the system choose one (see [`Listener::address`](crate::Listener::address)).
    pub bind: SocketAddr,
    /// `[::]` accepts IPv4 too unless this is set.
    pub ipv6_only: bool,
    /// Connections that the kernel completes before they are accepted; the system may have a lower limit.
    pub backlog: i32,
    /// Send small packets at once (TCP_NODELAY).
    pub nodelay: bool,
    /// Connections at a time, handshakes included; 0: no limit. Above it a connection is accepted and closed at
    /// once (counted, logged at most once a second).
    pub max_connections: usize,
    /// Time for the TLS and the WebSocket handshake together.
    pub handshake_timeout: Duration,
    /// TLS, if the listener speaks it.
    pub tls: Option<TlsSettings>,
    /// What runs on it.
    pub service: Service,
}

impl ListenerConfig {
    /// A listener with the defaults: backlog 1024, no limit of connections, 15 s for handshakes, no TLS.
    pub fn new(name: &str, bind: SocketAddr, service: Service) -> ListenerConfig {
        ListenerConfig {
            info: Arc::new(ListenerInfo {
                name: name.into(),
                zone: "default".into(),
                mountpoint: "".into(),
            }),
            bind,
            ipv6_only: false,
            backlog: 1024,
            nodelay: true,
            max_connections: 0,
            handshake_timeout: Duration::from_secs(15),
            tls: None,
            service,
        }
    }
}

/// What a listener carries.
#[derive(Clone)]
pub enum Service {
    /// The bytes of one protocol.
    Stream(PeerFactory),
    /// WebSockets, by path.
    WebSocket(WebSocketSettings),
}

/// A listener that speaks HTTP until the connection is upgraded (RFC 6455).
#[derive(Clone)]
pub struct WebSocketSettings {
    /// Which protocol runs under which path. A path that is not here is answered with 404.
    pub routes: Vec<WebSocketRoute>,
    /// `Origin` values accepted, compared without regard to case; empty: any. Another one is answered with 403; a
    /// request without one does not come from a browser and is accepted.
    pub allowed_origins: Vec<String>,
    /// Largest frame and largest message accepted, bytes; a larger one ends the connection with code 1009.
    /// Frames are passed on as they come in, so this costs no memory.
    pub message_bytes_max: u64,
}

impl WebSocketSettings {
    /// One route, any origin, messages up to 16 MiB.
    pub fn new(route: WebSocketRoute) -> WebSocketSettings {
        WebSocketSettings {
            routes: vec![route],
            allowed_origins: Vec::new(),
            message_bytes_max: 16 << 20,
        }
    }
}

/// A protocol mounted on a path.
#[derive(Clone)]
pub struct WebSocketRoute {
    /// Exact path, without query, such as `/mqtt`.
    pub path: String,
    /// Sub-protocols that it speaks. The first one that the client offers and that stands here is chosen; a client
    /// that offers only others is answered with 400.
    pub subprotocols: Vec<String>,
    /// Answer 400 to a client that offers no sub-protocol at all: MQTT demands it [MQTT-6.0.0-3].
    pub subprotocol_required: bool,
    /// Makes the peer.
    pub factory: PeerFactory,
}

/// Files and choices of a TLS listener. TLS 1.2 and 1.3 are spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file with the server's certificate and the intermediate ones after it.
    pub certificate_file: PathBuf,
    /// PEM file with the unencrypted private key (PKCS #8, PKCS #1 or SEC 1).
    pub key_file: PathBuf,
    /// PEM file with the certificates of those who may sign client certificates.
    pub ca_file: Option<PathBuf>,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// Accept TLS 1.2.
    pub tls12: bool,
    /// Accept TLS 1.3.
    pub tls13: bool,
}

impl TlsSettings {
    /// Both versions, no client certificates.
    pub fn new(certificate_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> TlsSettings {
        TlsSettings {
            certificate_file: certificate_file.into(),
            key_file: key_file.into(),
            ca_file: None,
            client_auth: ClientAuth::None,
            tls12: true,
            tls13: true,
        }
    }

    /// Reads the files and checks that they fit each other, as opening a listener does.
    ///
    /// # Errors
    /// The first fault that is found.
    pub fn check(&self) -> Result<(), crate::TlsError> {
        crate::tls::load(self).map(drop)
    }
}

/// Client certificates on a TLS listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// Not asked for: `verify = verify_none`.
    #[default]
    None,
    /// Asked for; one that is shown must be valid: `verify = verify_peer`.
    Optional,
    /// Demanded: `verify = verify_peer` with `fail_if_no_peer_cert = true`.
    Required,
}
