//! From datagram sockets to peers.

use std::{
    mem,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
};

use broker_core::{Addressed, Peer};
use broker_core::{Close, Endpoint, LinkId, Remote, ShardId, Stranger, Timestamp, Transmit, Verdict};
use quinn_udp::RecvMeta;

use super::{
    Worker,
    arena::Arena,
    link::{Io, Link, State},
    wake::{Source, SourceWake},
};
use crate::datagram::{
    Core, DATAGRAM_BYTES_MAX, DatagramCommand, Datagrams, EndpointMeta, Groups, News, Opening, Origin,
    Parcel, Place, RECEIVE_BATCH, RemoteRef, Table, Tally, Track,
};

/// Datagrams taken from one socket before another gets its turn.
const BUDGET: usize = 8 * RECEIVE_BATCH;

/// What a worker has of datagram listeners.
#[derive(Default)]
pub(super) struct DatagramSide {
    /// By the number of the listener.
    ports: Vec<Option<Box<Port>>>,
    /// Datagrams are read into it. Empty while in use, and before there is a socket.
    buffer: Vec<u8>,
    groups: Groups,
    /// What other workers are told at the end of the turn, by [`ShardId`].
    pub(super) parcels: Vec<Parcel>,
    transmits: Vec<Transmit>,
}

/// This worker's socket of one listener, and what belongs to it.
pub(super) struct Port {
    pub(super) core: Arc<Core>,
    pub(super) tally: Arc<Tally>,
    pub(super) io: Datagrams,
    /// Where the group is heard, if `io` does not hear it.
    group: Option<Datagrams>,
    /// What is sent to a group reaches the sockets of all workers. This one's counts.
    is_first: bool,
    pub(super) endpoint: Box<dyn Endpoint>,
    pub(super) table: Table,
    common: Option<LinkId>,
    wake: (Arc<SourceWake>, Waker),
    /// When the endpoint must be called.
    alarm: Timestamp,
    /// Links whose datagrams the socket did not take.
    pub(super) blocked: Vec<LinkId>,
    /// It stands in the worker's list of those that wait until batches have left.
    is_held_up: bool,
}

/// How the datagrams of a link go.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// The number of the listener.
    pub(super) listener: u32,
    /// `None` for the common peer of an endpoint, which answers nobody.
    pub(super) remote: Option<Remote>,
    /// The address of this machine to which the client last sent something.
    pub(super) local: Option<IpAddr>,
    pub(super) track: Track,
}

impl Port {
    /// Lets the socket wake the worker once it takes more.
    pub(super) fn wake_when_writable(&self) {
        let woken = self.io.poll_writable(&mut Context::from_waker(&self.wake.1));
        if woken {
            self.wake.1.wake_by_ref();
        }
    }
}

/// True if the link is the peer of this remote.
pub(super) fn is_peer_of(links: &Arena<Link>, id: LinkId, remote: RemoteRef<'_>) -> bool {
    let route = links.get(id).and_then(Link::route);
    route
        .and_then(|route| route.remote.as_ref())
        .is_some_and(|known| RemoteRef::of(known) == remote)
}

impl DatagramSide {
    pub(super) fn new(id: ShardId, workers: usize) -> DatagramSide {
        DatagramSide {
            parcels: (0..workers).map(|_| Parcel::new(id)).collect(),
            ..DatagramSide::default()
        }
    }

    pub(super) fn port(&mut self, listener: u32) -> Option<&mut Port> {
        self.ports.get_mut(listener as usize)?.as_deref_mut()
    }

    /// True if what is sent to this local address may reach every worker.
    pub(super) fn is_group(&mut self, address: IpAddr) -> bool {
        self.groups.contains(address)
    }

    /// No socket here is needed by peers of other workers. Those of a DTLS listener send through the front.
    pub(super) fn is_done(&self) -> bool {
        let mut ports = self.ports.iter().flatten();
        ports.all(|port| port.core.config.dtls.is_none() || port.table.away() == 0)
    }

    /// When an endpoint must be called, if at all.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let alarms = self.ports.iter().flatten().map(|port| port.alarm);
        alarms.min().filter(|at| *at < Timestamp::NEVER)
    }
}

impl Worker {
    /// A listener has news.
    pub(super) fn datagram_news(&mut self, command: DatagramCommand) {
        match command {
            DatagramCommand::Open(opening) => self.open_port(*opening),
            DatagramCommand::Start(listener) => self.poll_port(listener),
            DatagramCommand::Stop(listener) => self.close_port(listener),
            DatagramCommand::Parcel(parcel) => self.unpack(parcel),
        }
    }

