//! From peers and endpoints onto datagram sockets.
//!
//! One datagram is one system call. A peer's datagrams leave at the end of the turn, as bytes of streams do; those of
//! endpoints, which answer strangers, at once. A socket that is full is tried again when it is writable; what waits
//! meanwhile for one peer is bounded by its high-water mark, above which its oldest datagrams are dropped: those of its
//! client that are lost are sent again by the rules of its protocol, and the newest say most.

use broker_core::{Destination, LinkId, Transmit};

use super::{Worker, link::Io};
use crate::datagram::{Origin, is_blocked};

impl Worker {
    /// Sends what waits for the peer. True if nothing waits any more.
    pub(super) fn write_datagrams(&mut self, id: LinkId) -> bool {
        let high_water = self.config.high_water_bytes;
        let Some(link) = self.links.get_mut(id) else {
            return false;
        };
        let Io::Datagram(route) = &mut link.io else {
            return false;
        };
        let port = self.datagrams.port(route.listener);
        if port.as_ref().is_some_and(|port| port.secured.is_some()) {
            self.write_sealed(id);
            return true;
        }
        let (Some(port), Some(remote)) = (port, &route.remote) else {
            link.outbox.take();
            return true;
        };
        let mut shed = 0;
        while let Some(datagram) = link.outbox.datagram() {
            let len = datagram.len() as u64;
            match port.io.send(remote.address, route.local, datagram) {
                Ok(()) => {
                    link.sent += len;
                    port.tally.sent.add(1);
                    port.tally.sent_bytes.add(len);
                    self.counters.datagrams_sent.add(1);
                    self.counters.bytes_sent.add(len);
                }
                Err(error) if is_blocked(&error) => {
                    link.write_blocked = true;
                    port.blocked.push(id);
                    while link.outbox.len() > high_water {
                        link.outbox.pop_datagram();
                        shed += 1;
                    }
                    break;
                }
                // One of the many ways in which a datagram may be lost. It says nothing about others.
                Err(_) => port.tally.errors.add(1),
            }
            link.outbox.pop_datagram();
        }
        let (is_blocked, listener) = (link.write_blocked, route.listener);
        if is_blocked {
            port.wake_when_writable();
        }
        for _ in 0..shed {
            self.drop_datagram(listener, "send_full");
        }
        !is_blocked
    }

    /// Sends what an endpoint has to say: about a datagram, if `origin` is given.
    pub(super) fn transmit(&mut self, listener: u32, origin: Option<Origin>, transmits: &mut Vec<Transmit>) {
        for Transmit { to, datagram } in transmits.drain(..) {
            let is_group = origin.is_some_and(|origin| self.datagrams.is_group(origin.local.ip()));
            let Some(port) = self.datagrams.port(listener) else {
                return;
            };
            let sent = match to {
                Destination::Remote(remote) if let Some(secured) = &port.secured => {
                    match secured.id_of(remote.address) {
                        Some(association) => self.seal(listener, association, &datagram),
                        None => self.drop_datagram(listener, "no_association"),
                    }
                    continue;
                }
                Destination::Remote(remote) => {
                    let asked = origin.filter(|origin| !is_group && origin.from == remote.address);
                    let from = asked.map(|origin| origin.local.ip());
                    port.io.send(remote.address, from, &datagram)
                }
                Destination::Broadcast { radius } => match port.core.broadcast() {
                    Some(group) => port.io.broadcast(group, radius, &datagram),
                    None => {
                        self.drop_datagram(listener, "no_broadcast_address");
                        continue;
                    }
                },
            };
            match sent {
                Ok(()) => {
                    let len = datagram.len() as u64;
                    port.tally.sent.add(1);
                    port.tally.sent_bytes.add(len);
                    self.counters.datagrams_sent.add(1);
                    self.counters.bytes_sent.add(len);
                }
                Err(error) if is_blocked(&error) => {
                    self.drop_datagram(listener, "send_full");
                }
                Err(_) => port.tally.errors.add(1),
            }
        }
    }
}
