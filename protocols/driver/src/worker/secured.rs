//! Datagram sockets that speak DTLS.
//!
//! An association stays on the worker that the kernel gives its datagrams to, whoever speaks over it: that is the front of
//! its peers (see [`parcels`](super::parcels)). What it says goes the way of plain datagrams. What a peer on another
//! worker has to say goes back to the front in a parcel, and is sealed there.
//!
//! # The end of an association
//!
//! Its peers end with it, wherever they are, for whoever comes next from the same address may be another. The front
//! forgets them at once, and tells their workers. A peer that has gone on meanwhile is not found there; but news of its
//! move comes to the front, which does not know it any more and says so to the worker where it is now. On such listeners
//! a forwarded datagram is given to the very link that it was meant for, or comes back.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use aws_lc_rs::error::Unspecified;
use broker_core::{Close, Identity, LinkId, Remote, ShardId, Timestamp};

use super::{Worker, link::Io, ports::is_peer_of};
use crate::{
    Counter, Counters,
    datagram::{News, Origin, Place, RemoteRef, Track, is_blocked},
    dtls::{AssociationId, Associations, DtlsServer, Outcome},
};

/// The associations of one socket.
pub(super) struct Secured {
    pub(super) associations: Associations,
    sessions: HashMap<AssociationId, Session>,
    /// An address has at most one: [`Associations`] says that the former has ended before it says who is new.
    by_address: HashMap<SocketAddr, AssociationId>,
}

/// What is known of an association.
struct Session {
    from: SocketAddr,
    local: Option<IpAddr>,
    identity: Option<Identity>,
    /// Nodes behind the client that have peers.
    nodes: BTreeSet<Box<[u8]>>,
}

impl Secured {
    pub(super) fn new(server: Arc<DtlsServer>, max: usize) -> Result<Secured, Unspecified> {
        Ok(Secured {
            associations: Associations::new(server, max)?,
            sessions: HashMap::new(),
            by_address: HashMap::new(),
        })
    }

    /// The association of this address.
    pub(super) fn id_of(&self, address: SocketAddr) -> Option<AssociationId> {
        self.by_address.get(&address).copied()
    }

    /// Who is at this address.
    pub(super) fn identity_of(&self, address: SocketAddr) -> Option<Identity> {
        self.sessions.get(&self.id_of(address)?)?.identity.clone()
    }

    /// The remote has a peer now.
    pub(super) fn add_peer(&mut self, remote: &Remote) {
        if let Some(node) = &remote.node
            && let Some(session) = self.session_of(remote.address)
        {
            session.nodes.insert(node.clone());
        }
    }

    /// The remote has a peer no more.
    pub(super) fn remove_peer(&mut self, remote: &Remote) {
        if let Some(node) = &remote.node
            && let Some(session) = self.session_of(remote.address)
        {
            session.nodes.remove(node);
        }
    }

    /// When a handshake or an association is due.
    pub(super) fn alarm(&self) -> Timestamp {
        self.associations.poll_timeout().unwrap_or(Timestamp::NEVER)
    }

    fn session_of(&mut self, address: SocketAddr) -> Option<&mut Session> {
        let id = self.id_of(address)?;
        self.sessions.get_mut(&id)
    }

    fn opened(&mut self, id: AssociationId, session: Session) {
        self.by_address.insert(session.from, id);
        self.sessions.insert(id, session);
    }

    fn closed(&mut self, id: AssociationId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.by_address.remove(&session.from);
        Some(session)
    }
}

impl Worker {
    /// A datagram has come in at a secured socket.
    pub(super) fn receive_sealed(&mut self, listener: u32, origin: Origin, datagram: &[u8]) {
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        let is_stopped = port.core.is_stopped.load(Relaxed) || self.ending.is_some();
        let Some(secured) = &mut port.secured else {
            return;
        };
        if secured.id_of(origin.from).is_none() {
            // Before a handshake, which costs much.
            if is_stopped {
                return self.drop_datagram(listener, "listener_stopped");
            }
            if self.shard.is_banned(self.now, origin.from.ip()) {
                return self.drop_datagram(listener, "banned");
            }
        }
        let local = Some(origin.local.ip());
        let mut outcomes = mem::take(&mut self.datagrams.outcomes);
        if let Some(secured) = self.datagrams.secured(listener) {
            let associations = &mut secured.associations;
            associations.handle_datagram(self.now, origin.from, local, datagram, &mut outcomes);
        }
        self.act_on(listener, outcomes);
    }

