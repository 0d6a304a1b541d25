//! The contract between a datagram protocol and the driver that carries it.
//!
//! A datagram protocol has a [`Peer`] for every client, as a stream protocol has, and one [`Endpoint`] for each socket:
//! it says whose a datagram is, and what becomes of datagrams of nobody that is known. It performs no I/O and reads no
//! clock. The driver keeps the table of peers, by [`Remote`].
//!
//! A peer of a datagram protocol is offered one datagram at a time and uses all of it; it writes whole datagrams with
//! [`Outbox::put_datagram`](crate::Outbox::put_datagram). It is never parked: what it cannot take, it drops and counts.

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;

use crate::{CertificateInfo, Peer, Timestamp};

/// Whom a datagram is from: an address, and the node behind it if a forwarder stands there (MQTT-SN §5.4.24).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Where it came from.
    pub address: SocketAddr,
    /// The wireless node behind the forwarder at that address.
    pub node: Option<Box<[u8]>>,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        for byte in self.node.iter().flatten() {
            write!(f, "/{byte:02x}")?;
        }
        Ok(())
    }
}

/// What the handshake of the transport (DTLS) has proven about the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The name of a pre-shared key that both sides know (RFC 4279).
    Psk(Arc<str>),
    /// A verified certificate.
    Certificate(Arc<CertificateInfo>),
}

/// The sender of a datagram that belongs to no peer.
#[derive(Clone, Debug)]
pub struct Stranger<'a> {
    /// Who it is.
    pub remote: &'a Remote,
    /// The address that it was sent to; a group's or the broadcast address for those.
    pub local: SocketAddr,
    /// Set on a secured listener.
    pub identity: Option<&'a Identity>,
}

/// Whose a datagram is, and what is meant for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressed<'d> {
    /// Of the sender itself.
    Sender(&'d [u8]),
    /// Of a node behind the sender.
    Node {
        /// The node.
        node: &'d [u8],
        /// What it says.
        inner: &'d [u8],
    },
    /// For the endpoint, whoever has sent it: it goes to [`Endpoint::handle_stranger`] even if there is a peer.
    Endpoint(&'d [u8]),
    /// From somebody who need not be connected: it goes to the endpoint's [common peer](Endpoint::common_peer), even
    /// if the sender has a peer of its own.
    Common(&'d [u8]),
    /// Nothing that can be read: dropped and counted under this word.
    Garbage(&'static str),
}

/// What becomes of a datagram of a stranger.
pub enum Verdict {
    /// Nothing more: it was answered, or it needs no answer.
    Done,
    /// Dropped, and counted under this word.
    Drop(&'static str),
    /// It is a client: this is its peer, which is offered the datagram.
    Open(Box<dyn Peer>),
}

/// Where an endpoint sends a datagram of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To this one, whom it has just heard.
    Remote(Remote),
    /// To everyone near: the listener's broadcast or multicast address.
    Broadcast {
        /// Hops (IP time to live) that it may go; `None`: as many as the socket is set to.
        radius: Option<u8>,
    },
}

/// A datagram that an endpoint sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Destination,
    /// All of it.
    pub datagram: Bytes,
}

/// The common side of one datagram socket. Each worker that serves the socket has one of its own.
pub trait Endpoint: Send {
    /// Whose a datagram is.
    fn address<'d>(&self, datagram: &'d [u8]) -> Addressed<'d>;

    /// A datagram whose sender has no peer. Its sender may be anybody and may have lied about its address: an answer
    /// must not be longer than the question, and state is kept only with a peer, whose number is bounded.
    fn handle_stranger(
        &mut self,
        now: Timestamp,
        stranger: &Stranger<'_>,
        datagram: &[u8],
        transmits: &mut Vec<Transmit>,
    ) -> Verdict;

    /// There is no room for the peer of this stranger, who has sent `datagram`. What it is told must not be longer than
    /// that.
    fn handle_no_room(
        &mut self,
        now: Timestamp,
        remote: &Remote,
        datagram: &[u8],
        transmits: &mut Vec<Transmit>,
    );

    /// The client id of the peer that takes what needs no connection ([`Addressed::Common`]). There is one such peer
    /// per listener, on the worker of that client id's shard. `None`: such datagrams are dropped.
    fn common_client_id(&self) -> Option<&str>;

    /// Makes that peer.
    fn common_peer(&mut self, now: Timestamp) -> Box<dyn Peer>;

    /// The time that [`Endpoint::poll_timeout`] named has come.
    fn handle_timeout(&mut self, now: Timestamp, transmits: &mut Vec<Transmit>);

    /// When [`Endpoint::handle_timeout`] must be called, if at all. Asked after every other call.
    fn poll_timeout(&self) -> Option<Timestamp>;
}
