//! PUBACK, PUBREC, PUBREL, PUBCOMP (§4.3).

use crate::{
    Event, LinkId, Message, PacketId, ReasonCode, Timestamp,
    session::{Acked, SessionKey},
};

use super::Shard;

impl Shard {
    pub(super) fn puback(&mut self, now: Timestamp, key: SessionKey, packet_id: PacketId) {
        match self.session_mut(key).outgoing.puback(packet_id) {
            Acked::Complete(message) => self.acked(now, key, &message),
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
                self.acked(now, key, &message);
                self.pump(now, key);
            }
            Acked::Release(message) => {
                self.acked(now, key, &message);
                self.emit(link, Event::PubRel(packet_id, ReasonCode::Success));
            }
            Acked::ReleaseAgain => self.emit(link, Event::PubRel(packet_id, ReasonCode::Success)),
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

    pub(super) fn pubcomp(&mut self, now: Timestamp, key: SessionKey, packet_id: PacketId) {
        match self.session_mut(key).outgoing.pubcomp(packet_id) {
            Acked::Finished => {}
            _ => self.metrics.packets_unexpected_ack.inc(),
        }
        self.pump(now, key);
    }

    pub(super) fn pubrel(&mut self, link: LinkId, key: SessionKey, packet_id: PacketId) {
        let awaiting = &mut self.session_mut(key).awaiting_rel;
        let reason = match awaiting.iter().position(|awaited| *awaited == packet_id) {
            Some(at) => {
                awaiting.remove(at);
                if awaiting.is_empty() {
                    *awaiting = Vec::new();
                }
                ReasonCode::Success
            }
            None => {
                self.metrics.packets_unexpected_ack.inc();
                ReasonCode::PacketIdentifierNotFound
            }
        };
        self.emit(link, Event::PubComp(packet_id, reason));
    }

    /// The peer could not put a delivery on the wire.
    pub(super) fn undeliverable(&mut self, now: Timestamp, key: SessionKey, packet_id: Option<PacketId>) {
        self.metrics.delivery_dropped.inc();
        self.metrics.delivery_dropped_too_large.inc();
        if let Some(packet_id) = packet_id {
            self.session_mut(key).outgoing.cancel(packet_id);
            self.pump(now, key);
        }
    }

    fn acked(&mut self, now: Timestamp, key: SessionKey, message: &Message) {
        self.metrics.messages_acked.inc();
        self.acked_point(now, key, message);
    }
}
