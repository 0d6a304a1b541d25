//! SUBSCRIBE and UNSUBSCRIBE (§6.9).

use std::hash::Hash;

use broker_core::{
    PacketId, QoS, ReasonCode, Request, Subscribe, SubscribeOptions, Unsubscribe,
    topic::{has_wildcard, is_valid_name},
};

use super::{
    Io, late,
    publish::ASKED_MAX,
    state::{Asked, Connection},
};
use crate::{
    codec::{self, Message, MsgId, ReturnCode, Topic, TopicId, TopicName},
    map,
    topics::FIRST,
};

/// Filters that begin so are not names of topics, wildcards or not.
const PREFIXES: [&str; 3] = ["$share/", "$queue/", "$exclusive/"];

impl Connection {
    pub(super) fn handle_subscribe(&mut self, subscribe: &codec::Subscribe<'_>, io: &mut Io<'_, '_>) {
        let is_it =
            |asked: &Asked| matches!(asked, Asked::Subscribe { msg_id, .. } if *msg_id == subscribe.msg_id);
        // One that says so is a repetition: its answer was lost.
        let is_late = self.is_late((subscribe.msg_id, subscribe.topic, subscribe.qos as u8), io);
        if self.asked.iter().any(is_it) || (is_late && !subscribe.dup) {
            return io.settings.counters.received_duplicate.inc();
        }
        let Some(filter) = self.filter(subscribe.topic, io) else {
            io.settings.counters.received_invalid_topic_id.inc();
            return sub_ack(
                subscribe.msg_id,
                TopicId::NONE,
                (ReturnCode::InvalidTopicId, QoS::AtMostOnce),
                io,
            );
        };
        if self.asked.len() >= ASKED_MAX {
            io.settings.counters.received_congestion.inc();
            return sub_ack(subscribe.msg_id, TopicId::NONE, CONGESTION, io);
        }
        let topic_id = match subscribe.topic {
            TopicName::Predefined(id) => id,
            TopicName::Short(_) => TopicId::NONE,
            TopicName::Name(name) if !is_topic(name) => TopicId::NONE,
            TopicName::Name(name) => match self.predefined_id(name, io) {
                Some(id) => id,
                None => match self.find_or_add(name, io) {
                    Some(registered) => registered.id,
                    None => {
                        io.settings.counters.received_congestion.inc();
                        return sub_ack(subscribe.msg_id, TopicId::NONE, CONGESTION, io);
                    }
                },
            },
        };
        let number = self.next_number();
        self.asked.push(Asked::Subscribe {
            msg_id: subscribe.msg_id,
            number,
            topic_id,
            granted: None,
        });
        let options = SubscribeOptions {
            qos: subscribe.qos,
            ..SubscribeOptions::default()
        };
        io.request(Request::Subscribe(Box::new(Subscribe {
            packet_id: number,
            filters: vec![(filter, options)],
            subscription_id: None,
            user_properties: Vec::new(),
        })));
    }

    /// The request is a copy that the network has held back.
    pub(super) fn is_late(&mut self, request: impl Hash, io: &Io<'_, '_>) -> bool {
        let print = late::print(request);
        self.late.get_or_insert_default().is_copy(io.now, print)
    }

    /// The filter in words; `None` for a predefined id that nobody knows.
    fn filter(&self, topic: TopicName<'_>, io: &Io<'_, '_>) -> Option<String> {
        let topic = match topic {
            TopicName::Name(name) => return Some(name.to_owned()),
            TopicName::Predefined(id) => Topic::Predefined(id),
            TopicName::Short(octets) => Topic::Short(octets),
        };
        self.topic_name(&topic, &io.settings.predefined)
            .map(str::to_owned)
    }

    /// The broker has decided.
    pub(super) fn subscribed(&mut self, id: PacketId, codes: &[ReasonCode], io: &mut Io<'_, '_>) {
        let code = codes.first().copied().unwrap_or(ReasonCode::UnspecifiedError);
        for asked in &mut self.asked {
            if let Asked::Subscribe { number, granted, .. } = asked
                && *number == id
            {
                *granted = Some(map::granted(code));
            }
        }
        self.answer_subscriptions(true, io);
    }

    /// SUBACK for what the broker has granted or refused, once the topic id is noted; `is_ok`: ids that are not may
    /// yet be.
    pub(super) fn answer_subscriptions(&mut self, is_ok: bool, io: &mut Io<'_, '_>) {
        let mut at = 0;
        while let Some(asked) = self.asked.get(at) {
            at += 1;
            let Asked::Subscribe {
                msg_id,
                topic_id,
                granted: Some(granted),
                ..
            } = *asked
            else {
                continue;
            };
            let is_known = topic_id.0 < FIRST
                || granted.0 != ReturnCode::Accepted
                || self
                    .topics
                    .as_ref()
                    .is_some_and(|topics| topics.name(topic_id).is_some());
            if !is_known && is_ok {
                continue;
            }
            at -= 1;
            self.asked.remove(at);
            if !is_known {
                sub_ack(msg_id, TopicId::NONE, CONGESTION, io);
            } else if granted.0 == ReturnCode::Accepted {
                self.confirm(topic_id);
                sub_ack(msg_id, topic_id, granted, io);
            } else {
                sub_ack(msg_id, TopicId::NONE, granted, io);
            }
        }
    }

    pub(super) fn handle_unsubscribe(&mut self, id: MsgId, topic: TopicName<'_>, io: &mut Io<'_, '_>) {
        let is_it = |asked: &Asked| matches!(asked, Asked::Unsubscribe { msg_id, .. } if *msg_id == id);
        if self.asked.len() >= ASKED_MAX || self.asked.iter().any(is_it) || self.is_late((id, topic), io) {
            return io.settings.counters.received_duplicate.inc();
        }
        let Some(filter) = self.filter(topic, io) else {
            // UNSUBACK cannot refuse, and there is no such subscription.
            io.settings.counters.received_invalid_topic_id.inc();
            return io.put(&Message::UnsubAck(id));
        };
        let number = self.next_number();
        self.asked.push(Asked::Unsubscribe { msg_id: id, number });
        io.request(Request::Unsubscribe(Box::new(Unsubscribe {
            packet_id: number,
            filters: vec![filter],
            user_properties: Vec::new(),
        })));
    }

    pub(super) fn unsubscribed(&mut self, id: PacketId, io: &mut Io<'_, '_>) {
        let is_it = |asked: &Asked| matches!(asked, Asked::Unsubscribe { number, .. } if *number == id);
        if let Some(Asked::Unsubscribe { msg_id, .. }) = self.take_asked(is_it) {
            io.put(&Message::UnsubAck(msg_id));
        }
    }
}

const CONGESTION: (ReturnCode, QoS) = (ReturnCode::Congestion, QoS::AtMostOnce);

/// Filters with wildcards never have an id (§6.9).
fn is_topic(filter: &str) -> bool {
    is_valid_name(filter)
        && !has_wildcard(filter)
        && !PREFIXES.iter().any(|prefix| filter.starts_with(prefix))
}

fn sub_ack(msg_id: MsgId, topic_id: TopicId, granted: (ReturnCode, QoS), io: &mut Io<'_, '_>) {
    let (return_code, qos) = granted;
    io.put(&Message::SubAck {
        qos,
        topic_id,
        msg_id,
        return_code,
    });
}
