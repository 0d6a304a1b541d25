//! Settings of datagram listeners.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use broker_core::{Endpoint, ShardId};

use crate::{ClientAuth, ListenerInfo};

/// One datagram socket: `udp`, or `dtls` if `dtls` is set.
#[derive(Clone)]
pub struct DatagramConfig {
    /// Name, zone and mountpoint.
    pub info: Arc<ListenerInfo>,
    /// Address and port; port 0 lets the system choose one.
    pub bind: SocketAddr,
    /// `[::]` receives IPv4 too unless this is set.
    pub ipv6_only: bool,
    /// Bytes that the kernel keeps of what has come in and was not read; `None`: its default.
    pub receive_buffer_bytes: Option<usize>,
    /// Bytes that the kernel keeps of what is to be sent; `None`: its default.
    pub send_buffer_bytes: Option<usize>,
    /// Peers at a time; 0: no limit. Above it, a stranger takes the place of the oldest peer of which only one datagram
    /// has come, since one may have a false address; if there is none, its datagrams are dropped (counted). Either is
    /// logged at most once a second.
    pub max_connections: usize,
    /// Where [`Destination::Broadcast`](broker_core::Destination) goes. A multicast group is joined, so that what
    /// clients send to it is heard.
    pub broadcast: Option<SocketAddr>,
    /// DTLS, if the listener speaks it.
    pub dtls: Option<DtlsSettings>,
    /// Makes the endpoint of each worker.
    pub endpoint: EndpointFactory,
}

/// Makes the endpoint of one worker.
pub type EndpointFactory = Arc<dyn Fn(EndpointMeta) -> Box<dyn Endpoint> + Send + Sync>;

/// What an endpoint is made from.
#[derive(Clone, Debug)]
pub struct EndpointMeta {
    /// The worker's shard.
    pub shard: ShardId,
    /// True for one of the listener's endpoints: it does what is done once per socket.
    pub is_first: bool,
    /// Of random numbers.
    pub seed: u64,
}

/// DTLS 1.2 (RFC 6347). At least one of `certificate` and `psk` is set; with both, the client chooses.
#[derive(Clone)]
pub struct DtlsSettings {
    /// PEM files: the server's certificate with the intermediate ones after it, and its private key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// PEM file with the certificates of those who may sign client certificates.
    pub ca_file: Option<PathBuf>,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// Pre-shared keys (RFC 4279).
    pub psk: Option<PskLookup>,
    /// Time for a handshake.
    pub handshake_timeout: Duration,
    /// Handshakes under way at a time; above it, ClientHellos are not answered.
    pub handshakes_max: usize,
    /// An association on which nothing has come in for so long is forgotten; one on which no data has come yet, after
    /// `handshake_timeout`. Longer than clients are silent: one that
    /// speaks after it is not answered until it makes a new handshake.
    pub idle_timeout: Duration,
}

/// The key that belongs to a PSK identity. Called on a worker's thread: it must not block.
pub type PskLookup = Arc<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;
