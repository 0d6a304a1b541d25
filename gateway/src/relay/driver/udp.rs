//! Sockets for MQTT-SN.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    task::{Context, Poll, ready},
};

use broker_core::{Endpoint, LinkId};
use socket2::SockRef;
use tokio::{io::ReadBuf, net::UdpSocket};

use super::secured::Secured;
use crate::config::DatagramListener;

/// A socket with its endpoint.
pub(super) struct Socket {
    /// As a listener is named: `mqttsn:udp:default`.
    pub(super) name: String,
    socket: UdpSocket,
    pub(super) local: SocketAddr,
    pub(super) endpoint: Box<dyn Endpoint>,
    /// The peer that takes what needs no connection.
    pub(super) common: Option<LinkId>,
    broadcast: Option<SocketAddr>,
    pub(super) max_connections: usize,
    /// DTLS, if it is spoken here.
    pub(super) secured: Option<Secured>,
}

/// IP time to live of what an endpoint sends to everyone, where it does not say how far.
const HOPS: u32 = 1;

impl Socket {
    /// Opens the socket of `listener`.
    pub(super) async fn open(
        listener: &DatagramListener,
        broadcast: Option<SocketAddr>,
        endpoint: Box<dyn Endpoint>,
        secured: Option<Secured>,
    ) -> io::Result<Socket> {
        // Nobody has an association with everyone.
        let broadcast = broadcast.filter(|_| secured.is_none());
        let socket = bind_one(&listener.bind.candidates(), broadcast).await?;
        let options = SockRef::from(&socket);
        if let Some(bytes) = listener.recbuf {
            options.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = listener.sndbuf {
            options.set_send_buffer_size(bytes)?;
        }
        match broadcast.map(|address| address.ip()) {
            Some(IpAddr::V4(group)) if group.is_multicast() => {
                socket.join_multicast_v4(group, Ipv4Addr::UNSPECIFIED)?;
            }
            Some(IpAddr::V6(group)) if group.is_multicast() => socket.join_multicast_v6(&group, 0)?,
            Some(_) => socket.set_broadcast(true)?,
            None => {}
        }
        Ok(Socket {
            name: listener.id(),
            local: socket.local_addr()?,
            socket,
            endpoint,
            common: None,
            broadcast,
            max_connections: listener.max_connections.unwrap_or(usize::MAX),
            secured,
        })
    }

    /// The next datagram.
    pub(super) fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        let from = ready!(self.socket.poll_recv_from(context, &mut buffer))?;
        Poll::Ready(Ok((buffer.filled().len(), from)))
    }

    /// Sends a datagram, or loses it, as the network does if the kernel's buffer is full.
    pub(super) fn send(&self, datagram: &[u8], to: SocketAddr) {
        if let Err(error) = self.socket.try_send_to(datagram, to) {
            tracing::debug!(%to, %error, "a datagram was not sent");
        }
    }

    /// Sends to everyone, so many hops far.
    pub(super) fn broadcast(&self, datagram: &[u8], radius: Option<u8>) {
        let Some(to) = self.broadcast else {
            return;
        };
        let hops = radius.map_or(HOPS, u32::from);
        let set = match to.ip() {
            IpAddr::V4(ip) if ip.is_multicast() => self.socket.set_multicast_ttl_v4(hops),
            // A broadcast stays in its network, and the hops of IPv6 multicast are one by default.
            _ => Ok(()),
        };
        match set {
            Ok(()) => self.send(datagram, to),
            Err(error) => tracing::warn!(%to, %error, "a broadcast was not sent"),
        }
    }
}

/// The first of the addresses that can be bound. One that sends to an IPv4 group or broadcast address has to be IPv4's.
async fn bind_one(candidates: &[SocketAddr], broadcast: Option<SocketAddr>) -> io::Result<UdpSocket> {
    let mut failure = io::Error::new(
        io::ErrorKind::InvalidInput,
        "the broadcast address is not of the family of the address that is bound",
    );
    for candidate in candidates {
        if broadcast.is_some_and(|address| address.is_ipv4() != candidate.is_ipv4()) {
            continue;
        }
        match UdpSocket::bind(candidate).await {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
