//! From sockets to peers.

use std::{ops::Range, task::Poll};

use broker_core::{Close, LinkId};

use super::{
    Worker,
    link::{Failure, Io, State},
    wake::Source,
};
use crate::{metrics::Counter, websocket::End};

/// Room before the bytes that are read, for the beginning of a packet that came in earlier: copying it there is
/// cheaper than giving the connection a buffer of its own.
pub(super) const GAP: usize = 4096;

/// A read buffer is never smaller: it must hold what may follow a WebSocket handshake at once.
pub(super) const READ_BYTES_MIN: usize = 16 << 10;

impl Worker {
    /// The link was woken.
    pub(super) fn poll_link(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if let Some((wake, _)) = &link.wake {
            wake.begin();
        }
        if std::mem::take(&mut link.write_blocked) {
            self.touch(id);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        self.offer_again(id, &mut buffer);
        self.hear_goodbye(id);
        self.read(id, &mut buffer);
        self.buffer = buffer;
    }

    /// Offers what the peer left while it was parked.
    fn offer_again(&mut self, id: LinkId, buffer: &mut [u8]) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if link.reoffer && link.takes_input(self.config.high_water_bytes) {
            link.reoffer = false;
            self.offer(id, buffer, GAP..GAP);
        }
    }

    /// Reads until nothing is left or one buffer's worth has been read; then other links have their turn.
    fn read(&mut self, id: LinkId, buffer: &mut [u8]) {
        let mut budget = buffer.len() - GAP;
        loop {
            let is_held_up = self.is_held_up;
            let Some(link) = self.links.get_mut(id) else {
                return;
            };
            if link.goodbye.is_some() {
                return;
            }
            let is_lingering = link.state == State::Lingering;
            if is_held_up && !is_lingering {
                if !std::mem::replace(&mut link.held_up, true) {
                    self.held_up.push(Source::Link(id));
                }
                return;
            }
            if !is_lingering && !link.takes_input(self.config.high_water_bytes) {
                link.read_paused = true;
                return;
            }
            link.read_paused = false;
            if budget == 0 {
                return self.ready.push(Source::Link(id));
            }
            match link.poll_read(&mut buffer[GAP..]) {
                Poll::Pending => return,
                Poll::Ready(Ok(count)) if count > 0 => {
                    budget = budget.saturating_sub(count);
                    link.received += count as u64;
                    self.counters.bytes_received.add(count as u64);
                    if !is_lingering {
                        self.receive(id, buffer, count);
                    }
                }
                Poll::Ready(_) if is_lingering => return self.remove(id),
                Poll::Ready(Ok(_)) => return self.client_closed(id),
                Poll::Ready(Err(error)) => {
                    link.failure = Some(Failure::Io(error));
                    return self.touch(id);
                }
            }
        }
    }

    /// `count` bytes have been read to `buffer[GAP..]`.
    pub(super) fn receive(&mut self, id: LinkId, buffer: &mut [u8], count: usize) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let Some(websocket) = &mut link.websocket else {
            return self.offer(id, buffer, GAP..GAP + count);
        };
        let (payload, end) = websocket.receive(&mut buffer[GAP..GAP + count]);
        if websocket.encoder.has_own_bytes() {
            self.touch(id);
        }
        if payload > 0 {
            self.offer(id, buffer, GAP..GAP + payload);
        }
        if let Some(end) = end
            && let Some(link) = self.links.get_mut(id)
        {
            link.goodbye = Some(Box::new(end));
            self.hear_goodbye(id);
        }
    }

    /// Ends a link whose WebSocket client has said goodbye, once the peer has looked at what came before.
    fn hear_goodbye(&mut self, id: LinkId) {
        let link = self.links.get_mut(id).filter(|link| !link.reoffer);
        if let Some(end) = link.and_then(|link| link.goodbye.take()) {
            self.websocket_ended(id, &end);
        }
    }

    /// Offers the peer what it left earlier and the new bytes in `buffer[new]`, which begins at [`GAP`].
    pub(super) fn offer(&mut self, id: LinkId, buffer: &mut [u8], new: Range<usize>) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let mut own = Vec::new();
        let mut start = new.start;
        if link.leftover.len() <= GAP {
            start -= link.leftover.len();
            buffer[start..new.start].copy_from_slice(&link.leftover);
            link.leftover = Vec::new();
        } else {
            own = std::mem::take(&mut link.leftover);
            own.extend_from_slice(&buffer[new.clone()]);
        }
        let input = if own.is_empty() {
            &buffer[start..new.end]
        } else {
            &own[..]
        };
        let used = self.feed(id, input);
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if link.state != State::Open || used == input.len() {
            return;
        }
        link.leftover = if own.is_empty() {
            input[used..].to_vec()
        } else {
            own.drain(..used);
            own
        };
    }

    /// Lets the peer use as much of `input` as it can. Returns how much that was.
    fn feed(&mut self, id: LinkId, input: &[u8]) -> usize {
        let now = self.now;
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            let step = self.call_peer(id, |peer, effects| {
                if peer.is_parked() {
                    return 0;
                }
                let step = peer.handle_input(now, rest, effects);
                debug_assert!(step <= rest.len(), "a peer cannot use more than it is offered");
                step.min(rest.len())
            });
            self.submit(id);
            used += step.unwrap_or(0);
            if step.is_none_or(|step| step == 0) || self.is_moving(id) || self.is_held(id) {
                break;
            }
        }
        if let Some(link) = self.links.get_mut(id) {
            // Bytes that a parked peer has not looked at may be whole packets; they are offered again later.
            let is_stopped = link.peer.is_parked() || link.moving.is_some() || link.held;
            link.reoffer = used < input.len() && is_stopped;
        }
        used
    }

    /// The client sends nothing more; it may still read.
    fn client_closed(&mut self, id: LinkId) {
        let close = Close {
            reason: "closed_by_client",
            detail: String::new(),
        };
        self.end_link(id, &close, false, |counters| &counters.closed_by_client);
    }

    fn websocket_ended(&mut self, id: LinkId, end: &End) {
        let (close, linger, counter): (_, _, fn(&crate::Counters) -> &Counter) = match end.violation {
            Some(what) => {
                let close = Close {
                    reason: "websocket_violation",
                    detail: what.to_owned(),
                };
                (close, true, |counters| &counters.closed_websocket_violation)
            }
            None => {
                let close = Close {
                    reason: "closed_by_client",
                    detail: format!("WebSocket code {}", end.code),
                };
                (close, false, |counters| &counters.closed_by_client)
            }
        };
        self.end_link(id, &close, linger, counter);
    }

    /// Bytes for the peer of an attached link. False if the link is gone.
    pub(super) fn inject(&mut self, id: LinkId, mut bytes: &[u8]) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(buffer.len() - GAP));
            buffer[GAP..GAP + now.len()].copy_from_slice(now);
            self.receive(id, &mut buffer, now.len());
            bytes = later;
        }
        self.buffer = buffer;
        self.links
            .get(id)
            .is_some_and(|link| matches!(link.io, Io::Internal(_)))
    }
}
