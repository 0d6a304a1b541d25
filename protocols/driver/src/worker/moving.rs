//! A connection goes to the worker of its client's shard.
//!
//! Which shard a client belongs to is known when its CONNECT has been read, so the socket may have been given to
//! another worker. The link then goes over as a whole, once, with the requests that its peer has made; the shard here
//! has never heard of it.

use std::mem;

use broker_core::{LinkId, Request, ShardId, Timestamp};

use super::{
    Command, Worker,
    link::{Failure, Io, Link, State},
};
use crate::listener::Arrival;

/// Where a link has to go, and what its peer wants of the shard there.
pub(super) struct Move {
    pub(super) to: ShardId,
    pub(super) requests: Vec<Request>,
}

impl Worker {
    /// Where the client that connects belongs, if not here. An attached link stays: its owner knows it by its id, and
    /// has attached it where it belongs.
    pub(super) fn destination(&self, id: LinkId, request: &Request) -> Option<ShardId> {
        let Request::Connect(connect) = request else {
            return None;
        };
        let to = self.shard.place(&connect.client_id);
        let is_attached = |link: &Link| matches!(link.io, Io::Internal(_));
        (to != self.id && !self.links.get(id).is_none_or(is_attached)).then_some(to)
    }

    /// The link goes there at the end of the turn; what its peer asks until then goes with it.
    pub(super) fn prepare_move(&mut self, id: LinkId, to: ShardId) {
        if let Some(link) = self.links.get_mut(id) {
            link.moving = Some(Box::new(Move {
                to,
                requests: Vec::new(),
            }));
        }
        self.touch(id);
    }

    /// Keeps requests of a link that goes elsewhere.
    pub(super) fn postpone(&mut self, id: LinkId, requests: impl Iterator<Item = Request>) {
        if let Some(moving) = self.links.get_mut(id).and_then(|link| link.moving.as_mut()) {
            moving.requests.extend(requests);
        }
    }

    /// Sends the link to its worker.
    pub(super) fn depart(&mut self, id: LinkId) {
        let Some(mut link) = self.links.remove(id) else {
            return;
        };
        let Some(moving) = link.moving.take() else { return };
        link.wake = None;
        let left = match &mut link.io {
            Io::Tcp(socket) => socket.leave(),
            Io::Tls(stream) => stream.get_mut().0.leave(),
            Io::Datagram(route) => {
                route.track.moves += 1;
                Ok(())
            }
            Io::Internal(_) => Ok(()),
        };
        let route = link.route().cloned();
        let arrival = Arrival::Moved(Box::new(link), moving.requests);
        let sent = match (left, self.everyone.get(usize::from(moving.to.0))) {
            (Ok(()), Some(worker)) => worker.mailbox().send(Command::Arrival(arrival)).is_ok(),
            _ => false,
        };
        if sent {
            self.counters.links_moved.add(1);
            if let Some(route) = route {
                self.datagram_link_left(id, &route, moving.to);
            }
        } else {
            if let Some(route) = route {
                self.datagram_link_removed(id, route);
            }
            // The link is gone, and no shard knew it.
            self.counters.connections_closed.add(1);
            self.counters.closed_overload.add(1);
            self.counters.count_end("worker_overloaded");
            tracing::info!(link = id.0, reason = "worker_overloaded", "disconnected");
        }
    }

    /// A link has come from another worker.
    pub(crate) fn take_in(&mut self, mut link: Box<Link>, requests: Vec<Request>) {
        let joined = match &mut link.io {
            Io::Tcp(socket) => socket.join(),
            Io::Tls(stream) => stream.get_mut().0.join(),
            Io::Datagram(_) | Io::Internal(_) => Ok(()),
        };
        if let Err(error) = joined {
            link.failure = Some(Failure::Io(error));
        }
        link.alarm = Timestamp::NEVER;
        link.touched = false;
        link.write_blocked = false;
        link.read_paused = false;
        link.held_up = false;
        // Only a shard that knows the link holds it, and then it stays; none is left behind all the same.
        link.held = false;
        link.reoffer = !link.leftover.is_empty();
        let ready = self.ready.clone();
        let id = self.links.insert(|id| {
            link.register(id, &ready);
            *link
        });
        self.touch(id);
        let route = self.links.get(id).and_then(Link::route);
        if let Some((listener, remote)) =
            route.and_then(|route| Some((route.listener, route.remote.clone()?)))
        {
            self.enter(id, listener, &remote);
            self.check_association(id);
        }
        let mut spare = mem::replace(&mut self.requests, requests);
        self.submit(id);
        spare.clear();
        self.spare_requests = spare;
        self.poll_link(id);
    }

    /// True if the link waits to go elsewhere.
    pub(super) fn is_moving(&self, id: LinkId) -> bool {
        self.links
            .get(id)
            .is_some_and(|link| link.moving.is_some() && link.state == State::Open)
    }
}