    /// Timers of handshakes and associations.
    pub(super) fn fire_associations(&mut self, listener: u32) {
        let mut outcomes = mem::take(&mut self.datagrams.outcomes);
        let now = self.now;
        if let Some(secured) = self.datagrams.secured(listener) {
            secured.associations.handle_timeout(now, &mut outcomes);
        }
        self.act_on(listener, outcomes);
    }

    /// Says goodbye to all clients of the socket.
    pub(super) fn close_associations(&mut self, listener: u32) {
        let mut outcomes = mem::take(&mut self.datagrams.outcomes);
        if let Some(secured) = self.datagrams.secured(listener) {
            secured
                .associations
                .close_all("server_shutting_down", &mut outcomes);
        }
        self.act_on(listener, outcomes);
    }

    /// Seals a datagram, and sends it. It is dropped if the association has ended: who has come after it from the same
    /// address may be another.
    pub(super) fn seal(&mut self, listener: u32, association: AssociationId, datagram: &[u8]) {
        let now = self.now;
        let mut outcomes = mem::take(&mut self.datagrams.outcomes);
        if let Some(port) = self.datagrams.port(listener)
            && let Some(secured) = &mut port.secured
        {
            if secured.sessions.contains_key(&association) {
                port.tally.sent.add(1);
                port.tally.sent_bytes.add(datagram.len() as u64);
            }
            secured
                .associations
                .send(now, association, datagram, &mut outcomes);
        }
        self.act_on(listener, outcomes);
    }

    /// Takes what waits for a peer of a secured socket to its association.
    pub(super) fn write_sealed(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let mut waiting = mem::take(&mut link.outbox);
        let Io::Datagram(route) = &link.io else { return };
        let Some(association) = route.association else {
            return;
        };
        let (listener, front) = (route.listener, route.track.front);
        while let Some(datagram) = waiting.datagram() {
            if let Some(link) = self.links.get_mut(id) {
                link.sent += datagram.len() as u64;
            }
            if front == self.id {
                self.seal(listener, association, datagram);
            } else {
                self.forward(front, listener, News::Outgoing { association }, datagram);
            }
            waiting.pop_datagram();
        }
    }

    fn act_on(&mut self, listener: u32, mut outcomes: Vec<Outcome>) {
        for outcome in outcomes.drain(..) {
            match outcome {
                Outcome::Transmit { to, local, datagram } => {
                    self.transmit_sealed(listener, to, local, &datagram);
                }
                Outcome::Opened {
                    id,
                    from,
                    local,
                    identity,
                } => {
                    let session = Session {
                        from,
                        local,
                        identity,
                        nodes: BTreeSet::new(),
                    };
                    if let Some(secured) = self.datagrams.secured(listener) {
                        secured.opened(id, session);
                    }
                }
                Outcome::Data { id, plaintext } => self.receive_opened(listener, id, &plaintext),
                Outcome::Closed { id, reason } => {
                    let secured = self.datagrams.secured(listener);
                    if let Some(session) = secured.and_then(|secured| secured.closed(id)) {
                        self.association_ended(listener, session, reason);
                    }
                }
                Outcome::Dropped { reason } => self.drop_datagram(listener, reason),
            }
        }
        self.datagrams.outcomes = outcomes;
    }

    fn transmit_sealed(&mut self, listener: u32, to: SocketAddr, local: Option<IpAddr>, datagram: &[u8]) {
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        match port.io.send(to, local, datagram) {
            Ok(()) => {
                self.counters.datagrams_sent.add(1);
                self.counters.bytes_sent.add(datagram.len() as u64);
            }
            Err(error) if is_blocked(&error) => self.drop_datagram(listener, "send_full"),
            Err(_) => port.tally.errors.add(1),
        }
    }

