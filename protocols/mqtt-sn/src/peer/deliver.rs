//! Messages for the client (§6.10): REGISTER where it needs one, PUBLISH, and its acknowledgements.

use broker_core::{Delivery, Effects, PacketId, QoS, ReasonCode, Request, Timestamp};

use super::{
    Io, MESSAGE_BYTES_MAX, Peer,
    counters::counters,
    outgoing::{Inflight, Item, Outgoing, Registering},
    state::{Connection, Phase, State},
    timers::Retry,
};
use crate::{
    codec::{Message, MsgId, Publish, PublishQoS, ReturnCode, Topic, TopicId},
    topics::{self, FIRST},
};

/// How a topic is said to the client.
enum Target {
    Known(Topic),
    /// Once it has accepted this id.
    Register(TopicId),
    /// Once the id is noted.
    Unnoted,
    /// No id is left.
    None,
}

impl Peer {
    pub(super) fn handle_delivery(&mut self, now: Timestamp, delivery: Delivery, effects: &mut Effects<'_>) {
        match self.state {
            State::Connected(_) => {
                self.with_connection(now, effects, |connection, io| connection.deliver(delivery, io));
            }
            State::FallingAsleep(_) => self.too_late(),
            // Somebody else has subscribed it to something, and nobody is there to hear it.
            State::Common(_) => effects.requests.push(Request::Undeliverable(delivery.packet_id)),
            _ => {}
        }
    }
}

impl Connection {
    fn deliver(&mut self, delivery: Delivery, io: &mut Io<'_, '_>) {
        let outgoing = self.outgoing.get_or_insert_default();
        let is_full = outgoing.waiting_qos0() >= io.settings.max_waiting;
        if delivery.qos == QoS::AtMostOnce && is_full && !outgoing.waiting.is_empty() {
            return counters().delivery_dropped_waiting_full.inc();
        }
        outgoing.count += 1;
        let order = outgoing.count;
        outgoing.wait(Item {
            delivery,
            order,
            rejections: 0,
        });
    }

    /// Sends what can be sent, and gives back what is not needed any more.
    pub(super) fn advance(&mut self, io: &mut Io<'_, '_>) {
        while self.send_next(io) {}
        self.shrink(io.now);
    }

    /// Gives back the memory of what is over.
    pub(super) fn shrink(&mut self, now: Timestamp) {
        if self.asked.is_empty() {
            self.asked = Vec::new();
        }
        if self.late.as_ref().is_some_and(|late| late.is_over(now)) {
            self.late = None;
        }
        if self.outgoing.as_ref().is_some_and(|outgoing| outgoing.is_idle()) {
            self.outgoing = None;
        }
    }

    /// Sends the first delivery that waits. False if there is none, or if it has to wait.
    fn send_next(&mut self, io: &mut Io<'_, '_>) -> bool {
        let Some(mut outgoing) = self.outgoing.take() else {
            return false;
        };
        let is_sent = match outgoing.waiting.front() {
            None => false,
            Some(item) => match self.local_topic(&item.delivery) {
                // The filter `#` under the mountpoint `m/` also matches `m`, which has no name inside it.
                None => outgoing.drop_first(io),
                Some(topic) => match self.target(topic, io) {
                    Target::Known(topic) => outgoing.send_first(topic, io),
                    Target::Register(id) => {
                        if outgoing.register.is_none() {
                            let registering = Registering {
                                topic_id: id,
                                msg_id: self.next_msg_id(),
                                retry: Retry::new(io.now, io.settings),
                            };
                            self.put_register(&registering, io);
                            outgoing.register = Some(registering);
                        }
                        false
                    }
                    Target::Unnoted => false,
                    Target::None => {
                        counters().delivery_dropped_no_topic_id.inc();
                        outgoing.drop_first(io)
                    }
                },
            },
        };
        self.outgoing = Some(outgoing);
        is_sent
    }

