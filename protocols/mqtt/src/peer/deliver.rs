//! Events of the broker, as packets.

use broker_core::{Closing, Delivery, Effects, Event, PacketId, Request, Timestamp};

use super::{Connection, Peer, State, alias::Alias, word};
use crate::codec::{Ack, Hop, OutgoingPublish, Packet, ProtocolVersion, ReasonCodes, SubAck, UnsubAck};

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
            Event::PubAck(id, reason) => connection.put(effects, &Packet::PubAck(Ack::new(id, reason))),
            Event::PubRec(id, reason) => connection.put(effects, &Packet::PubRec(Ack::new(id, reason))),
            Event::PubRel(id, reason) => connection.put(effects, &Packet::PubRel(Ack::new(id, reason))),
            Event::PubComp(id, reason) => connection.put(effects, &Packet::PubComp(Ack::new(id, reason))),
            Event::SubAck(id, codes) => {
                connection.answered(now, id);
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
            self.last_input = now;
        }
    }

    fn deliver(&mut self, now: Timestamp, delivery: &Delivery, effects: &mut Effects<'_>) {
        let topic = delivery.message.topic_bytes();
        let topic = topic
            .strip_prefix(self.client.mountpoint.as_bytes())
            .unwrap_or(topic);
        let is_v5 = self.version == ProtocolVersion::V5;
        let alias = if is_v5 {
            self.outgoing_aliases.find(topic)
        } else {
            Alias::None
        };
        let (written, topic_alias) = match alias {
            Alias::Known(alias) => (&[][..], Some(alias)),
            Alias::New(alias) => (topic, Some(alias)),
            Alias::None => (topic, None),
        };
        let expiry_interval = if is_v5 {
            delivery.message.remaining_expiry_secs(now)
        } else {
            None
        };
        let hop = Hop {
            topic: written,
            topic_alias,
            expiry_interval,
        };
        match OutgoingPublish::new(self.version, delivery, hop) {
            Some(outgoing) if outgoing.encoded_len() <= self.max_packet_size as usize => {
                outgoing.write(effects.wire)
            }
            // [MQTT-3.1.2-24]: not sent; [MQTT-3.1.2-25]: as if it had been.
            _ => return effects.requests.push(Request::Undeliverable(delivery.packet_id)),
        }
        if let Alias::New(alias) = alias {
            self.outgoing_aliases.learn(topic, alias);
        }
    }
}
