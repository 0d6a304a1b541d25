//! Messages for the client (§6.10): REGISTER where it needs one, PUBLISH, and both again if nothing comes back (§6.13).

use broker_core::{Delivery, Effects, PacketId, QoS, Request, Timestamp};

use super::{
    Io, MESSAGE_BYTES_MAX, Peer,
    outgoing::{Inflight, Item, Outgoing, Registering},
    state::{Connection, State},
    timers::Retry,
};
use crate::{
    codec::{Message, MsgId, Publish, PublishQoS, Topic, TopicId},
    topics,
};

/// How a topic is said to the client.
enum Target {
    Known(Topic),
    /// Once it has accepted this id.
    Register(TopicId),
    /// Once the id is noted, or can be.
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
        if delivery.qos == QoS::AtMostOnce && self.send_at_once(&delivery, io) {
            return;
        }
        let outgoing = self.outgoing.get_or_insert_default();
        let is_full = outgoing.waiting_qos0() >= io.settings.max_waiting;
        if delivery.qos == QoS::AtMostOnce && is_full && !outgoing.waiting.is_empty() {
            return io.settings.counters.delivery_dropped_waiting_full.inc();
        }
        outgoing.count += 1;
        let order = outgoing.count;
        outgoing.wait(Item {
            delivery,
            order,
            rejections: 0,
        });
    }

    /// QoS 0 with a topic that the client knows waits for nothing, so that nothing is made to remember it. False if
    /// it has to.
    fn send_at_once(&mut self, delivery: &Delivery, io: &mut Io<'_, '_>) -> bool {
        if self
            .outgoing
            .as_ref()
            .is_some_and(|outgoing| !outgoing.waiting.is_empty())
        {
            return false;
        }
        let Some(topic) = self.local_topic(delivery) else {
            return false;
        };
        let Target::Known(topic) = self.target(topic, io) else {
            return false;
        };
        let message = publish(delivery, None, topic, delivery.dup);
        let is_sent = message.encoded_len() <= MESSAGE_BYTES_MAX;
        if is_sent {
            io.put(&message);
        }
        is_sent
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
                        io.settings.counters.delivery_dropped_no_topic_id.inc();
                        outgoing.drop_first(io)
                    }
                },
            },
        };
        self.outgoing = Some(outgoing);
        is_sent
    }

    /// The topic in the client's words: without its mountpoint.
    pub(super) fn local_topic<'d>(&self, delivery: &'d Delivery) -> Option<&'d str> {
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
            None if self.rests_until().is_some() => Target::Unnoted,
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

    /// Until when new topic ids cannot be noted.
    pub(super) fn rests_until(&self) -> Option<Timestamp> {
        self.topics.as_ref()?.rests_until()
    }

    /// Sends again what is due. `None` if that would be once too often.
    pub(super) fn send_again(&mut self, io: &mut Io<'_, '_>) -> Option<()> {
        if let Some(topics) = &mut self.topics {
            topics.end_rest(io.now);
        }
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
            io.settings.counters.delivery_dropped_too_large.inc();
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
