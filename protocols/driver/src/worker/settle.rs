//! The end of a turn, for each link that had something to do.

use std::task::Poll;

use broker_core::{Close, LinkId, Timestamp};

use super::{
    Worker,
    link::{Failure, Io, State},
    wake::Source,
};

impl Worker {
    /// Settles all links that were touched so far. Settling may touch others.
    pub(super) fn settle_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        self.unflushed = 0;
        for &id in &touched {
            if let Some(link) = self.links.get_mut(id) {
                link.touched = false;
                self.settle(id);
            }
        }
        if self.touched.is_empty() {
            // Keeps the memory of the longer list for the next turn.
            touched.clear();
            self.touched = touched;
        }
    }

    fn settle(&mut self, id: LinkId) {
        let is_written = self.write(id);
        let outbox_max = self.config.outbox_bytes_max;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        // Of datagrams the oldest are dropped instead.
        let is_full = link.outbox.len() > outbox_max && link.route().is_none();
        if is_full && link.failure.is_none() {
            link.failure = Some(Failure::OutboxFull);
        }
        if let Some(failure) = link.failure.take() {
            return self.fail(id, failure);
        }
        match link.state {
            State::Open if link.moving.is_some() => return self.depart(id),
            State::Open => {
                if link.congested && link.outbox.len() <= self.config.low_water_bytes {
                    link.congested = false;
                    self.shard.handle_congestion(self.now, id, false);
                    self.drain_shard();
                }
                self.resume_reading(id);
            }
            State::Closing { linger } if is_written => self.shut(id, linger),
            State::Closing { .. } | State::Lingering => {}
        }
        self.set_alarm(id);
    }

    fn resume_reading(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if (link.reoffer || link.read_paused) && link.takes_input(self.config.high_water_bytes) {
            link.read_paused = false;
            self.ready.push(Source::Link(id));
        }
        if !link.held && std::mem::take(&mut link.nudged) {
            self.nudge(id);
        }
    }

    /// All is written: ends the sending side, and the connection with it unless it has to linger.
    fn shut(&mut self, id: LinkId, linger: bool) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        match link.poll_shutdown() {
            Poll::Pending => {
                link.write_blocked = true;
                if link.deadline == Timestamp::NEVER {
                    link.deadline = self.now.after(self.config.send_timeout);
                }
            }
            Poll::Ready(Ok(())) if linger && link.wake.is_some() && self.ending.is_none() => {
                link.state = State::Lingering;
                link.deadline = self.now.after(self.config.linger);
                self.ready.push(Source::Link(id));
            }
            Poll::Ready(_) => self.remove(id),
        }
    }

    /// The transport is of no use any more.
    fn fail(&mut self, id: LinkId, failure: Failure) {
        let (reason, detail) = match failure {
            Failure::Io(error) => ("transport_error", error.to_string()),
            Failure::SendTimeout => (
                "send_timeout",
                format!("nothing taken for {} s", self.config.send_timeout.as_secs()),
            ),
            Failure::OutboxFull => (
                "outbox_full",
                format!("more than {} bytes waiting", self.config.outbox_bytes_max),
            ),
        };
        self.end_link(id, &Close { reason, detail }, false, |counters| match reason {
            "send_timeout" => &counters.closed_send_timeout,
            "outbox_full" => &counters.closed_outbox_full,
            _ => &counters.closed_transport_error,
        });
        self.remove(id);
    }

    /// Forgets the link and closes its socket.
    pub(super) fn remove(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(id) else {
            return;
        };
        self.counters.connections_closed.add(1);
        if let Io::Datagram(route) = link.io {
            self.datagram_link_removed(id, *route);
        }
    }
}
