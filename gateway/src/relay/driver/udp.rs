//! Sockets for MQTT-SN.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
};

use broker_core::{Endpoint, LinkId};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::{io::ReadBuf, net::UdpSocket};

use super::secured::Secured;
use crate::config::DatagramListener;

/// A socket with its endpoint.
pub(super) struct Socket {
    /// As a listener is named: `mqttsn:udp:default`.
    pub(super) name: String,
    socket: UdpSocket,
    /// Where the broadcast address is heard, if `socket` does not hear it.
    group: Option<UdpSocket>,
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
    /// Opens the socket of `listener`. With what it fails comes the address that was at fault.
    pub(super) async fn open(
        listener: &DatagramListener,
        broadcast: Option<SocketAddr>,
        endpoint: Box<dyn Endpoint>,
        secured: Option<Secured>,
    ) -> Result<Socket, (SocketAddr, io::Error)> {
        // Nobody has an association with everyone.
        let broadcast = broadcast.filter(|_| secured.is_none());
        let socket = bind_one(&listener.bind.candidates(), broadcast).await?;
        let local = configure(&socket, listener).map_err(|cause| (listener.bind.candidates()[0], cause))?;
        let group = match broadcast {
            Some(address) => join(&socket, local, address).map_err(|cause| (address, cause))?,
            None => None,
        };
        Ok(Socket {
            name: listener.id(),
            local,
            socket,
            group,
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
        let mut from = self.socket.poll_recv_from(context, &mut buffer);
        if let (Poll::Pending, Some(group)) = (&from, &self.group) {
            from = group.poll_recv_from(context, &mut buffer);
        }
        from.map_ok(|from| (buffer.filled().len(), from))
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
async fn bind_one(
    candidates: &[SocketAddr],
    broadcast: Option<SocketAddr>,
) -> Result<UdpSocket, (SocketAddr, io::Error)> {
    let fits =
        |candidate: &&SocketAddr| broadcast.is_none_or(|address| address.is_ipv4() == candidate.is_ipv4());
    let mut failure = io::Error::new(
        io::ErrorKind::InvalidInput,
        "the broadcast address is not of the family of the address that is bound",
    );
    for candidate in candidates.iter().filter(fits) {
        match UdpSocket::bind(candidate).await {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err((candidates[0], failure))
}

fn configure(socket: &UdpSocket, listener: &DatagramListener) -> io::Result<SocketAddr> {
    let options = SockRef::from(socket);
    if let Some(bytes) = listener.recbuf {
        options.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = listener.sndbuf {
        options.set_send_buffer_size(bytes)?;
    }
    socket.local_addr()
}

/// Lets `socket` send to everyone. What is sent to everyone it hears itself if it is bound to all addresses and the same
/// port, or else a socket does that is returned.
fn join(socket: &UdpSocket, local: SocketAddr, broadcast: SocketAddr) -> io::Result<Option<UdpSocket>> {
    let sender = SockRef::from(socket);
    if broadcast.is_ipv4() {
        sender.set_broadcast(true)?;
    }
    match (local.ip(), broadcast) {
        (IpAddr::V4(interface), SocketAddr::V4(group))
            if group.ip().is_multicast() && !interface.is_unspecified() =>
        {
            sender.set_multicast_if_v4(&interface)?;
        }
        (_, SocketAddr::V6(group)) if group.ip().is_multicast() && group.scope_id() != 0 => {
            sender.set_multicast_if_v6(group.scope_id())?;
        }
        _ => {}
    }
    if local.ip().is_unspecified() && local.port() == broadcast.port() {
        join_group(&sender, local, broadcast)?;
        return Ok(None);
    }
    let group = socket2::Socket::new(Domain::for_address(broadcast), Type::DGRAM, Some(Protocol::UDP))?;
    // Others on this machine may hear the group at its port as well.
    group.set_reuse_address(true)?;
    group.set_nonblocking(true)?;
    group.bind(&broadcast.into())?;
    join_group(&SockRef::from(&group), local, broadcast)?;
    UdpSocket::from_std(group.into()).map(Some)
}

/// Makes the socket hear a multicast group, on the interface that has the address `local`.
fn join_group(socket: &SockRef<'_>, local: SocketAddr, broadcast: SocketAddr) -> io::Result<()> {
    match (local.ip(), broadcast) {
        (IpAddr::V4(interface), SocketAddr::V4(group)) if group.ip().is_multicast() => {
            socket.join_multicast_v4(group.ip(), &interface)
        }
        (_, SocketAddr::V6(group)) if group.ip().is_multicast() => {
            socket.join_multicast_v6(group.ip(), group.scope_id())
        }
        _ => Ok(()),
    }
}
