//! What the client answers to REGISTER and PUBLISH (§6.5, §6.6, §6.10).

use broker_core::{Delivery, PacketId, QoS, ReasonCode, Request};

use super::{
    Io,
    outgoing::{Inflight, Item, Registering},
    state::{Connection, Phase},
    timers::Retry,
};
use crate::{
    codec::{Message, MsgId, ReturnCode, Topic, TopicId},
    topics::FIRST,
};

impl Connection {
    pub(super) fn handle_reg_ack(
        &mut self,
        topic_id: TopicId,
        msg_id: MsgId,
        return_code: ReturnCode,
        io: &mut Io<'_, '_>,
    ) {
        let Some(mut outgoing) = self.outgoing.take() else {
            return io.settings.counters.received_unexpected.inc();
        };
        let is_it = |register: &&mut Registering| register.msg_id == msg_id && register.topic_id == topic_id;
        match (outgoing.register.as_mut().filter(is_it), return_code) {
            (None, _) => io.settings.counters.received_unexpected.inc(),
            (Some(_), ReturnCode::Accepted) => {
                outgoing.register = None;
                self.confirm(topic_id);
            }
            (Some(register), ReturnCode::Congestion) => {
                register.retry.pause(io.now, io.settings);
                if self.is_full() {
                    return;
                }
            }
            (Some(_), _) => {
                // §6.10: what the client refuses to name, it is not sent.
                outgoing.register = None;
                let refused = |item: &Item| {
                    let topic = self.local_topic(&item.delivery);
                    let registered = topic.and_then(|topic| self.topics.as_ref()?.find(topic));
                    registered.is_some_and(|registered| registered.id == topic_id)
                };
                let waiting = std::mem::take(&mut outgoing.waiting);
                for item in waiting {
                    if refused(&item) {
                        io.settings.counters.delivery_refused.inc();
                        refuse(&item.delivery, io);
                    } else {
                        outgoing.waiting.push_back(item);
                    }
                }
            }
        }
        self.outgoing = Some(outgoing);
    }

    /// The client takes no more for now. One that is awake is left to sleep then (true), and what it did not take
    /// waits for the next time; that is QoS 1 and 2, in the broker.
    pub(super) fn is_full(&mut self) -> bool {
        match self.phase {
            Phase::Active => false,
            Phase::Awake(nap) | Phase::Drained(nap) => {
                self.phase = Phase::Drained(nap);
                self.outgoing = None;
                true
            }
        }
    }

    pub(super) fn handle_pub_ack(
        &mut self,
        topic_id: TopicId,
        msg_id: MsgId,
        return_code: ReturnCode,
        io: &mut Io<'_, '_>,
    ) {
        if return_code == ReturnCode::InvalidTopicId {
            self.forget_topic_id(topic_id, io);
        }
        let found = self.outgoing.as_mut().and_then(|outgoing| {
            let at = outgoing.find(msg_id)?;
            Some((outgoing, at))
        });
        let Some((outgoing, at)) = found else {
            return io.settings.counters.received_unexpected.inc();
        };
        let Inflight::Published {
            id,
            item,
            topic,
            retry,
        } = &mut outgoing.inflight[at]
        else {
            return io.settings.counters.received_unexpected.inc();
        };
        let (id, is_exactly_once) = (*id, item.delivery.qos == QoS::ExactlyOnce);
        match return_code {
            // It is for QoS 1; QoS 2 goes on with PUBREC.
            ReturnCode::Accepted if is_exactly_once => io.settings.counters.received_unexpected.inc(),
            ReturnCode::Accepted => {
                outgoing.inflight.remove(at);
                io.request(Request::PubAck(id, ReasonCode::Success));
            }
            ReturnCode::Congestion => {
                retry.pause(io.now, io.settings);
                self.is_full();
            }
            ReturnCode::InvalidTopicId if item.rejections < io.settings.retry_max => {
                let topic = *topic;
                if let Inflight::Published { mut item, .. } = outgoing.inflight.remove(at) {
                    item.rejections += 1;
                    item.delivery.dup = true;
                    self.resend(item, topic, io);
                }
            }
            _ => {
                io.settings.counters.delivery_refused.inc();
                let inflight = outgoing.inflight.remove(at);
                if let Inflight::Published { item, .. } = inflight {
                    refuse(&item.delivery, io);
                }
            }
        }
    }

