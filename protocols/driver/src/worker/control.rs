//! What calls of the control plane and listeners do to a worker.

use std::{sync::Arc, time::Duration};

use broker_core::{Close, Effects, LinkId, Peer, ShardId, Timestamp, shard::Shard};
use bytes::Bytes;

use super::{
    Worker,
    input::GAP,
    link::{Io, Link, State},
};
use crate::{
    Counters,
    listener::{Arrival, Established},
    websocket::WebSocket,
};

impl Worker {
    /// The shard that this worker runs.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The time of this turn.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The shard. What it has to say is delivered after the call.
    pub fn shard(&mut self) -> &mut Shard {
        &mut self.shard
    }

    /// This worker's counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Every link, with the name of its listener; `None` for attached ones.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, Option<&str>)> {
        self.links.iter().map(|(id, link)| {
            let listener = link.permit.as_ref().map(|permit| permit.listener_name());
            (id, listener)
        })
    }

    /// Adds a peer without a socket: a client inside this process. The bytes that it sends go to `sink` once per turn,
    /// or nowhere. Its first chance to act is [`Worker::with_peer`] or [`Worker::input`].
    ///
    /// Unlike a socket it is not moved to the shard of its client: attach it where
    /// [`shard_of`](broker_core::shard::shard_of) says that its client id belongs, or with an empty client id.
    pub fn attach(&mut self, peer: Box<dyn Peer>, sink: Option<Box<dyn FnMut(Bytes) + Send>>) -> LinkId {
        self.counters.connections_opened.add(1);
        let ready = &self.ready;
        let id = self
            .links
            .insert(|id| Link::new(id, peer, Io::Internal(sink), ready));
        self.touch(id);
        id
    }

    /// Offers `bytes` to the peer of an [attached](Worker::attach) link, as a socket would. False if there is no such
    /// link (any more).
    pub fn input(&mut self, link: LinkId, bytes: &[u8]) -> bool {
        let is_attached = |worker: &Worker| {
            worker
                .links
                .get(link)
                .is_some_and(|link| matches!(link.io, Io::Internal(_)))
        };
        is_attached(self) && self.inject(link, bytes)
    }

    /// Calls the peer of a link and acts on the effects. `None` if the link is gone or is being closed.
    pub fn with_peer<R>(
        &mut self,
        link: LinkId,
        call: impl FnOnce(&mut dyn Peer, Timestamp, &mut Effects<'_>) -> R,
    ) -> Option<R> {
        let now = self.now;
        let result = self.call_peer(link, |peer, effects| call(peer, now, effects));
        self.submit(link);
        result
    }

    /// Lets an attached peer look after what its owner has left for it: it is offered no bytes.
    pub(super) fn nudge(&mut self, link: LinkId) {
        if let Some(held) = self.links.get_mut(link).filter(|link| link.held) {
            held.nudged = true;
            return;
        }
        self.with_peer(link, |peer, now, effects| peer.handle_input(now, &[], effects));
    }

    /// Ends a link: its peer is told that the transport is gone, what waits is still written. False if it is gone or
    /// being closed already.
    pub fn close(&mut self, link: LinkId, close: &Close) -> bool {
        let is_open = self.links.get(link).is_some_and(|link| link.state == State::Open);
        self.end_link(link, close, true, |counters| &counters.closed_by_server);
        is_open
    }

    /// Shutdown: every link ends once what waits for it is written.
    pub(super) fn begin_end(&mut self, within: Duration) {
        self.ending = Some(self.now.after(within));
        let links: Vec<LinkId> = self.links.iter().map(|(id, _)| id).collect();
        let close = Close {
            reason: "server_shutting_down",
            detail: String::new(),
        };
        for id in links {
            if self
                .links
                .get(id)
                .is_some_and(|link| link.state == State::Lingering)
            {
                self.remove(id);
            } else {
                self.end_link(id, &close, false, |counters| &counters.closed_by_server);
            }
        }
    }

    /// A listener has news.
    pub(super) fn arrive(&mut self, arrival: Arrival) {
        if self.ending.is_some() {
            if let Arrival::Moved(link, _) = arrival {
                self.counters.connections_closed.add(1);
                if let Some(route) = link.route() {
                    self.tell_front_of_end(route.clone());
                }
            }
            return;
        }
        match arrival {
            Arrival::Listener(task) => task.start(),
            Arrival::Socket(socket) => match socket.begin(&self.mailbox, &self.counters) {
                Ok(Some(established)) => self.establish(*established),
                Ok(None) => {}
                Err(error) => {
                    self.counters.accept_errors.add(1);
                    tracing::warn!(%error, "a socket cannot be used");
                }
            },
            Arrival::Established(established) => self.establish(*established),
            Arrival::Moved(link, requests) => self.take_in(link, requests),
        }
    }

    /// A connection whose handshakes are done becomes a link.
    fn establish(&mut self, established: Established) {
        let Established {
            io,
            permit,
            meta,
            factory,
            message_bytes_max,
            early,
        } = established;
        let address = meta.peer;
        let peer = factory(meta);
        let ready = &self.ready;
        let id = self.links.insert(|id| {
            let mut link = Link::new(id, peer, io, ready);
            link.websocket = message_bytes_max.map(|max| Box::new(WebSocket::new(max)));
            link.permit = Some(permit);
            link.address = Some(address);
            link.received = early.len() as u64;
            link
        });
        self.counters.connections_opened.add(1);
        self.touch(id);
        if !early.is_empty() {
            self.counters.bytes_received.add(early.len() as u64);
            let mut buffer = std::mem::take(&mut self.buffer);
            // The handshake keeps at most 8 KiB, the buffer is never smaller than 16.
            buffer[GAP..GAP + early.len()].copy_from_slice(&early);
            self.receive(id, &mut buffer, early.len());
            self.buffer = buffer;
        }
        self.poll_link(id);
    }
}
