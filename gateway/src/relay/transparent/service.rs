//! A client that the broker has admitted: its words to packets, packets to words for it.
//!
//! Packet identifiers of messages stand for themselves on both sides, so that what the broker remembers of an exchange of
//! QoS 2 holds for the client, too, also when either connection is replaced. SUBSCRIBE and UNSUBSCRIBE, which peers
//! number by themselves, get identifiers from the other end of the range.

use std::{collections::BTreeMap, sync::Arc};

use broker_core::{
    ClientInfo, Delivery, Event, LinkId, PacketId, Publish, QoS, ReasonCode, Request, Subscribe,
    SubscriptionIds, Timestamp, Unsubscribe, Will,
};
use mqtt::codec::{self, Packet};

use crate::relay::{
    client::{Credentials, Drain, Notes},
    connection::{Connection, Incoming},
    deliveries::{Deliveries, Pushed, Step},
    upstream::{Counters, Notice, Output},
};

/// Requests of one client that the broker has not answered. Clients of MQTT-SN have one or two (§6.6).
const PENDING_MAX: usize = 64;

/// How often the broker is asked, while a client is awake, whether there is more for it: a topic that never falls silent
/// does not keep it awake.
const ASKED_MAX: u8 = 16;

/// PINGRESPs in a row without a message before them that mean that nothing waits. Two, as a broker may answer PINGREQ
/// before it has acted upon an acknowledgement that it read together with it.
const ANSWERS: u8 = 2;

/// An answer that the client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    PubAck,
    PubRec,
    PubComp,
    /// To the peer's number.
    SubAck(PacketId),
    /// To the peer's number; so many filters.
    UnsubAck(PacketId, usize),
}

/// A client with a connection of its own to the broker.
#[derive(Debug)]
pub(super) struct Service {
    /// Its link; `None` while it sleeps.
    pub(super) link: Option<LinkId>,
    /// When it has slept too long.
    pub(super) asleep_until: Timestamp,
    pub(super) client: Arc<ClientInfo>,
    pub(super) credentials: Credentials,
    /// Its session ends with its connection.
    pub(super) is_clean: bool,
    pub(super) notes: Notes,
    /// The Will in force.
    pub(super) will: Option<Box<Will>>,
    /// It is not the one that the broker knows.
    pub(super) will_changed: bool,
    deliveries: Deliveries,
    drain: Drain,
    pending: BTreeMap<PacketId, Pending>,
    was_full: bool,
}

/// What a call works on.
pub(super) struct Context<'a> {
    pub(super) now: Timestamp,
    pub(super) connection: &'a mut Connection,
    pub(super) counters: &'a mut Counters,
    pub(super) out: &'a mut Output,
}

impl Service {
    pub(super) fn new(client: Arc<ClientInfo>, credentials: Credentials, deliveries: Deliveries) -> Service {
        Service {
            link: None,
            asleep_until: Timestamp::NEVER,
            client,
            credentials,
            is_clean: true,
            notes: Notes::default(),
            will: None,
            will_changed: false,
            deliveries,
            drain: Drain::Off,
            pending: BTreeMap::new(),
            was_full: false,
        }
    }

    /// A Will that the broker does not know: the gateway publishes it itself.
    pub(super) fn set_will(&mut self, will: Option<Box<Will>>) {
        self.will = will;
        self.will_changed = true;
    }

    /// A packet identifier for what is not a message of the client: far from those that it begins with.
    pub(super) fn free_id(&self) -> PacketId {
        let descending = (1..=u16::MAX).rev().filter_map(PacketId::new);
        let mut free = descending.filter(|id| !self.pending.contains_key(id));
        free.next().expect("fewer than PENDING_MAX are in use")
    }

    /// The client is there, connected or awake, behind `link`.
    pub(super) fn attach(
        &mut self,
        link: LinkId,
        receive_maximum: u16,
        is_awake: bool,
        context: &mut Context<'_>,
    ) {
        self.link = Some(link);
        self.asleep_until = Timestamp::NEVER;
        let events = &mut context.out.events;
        self.deliveries
            .attach(receive_maximum, |event| events.push((link, event)));
        self.drain = match is_awake {
            true => Drain::Delivering(ASKED_MAX),
            false => Drain::Off,
        };
        self.after_delivery(context);
    }

    /// The client sleeps.
    pub(super) fn fall_asleep(&mut self, until: Timestamp) {
        self.link = None;
        self.asleep_until = until;
        self.deliveries.detach();
        self.drain = Drain::Off;
    }

    fn tell(&self, event: Event, out: &mut Output) {
        if let Some(link) = self.link {
            out.events.push((link, event));
        }
    }

