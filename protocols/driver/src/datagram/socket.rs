//! UDP sockets: opened, read and written.

use std::{
    io::{self, ErrorKind, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    task::{Context, Poll},
};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::DatagramConfig;

/// Datagrams taken from a socket at once.
pub(crate) const BATCH: usize = 32;

/// No datagram is longer, nor are those of one sender that the kernel has joined (GRO).
pub(crate) const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Hops that a multicast datagram may go unless somebody says more (RFC 1112 §6.1).
const MULTICAST_HOPS: u32 = 1;

/// The sockets of one listener.
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    /// One per worker.
    pub(super) sockets: Vec<Socket>,
    /// Where the group is heard, if the first worker's socket does not hear it.
    pub(super) group: Option<Socket>,
}

/// Opens a socket for each worker, and one for the group if it needs one of its own. With what it fails comes the
/// address that was at fault.
pub(super) fn bind(config: &DatagramConfig, workers: usize) -> Result<Bound, (SocketAddr, io::Error)> {
    let at = |address| move |cause| (address, cause);
    let first = open(config, config.bind).map_err(at(config.bind))?;
    // The first is bound without sharing its port, so that a port in use is noticed, and none is chosen that another
    // listener shares already.
    let address = bind_first(&first, config.bind).map_err(at(config.bind))?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        let socket = open(config, address).map_err(at(address))?;
        bind_shared(&socket, address).map_err(at(address))?;
        sockets.push(socket);
    }
    let mut group = None;
    // A group cannot share the keys of a DTLS association.
    if let Some(broadcast) = config.broadcast.filter(|_| config.dtls.is_none()) {
        group = join(config, address, broadcast, &sockets).map_err(at(broadcast))?;
    }
    Ok(Bound {
        address,
        sockets,
        group,
    })
}

fn open(config: &DatagramConfig, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(config.ipv6_only)?;
    }
    if let Some(bytes) = config.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = config.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_first(socket: &Socket, address: SocketAddr) -> io::Result<SocketAddr> {
    socket.bind(&address.into())?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    let bound = socket.local_addr()?;
    bound.as_socket().ok_or_else(|| ErrorKind::Unsupported.into())
}

fn bind_shared(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())
}

/// Lets all sockets send to the group, and the first worker's hear it: by its socket if that is bound to all addresses
/// and the group's port, or else by one of its own, which is returned.
fn join(
    config: &DatagramConfig,
    address: SocketAddr,
    broadcast: SocketAddr,
    sockets: &[Socket],
) -> io::Result<Option<Socket>> {
    if broadcast.is_ipv6() && address.is_ipv4()
        || broadcast.is_ipv4() && address.is_ipv6() && config.ipv6_only
    {
        let detail = "the broadcast address and the listener's are of different families";
        return Err(io::Error::new(ErrorKind::InvalidInput, detail));
    }
    for socket in sockets {
        if broadcast.is_ipv4() {
            socket.set_broadcast(true)?;
        }
        send_by_interface(socket, address, broadcast)?;
    }
    let hears_it = address.ip().is_unspecified() && broadcast.port() == address.port();
    if hears_it {
        join_group(&sockets[0], address, broadcast)?;
        return Ok(None);
    }
    let socket = open(config, broadcast)?;
    // Others on this machine may hear the group at its port as well.
    socket.set_reuse_address(true)?;
    socket.bind(&broadcast.into())?;
    join_group(&socket, address, broadcast)?;
    Ok(Some(socket))
}

/// Chooses the interface by which multicast leaves: the one that has the listener's address, or the scope of the
/// group's.
fn send_by_interface(socket: &Socket, address: SocketAddr, broadcast: SocketAddr) -> io::Result<()> {
    match (address.ip(), broadcast) {
        (IpAddr::V4(interface), SocketAddr::V4(group))
            if group.ip().is_multicast() && !interface.is_unspecified() =>
        {
            socket.set_multicast_if_v4(&interface)
        }
        (_, SocketAddr::V6(group)) if group.ip().is_multicast() && group.scope_id() != 0 => {
            socket.set_multicast_if_v6(group.scope_id())
        }
        _ => Ok(()),
    }
}

