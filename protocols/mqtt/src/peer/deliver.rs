//! Events of the broker, as packets.

use broker_core::{Closing, Delivery, Effects, Event, PacketId, Request, Timestamp};

use super::{Connection, Peer, State, alias::Alias, word};
use crate::codec::{
    Ack, Hop, OutgoingPublish, Packet, PacketType, ProtocolVersion, ReasonCodes, SubAck, UnsubAck,
    closest_reason,
};

impl Peer {
    pub(super) fn handle_broker_event(&mut self, now: Timestamp, event: Event, effects: &mut Effects<'_>) {
        match event {
            Event::Connected(connected) => return self.handle_connected(now, &connected, effects),
            Event::Refused(closing) => return self.handle_refused(&closing, effects),
            Event::Auth(auth) => return self.handle_auth_event(now, &auth, effects),
            Event::Close(closing) => return self.handle_close(&closing, effects),
            _ => {}
        }
        let State::Connected(connection) = &mut self.state else {
            return;
        };
        match event {
            Event::Deliver(delivery) => connection.deliver(now, &delivery, effects),
            Event::PubAck(id, reason) => {
                let reason = closest_reason(PacketType::PubAck, reason);
                connection.put(effects, &Packet::PubAck(Ack::new(id, reason)));
            }
            Event::PubRec(id, reason) => {
                let reason = closest_reason(PacketType::PubRec, reason);
                connection.put(effects, &Packet::PubRec(Ack::new(id, reason)));
            }
            Event::PubRel(id, reason) => connection.put(effects, &Packet::PubRel(Ack::new(id, reason))),
            Event::PubComp(id, reason) => connection.put(effects, &Packet::PubComp(Ack::new(id, reason))),
            Event::SubAck(id, mut codes) => {
                connection.answered(now, id);
                for code in &mut codes {
                    *code = closest_reason(PacketType::SubAck, *code);
                }
                connection.put(
                    effects,
                    &Packet::SubAck(SubAck::new(id, ReasonCodes::new(&codes))),
                );
            }
            Event::UnsubAck(id, codes) => {
                connection.answered(now, id);
                connection.put(
                    effects,
                    &Packet::UnsubAck(UnsubAck::new(id, ReasonCodes::new(&codes))),
                );
            }
            Event::Connected(_) | Event::Refused(_) | Event::Auth(_) | Event::Close(_) => {}
            // MQTT asks for neither.
            Event::Noted(..) | Event::Asleep | Event::WillSet(_) | Event::Drained => {}
        }
    }

    /// The broker ends the connection and has forgotten it.
    fn handle_close(&mut self, closing: &Closing, effects: &mut Effects<'_>) {
        self.put_disconnect(closing, effects);
        let detail = closing
            .text
            .clone()
            .unwrap_or_else(|| closing.reason.text().to_owned());
        self.close(word(closing.reason), detail, effects);
    }
}

impl Connection {
    /// The peer is no longer parked; the silence of the meantime was ours.
    fn answered(&mut self, now: Timestamp, packet_id: PacketId) {
        if self.awaited == Some(packet_id) {
            self.awaited = None;
            self.last_packet = now;
        }
    }

    fn deliver(&mut self, now: Timestamp, delivery: &Delivery, effects: &mut Effects<'_>) {
        let topic = delivery.message.topic_bytes();
        // The filter `#` under the mountpoint `m/` is `m/#`, which also matches `m` and `m/`: topics outside the
        // mountpoint, or without a name inside it [MQTT-4.7.3-1].
        let topic = match topic.strip_prefix(self.client.mountpoint.as_bytes()) {
            Some(topic) if !topic.is_empty() => topic,
            _ => return effects.requests.push(Request::Undeliverable(delivery.packet_id)),
        };
        let is_v5 = self.version == ProtocolVersion::V5;
        let expiry_interval = if is_v5 {
            delivery.message.remaining_expiry_secs(now)
        } else {
            None
        };
        let max_packet_size = self.max_packet_size as usize;
        let mut write = |topic, topic_alias| {
            let hop = Hop {
                topic,
                topic_alias,
                expiry_interval,
            };
            let outgoing = OutgoingPublish::new(self.version, delivery, hop);
            let fitting = outgoing.filter(|outgoing| outgoing.encoded_len() <= max_packet_size);
            fitting.map(|outgoing| outgoing.write(effects.wire)).is_some()
        };
        let alias = if is_v5 {
            self.outgoing_aliases.find(topic)
        } else {
            Alias::None
        };
        let is_written = match alias {
            Alias::Known(alias) => write(&[], Some(alias)),
            Alias::New(alias) if write(topic, Some(alias)) => {
                self.outgoing_aliases.learn(topic, alias);
                true
            }
            // A new alias takes three bytes that there may be no room for.
            Alias::New(_) | Alias::None => write(topic, None),
        };
        if !is_written {
            // [MQTT-3.1.2-24]: not sent; [MQTT-3.1.2-25]: as if it had been.
            effects.requests.push(Request::Undeliverable(delivery.packet_id));
        }
    }
}