    /// The client does not know the id that a message was sent with: it will be registered, and the message sent again.
    fn resend(&mut self, item: Item, topic: Topic, io: &mut Io<'_, '_>) {
        match topic {
            Topic::Normal(id) => {
                if let Some(topics) = &mut self.topics {
                    topics.confirm(id, false);
                }
            }
            Topic::Predefined(_) | Topic::Short(_) => {
                // From now on it has an id that can be registered. Without one it goes out as before.
                if let Some(name) = self.local_topic(&item.delivery) {
                    self.find_or_add(name, io);
                }
            }
        }
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.wait(item);
        }
    }

    /// The client has refused a message of QoS 0: it is lost, the next one will not be.
    fn forget_topic_id(&mut self, topic_id: TopicId, io: &mut Io<'_, '_>) {
        if topic_id.0 >= FIRST {
            if let Some(topics) = &mut self.topics {
                topics.confirm(topic_id, false);
            }
            return;
        }
        let client_id = self.client.client_id.clone();
        if let Some(name) = io.settings.predefined.name(client_id.as_str(), topic_id) {
            self.find_or_add(name, io);
        }
    }

    pub(super) fn handle_pub_rec(&mut self, msg_id: MsgId, io: &mut Io<'_, '_>) {
        let Some(id) = PacketId::new(msg_id.0) else {
            return io.settings.counters.received_unexpected.inc();
        };
        let inflight = self.outgoing.as_mut().and_then(|outgoing| {
            let at = outgoing.find(msg_id)?;
            Some(&mut outgoing.inflight[at])
        });
        match inflight {
            Some(Inflight::Published { item, .. }) if item.delivery.qos != QoS::ExactlyOnce => {
                return io.settings.counters.received_unexpected.inc();
            }
            Some(Inflight::Received(_)) => return io.settings.counters.received_duplicate.inc(),
            Some(Inflight::Released { .. }) => {
                io.settings.counters.received_duplicate.inc();
                return io.put(&Message::PubRel(msg_id));
            }
            Some(inflight) => *inflight = Inflight::Received(id),
            // From before this connection, or it has been completed: the broker knows.
            None => {}
        }
        io.request(Request::PubRec(id, ReasonCode::Success));
    }

    /// PUBREL.
    pub(super) fn release(&mut self, id: PacketId, reason: ReasonCode, io: &mut Io<'_, '_>) {
        io.put(&Message::PubRel(MsgId(id.get())));
        let outgoing = self.outgoing.get_or_insert_default();
        let at = outgoing.find(MsgId(id.get()));
        if reason.is_error() {
            // The broker has nothing under this number; the client is told so that it forgets it, too.
            at.map(|at| outgoing.inflight.remove(at));
            return;
        }
        let retry = Retry::new(io.now, io.settings);
        let released = Inflight::Released { id, retry };
        match at {
            Some(at) => outgoing.inflight[at] = released,
            None => outgoing.inflight.push(released),
        }
    }

    pub(super) fn handle_pub_comp(&mut self, msg_id: MsgId, io: &mut Io<'_, '_>) {
        let found = self.outgoing.as_mut().and_then(|outgoing| {
            let at = outgoing.find(msg_id)?;
            Some((outgoing, at))
        });
        match found {
            Some((outgoing, at)) if matches!(outgoing.inflight[at], Inflight::Released { .. }) => {
                let id = outgoing.inflight.remove(at).id();
                io.request(Request::PubComp(id, ReasonCode::Success));
            }
            _ => io.settings.counters.received_unexpected.inc(),
        }
    }
}

/// The client does not want the message: for the broker it is delivered, with a reason.
fn refuse(delivery: &Delivery, io: &mut Io<'_, '_>) {
    let Some(id) = delivery.packet_id else {
        return;
    };
    io.request(match delivery.qos {
        QoS::ExactlyOnce => Request::PubRec(id, ReasonCode::UnspecifiedError),
        _ => Request::PubAck(id, ReasonCode::UnspecifiedError),
    });
}
