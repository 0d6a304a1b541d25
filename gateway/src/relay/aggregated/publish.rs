//! Messages, both ways.

use broker_core::{Delivery, Message, Publish, SubscriptionIds};

use super::*;
use crate::relay::deliveries::{Pushed, Step};

/// Exchanges of all clients with the broker that are not complete. MQTT knows 65 535.
const EXCHANGES_MAX: usize = 16_384;

/// Messages of one client that are not complete.
const PUBLISHING_MAX: usize = 64;

/// What the gateway waits for from the broker.
#[derive(Debug)]
pub(super) enum Exchange {
    /// A message: of a session under the client's packet identifier, or of the gateway itself.
    Publish {
        owner: Option<(SessionKey, PacketId)>,
        stage: Stage,
    },
    /// A SUBSCRIBE of a client: its packet identifier, the filters that the broker is asked for, and codes of the others.
    Subscribe {
        key: SessionKey,
        id: PacketId,
        filters: Vec<String>,
        codes: Vec<Option<ReasonCode>>,
    },
    /// The filters of everybody, on a new connection.
    Resubscribe,
    /// An UNSUBSCRIBE, with its filter; of a client with its packet identifier and number of filters.
    Unsubscribe(String, Option<(SessionKey, PacketId, usize)>),
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Neither PUBACK nor PUBREC has come.
    Sent(Message),
    /// QoS 2: PUBREC has come; the owner has to release it.
    Received,
    /// QoS 2: PUBCOMP has not come.
    Released,
}

impl Session {
    /// The client has received a message of QoS 2, or does not take it. The broker has long been told.
    pub(super) fn received(&mut self, id: PacketId, is_refused: bool, out: &mut Output) {
        if self.deliveries.pub_rec(id, is_refused) == Step::None {
            return;
        }
        if self.deliveries.pub_rel(id) == Step::Forward {
            self.tell(Event::PubRel(id, ReasonCode::Success), out);
        }
        self.deliver(out);
    }
}

impl Aggregated {
    /// A message of a client.
    pub(super) fn publish(&mut self, now: Timestamp, key: SessionKey, publish: &Publish, out: &mut Output) {
        let (message, is_open) = (&publish.message, self.is_open());
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let Some(id) = publish.packet_id else {
            match self.open() {
                Some(connection) => drop(connection.publish(now, message, None, false, out)),
                None => self.counters.dropped_unconnected += 1,
            }
            return;
        };
        let answer = |reason| match message.qos() {
            QoS::ExactlyOnce => Event::PubRec(id, reason),
            _ => Event::PubAck(id, reason),
        };
        if let Some(known) = session.publishing.get(&id) {
            let stage = self.exchanges.get(known);
            if let Some(Exchange::Publish {
                stage: Stage::Received | Stage::Released,
                ..
            }) = stage
            {
                session.tell(answer(ReasonCode::Success), out);
            }
            return;
        }
        let refusal = match is_open {
            false => Some(ReasonCode::ServerUnavailable),
            true if session.publishing.len() >= PUBLISHING_MAX => Some(ReasonCode::QuotaExceeded),
            true if self.exchanges.len() >= EXCHANGES_MAX => Some(ReasonCode::QuotaExceeded),
            true => None,
        };
        if let Some(reason) = refusal {
            return session.tell(answer(reason), out);
        }
        let own = self.free_id();
        if let Some(session) = self.sessions.get_mut(&key) {
            session.publishing.insert(id, own);
        }
        self.send(now, own, Some((key, id)), message.clone(), out);
    }

    fn send(
        &mut self,
        now: Timestamp,
        id: PacketId,
        owner: Option<(SessionKey, PacketId)>,
        message: Message,
        out: &mut Output,
    ) {
        if let Some(connection) = self.open() {
            connection.publish(now, &message, Some(id), false, out);
        }
        let stage = Stage::Sent(message);
        self.exchanges.insert(id, Exchange::Publish { owner, stage });
    }

    /// A message of the gateway itself: a Will. Of QoS 1 and 2 it waits for a connection, if need be.
    pub(super) fn publish_own(&mut self, now: Timestamp, message: Message, out: &mut Output) {
        if message.qos() != QoS::AtMostOnce && self.exchanges.len() < EXCHANGES_MAX {
            let id = self.free_id();
            return self.send(now, id, None, message, out);
        }
        match self.open() {
            Some(connection) if message.qos() == QoS::AtMostOnce => {
                connection.publish(now, &message, None, false, out);
            }
            _ => self.counters.dropped_unconnected += 1,
        }
    }

    /// A new connection: what was not acknowledged on the one before goes out again [MQTT-4.4.0-1].
    pub(super) fn publish_again(&mut self, now: Timestamp, session_present: bool, out: &mut Output) {
        let Some(connection) = self.connection.as_mut() else {
            return;
        };
        for (&id, exchange) in &self.exchanges {
            match exchange {
                Exchange::Publish {
                    stage: Stage::Sent(message),
                    ..
                } => {
                    connection.publish(now, message, Some(id), session_present, out);
                }
                Exchange::Publish {
                    stage: Stage::Released,
                    ..
                } => connection.pub_rel(now, id, out),
                _ => {}
            }
        }
    }