    /// The topic in the client's words: without its mountpoint.
    fn local_topic<'d>(&self, delivery: &'d Delivery) -> Option<&'d str> {
        let topic = delivery.message.topic().strip_prefix(&*self.client.mountpoint)?;
        (!topic.is_empty()).then_some(topic)
    }

    /// A registered id that the client knows goes first: it has been given it because it asked, or because it did not
    /// know the predefined or short one.
    fn target(&mut self, topic: &str, io: &mut Io<'_, '_>) -> Target {
        let registered = self.topics.as_ref().and_then(|topics| topics.find(topic));
        if registered.is_none() {
            let client_id = self.client.client_id.as_str();
            let predefined = io.settings.predefined.id(client_id, topic).map(Topic::Predefined);
            if let Some(known) = predefined.or_else(|| topics::short(topic)) {
                return Target::Known(known);
            }
        }
        match registered.or_else(|| self.find_or_add(topic, io)) {
            Some(registered) if !registered.is_noted => Target::Unnoted,
            Some(registered) if registered.is_confirmed => Target::Known(Topic::Normal(registered.id)),
            Some(registered) => Target::Register(registered.id),
            None => Target::None,
        }
    }

    fn put_register(&self, registering: &Registering, io: &mut Io<'_, '_>) {
        let topic_id = registering.topic_id;
        if let Some(topic_name) = self.topics.as_ref().and_then(|topics| topics.name(topic_id)) {
            io.put(&Message::Register {
                topic_id,
                msg_id: registering.msg_id,
                topic_name,
            });
        }
    }

    pub(super) fn handle_reg_ack(
        &mut self,
        topic_id: TopicId,
        msg_id: MsgId,
        return_code: ReturnCode,
        io: &mut Io<'_, '_>,
    ) {
        let Some(mut outgoing) = self.outgoing.take() else {
            return counters().received_unexpected.inc();
        };
        let is_it = |register: &&mut Registering| register.msg_id == msg_id && register.topic_id == topic_id;
        match (outgoing.register.as_mut().filter(is_it), return_code) {
            (None, _) => counters().received_unexpected.inc(),
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
                        counters().delivery_refused.inc();
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
    fn is_full(&mut self) -> bool {
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
            return counters().received_unexpected.inc();
        };
        let Inflight::Published {
            id,
            item,
            topic,
            retry,
        } = &mut outgoing.inflight[at]
        else {
            return counters().received_unexpected.inc();
        };
        let (id, is_exactly_once) = (*id, item.delivery.qos == QoS::ExactlyOnce);
        match return_code {
            // It is for QoS 1; QoS 2 goes on with PUBREC.
            ReturnCode::Accepted if is_exactly_once => counters().received_unexpected.inc(),
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
                counters().delivery_refused.inc();
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
            return counters().received_unexpected.inc();
        };
        let inflight = self.outgoing.as_mut().and_then(|outgoing| {
            let at = outgoing.find(msg_id)?;
            Some(&mut outgoing.inflight[at])
        });
        match inflight {
            Some(Inflight::Published { item, .. }) if item.delivery.qos != QoS::ExactlyOnce => {
                return counters().received_unexpected.inc();
            }
            Some(Inflight::Received(_)) => return counters().received_duplicate.inc(),
            Some(Inflight::Released { .. }) => {
                counters().received_duplicate.inc();
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
            _ => counters().received_unexpected.inc(),
        }
    }

    /// Sends again what is due. `None` if that would be once too often.
    pub(super) fn send_again(&mut self, io: &mut Io<'_, '_>) -> Option<()> {
        let Some(mut outgoing) = self.outgoing.take() else {
            return Some(());
        };
        let mut is_lost = false;
        if let Some(register) = &mut outgoing.register {
            match register.retry.fire(io.now, io.settings) {
                Some(true) => self.put_register(register, io),
                Some(false) => {}
                None => is_lost = true,
            }
        }
        for inflight in &mut outgoing.inflight {
            match inflight {
                Inflight::Published {
                    id,
                    item,
                    topic,
                    retry,
                } => match retry.fire(io.now, io.settings) {
                    Some(true) => put_publish(&item.delivery, Some(*id), *topic, true, io),
                    Some(false) => {}
                    None => is_lost = true,
                },
                Inflight::Released { id, retry } => match retry.fire(io.now, io.settings) {
                    Some(true) => io.put(&Message::PubRel(MsgId(id.get()))),
                    Some(false) => {}
                    None => is_lost = true,
                },
                Inflight::Received(_) => {}
            }
        }
        self.outgoing = Some(outgoing);
        (!is_lost).then_some(())
    }
}

impl Outgoing {
    /// Sends the first delivery that waits. True: the next one's turn.
    fn send_first(&mut self, topic: Topic, io: &mut Io<'_, '_>) -> bool {
        let Some(item) = self.waiting.pop_front() else {
            return false;
        };
        let delivery = &item.delivery;
        let id = delivery.packet_id;
        if publish(delivery, id, topic, delivery.dup).encoded_len() > MESSAGE_BYTES_MAX {
            counters().delivery_dropped_too_large.inc();
            io.request(Request::Undeliverable(id));
            return true;
        }
        put_publish(delivery, id, topic, delivery.dup, io);
        if let Some(id) = id {
            self.inflight.push(Inflight::Published {
                id,
                item,
                topic,
                retry: Retry::new(io.now, io.settings),
            });
        }
        true
    }

    /// The first delivery that waits cannot be sent at all.
    fn drop_first(&mut self, io: &mut Io<'_, '_>) -> bool {
        if let Some(item) = self.waiting.pop_front() {
            io.request(Request::Undeliverable(item.delivery.packet_id));
        }
        true
    }
}

fn publish(delivery: &Delivery, id: Option<PacketId>, topic: Topic, dup: bool) -> Message<'_> {
    Message::Publish(Publish {
        dup,
        qos: PublishQoS::Level(delivery.qos),
        retain: delivery.retain,
        topic,
        msg_id: MsgId(id.map_or(0, PacketId::get)),
        data: delivery.message.payload(),
    })
}

fn put_publish(delivery: &Delivery, id: Option<PacketId>, topic: Topic, dup: bool, io: &mut Io<'_, '_>) {
    io.put(&publish(delivery, id, topic, dup));
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