    /// Any request but CONNECT and DISCONNECT.
    pub(super) fn handle_request(&mut self, request: Request, context: &mut Context<'_>) {
        let now = context.now;
        match request {
            Request::Publish(publish) => self.publish(&publish, context),
            Request::PubAck(id, _) => {
                if self.deliveries.pub_ack(id) == Step::Complete {
                    context.connection.pub_ack(now, id, context.out);
                }
                self.deliver(context);
            }
            Request::PubRec(id, reason) => {
                if self.deliveries.pub_rec(id, reason.is_error()) == Step::Forward {
                    context.connection.pub_rec(now, id, context.out);
                }
            }
            Request::PubRel(id, _) => {
                // Also one that was received on an earlier connection.
                self.pending.entry(id).or_insert(Pending::PubComp);
                context.connection.pub_rel(now, id, context.out);
            }
            Request::PubComp(id, _) => {
                if self.deliveries.pub_comp(id) == Step::Complete {
                    context.connection.pub_comp(now, id, context.out);
                }
                self.deliver(context);
            }
            Request::Undeliverable(id) => self.undeliverable(id, context),
            Request::Subscribe(subscribe) => self.subscribe(&subscribe, context),
            Request::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe, context),
            Request::Note(number, value) => {
                let reason = self.notes.set(number, value);
                self.tell(Event::Noted(number, reason), context.out);
            }
            Request::SetWill(will) => {
                self.set_will(will);
                self.tell(Event::WillSet(ReasonCode::Success), context.out);
            }
            // Not for an admitted client; enhanced authentication is MQTT 5's.
            Request::Connect(_) | Request::Disconnect(_) | Request::Auth(_) => {}
        }
    }

    fn publish(&mut self, publish: &Publish, context: &mut Context<'_>) {
        let message = &publish.message;
        let Context {
            now, connection, out, ..
        } = context;
        let Some(id) = publish.packet_id else {
            connection.publish(*now, message, None, false, out);
            return;
        };
        let (pending, answer): (_, fn(_, _) -> _) = match message.qos() {
            QoS::ExactlyOnce => (Pending::PubRec, Event::PubRec),
            _ => (Pending::PubAck, Event::PubAck),
        };
        match self.pending.get(&id) {
            // The answer is on its way.
            Some(same) if *same == pending => return,
            // The broker knows whether it has this message already.
            Some(Pending::PubComp) => {}
            Some(_) => return self.tell(answer(id, ReasonCode::QuotaExceeded), out),
            None if self.pending.len() >= PENDING_MAX => {
                return self.tell(answer(id, ReasonCode::QuotaExceeded), out);
            }
            None => {}
        }
        if connection.publish(*now, message, Some(id), publish.dup, out) {
            self.pending.insert(id, pending);
        } else {
            self.tell(answer(id, ReasonCode::TopicNameInvalid), out);
        }
    }

    fn subscribe(&mut self, subscribe: &Subscribe, context: &mut Context<'_>) {
        let (number, filters) = (subscribe.packet_id, &subscribe.filters);
        if self.pending.len() >= PENDING_MAX {
            let codes = vec![ReasonCode::QuotaExceeded; filters.len()];
            return self.tell(Event::SubAck(number, codes), context.out);
        }
        let list: Vec<_> = filters
            .iter()
            .map(|(filter, options)| codec::Subscription {
                filter,
                options: *options,
            })
            .collect();
        let id = self.free_id();
        let packet = Packet::Subscribe(codec::Subscribe::new(id, &list));
        context.connection.send(context.now, &packet, context.out);
        self.pending.insert(id, Pending::SubAck(number));
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe, context: &mut Context<'_>) {
        let (number, count) = (unsubscribe.packet_id, unsubscribe.filters.len());
        if self.pending.len() >= PENDING_MAX {
            let codes = vec![ReasonCode::QuotaExceeded; count];
            return self.tell(Event::UnsubAck(number, codes), context.out);
        }
        let list: Vec<_> = unsubscribe.filters.iter().map(String::as_str).collect();
        let id = self.free_id();
        let packet = Packet::Unsubscribe(codec::Unsubscribe::new(id, &list));
        context.connection.send(context.now, &packet, context.out);
        self.pending.insert(id, Pending::UnsubAck(number, count));
    }

    /// As if it had been delivered: it never will be.
    fn undeliverable(&mut self, id: Option<PacketId>, context: &mut Context<'_>) {
        let Some(id) = id else {
            return;
        };
        match self.deliveries.sent_qos(id) {
            Some(QoS::AtLeastOnce) => {
                self.deliveries.pub_ack(id);
                context.connection.pub_ack(context.now, id, context.out);
            }
            Some(QoS::ExactlyOnce) => {
                self.deliveries.pub_rec(id, true);
                context.connection.pub_rec(context.now, id, context.out);
            }
            _ => {}
        }
        self.deliver(context);
    }

    /// A packet from the broker.
    pub(super) fn handle_packet(&mut self, packet: Incoming, context: &mut Context<'_>) {
        let now = context.now;
        match packet {
            Incoming::Publish { message, packet_id } => {
                self.drain = match self.drain {
                    Drain::Asking(left, _) => Drain::Delivering(left),
                    other => other,
                };
                self.receive(
                    Delivery {
                        qos: message.qos(),
                        retain: message.retain(),
                        dup: false,
                        packet_id,
                        subscription_ids: SubscriptionIds::new(),
                        message,
                    },
                    context,
                );
            }
            Incoming::TooLarge(qos, id) => {
                context.counters.dropped_too_large += 1;
                match (qos, id) {
                    (QoS::AtLeastOnce, Some(id)) => context.connection.pub_ack(now, id, context.out),
                    (QoS::ExactlyOnce, Some(id)) => {
                        self.deliveries.refuse(id);
                        context.connection.pub_rec(now, id, context.out);
                    }
                    _ => {}
                }
            }
            Incoming::PubAck(id) | Incoming::PubRec(id) | Incoming::PubComp(id) | Incoming::UnsubAck(id) => {
                self.answered(id, &packet, Vec::new(), context);
            }
            Incoming::SubAck(id, ref codes) => self.answered(id, &packet, codes.clone(), context),
            Incoming::PubRel(id) => match self.deliveries.pub_rel(id) {
                Step::Forward => self.tell(Event::PubRel(id, ReasonCode::Success), context.out),
                Step::Complete => {
                    context.connection.pub_comp(now, id, context.out);
                    self.deliver(context);
                }
                Step::None => {}
            },
            Incoming::PingResp => self.asked(context),
            // The second one.
            Incoming::ConnAck { .. } => {}
        }
    }

    /// An answer of the broker, if it is to what was asked under this packet identifier.
    fn answered(
        &mut self,
        id: PacketId,
        packet: &Incoming,
        codes: Vec<ReasonCode>,
        context: &mut Context<'_>,
    ) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        let success = ReasonCode::Success;
        let event = match (packet, *pending) {
            (Incoming::PubAck(_), Pending::PubAck) => Event::PubAck(id, success),
            (Incoming::PubRec(_), Pending::PubRec) => Event::PubRec(id, success),
            (Incoming::PubComp(_), Pending::PubComp) => Event::PubComp(id, success),
            (Incoming::SubAck(..), Pending::SubAck(number)) => Event::SubAck(number, codes),
            (Incoming::UnsubAck(_), Pending::UnsubAck(number, count)) => {
                Event::UnsubAck(number, vec![success; count])
            }
            _ => return,
        };
        match event {
            Event::PubRec(..) => self.pending.insert(id, Pending::PubComp),
            _ => self.pending.remove(&id),
        };
        self.tell(event, context.out);
    }

    fn receive(&mut self, delivery: Delivery, context: &mut Context<'_>) {
        if delivery.packet_id.is_some_and(|id| self.deliveries.is_used(id)) {
            return;
        }
        match self.deliveries.push(delivery) {
            Pushed::Kept => {}
            Pushed::InPlaceOfQoS0 | Pushed::DroppedQoS0 | Pushed::Dropped => {
                context.counters.dropped_qos0 += 1;
                if !std::mem::replace(&mut self.was_full, true) {
                    let client_id = self.client.client_id.to_string();
                    context.out.notices.push(Notice::QueueFull { client_id });
                }
            }
        }
        self.deliver(context);
    }

    /// Hands out what the client takes.
    fn deliver(&mut self, context: &mut Context<'_>) {
        if let Some(link) = self.link {
            let events = &mut context.out.events;
            self.deliveries.hand_out(|event| events.push((link, event)));
        }
        self.after_delivery(context);
    }

    fn after_delivery(&mut self, context: &mut Context<'_>) {
        let Context {
            now, connection, out, ..
        } = context;
        if self.deliveries.is_full() {
            connection.pause(*now, true, out);
        } else if connection.is_paused() && self.deliveries.is_half_empty() {
            connection.pause(*now, false, out);
        }
        if !self.deliveries.is_empty() {
            return;
        }
        self.was_full = false;
        match self.drain {
            Drain::Delivering(0) => self.drained(out),
            Drain::Delivering(left) => {
                self.drain = Drain::Asking(left - 1, ANSWERS);
                connection.ping(*now, out);
            }
            Drain::Off | Drain::Asking(..) => {}
        }
    }

    /// The broker has answered a PINGREQ.
    fn asked(&mut self, context: &mut Context<'_>) {
        if context.connection.is_pinging() {
            return;
        }
        if let Drain::Asking(left, answers) = self.drain {
            if answers > 1 {
                self.drain = Drain::Asking(left, answers - 1);
                context.connection.ping(context.now, context.out);
            } else {
                self.drained(context.out);
            }
        }
    }

    fn drained(&mut self, out: &mut Output) {
        self.drain = Drain::Off;
        self.tell(Event::Drained, out);
    }
}
