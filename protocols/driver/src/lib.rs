//! The loops that carry a [`Peer`](broker_core::Peer) over TCP, TLS, WebSocket, UDP and DTLS, and run one
//! [`Shard`](broker_core::shard::Shard) per thread.
//!
//! ```text
//!  client ── socket ── TLS? ── WebSocket? ── Peer ──requests──> Shard ──batches──> other workers
//!                                                 <──events────
//! ```
//!
//! [`Workers::start`] runs the threads, [`Workers::listen`] opens a [`Listener`], [`Workers::listen_datagram`] a
//! [`DatagramListener`]. The control plane reaches a worker
//! through its [`WorkerHandle`]. No protocol is known here: a listener is given a [`PeerFactory`].
//!
//! # How a worker works
//!
//! A worker is one thread with one epoll loop (a current-thread tokio runtime), and all its connections are polled by
//! *one* future instead of one task each. That gives the loop turns with a definite end:
//!
//! 1. what other threads sent is taken from the mailbox, at once, and what the store has done goes to the shard;
//! 2. sockets that are ready are read, at most one read buffer each, into a buffer that all connections share; the
//!    requests go to the shard, and the shard's events to the peers, whose bytes gather in their outboxes;
//! 3. timers that are due fire: after the sockets, so that what has come in time counts;
//! 4. what the turn has to store goes to the store, and the batches for other workers leave, one per destination:
//!    before the sockets are written, so that what an acknowledgement promises has been handed over;
//! 5. every socket with new bytes is written once.
//!
//! Each worker has its own handle on the node's store ([`Journal`](broker_core::store::Journal)), which wakes the
//! worker when something is done.
//!
//! So an unbatched message costs one `recv`, one `send` and one `epoll_wait`, and a saturated connection pays them
//! once for hundreds of messages. A connection without anything to do costs its entry in a table: no task, no
//! channel, no timer and no buffer of its own. There is one timer for the whole worker.
//!
//! # Datagrams
//!
//! A datagram listener has a socket on every worker (SO_REUSEPORT), among which the kernel divides the addresses of
//! clients, and an [`Endpoint`](broker_core::Endpoint) with each socket. The endpoint says whose a datagram is; a table
//! leads from there to the peer, which is a link like others, without a socket of its own. A peer whose client belongs to
//! another shard moves there as a connection does. The worker that the kernel gives its datagrams to forwards them, in one
//! parcel per turn and destination; the answers leave from where the peer is. With [`dtls`], the associations
//! stay with the socket that the kernel has chosen, and sealed datagrams leave from there.
//!
//! Datagrams may be lost, so nothing waits for room: what a peer cannot take because the store is slow or its own output
//! waits, what does not fit another worker's mailbox, and the oldest of what a full socket does not take is dropped, and
//! counted by reason ([`DatagramCounters::dropped`]).
//!
//! # Bounds
//!
//! What waits for a slow client is bounded by [`WorkerConfig`]: above the high-water mark its shard is told and its
//! own input is not read; a client that takes nothing for `send_timeout`, or for whom more than `outbox_bytes_max`
//! waits, is closed. Mailboxes between threads are bounded, too; a worker whose batches do not fit stops reading its
//! sockets until they do, but goes on emptying its own mailbox, so two full workers cannot block each other. A store
//! that is behind stops the links that the shard names ([`Output::Hold`](broker_core::shard::Output)) and no others.

#[cfg(feature = "net")]
mod clock;
#[cfg(feature = "net")]
mod config;
#[cfg(feature = "net")]
mod datagram;
#[cfg(feature = "net")]
pub mod dtls;
#[cfg(feature = "net")]
mod error;
#[cfg(feature = "net")]
mod listener;
mod meta;
mod metrics;
#[cfg(feature = "net")]
mod socket;
#[cfg(feature = "net")]
mod tls;
#[cfg_attr(not(feature = "net"), expect(dead_code, reason = "the loops use it"))]
mod websocket;
#[cfg(feature = "net")]
mod worker;

#[cfg(feature = "net")]
pub use clock::Clock;
#[cfg(feature = "net")]
pub use config::{
    ClientAuth, ListenerConfig, Service, TlsSettings, WebSocketRoute, WebSocketSettings, WorkerConfig,
};
#[cfg(feature = "net")]
pub use datagram::{
    DatagramConfig, DatagramCounters, DatagramListener, DtlsSettings, EndpointFactory, EndpointMeta,
    PskLookup,
};
#[cfg(feature = "net")]
pub use error::{BindError, CallError, ListenError, StartError, TlsError};
#[cfg(feature = "net")]
pub use listener::{Listener, ListenerCounters};
pub use meta::{ConnectionMeta, ListenerInfo, PeerFactory, WebSocketMeta};
pub use metrics::{Counter, Counters};
#[cfg(feature = "net")]
pub use worker::{AskHandler, Worker, WorkerHandle, Workers};
