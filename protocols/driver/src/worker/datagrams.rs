//! From datagram sockets to peers.

use std::{
    mem,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
};

use broker_core::{Addressed, Close, LinkId, Peer, Remote, Stranger, Timestamp, Verdict};
use quinn_udp::RecvMeta;

use super::{
    Worker,
    link::{Io, Link, State},
    ports::{Route, is_peer_of},
    wake::Source,
};
use crate::datagram::{DATAGRAM_BYTES_MAX, News, Origin, Place, RECEIVE_BATCH, RemoteRef, Track};

/// Datagrams taken from one socket before another gets its turn; those of one read are all looked at.
const BUDGET: usize = 8 * RECEIVE_BATCH;

/// How many the kernel has joined.
fn datagrams_of(meta: &RecvMeta) -> usize {
    meta.len.div_ceil(meta.stride.max(1)).max(1)
}

impl Worker {
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
            if self.read_port(listener, of_group, &mut context, &mut buffer) {
                // By the waker, which queues a socket once, however many reasons there are.
                waker.wake_by_ref();
            }
        }
        self.datagrams.buffer = buffer;
    }

    /// Reads until nothing is left or the budget is used up; then others have their turn. True if more may be there.
    fn read_port(
        &mut self,
        listener: u32,
        of_group: bool,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> bool {
        let mut metas = [RecvMeta::default(); RECEIVE_BATCH];
        let mut budget = BUDGET;
        loop {
            let port = self.datagrams.port(listener);
            let Some(port) = port.filter(|port| !of_group || port.group.is_some()) else {
                return false;
            };
            if budget == 0 {
                return true;
            }
            let io = port.group.as_ref().filter(|_| of_group).unwrap_or(&port.io);
            match io.poll_receive(context, buffer, &mut metas) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => {
                    port.tally.errors.add(1);
                    budget -= RECEIVE_BATCH.min(budget);
                }
                Poll::Ready(Ok(count)) => {
                    let bound = io.address();
                    let parts = buffer.chunks(DATAGRAM_BYTES_MAX);
                    budget = budget.saturating_sub(metas[..count].iter().map(datagrams_of).sum());
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
        let is_secured = port.secured.is_some();
        self.datagrams.last_from = Some(origin.from);
        self.counters.datagrams_received.add(1);
        self.counters.bytes_received.add(datagram.len() as u64);
        if !is_secured {
            self.receive_plain(listener, origin, datagram);
        } else if is_group {
            self.drop_datagram(listener, "not_unicast");
        } else {
            self.receive_sealed(listener, origin, datagram);
        }
    }

    /// A datagram as the client has meant it.
    pub(super) fn receive_plain(&mut self, listener: u32, origin: Origin, datagram: &[u8]) {
        let is_group = self.datagrams.is_group(origin.local.ip());
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        port.tally.received.add(1);
        port.tally.received_bytes.add(datagram.len() as u64);
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
        match port.table.get_mut(remote, |id| is_peer_of(links, id, remote)) {
            Some(Place::Here(id)) => {
                let id = *id;
                if !self.offer_datagram(id, origin.local, datagram) {
                    self.ask_endpoint(listener, origin, remote, datagram);
                }
            }
            Some(Place::Away(away)) => {
                let (to, track) = (away.to, away.track);
                away.has_gone_on = true;
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
        route.has_gone_on = true;
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
        let mut identity = None;
        if let Some(secured) = self.datagrams.secured(listener) {
            if secured.id_of(remote.address).is_none() {
                return self.drop_datagram(listener, "no_association");
            }
            identity = secured.identity_of(remote.address);
        }
        let known = remote.to_remote();
        let local = match origin.local {
            // Of a network, which nobody else can tell from a host.
            SocketAddr::V4(to) if !to.ip().is_multicast() && self.datagrams.is_group(origin.local.ip()) => {
                SocketAddr::from((Ipv4Addr::BROADCAST, to.port()))
            }
            other => other,
        };
        let stranger = Stranger {
            remote: &known,
            local,
            identity: identity.as_ref(),
        };
        let mut transmits = mem::take(&mut self.datagrams.transmits);
        let Some(port) = self.datagrams.port(listener) else {
            return;
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
            Verdict::Open(peer) => self.open_peer(listener, peer, known, origin, datagram),
        }
    }

    fn open_peer(
        &mut self,
        listener: u32,
        peer: Box<dyn Peer>,
        remote: Remote,
        origin: Origin,
        datagram: &[u8],
    ) {
        let Some(permit) = self.admit(listener) else {
            self.refuse_peer(listener, &remote, origin, datagram);
            return self.drop_datagram(listener, "max_connections");
        };
        let id = self.insert_datagram_link(listener, Some(remote.clone()), peer);
        self.enter(id, listener, &remote);
        let mut association = None;
        if let Some(port) = self.datagrams.port(listener) {
            port.tally.opened.add(1);
            if let Some(secured) = &mut port.secured {
                secured.add_peer(&remote);
                association = secured.id_of(remote.address);
            }
        }
        if let Some(link) = self.links.get_mut(id) {
            link.permit = Some(permit);
            if let Io::Datagram(route) = &mut link.io {
                route.association = association;
            }
        }
        self.offer_datagram(id, origin.local, datagram);
        if let Some(link) = self.links.get_mut(id)
            && let Io::Datagram(route) = &mut link.io
        {
            route.has_gone_on = false;
        }
        self.enter_newcomer(listener, &remote, id);
    }

    /// There are as many peers as there may be, and none of them gives way.
    fn refuse_peer(&mut self, listener: u32, remote: &Remote, origin: Origin, datagram: &[u8]) {
        let mut transmits = mem::take(&mut self.datagrams.transmits);
        if let Some(port) = self.datagrams.port(listener) {
            port.endpoint
                .handle_no_room(self.now, remote, datagram, &mut transmits);
            port.alarm = port.endpoint.poll_timeout().unwrap_or(Timestamp::NEVER);
            self.transmit(listener, Some(origin), &mut transmits);
        }
        self.datagrams.transmits = transmits;
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
                has_gone_on: false,
                association: None,
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
        if self.ending.is_some() {
            // One that had been forwarded. A new peer would keep the worker from ending.
            return self.drop_datagram(listener, "server_shutting_down");
        }
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
                    let is_last = port.table.remove_here(RemoteRef::of(remote), id);
                    port.tally.closed.add(1);
                    if let Some(secured) = port.secured.as_mut().filter(|_| is_last) {
                        secured.remove_peer(remote);
                    }
                }
                None if port.common == Some(id) => port.common = None,
                None => {}
            }
        }
        self.tell_front_of_end(route);
    }
}
