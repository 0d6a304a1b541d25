//! Between peers and the shard, and onto the sockets.

use broker_core::{Close, Effects, Event, LinkId, Peer, Request, Timestamp, shard::Output};

use super::{
    Worker,
    link::{Failure, Io, Link, State, Written},
};
use crate::websocket::close_code;

impl Worker {
    /// The link is settled at the end of the turn.
    pub(super) fn touch(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id)
            && !link.touched
        {
            link.touched = true;
            self.touched.push(id);
        }
    }

    /// Calls the peer of an open link; `None` if there is none. What it asks of the shard is in `self.requests` then.
    pub(super) fn call_peer<R>(
        &mut self,
        id: LinkId,
        call: impl FnOnce(&mut dyn Peer, &mut Effects<'_>) -> R,
    ) -> Option<R> {
        let link = self.links.get_mut(id).filter(|link| link.state == State::Open)?;
        let before = link.outbox.len();
        let mut close = None;
        let result = call(
            &mut *link.peer,
            &mut Effects {
                wire: &mut link.outbox,
                requests: &mut self.requests,
                close: &mut close,
            },
        );
        self.unflushed += link.outbox.len() - before;
        if !link.touched {
            link.touched = true;
            self.touched.push(id);
        }
        if let Some(close) = close {
            self.counters.closed_by_peer.add(1);
            self.counters.count_end(close.reason);
            link.log_end(id, &close, self.now);
            // Nothing unread can destroy bytes if there are none.
            let linger = !link.outbox.is_empty() || link.websocket.is_some();
            link.begin_close(linger, close_code(close.reason));
        }
        Some(result)
    }

    /// Passes the peer's requests to the shard, in order, and its events to the peers.
    pub(super) fn submit(&mut self, id: LinkId) {
        if self.requests.is_empty() {
            return;
        }
        let mut requests = std::mem::replace(&mut self.requests, std::mem::take(&mut self.spare_requests));
        let mut rest = requests.drain(..);
        while let Some(request) = rest.next() {
            let Some(request) = self.ask_shard(id, request) else {
                self.drain_shard();
                continue;
            };
            self.postpone(id, std::iter::once(request).chain(rest.by_ref()));
        }
        drop(rest);
        self.spare_requests = requests;
    }

    /// Passes a request to the shard, unless it has to go elsewhere with its link: then it comes back.
    fn ask_shard(&mut self, id: LinkId, request: Request) -> Option<Request> {
        if self.links.get(id).is_some_and(|link| link.moving.is_some()) {
            return Some(request);
        }
        if let Request::Connect(_) = request {
            if let Some(to) = self.destination(id, &request) {
                self.prepare_move(id, to);
                return Some(request);
            }
            if let Some(link) = self.links.get_mut(id) {
                // Of the connection that begins, the shard was not told.
                link.congested = false;
            }
        }
        self.shard.handle(self.now, id, request);
        None
    }

    /// Does what the shard wants done, until it wants nothing more.
    pub(super) fn drain_shard(&mut self) {
        while let Some(output) = self.shard.poll_output() {
            match output {
                Output::Deliver(id, event) => self.deliver(id, event),
                Output::Ask(ticket, question) => (self.ask)(self.id, ticket, question),
                Output::Hold(id) => self.hold(id),
                Output::Release(id) => self.release(id),
            }
            if self.unflushed > self.config.flush_bytes {
                self.flush();
            }
        }
    }

    fn deliver(&mut self, id: LinkId, event: Event) {
        let now = self.now;
        self.call_peer(id, |peer, effects| peer.handle_event(now, event, effects));
        if !self.requests.is_empty() {
            self.submit_later(id);
        }
        let high_water = self.config.high_water_bytes;
        if let Some(link) = self.links.get_mut(id)
            && link.outbox.len() > high_water
            && !link.congested
            && link.state == State::Open
        {
            link.congested = true;
            self.counters.congestion_events.add(1);
            self.shard.handle_congestion(now, id, true);
        }
    }

    /// Like [`Worker::submit`], within [`Worker::drain_shard`]: what the shard has to say to it comes in its turn.
    fn submit_later(&mut self, id: LinkId) {
        let mut requests = std::mem::take(&mut self.requests);
        let mut rest = requests.drain(..);
        while let Some(request) = rest.next() {
            if let Some(request) = self.ask_shard(id, request) {
                self.postpone(id, std::iter::once(request).chain(rest.by_ref()));
            }
        }
        drop(rest);
        self.requests = requests;
    }

    /// Writes the sockets in the middle of a turn that produces much. Nothing else about the links changes, since
    /// requests of theirs may still be under way.
    fn flush(&mut self) {
        self.send_batches();
        let touched = std::mem::take(&mut self.touched);
        for &id in &touched {
            self.write(id);
        }
        self.touched = touched;
        self.unflushed = 0;
    }

    /// Writes what waits for the link. True if nothing waits any more.
    pub(super) fn write(&mut self, id: LinkId) -> bool {
        let Some(link) = self.links.get_mut(id) else {
            return false;
        };
        if link.write_blocked || link.failure.is_some() || link.state == State::Lingering {
            return false;
        }
        if let Io::Datagram(_) = link.io {
            return self.write_datagrams(id);
        }
        let before = link.sent;
        let written = link.write();
        self.counters.bytes_sent.add(link.sent - before);
        match written {
            Written::All => {
                link.deadline = Timestamp::NEVER;
                return true;
            }
            Written::Blocked(progress) => {
                link.write_blocked = true;
                if progress || link.deadline == Timestamp::NEVER {
                    link.deadline = self.now.after(self.config.send_timeout);
                }
            }
            Written::Failed(error) => link.failure = Some(Failure::Io(error)),
        }
        false
    }

    /// Ends an open link in place of its peer: the peer is told that its transport is gone, what waits is still
    /// written, and with `linger` the socket is not closed before the client has read it.
    pub(super) fn end_link(
        &mut self,
        id: LinkId,
        close: &Close,
        linger: bool,
        counter: impl FnOnce(&crate::Counters) -> &crate::Counter,
    ) {
        let now = self.now;
        self.end(id, close, linger, counter, |link| link.log_end(id, close, now));
    }

    /// Like [`Worker::end_link`], without a line in the log.
    pub(super) fn end_link_quietly(
        &mut self,
        id: LinkId,
        close: &Close,
        counter: impl FnOnce(&crate::Counters) -> &crate::Counter,
    ) {
        self.end(id, close, false, counter, |_| ());
    }

    fn end(
        &mut self,
        id: LinkId,
        close: &Close,
        linger: bool,
        counter: impl FnOnce(&crate::Counters) -> &crate::Counter,
        log: impl FnOnce(&Link),
    ) {
        let now = self.now;
        if self
            .call_peer(id, |peer, effects| peer.handle_closed(now, effects))
            .is_none()
        {
            return;
        }
        if let Some(link) = self.links.get_mut(id)
            && link.state == State::Open
        {
            counter(&self.counters).add(1);
            self.counters.count_end(close.reason);
            log(link);
            link.begin_close(linger, close_code(close.reason));
        }
        self.submit(id);
    }
}