    fn receive_opened(&mut self, listener: u32, id: AssociationId, plaintext: &[u8]) {
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        let bound = port.io.address();
        let sessions = port.secured.as_ref().map(|secured| &secured.sessions);
        if let Some(session) = sessions.and_then(|sessions| sessions.get(&id)) {
            let origin = Origin {
                from: session.from,
                local: SocketAddr::new(session.local.unwrap_or(bound.ip()), bound.port()),
            };
            self.receive_plain(listener, origin, plaintext);
        }
    }

    /// Ends all peers of an association that has ended.
    fn association_ended(&mut self, listener: u32, session: Session, reason: &'static str) {
        let address = session.from;
        let nodes = session.nodes.iter().map(|node| Some(&**node));
        for node in std::iter::once(None).chain(nodes) {
            let remote = RemoteRef { address, node };
            let links = &self.links;
            let Some(port) = self.datagrams.port(listener) else {
                return;
            };
            match port.table.get(remote, |id| is_peer_of(links, id, remote)) {
                Some(Place::Here(id)) => {
                    let id = *id;
                    port.table.remove_here(remote, id);
                    self.end_with_association(id, reason);
                }
                Some(Place::Away(away)) => {
                    let (to, track) = (away.to, away.track);
                    port.table.remove_away(remote, |_| true);
                    self.tell_association_ended(listener, remote.to_remote(), track, to, reason);
                }
                None => {}
            }
        }
    }

    /// Tells the worker that should have the peer.
    pub(super) fn tell_association_ended(
        &mut self,
        listener: u32,
        remote: Remote,
        track: Track,
        to: ShardId,
        reason: &'static str,
    ) {
        let news = News::AssociationEnded {
            remote,
            track,
            reason,
        };
        self.forward(to, listener, news, &[]);
    }

    /// The front says that the association of a peer has ended.
    pub(super) fn association_ended_elsewhere(
        &mut self,
        listener: u32,
        remote: &Remote,
        track: Track,
        reason: &'static str,
    ) {
        let key = RemoteRef::of(remote);
        let links = &self.links;
        let Some(port) = self.datagrams.port(listener) else {
            return;
        };
        if let Some(Place::Here(id)) = port.table.get(key, |id| is_peer_of(links, id, key)) {
            let id = *id;
            if self.is_on_track(id, track) {
                self.end_with_association(id, reason);
            }
        }
    }

    /// True if the link is the one that was opened under this id.
    pub(super) fn is_on_track(&self, id: LinkId, track: Track) -> bool {
        let route = self.links.get(id).and_then(super::Link::route);
        route.is_some_and(|route| route.track.born == track.born && route.track.front == track.front)
    }

    /// A link has come home. Its association may have ended meanwhile.
    pub(super) fn check_association(&mut self, id: LinkId) {
        let Some(route) = self.links.get(id).and_then(super::Link::route) else {
            return;
        };
        let (Some(remote), Some(association)) = (&route.remote, route.association) else {
            return;
        };
        let (listener, address) = (route.listener, remote.address);
        let is_home = route.track.front == self.id;
        let secured = self.datagrams.secured(listener);
        if is_home && secured.is_some_and(|secured| secured.id_of(address) != Some(association)) {
            self.end_with_association(id, "association_ended");
        }
    }

    fn end_with_association(&mut self, id: LinkId, reason: &'static str) {
        if let Some(link) = self.links.get_mut(id)
            && let Io::Datagram(route) = &mut link.io
        {
            // What the peer still says goes nowhere.
            route.association = None;
        }
        let close = Close {
            reason,
            detail: "the DTLS association has ended".to_owned(),
        };
        let counter: fn(&Counters) -> &Counter = match reason {
            "close_notify" | "alert_of_client" | "replaced" => |counters| &counters.closed_by_client,
            "server_shutting_down" => |counters| &counters.closed_by_server,
            _ => |counters| &counters.closed_transport_error,
        };
        self.end_link(id, &close, false, counter);
    }
}
