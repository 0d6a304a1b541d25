//! DTLS 1.2 (RFC 6347) for the many clients of one datagram socket: the server's side, without sockets and clocks.
//!
//! [`Associations`] is offered every datagram that comes in, and says in [`Outcome`]s what is to be sent, who has come
//! and gone, and what the clients say. One is made per socket.
//!
//! # Before a client is known
//!
//! A ClientHello without a cookie is answered with one (HelloVerifyRequest) and forgotten: the answer is shorter than
//! the question, and nothing is kept. The cookie is an HMAC over the address and all that the hello says, with a secret
//! that changes every minute. Only a second hello with that cookie makes a handshake, of which there are at most
//! [`handshakes_max`](crate::DtlsSettings), each for at most `handshake_timeout` and with a bounded buffer. Its flight
//! is sent again after 1 s, 2 s, 4 s … 60 s (RFC 6347 §4.2.4.1), and when the client repeats its hello. One source (an
//! IPv4 address, or a /64 of IPv6) has at most a quarter of them (but 16 always), and begins at most 100 in a second.
//!
//! Until there are keys, the client's messages are not protected: somebody who sends from its address just then, knowing
//! or guessing the moment, can spoil the handshake with a false message, as in every DTLS 1.2. The client begins anew.
//! Alerts that are not protected, and records that cannot be opened, are dropped.
//!
//! # Of one address
//!
//! A client is known by its address. One that has lost its state begins anew from there. Its old association lives on,
//! and is replaced only when the new handshake is complete (RFC 6347 §4.2.8): nobody can end it by sending hellos.
//! Records that are not genuine, or have been seen, are dropped without a trace (RFC 6347 §4.1.2.6, §4.1.2.7).
//!
//! # What is spoken
//!
//! Pre-shared keys and certificates on one port; the client's order of cipher suites decides:
//! ECDHE_ECDSA and PSK with AES_128_GCM_SHA256, AES_128_CCM and AES_128_CCM_8, and ECDHE_RSA with AES_128_GCM_SHA256.
//! Curves: P-256, P-384, X25519. Extended master secrets (RFC 7627) if the client knows them. No compression, no
//! renegotiation, no resumption, no connection ids. Hellos that come in pieces are not read: that would take memory
//! for somebody unknown. A client with a pre-shared key shows no certificate, whatever
//! [`client_auth`](crate::DtlsSettings) says: it has proven itself.
//!
//! All algorithms are those of libraries (aws-lc-rs, RustCrypto's `ccm`, rustls and rustls-webpki). The messages and
//! their order are here because no library that could be found keeps these bounds.

use std::net::{IpAddr, SocketAddr};

use broker_core::Identity;
use bytes::Bytes;

mod association;
mod associations;
mod certificate;
mod cookie;
mod crypto;
mod handshake;
mod hello;
mod reassembly;
mod record;
mod server;
mod sources;

pub use associations::Associations;
pub use server::DtlsServer;

/// The most that [`Associations::send`] takes at a time, bytes (RFC 5246 §6.2.1).
pub const PLAINTEXT_BYTES_MAX: usize = record::PLAINTEXT_BYTES_MAX;

/// One association. No other of the same [`Associations`] ever has an equal one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssociationId {
    index: usize,
    serial: u64,
}

/// The two ends of the way that a datagram has come.
#[derive(Clone, Copy, Debug)]
struct Path {
    remote: SocketAddr,
    local: Option<IpAddr>,
}

/// What came of a call, to be acted on in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To be sent.
    Transmit {
        /// Where to.
        to: SocketAddr,
        /// The own address to send from, if it was given with the datagram that this answers.
        local: Option<IpAddr>,
        /// All of it.
        datagram: Bytes,
    },
    /// A handshake is complete.
    Opened {
        /// The new association.
        id: AssociationId,
        /// The client's address.
        from: SocketAddr,
        /// The own address.
        local: Option<IpAddr>,
        /// Who the client is. `None`: it has shown no certificate, and need not.
        identity: Option<Identity>,
    },
    /// A client says something.
    Data {
        /// Which one.
        id: AssociationId,
        /// What. At least one byte.
        plaintext: Bytes,
    },
    /// An association has ended, by whatever side. The id is forgotten.
    Closed {
        /// Which one.
        id: AssociationId,
        /// A stable word for counters and logs: `close_notify`, `alert_of_client`, `idle_timeout`, `replaced` (the same
        /// client has come again), `sequence_exhausted`, or what [`Associations::close`] was given.
        reason: &'static str,
    },
    /// A datagram, a part of one or a handshake was dropped.
    Dropped {
        /// A stable word for counters. What can happen at any time: `malformed_record`, `no_association`,
        /// `wrong_epoch`, `replayed_record`, `bad_record_mac`, `unexpected_record`, `fragmented_hello`,
        /// `malformed_hello`, `repeated_hello`, `unprotected_alert`. Bounds: `handshakes_full`, `associations_full`,
        /// `source_handshakes_full`, `source_too_fast`, `handshake_timeout`.
        /// Handshakes that failed: `wrong_key` (or an identity that is not known), `no_common_cipher_suite`,
        /// `bad_client_certificate`, and others.
        reason: &'static str,
    },
}