    /// The exchange under the broker's packet identifier is over.
    pub(super) fn published(&mut self, id: PacketId, reason: ReasonCode, out: &mut Output) {
        let is_expected = |exchange: &Exchange| match exchange {
            Exchange::Publish {
                stage: Stage::Sent(message),
                ..
            } => message.qos() == QoS::AtLeastOnce,
            _ => false,
        };
        if self.exchanges.get(&id).is_some_and(is_expected) {
            self.tell_owner(id, |id| Event::PubAck(id, reason), out);
        }
    }

    fn tell_owner(&mut self, id: PacketId, event: impl FnOnce(PacketId) -> Event, out: &mut Output) {
        if let Some(Exchange::Publish {
            owner: Some((key, theirs)),
            ..
        }) = self.exchanges.remove(&id)
            && let Some(session) = self.sessions.get_mut(&key)
        {
            session.publishing.remove(&theirs);
            session.tell(event(theirs), out);
        }
    }

    /// PUBREC of the broker.
    pub(super) fn publish_received(&mut self, now: Timestamp, id: PacketId, out: &mut Output) {
        let Some(Exchange::Publish { owner, stage }) = self.exchanges.get_mut(&id) else {
            return;
        };
        if matches!(stage, Stage::Sent(message) if message.qos() != QoS::ExactlyOnce) {
            return;
        }
        match owner {
            Some((key, theirs)) => {
                if let Stage::Sent(_) = stage {
                    *stage = Stage::Received;
                }
                if let Some(session) = self.sessions.get(key) {
                    session.tell(Event::PubRec(*theirs, ReasonCode::Success), out);
                }
            }
            None => {
                *stage = Stage::Released;
                if let Some(connection) = self.open() {
                    connection.pub_rel(now, id, out);
                }
            }
        }
    }

    /// PUBREL of a client. What is not known was complete before.
    pub(super) fn release(&mut self, now: Timestamp, key: SessionKey, theirs: PacketId, out: &mut Output) {
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let Some(&id) = session.publishing.get(&theirs) else {
            return session.tell(Event::PubComp(theirs, ReasonCode::Success), out);
        };
        if let Some(Exchange::Publish { stage, .. }) = self.exchanges.get_mut(&id)
            && !matches!(stage, Stage::Sent(_))
        {
            *stage = Stage::Released;
            if let Some(connection) = self.open() {
                connection.pub_rel(now, id, out);
            }
        }
    }

    /// PUBCOMP of the broker.
    pub(super) fn publish_complete(&mut self, id: PacketId, out: &mut Output) {
        let is_released = |exchange: &Exchange| {
            matches!(
                exchange,
                Exchange::Publish {
                    stage: Stage::Released,
                    ..
                }
            )
        };
        if self.exchanges.get(&id).is_some_and(is_released) {
            self.tell_owner(id, |id| Event::PubComp(id, ReasonCode::Success), out);
        }
    }

    /// The owner of a message is gone for good: the gateway completes the exchange.
    pub(super) fn disown(&mut self, now: Timestamp, id: PacketId, out: &mut Output) {
        let Some(Exchange::Publish { owner, stage }) = self.exchanges.get_mut(&id) else {
            return;
        };
        *owner = None;
        if let Stage::Received = stage {
            *stage = Stage::Released;
            if let Some(connection) = self.open() {
                connection.pub_rel(now, id, out);
            }
        }
    }

    /// A message of the broker.
    pub(super) fn receive(
        &mut self,
        now: Timestamp,
        message: &Message,
        packet_id: Option<PacketId>,
        out: &mut Output,
    ) {
        let is_known = packet_id.is_some_and(|id| self.unreleased.contains(&id));
        if !(is_known && message.qos() == QoS::ExactlyOnce) {
            self.route(now, message, out);
        }
        self.acknowledge(now, message.qos(), packet_id, out);
    }

    pub(super) fn acknowledge(
        &mut self,
        now: Timestamp,
        qos: QoS,
        packet_id: Option<PacketId>,
        out: &mut Output,
    ) {
        let Some(id) = packet_id else {
            return;
        };
        if qos == QoS::ExactlyOnce {
            self.unreleased.insert(id);
        }
        match (self.open(), qos) {
            (Some(connection), QoS::ExactlyOnce) => connection.pub_rec(now, id, out),
            (Some(connection), _) => connection.pub_ack(now, id, out),
            (None, _) => {}
        }
    }

    fn route(&mut self, now: Timestamp, message: &Message, out: &mut Output) {
        let to = self.subscribers(now, message);
        if to.is_empty() {
            self.counters.dropped_unmatched += 1;
        }
        for (key, granted) in to {
            let Some(session) = self.sessions.get_mut(&key) else {
                continue;
            };
            let qos = granted.min(message.qos());
            let packet_id = (qos != QoS::AtMostOnce).then(|| session.free_id());
            let pushed = session.deliveries.push_bounded(Delivery {
                message: message.clone(),
                packet_id,
                qos,
                dup: false,
                retain: message.retain(),
                subscription_ids: SubscriptionIds::new(),
            });
            match pushed {
                Pushed::Kept => {}
                Pushed::InPlaceOfQoS0 | Pushed::DroppedQoS0 => self.counters.dropped_qos0 += 1,
                Pushed::Dropped => self.counters.dropped_queue_full += 1,
            }
            if pushed != Pushed::Kept && !std::mem::replace(&mut session.was_full, true) {
                let client_id = session.client.client_id.to_string();
                out.notices.push(Notice::QueueFull { client_id });
            }
            session.deliver(out);
        }
    }
}

impl Session {
    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.next();
            if !self.deliveries.is_used(self.last_id) {
                return self.last_id;
            }
        }
    }
}
