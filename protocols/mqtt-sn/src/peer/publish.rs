//! PUBLISH of the client (§6.6), QoS 0 to 2.

use broker_core::{MessageParts, PacketId, Publish, QoS, ReasonCode, Request};

use super::{
    Io, late,
    state::{Asked, Connection},
};
use crate::{
    codec::{self, Message, MsgId, PublishQoS, ReturnCode, Topic, TopicId},
    config::Predefined,
    map,
    topics::FIRST,
};

/// Requests of one client that the broker has not answered. The specification lets it have one (§6.6); more are
/// refused with "congestion".
pub(super) const ASKED_MAX: usize = 8;

impl Connection {
    pub(super) fn handle_publish(&mut self, publish: &codec::Publish<'_>, io: &mut Io<'_, '_>) {
        let PublishQoS::Level(qos) = publish.qos else {
            return;
        };
        let refuse = |return_code, io: &mut Io<'_, '_>| {
            io.put(&Message::PubAck {
                topic_id: publish.topic.as_topic_id(),
                msg_id: publish.msg_id,
                return_code,
            });
        };
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => PacketId::new(publish.msg_id.0),
        };
        if packet_id.is_some() {
            if self.is_asked(publish.msg_id) {
                return io.settings.counters.received_duplicate.inc();
            }
            if qos == QoS::ExactlyOnce && self.is_late_copy(publish, io) {
                return io.settings.counters.received_duplicate.inc();
            }
            if self.asked.len() >= ASKED_MAX {
                io.settings.counters.received_congestion.inc();
                return refuse(ReturnCode::Congestion, io);
            }
        }
        let Some(topic) = self.topic_name(&publish.topic, &io.settings.predefined) else {
            io.settings.counters.received_invalid_topic_id.inc();
            return refuse(ReturnCode::InvalidTopicId, io);
        };
        let parts = MessageParts {
            qos,
            retain: publish.retain,
            ..MessageParts::new(topic, publish.data)
        };
        let Some(message) = parts.publish(io.now, &self.client) else {
            // With its mountpoint the topic is longer than 65 535 bytes.
            return refuse(ReturnCode::NotSupported, io);
        };
        io.request(Request::Publish(Publish {
            message,
            packet_id,
            dup: publish.dup,
        }));
        if packet_id.is_some() {
            self.asked.push(Asked::Publish {
                msg_id: publish.msg_id,
                topic_id: publish.topic.as_topic_id(),
            });
        }
        if qos == QoS::ExactlyOnce {
            let late = self.late.get_or_insert_default();
            late.receive(io.now, publish.msg_id, print(publish));
        }
    }

    /// What `topic` stands for. A client that asked for the id of a predefined topic was told the predefined one and
    /// may use it like any other.
    pub(super) fn topic_name<'a>(&'a self, topic: &'a Topic, predefined: &'a Predefined) -> Option<&'a str> {
        let client_id = self.client.client_id.as_str();
        match topic {
            Topic::Normal(id) if id.0 < FIRST => predefined.name(client_id, *id),
            Topic::Normal(id) => self.topics.as_ref()?.name(*id),
            Topic::Predefined(id) => predefined.name(client_id, *id),
            Topic::Short(octets) => std::str::from_utf8(octets).ok(),
        }
    }

    /// The message was completed; the network has kept this copy of it.
    fn is_late_copy(&self, publish: &codec::Publish<'_>, io: &Io<'_, '_>) -> bool {
        let late = self.late.as_ref();
        late.is_some_and(|late| late.has(io.now, print(publish)))
    }

    fn is_asked(&self, id: MsgId) -> bool {
        let is_it = |asked: &Asked| matches!(asked, Asked::Publish { msg_id, .. } if *msg_id == id);
        self.asked.iter().any(is_it)
    }

    /// Removes the first request that `is_it`.
    pub(super) fn take_asked(&mut self, is_it: impl FnMut(&Asked) -> bool) -> Option<Asked> {
        let at = self.asked.iter().position(is_it)?;
        Some(self.asked.remove(at))
    }

    fn take_publish(&mut self, id: PacketId) -> Option<(MsgId, TopicId)> {
        let taken = self.take_asked(
            |asked| matches!(asked, Asked::Publish { msg_id, .. } if *msg_id == MsgId(id.get())),
        )?;
        match taken {
            Asked::Publish { msg_id, topic_id } => Some((msg_id, topic_id)),
            _ => None,
        }
    }

    /// PUBACK.
    pub(super) fn published(&mut self, id: PacketId, reason: ReasonCode, io: &mut Io<'_, '_>) {
        if let Some((msg_id, topic_id)) = self.take_publish(id) {
            io.put(&Message::PubAck {
                topic_id,
                msg_id,
                return_code: map::return_code(reason),
            });
        }
    }

    /// PUBREC; it has no return code, so that a refusal is a PUBACK (§5.4.13).
    pub(super) fn received(&mut self, id: PacketId, reason: ReasonCode, io: &mut Io<'_, '_>) {
        let Some((msg_id, topic_id)) = self.take_publish(id) else {
            return;
        };
        if reason.is_error() {
            io.put(&Message::PubAck {
                topic_id,
                msg_id,
                return_code: map::return_code(reason),
            });
            // The client goes no further with it; the broker would wait for PUBREL, and take its next message under
            // this number for this one.
            return io.request(Request::PubRel(id, ReasonCode::Success));
        }
        io.put(&Message::PubRec(msg_id));
    }

    pub(super) fn handle_pub_rel(&mut self, msg_id: MsgId, io: &mut Io<'_, '_>) {
        let Some(id) = PacketId::new(msg_id.0) else {
            return io.settings.counters.received_unexpected.inc();
        };
        let is_it = |asked: &Asked| matches!(asked, Asked::Release(other) if *other == msg_id);
        if self.asked.len() >= ASKED_MAX || self.asked.iter().any(is_it) {
            return io.settings.counters.received_duplicate.inc();
        }
        self.asked.push(Asked::Release(msg_id));
        io.request(Request::PubRel(id, ReasonCode::Success));
    }

    /// PUBCOMP, also if the broker does not know the number: then the first PUBCOMP was lost.
    pub(super) fn completed(&mut self, id: PacketId, io: &mut Io<'_, '_>) {
        let msg_id = MsgId(id.get());
        let is_it = |asked: &Asked| matches!(asked, Asked::Release(other) if *other == msg_id);
        if self.take_asked(is_it).is_some() {
            if let Some(late) = &mut self.late {
                late.complete(io.now, msg_id);
            }
            io.put(&Message::PubComp(msg_id));
        }
    }
}

fn print(publish: &codec::Publish<'_>) -> u64 {
    late::print((publish.msg_id, publish.topic, publish.retain, publish.data))
}
