//! PUBACK, PUBREC, PUBREL, PUBCOMP (§4.3).

use crate::{
    Event, LinkId, Message, PacketId, ReasonCode, Timestamp,
    session::{Acked, SessionKey},
    store::format::Name,
};

use super::{Shard, commit::Held};

impl Shard {
    pub(super) fn puback(&mut self, now: Timestamp, key: SessionKey, packet_id: PacketId) {
        match self.session_mut(key).outgoing.puback(packet_id) {
            Acked::Complete(message) => self.acked(now, key, message.as_ref()),
            _ => self.metrics.packets_unexpected_ack.inc(),
        }
        self.pump(now, key);
    }

    pub(super) fn pubrec(
        &mut self,
        now: Timestamp,
        link: LinkId,
        key: SessionKey,
        packet_id: PacketId,
        reason: ReasonCode,
    ) {
        match self
            .session_mut(key)
            .outgoing
            .pubrec(packet_id, reason.is_error())
        {
            // The client refused it: it is delivered all the same, and to nobody else [MQTT-4.8.2-6].
            Acked::Complete(message) => {
                self.acked(now, key, message.as_ref());
                self.pump(now, key);
            }
            Acked::Release(message) => {
                self.acked(now, key, message.as_ref());
                self.release(link, key, packet_id);
            }
            // If the first one waits for the store, so does this one.
            Acked::ReleaseAgain => self.hold_event(link, Event::PubRel(packet_id, ReasonCode::Success)),
            Acked::Finished | Acked::Unknown => {
                self.metrics.packets_unexpected_ack.inc();
                if !reason.is_error() {
                    self.emit(
                        link,
                        Event::PubRel(packet_id, ReasonCode::PacketIdentifierNotFound),
                    );
                }
            }
        }
    }

    /// PUBREL goes out once the store knows that it may.
    fn release(&mut self, link: LinkId, key: SessionKey, packet_id: PacketId) {
        let event = Event::PubRel(packet_id, ReasonCode::Success);
        let session = self.session_mut(key);
        let Some(token) = session.stored.as_ref().map(|stored| stored.token) else {
            return self.emit(link, event);
        };
        if let Some(entry) = session.outgoing.store(packet_id) {
            self.put(Name::Outgoing(token, packet_id), entry.encode());
        }
        self.pause_if_full(link);
        self.hold_event(link, event);
    }

    pub(super) fn pubcomp(&mut self, now: Timestamp, key: SessionKey, packet_id: PacketId) {
        match self.session_mut(key).outgoing.pubcomp(packet_id) {
            Acked::Finished => self.mark_dirty(now, key),
            _ => self.metrics.packets_unexpected_ack.inc(),
        }
        self.pump(now, key);
    }

    pub(super) fn pubrel(&mut self, link: LinkId, key: SessionKey, packet_id: PacketId) {
        let token = self.token(key);
        let session = self.session_mut(key);
        let client_id = session.client.client_id.clone();
        let awaiting = &mut session.awaiting_rel;
        match awaiting.iter().position(|awaited| *awaited == packet_id) {
            Some(at) => {
                awaiting.remove(at);
                if awaiting.is_empty() {
                    *awaiting = Vec::new();
                }
                let event = Event::PubComp(packet_id, ReasonCode::Success);
                if let Some(token) = token {
                    self.delete(Name::Received(token, packet_id));
                    self.pause_if_full(link);
                    self.hold(Held::Released(client_id, packet_id));
                    self.hold_event(link, event);
                } else {
                    self.acknowledge(link, event);
                }
            }
            None => {
                self.metrics.packets_unexpected_ack.inc();
                let event = Event::PubComp(packet_id, ReasonCode::PacketIdentifierNotFound);
                self.acknowledge(link, event);
            }
        }
    }

    /// The peer could not put a delivery on the wire.
    pub(super) fn undeliverable(&mut self, now: Timestamp, key: SessionKey, packet_id: Option<PacketId>) {
        self.metrics.delivery_dropped.inc();
        self.metrics.delivery_dropped_too_large.inc();
        if let Some(packet_id) = packet_id {
            self.session_mut(key).outgoing.cancel(packet_id);
            self.settle_shared(key);
            self.mark_dirty(now, key);
            self.pump(now, key);
        }
    }

    fn acked(&mut self, now: Timestamp, key: SessionKey, message: Option<&Message>) {
        self.metrics.messages_acked.inc();
        self.settle_shared(key);
        self.mark_dirty(now, key);
        if let Some(message) = message {
            self.acked_point(now, key, message);
        }
    }
}