fn join_group(socket: &Socket, address: SocketAddr, broadcast: SocketAddr) -> io::Result<()> {
    match broadcast {
        SocketAddr::V4(group) if group.ip().is_multicast() => {
            let interface = match address.ip() {
                IpAddr::V4(interface) => interface,
                IpAddr::V6(_) => std::net::Ipv4Addr::UNSPECIFIED,
            };
            socket.join_multicast_v4(group.ip(), &interface)
        }
        SocketAddr::V6(group) if group.ip().is_multicast() => {
            socket.join_multicast_v6(group.ip(), group.scope_id())
        }
        _ => Ok(()),
    }
}

/// A socket that is registered with the event queue of its worker.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
    /// Hops of unicast datagrams.
    hops: Option<u32>,
}

/// What is known about a datagram that has come in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) from: SocketAddr,
    /// Where it was sent to.
    pub(crate) local: SocketAddr,
}

impl Origin {
    /// Of the datagrams that came with `meta` to a socket that is bound to this address.
    pub(crate) fn new(bound: SocketAddr, meta: &RecvMeta) -> Origin {
        let to = meta.dst_ip.unwrap_or(bound.ip()).to_canonical();
        Origin {
            from: canonical(meta.addr),
            local: SocketAddr::new(to, bound.port()),
        }
    }
}

impl Datagrams {
    /// Registers the socket with the calling thread's event queue.
    pub(crate) fn new(socket: Socket) -> io::Result<Datagrams> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Probing for the largest datagram is the affair of protocols that do it; others are cut into fragments.
        #[cfg(target_os = "linux")]
        rustix::net::sockopt::set_ip_mtu_discover(&socket, rustix::net::sockopt::Ipv4PathMtuDiscovery::WANT)?;
        let hops = socket.ttl_v4().ok();
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Datagrams {
            address: socket.local_addr()?,
            socket,
            state,
            hops,
        })
    }

    /// Takes up to [`BATCH`] datagrams, each into its part of `buffer`. Pending also means that the worker is woken.
    pub(crate) fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        metas: &mut [RecvMeta; BATCH],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.poll_recv_ready(context) {
                Poll::Ready(Ok(())) => {}
                other => return other.map_ok(|()| 0),
            }
            let mut rest = &mut *buffer;
            let mut parts: [IoSliceMut<'_>; BATCH] = std::array::from_fn(|_| {
                let (part, others) = std::mem::take(&mut rest).split_at_mut(DATAGRAM_BYTES_MAX);
                rest = others;
                IoSliceMut::new(part)
            });
            let socket = UdpSockRef::from(&self.socket);
            let received = self
                .socket
                .try_io(Interest::READABLE, || self.state.recv(socket, &mut parts, metas));
            match received {
                Err(error) if is_blocked(&error) => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// True once more can be sent; if not, the worker is woken then.
    pub(crate) fn poll_writable(&self, context: &mut Context<'_>) -> bool {
        self.socket.poll_send_ready(context).is_ready()
    }

    /// The address that it is bound to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a datagram, from this address of the machine if one is given.
    pub(crate) fn send(&self, to: SocketAddr, from: Option<IpAddr>, datagram: &[u8]) -> io::Result<()> {
        // A socket that is bound to one address sends from it anyway.
        let from = from.filter(|_| self.address.ip().is_unspecified());
        let send = |src_ip| {
            let transmit = Transmit {
                destination: self.mapped(to),
                ecn: None,
                contents: datagram,
                segment_size: None,
                src_ip,
            };
            let sent = self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
            // The system is asked first: the event queue does not know yet that a new socket takes something. It is
            // told that this one does not.
            if sent.as_ref().is_err_and(is_blocked) {
                let _ = self.socket.try_io(Interest::WRITABLE, || {
                    io::Result::<()>::Err(ErrorKind::WouldBlock.into())
                });
            }
            sent
        };
        match send(from.map(|from| self.mapped(SocketAddr::new(from, 0)).ip())) {
            // The address is no longer one of this machine.
            Err(error) if from.is_some() && !is_blocked(&error) => send(None),
            sent => sent,
        }
    }

    /// Sends a datagram to the group. It goes as many hops as `radius` says.
    pub(crate) fn broadcast(&self, group: SocketAddr, radius: Option<u8>, datagram: &[u8]) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        let radius = radius.map(|radius| u32::from(radius).max(1));
        match group.ip() {
            IpAddr::V4(ip) if ip.is_multicast() => {
                socket.set_multicast_ttl_v4(radius.unwrap_or(MULTICAST_HOPS))?;
            }
            IpAddr::V6(ip) if ip.is_multicast() => {
                socket.set_multicast_hops_v6(radius.unwrap_or(MULTICAST_HOPS))?;
            }
            IpAddr::V4(_) => {
                // The same option serves unicast, so it does not stay.
                if let (Some(radius), Some(usual)) = (radius, self.hops) {
                    socket.set_ttl_v4(radius)?;
                    let sent = self.send(group, None, datagram);
                    socket.set_ttl_v4(usual)?;
                    return sent;
                }
            }
            IpAddr::V6(_) => {}
        }
        self.send(group, None, datagram)
    }

    /// An address as this socket writes it: one that serves both families writes IPv4 as part of IPv6.
    fn mapped(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V4(v4) if self.address.is_ipv6() => {
                let ip: Ipv6Addr = v4.ip().to_ipv6_mapped();
                SocketAddrV6::new(ip, v4.port(), 0, 0).into()
            }
            other => other,
        }
    }
}