    fn open_port(&mut self, opening: Opening) {
        let Opening {
            core,
            tally,
            socket,
            group,
            is_first,
        } = opening;
        let opened = Datagrams::new(socket).and_then(|io| Ok((io, group.map(Datagrams::new).transpose()?)));
        let (io, group) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.counters.accept_errors.add(1);
                core.socket_closed();
                let listener = &*core.config.info.name;
                return tracing::error!(listener, %error, "a datagram socket cannot be used");
            }
        };
        let endpoint = (core.config.endpoint)(EndpointMeta {
            shard: self.id,
            is_first,
            seed: crate::datagram::random_seed(),
        });
        let wake = SourceWake::new(Source::Socket(core.number), self.ready.clone());
        let index = core.number as usize;
        let port = Port {
            alarm: endpoint.poll_timeout().unwrap_or(Timestamp::NEVER),
            core,
            tally,
            io,
            group,
            is_first,
            endpoint,
            table: Table::default(),
            common: None,
            wake: (wake.clone(), Waker::from(wake)),
            blocked: Vec::new(),
            is_held_up: false,
        };
        let side = &mut self.datagrams;
        if side.buffer.is_empty() {
            // Fresh from the system: pages that no long datagram ever reaches take no memory.
            side.buffer = vec![0; RECEIVE_BATCH * DATAGRAM_BYTES_MAX];
        }
        if side.ports.len() <= index {
            side.ports.resize_with(index + 1, || None);
        }
        side.ports[index] = Some(Box::new(port));
    }

    /// Closes the socket of a stopped listener that has no peers any more.
    fn close_port(&mut self, listener: u32) {
        let is_idle = |port: &mut Port| port.core.is_stopped.load(Relaxed) && port.core.seats.taken() == 0;
        if !self.datagrams.port(listener).is_some_and(is_idle) {
            return;
        }
        let Some(port) = self.datagrams.ports[listener as usize].take() else {
            return;
        };
        if let Some(id) = port.common {
            let close = Close {
                reason: "listener_stopped",
                detail: String::new(),
            };
            self.end_link(id, &close, false, |counters| &counters.closed_by_server);
        }
        let core = port.core.clone();
        drop(port);
        core.socket_closed();
    }

    /// The socket was woken.
    pub(super) fn poll_port(&mut self, listener: u32) {
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        port.wake.0.begin();
        let waker = port.wake.1.clone();
        let mut context = Context::from_waker(&waker);
        if !port.blocked.is_empty() && port.io.poll_writable(&mut context) {
            for id in mem::take(&mut port.blocked) {
                if let Some(link) = self.links.get_mut(id) {
                    link.write_blocked = false;
                    self.touch(id);
                }
            }
        }
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        if self.is_held_up {
            if !mem::replace(&mut port.is_held_up, true) {
                self.held_up.push(Source::Socket(listener));
            }
            return;
        }
        port.is_held_up = false;
        let mut buffer = mem::take(&mut self.datagrams.buffer);
        for of_group in [false, true] {
            self.read_port(listener, of_group, &mut context, &mut buffer);
        }
        self.datagrams.buffer = buffer;
    }

    /// Reads until nothing is left or the budget is used up; then others have their turn.
    fn read_port(&mut self, listener: u32, of_group: bool, context: &mut Context<'_>, buffer: &mut [u8]) {
        let mut metas = [RecvMeta::default(); RECEIVE_BATCH];
        let mut budget = BUDGET;
        loop {
            let port = self.datagrams.port(listener);
            let Some(port) = port.filter(|port| !of_group || port.group.is_some()) else {
                return;
            };
            if budget == 0 {
                return self.ready.push(Source::Socket(listener));
            }
            let io = port.group.as_ref().filter(|_| of_group).unwrap_or(&port.io);
            match io.poll_receive(context, buffer, &mut metas) {
                Poll::Pending => return,
                Poll::Ready(Err(_)) => {
                    port.tally.errors.add(1);
                    budget -= RECEIVE_BATCH.min(budget);
                }
                Poll::Ready(Ok(count)) => {
                    budget -= count.clamp(1, budget);
                    let bound = io.address();
                    let parts = buffer.chunks(DATAGRAM_BYTES_MAX);
                    for (meta, part) in metas[..count].iter().zip(parts) {
                        let origin = Origin::new(bound, meta);
                        let joined = &part[..meta.len];
                        if joined.is_empty() {
                            self.receive_datagram(listener, origin, joined);
                        }
                        // The kernel may join datagrams of one sender that are of one length.
                        for datagram in joined.chunks(meta.stride.max(1)) {
                            self.receive_datagram(listener, origin, datagram);
                        }
                    }
                }
            }
        }
    }

    fn receive_datagram(&mut self, listener: u32, origin: Origin, datagram: &[u8]) {
        let is_group = self.datagrams.is_group(origin.local.ip());
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        if is_group && !port.is_first {
            return;
        }
        let bytes = datagram.len() as u64;
        port.tally.received.add(1);
        port.tally.received_bytes.add(bytes);
        self.counters.datagrams_received.add(1);
        self.counters.bytes_received.add(bytes);
        let address = origin.from;
        let (node, inner) = match port.endpoint.address(datagram) {
            Addressed::Garbage(what) => return self.drop_datagram(listener, what),
            // Nobody can be answered there.
            _ if address.port() == 0 => return self.drop_datagram(listener, "source_port"),
            Addressed::Endpoint(datagram) => {
                let remote = RemoteRef { address, node: None };
                return self.ask_endpoint(listener, origin, remote, datagram);
            }
            Addressed::Common(datagram) => return self.common_datagram(listener, origin, datagram),
            _ if is_group => return self.drop_datagram(listener, "not_unicast"),
            Addressed::Sender(inner) => (None, inner),
            Addressed::Node { node, inner } => (Some(node), inner),
        };
        self.route_datagram(listener, origin, RemoteRef { address, node }, inner);
    }

    /// A datagram goes to whom it is for, wherever that is.
    pub(super) fn route_datagram(
        &mut self,
        listener: u32,
        origin: Origin,
        remote: RemoteRef<'_>,
        datagram: &[u8],
    ) {
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        let links = &self.links;
        match port.table.get(remote, |id| is_peer_of(links, id, remote)) {
            Some(Place::Here(id)) => {
                let id = *id;
                if !self.offer_datagram(id, origin.local, datagram) {
                    self.ask_endpoint(listener, origin, remote, datagram);
                }
            }
            Some(Place::Away(away)) => {
                let (to, track) = (away.to, away.track);
                port.tally.forwarded.add(1);
                let (remote, local) = (remote.to_remote(), origin.local);
                let news = News::Datagram { remote, local, track };
                self.forward(to, listener, news, datagram);
            }
            None => self.ask_endpoint(listener, origin, remote, datagram),
        }
    }

    /// Offers the datagram to the peer of the link. False if the link is not open.
    pub(super) fn offer_datagram(&mut self, id: LinkId, local: SocketAddr, datagram: &[u8]) -> bool {
        let high_water = self.config.high_water_bytes;
        let Some(link) = self.links.get_mut(id).filter(|link| link.state == State::Open) else {
            return false;
        };
        let to = link.moving.as_ref().map(|moving| moving.to);
        let (is_held, is_congested) = (link.held, link.outbox.len() >= high_water);
        let Io::Datagram(route) = &mut link.io else {
            return false;
        };
        let listener = route.listener;
        if let (Some(to), Some(remote)) = (to, &route.remote) {
            // It leaves at the end of the turn, and this follows it.
            let mut track = route.track;
            track.moves += 1;
            let remote = remote.clone();
            self.forward(to, listener, News::Datagram { remote, local, track }, datagram);
        } else if is_held {
            self.drop_datagram(listener, "store_slow");
        } else if is_congested {
            self.drop_datagram(listener, "congested");
        } else {
            route.local = Some(local.ip());
            link.received += datagram.len() as u64;
            let now = self.now;
            self.call_peer(id, |peer, effects| peer.handle_input(now, datagram, effects));
            self.submit(id);
        }
        true
    }

    /// Why nobody new is listened to.
    fn refuses_strangers(&mut self, listener: u32, address: IpAddr) -> Option<&'static str> {
        let port = self.datagrams.port(listener)?;
        if port.core.is_stopped.load(Relaxed) {
            Some("listener_stopped")
        } else if self.ending.is_some() {
            Some("server_shutting_down")
        } else if self.shard.is_banned(self.now, address) {
            Some("banned")
        } else {
            None
        }
    }

    /// A datagram of nobody known, or for the endpoint itself.
    fn ask_endpoint(&mut self, listener: u32, origin: Origin, remote: RemoteRef<'_>, datagram: &[u8]) {
        if let Some(reason) = self.refuses_strangers(listener, origin.from.ip()) {
            return self.drop_datagram(listener, reason);
        }
        let mut transmits = mem::take(&mut self.datagrams.transmits);
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        let known = remote.to_remote();
        let stranger = Stranger {
            remote: &known,
            local: origin.local,
            identity: None,
        };
        let verdict = port
            .endpoint
            .handle_stranger(self.now, &stranger, datagram, &mut transmits);
        port.alarm = port.endpoint.poll_timeout().unwrap_or(Timestamp::NEVER);
        self.transmit(listener, Some(origin), &mut transmits);
        self.datagrams.transmits = transmits;
        match verdict {
            Verdict::Done => {}
            Verdict::Drop(reason) => self.drop_datagram(listener, reason),
            Verdict::Open(peer) => self.open_peer(listener, peer, known, origin.local, datagram),
        }
    }

    fn open_peer(
        &mut self,
        listener: u32,
        peer: Box<dyn Peer>,
        remote: Remote,
        local: SocketAddr,
        datagram: &[u8],
    ) {
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        let Some(permit) = port.core.seats.admit() else {
            return self.drop_datagram(listener, "max_connections");
        };
        let id = self.insert_datagram_link(listener, Some(remote.clone()), peer);
        if let Some(link) = self.links.get_mut(id) {
            link.permit = Some(permit);
        }
        self.enter(id, listener, &remote);
        if let Some(port) = self.datagrams.port(listener) {
            port.tally.opened.add(1);
        }
        self.offer_datagram(id, local, datagram);
    }

    fn insert_datagram_link(&mut self, listener: u32, remote: Option<Remote>, peer: Box<dyn Peer>) -> LinkId {
        self.counters.connections_opened.add(1);
        let (front, ready) = (self.id, &self.ready);
        let id = self.links.insert(|born| {
            let route = Route {
                listener,
                remote,
                local: None,
                track: Track {
                    front,
                    born,
                    moves: 0,
                },
            };
            Link::new(born, peer, Io::Datagram(Box::new(route)), ready)
        });
        self.touch(id);
        id
    }

    /// From now on the remote's datagrams are this link's. Another link that it had is closed.
    pub(super) fn enter(&mut self, id: LinkId, listener: u32, remote: &Remote) {
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        let (links, remote) = (&self.links, RemoteRef::of(remote));
        let is = |id| is_peer_of(links, id, remote);
        if let Some(Place::Here(former)) = port.table.set(remote, Place::Here(id), is) {
            let close = Close {
                reason: "replaced",
                detail: String::new(),
            };
            self.end_link(former, &close, false, |counters| &counters.closed_by_client);
        }
    }

    /// A datagram that needs no connection.
    fn common_datagram(&mut self, listener: u32, origin: Origin, datagram: &[u8]) {
        if let Some(reason) = self.refuses_strangers(listener, origin.from.ip()) {
            return self.drop_datagram(listener, reason);
        }
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        let Some(client_id) = port.endpoint.common_client_id() else {
            return self.drop_datagram(listener, "no_common_peer");
        };
        let to = self.shard.place(client_id);
        if to == self.id {
            return self.common_input(listener, datagram);
        }
        port.tally.forwarded.add(1);
        self.forward(to, listener, News::Common, datagram);
    }

    /// Such a datagram, on the worker of the common peer.
    pub(super) fn common_input(&mut self, listener: u32, datagram: &[u8]) {
        let now = self.now;
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        let local = port.core.address;
        if let Some(id) = port.common
            && self.offer_datagram(id, local, datagram)
        {
            return;
        }
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        let peer = port.endpoint.common_peer(now);
        port.alarm = port.endpoint.poll_timeout().unwrap_or(Timestamp::NEVER);
        let id = self.insert_datagram_link(listener, None, peer);
        if let Some(port) = self.datagrams.port(listener) {
            port.common = Some(id);
        }
        self.offer_datagram(id, local, datagram);
    }

    /// The link of a datagram peer is no more.
    pub(super) fn datagram_link_removed(&mut self, id: LinkId, route: Route) {
        let listener = route.listener;
        if let Some(port) = self.datagrams.port(listener) {
            match &route.remote {
                Some(remote) => {
                    port.table.remove_here(RemoteRef::of(remote), id);
                    port.tally.closed.add(1);
                }
                None if port.common == Some(id) => port.common = None,
                None => {}
            }
        }
        self.tell_front_of_end(route);
    }

    /// Endpoints whose time has come.
    pub(super) fn fire_endpoints(&mut self) {
        if self.datagrams.poll_timeout().is_none_or(|at| at > self.now) {
            return;
        }
        for index in 0..self.datagrams.ports.len() {
            let listener = index as u32;
            let mut transmits = mem::take(&mut self.datagrams.transmits);
            if let Some(port) = self.datagrams.port(listener)
                && port.alarm <= self.now
            {
                port.endpoint.handle_timeout(self.now, &mut transmits);
                port.alarm = port.endpoint.poll_timeout().unwrap_or(Timestamp::NEVER);
            }
            self.transmit(listener, None, &mut transmits);
            self.datagrams.transmits = transmits;
        }
    }

    /// Counts a datagram that is dropped, and says so in the log now and then.
    pub(super) fn drop_datagram(&mut self, listener: u32, reason: &'static str) {
        self.counters.datagrams_dropped.add(1);
        let now = self.now;
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        port.tally.drop_one(reason);
        if let Some(suppressed) = port.core.drops.allows(now) {
            let listener = &*port.core.config.info.name;
            tracing::info!(listener, reason, suppressed, "datagram dropped");
        }
    }
}