/// The socket takes or gives nothing at the moment.
pub(crate) fn is_blocked(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

/// An IPv4 client of an IPv6 socket appears with its IPv4 address. A link-local one keeps its scope, without which it
/// cannot be answered.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Remembers which local addresses are those of groups, as far as it had to be found out.
#[derive(Debug, Default)]
pub(crate) struct Groups(Vec<(IpAddr, bool)>);

impl Groups {
    /// Local addresses remembered; then it starts anew.
    const MAX: usize = 64;

    /// True if datagrams sent to this address may be delivered to every socket of the port: a multicast group or a
    /// broadcast address.
    pub(crate) fn contains(&mut self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V4(ip) if ip.is_broadcast() || ip.is_multicast() => return true,
            IpAddr::V6(ip) => return ip.is_multicast(),
            IpAddr::V4(_) => address,
        };
        if let Some((_, is_group)) = self.0.iter().find(|(known, _)| *known == address) {
            return *is_group;
        }
        if self.0.len() == Groups::MAX {
            self.0.clear();
        }
        let is_group = is_broadcast(address);
        self.0.push((address, is_group));
        is_group
    }
}

/// Which addresses are a network's broadcast address depends on the masks of interfaces. The system knows: it lets
/// nobody connect to one who has not asked for the permission to broadcast.
fn is_broadcast(address: IpAddr) -> bool {
    let probe = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.connect(&SocketAddr::new(address, 9).into())
    };
    probe().is_err_and(|error: io::Error| error.kind() == ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_runtime(test: impl FnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.expect("a runtime");
        let _context = runtime.enter();
        test();
    }

    fn socket(bind: &str) -> Datagrams {
        let address: SocketAddr = bind.parse().expect("an address");
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP));
        let socket = socket.expect("a socket");
        socket.bind(&address.into()).expect("a free port");
        socket.set_broadcast(true).expect("permission");
        Datagrams::new(socket).expect("a socket")
    }

    #[test]
    fn multicast_goes_as_far_as_it_is_told_and_else_one_hop() {
        on_runtime(|| {
            let group = SocketAddr::from(([239, 255, 77, 2], 1884));
            let socket = socket("127.0.0.1:0");
            let option = SockRef::from(&socket.socket);
            for (radius, hops) in [(Some(5), 5), (None, 1), (Some(0), 1)] {
                // Whether there is a way to the group does not matter.
                let _ = socket.broadcast(group, radius, b"text");
                assert_eq!(option.multicast_ttl_v4().expect("an option"), hops);
            }
        });
    }

    #[test]
    fn a_radius_of_one_broadcast_does_not_stay() {
        on_runtime(|| {
            let everyone = SocketAddr::from(([127, 255, 255, 255], 1884));
            let socket = socket("127.0.0.1:0");
            let usual = socket.hops;
            socket.broadcast(everyone, Some(3), b"text").expect("sent");
            assert_eq!(SockRef::from(&socket.socket).ttl_v4().ok(), usual);
        });
    }

    #[test]
    fn groups_are_known() {
        let mut groups = Groups::default();
        let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
        for group in ["224.0.0.1", "255.255.255.255", "127.255.255.255", "ff02::1"] {
            assert!(groups.contains(address(group)), "{group}");
        }
        for host in ["127.0.0.1", "127.3.2.1", "::1"] {
            assert!(!groups.contains(address(host)), "{host}");
        }
        for n in 0..=255 {
            assert!(!groups.contains(IpAddr::from([127, 0, 1, n])));
            assert!(groups.0.len() <= Groups::MAX);
        }
    }
}
