//! PUBLISH: from a client's message to everybody who wants it.

use smallvec::SmallVec;

use crate::{
    Closing, DenyAction, Event, LinkId, Message, PacketId, Publish, QoS, ReasonCode, ShardId,
    SubscriptionIds, Timestamp,
    admission::Action,
    filter_index::FilterId,
    hooks::{HookContext, HookPoint, TopicUse},
    session::{Queued, SessionKey},
    topic,
};

use super::{
    Shard, ShardMessage, delayed,
    route::{Route, ShardSet, Subscriber},
};

/// A session of this shard that gets the message under way, with what its matching subscriptions amount to.
#[derive(Debug)]
pub(super) struct Receiver {
    session: SessionKey,
    qos: QoS,
    retain_as_published: bool,
    ids: SubscriptionIds,
}

/// Why a message is not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The publisher is told this code where its protocol can say it.
    Answer(ReasonCode),
    /// The connection is closed.
    Close(ReasonCode),
}

impl Shard {
    pub(super) fn publish(&mut self, now: Timestamp, link: LinkId, key: SessionKey, publish: Publish) {
        let Publish {
            message,
            packet_id,
            dup,
        } = publish;
        self.count_received(message.qos());
        match (message.qos(), packet_id) {
            (QoS::ExactlyOnce, Some(packet_id)) => {
                self.publish_exactly_once(now, link, key, message, packet_id, dup)
            }
            (qos, packet_id) => {
                let reason = match self.accept(now, key, message) {
                    Ok(reason) | Err(Refusal::Answer(reason)) => reason,
                    Err(Refusal::Close(reason)) => return self.close_session(now, key, Closing::new(reason)),
                };
                if let (QoS::AtLeastOnce, Some(packet_id)) = (qos, packet_id) {
                    self.emit(link, Event::PubAck(packet_id, reason));
                }
            }
        }
    }

    /// Method A of §4.3.3: the packet identifier is kept until PUBREL.
    fn publish_exactly_once(
        &mut self,
        now: Timestamp,
        link: LinkId,
        key: SessionKey,
        message: Message,
        packet_id: PacketId,
        dup: bool,
    ) {
        let limit = usize::from(self.common.config.mqtt.effective_receive_maximum());
        let session = self.session_mut(key);
        if session.awaiting_rel.contains(&packet_id) {
            let is_reused = session.is_v5() && !dup;
            if is_reused {
                // Not marked as a repetition, it is another message under an identifier in use. The error ends the
                // exchange: what comes next under this identifier is new [MQTT-4.3.3-9].
                session.awaiting_rel.retain(|awaited| *awaited != packet_id);
            }
            self.metrics.packets_duplicate.inc();
            let reason = if is_reused {
                ReasonCode::PacketIdentifierInUse
            } else {
                ReasonCode::Success
            };
            return self.emit(link, Event::PubRec(packet_id, reason));
        }
        if session.awaiting_rel.len() >= limit {
            // [MQTT-3.3.4-9]
            self.metrics.quota_exceeded.inc();
            return self.close_session(now, key, Closing::new(ReasonCode::ReceiveMaximumExceeded));
        }
        match self.accept(now, key, message) {
            Ok(reason) => {
                if let Some(session) = self.sessions.get_mut(key.0 as usize) {
                    session.awaiting_rel.push(packet_id);
                }
                self.emit(link, Event::PubRec(packet_id, reason));
            }
            Err(Refusal::Answer(reason)) => {
                // A 3.x client reads every PUBREC as success and goes on with PUBREL.
                if !reason.is_error() || !self.session(key).is_v5() {
                    self.session_mut(key).awaiting_rel.push(packet_id);
                }
                self.emit(link, Event::PubRec(packet_id, reason));
            }
            Err(Refusal::Close(reason)) => self.close_session(now, key, Closing::new(reason)),
        }
    }

    fn count_received(&self, qos: QoS) {
        let metrics = &self.metrics;
        metrics.messages_received.inc();
        match qos {
            QoS::AtMostOnce => metrics.messages_qos0_received.inc(),
            QoS::AtLeastOnce => metrics.messages_qos1_received.inc(),
            QoS::ExactlyOnce => metrics.messages_qos2_received.inc(),
        }
    }

    /// Takes a client's message: checks it, admits it, hands it out.
    fn accept(&mut self, now: Timestamp, key: SessionKey, message: Message) -> Result<ReasonCode, Refusal> {
        self.check_form(&message)?;
        let message = self.admit_message(now, key, message)?;
        match self.dispatch(now, message, Some(key)) {
            Ok(true) => Ok(ReasonCode::Success),
            Ok(false) => Ok(ReasonCode::NoMatchingSubscribers),
            Err(reason) => Err(Refusal::Answer(reason)),
        }
    }

    /// What the node supports, and its limits.
    fn check_form(&self, message: &Message) -> Result<(), Refusal> {
        let limits = &self.common.config.mqtt;
        if message.qos() > limits.max_qos_allowed {
            // [MQTT-3.2.2-11]
            return Err(Refusal::Close(ReasonCode::QoSNotSupported));
        }
        if message.retain() && !limits.retain_available {
            // [MQTT-3.2.2-14]
            return Err(Refusal::Close(ReasonCode::RetainNotSupported));
        }
        if message.payload().len() > limits.max_payload_size as usize {
            self.metrics.messages_dropped_quota.inc();
            return Err(Refusal::Answer(ReasonCode::QuotaExceeded));
        }
        if topic::levels(message.topic()) > usize::from(limits.max_topic_levels) {
            self.metrics.quota_exceeded.inc();
            return Err(match message.qos() {
                QoS::AtMostOnce => Refusal::Close(ReasonCode::TopicNameInvalid),
                _ => Refusal::Answer(ReasonCode::TopicNameInvalid),
            });
        }
        let properties = message.properties();
        if !properties.encoded().is_empty()
            && properties.payload_is_utf8()
            && std::str::from_utf8(message.payload()).is_err()
        {
            return Err(match message.qos() {
                QoS::AtMostOnce => Refusal::Close(ReasonCode::PayloadFormatInvalid),
                _ => Refusal::Answer(ReasonCode::PayloadFormatInvalid),
            });
        }
        Ok(())
    }

    /// Rewrite, authorization, `message.publish`.
    pub(super) fn admit_message(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        mut message: Message,
    ) -> Result<Message, Refusal> {
        self.published += 1;
        message.set_id(u64::from(self.id.0) << 48 | self.published);
        if self.common.hooks.wants(HookPoint::TopicRewrite) {
            message = self.rewrite(key, message);
        }
        // What is authorized is the topic that the message will have in the end.
        let topic = message.local_topic();
        let topic = delayed::target(topic).unwrap_or(topic);
        let action = Action::Publish {
            qos: message.qos(),
            retain: message.retain(),
        };
        // What the broker says of itself, nobody else may say (MQTT 5 §4.7.2).
        let is_forged = topic.starts_with("$SYS/")
            && message.origin().mountpoint.is_empty()
            && !message.origin().is_superuser;
        if is_forged || !self.authorize(now, key, action, topic) {
            return Err(match self.common.config.deny_action {
                DenyAction::Ignore => Refusal::Answer(self.common.config.deny_code.reason()),
                DenyAction::Disconnect => Refusal::Close(ReasonCode::NotAuthorized),
            });
        }
        let common = &self.common;
        if common.hooks.wants(HookPoint::MessagePublish) {
            let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
            return common
                .hooks
                .message_publish(&mut context, message)
                .map_err(Refusal::Answer);
        }
        Ok(message)
    }

    fn rewrite(&self, key: SessionKey, message: Message) -> Message {
        let client = &self.session(key).client;
        let rewritten = self
            .common
            .hooks
            .topic_rewrite(client, TopicUse::Publish, message.local_topic());
        let renamed = rewritten
            .and_then(|topic| message.with_topic(&format!("{}{topic}", client.mountpoint), message.retain()));
        renamed.unwrap_or(message)
    }

    /// Hands an admitted message out, or keeps it for later (`$delayed/`). True if somebody may get it.
    ///
    /// # Errors
    /// The code for the publisher if the message can be neither handed out nor kept.
    pub(super) fn dispatch(
        &mut self,
        now: Timestamp,
        message: Message,
        publisher: Option<SessionKey>,
    ) -> Result<bool, ReasonCode> {
        if message.local_topic().starts_with("$delayed/") {
            return self.delay(now, &message).map(|()| true);
        }
        if message.retain() {
            self.retain(&message);
        }
        let is_matched = self.route(now, &message, publisher);
        if !is_matched && !message.retain() {
            // What the node says of itself mostly goes unheard: counted, it would hide what clients lose.
            if !message.topic().starts_with("$SYS/") {
                self.metrics.messages_dropped.inc();
                self.metrics.messages_dropped_no_subscribers.inc();
            }
            self.dropped_point(now, &message, None, "no_subscribers");
        }
        Ok(is_matched)
    }

    /// Matches the message once: to the sessions of this shard, to other shards, to one member of each group.
    fn route(&mut self, now: Timestamp, message: &Message, publisher: Option<SessionKey>) -> bool {
        let mut groups: SmallVec<[FilterId; 4]> = SmallVec::new();
        let mut remote = ShardSet::default();
        let mut receivers = self.collect(message, publisher, |id, route| {
            remote = remote.union(route.remote);
            if route.groups.is_some() {
                groups.push(id);
            }
        });
        let mut is_matched = !receivers.is_empty() || !remote.is_empty();
        self.hand_out(now, message, &mut receivers);
        for shard in remote.iter() {
            self.forward(shard, ShardMessage::Publish(message.clone()));
        }
        for id in groups {
            is_matched |= self.route_shared(now, message, publisher, id);
        }
        is_matched
    }

    /// A message that another shard has matched: only for the plain subscribers here.
    pub(super) fn route_forwarded(&mut self, now: Timestamp, message: &Message) {
        let mut receivers = self.collect(message, None, |_, _| {});
        self.hand_out(now, message, &mut receivers);
    }

    pub(super) fn forward(&mut self, shard: ShardId, message: ShardMessage) {
        self.metrics.messages_forward.inc();
        self.outbound.push(shard, message);
    }

    /// The receivers on this shard, each once: overlapping subscriptions of a session become one delivery at the
    /// highest QoS with all subscription identifiers ([MQTT-3.3.4-2..4], and [MQTT-3.3.5-1] of 3.1.1).
    fn collect(
        &mut self,
        message: &Message,
        publisher: Option<SessionKey>,
        mut each: impl FnMut(FilterId, &Route),
    ) -> Vec<Receiver> {
        let mut receivers = std::mem::take(&mut self.receivers);
        self.published += 1;
        let number = self.published;
        let (sessions, metrics) = (&mut self.sessions, &self.metrics);
        self.index.for_each_match(message.topic(), |id, route| {
            each(id, route);
            route.subscribers.for_each(|subscriber| {
                // [MQTT-3.8.3-3]
                if subscriber.options.no_local && publisher == Some(subscriber.session) {
                    metrics.delivery_dropped.inc();
                    metrics.delivery_dropped_no_local.inc();
                    return;
                }
                let session = &mut sessions[subscriber.session.0 as usize];
                let retain_as_published = subscriber.options.retain_as_published || session.is_bridge;
                if session.mark.0 == number {
                    receivers[session.mark.1 as usize].merge(subscriber, retain_as_published);
                } else {
                    let at = u32::try_from(receivers.len()).expect("fewer receivers than sessions");
                    session.mark = (number, at);
                    receivers.push(Receiver::new(subscriber, retain_as_published));
                }
            });
        });
        receivers
    }

    fn hand_out(&mut self, now: Timestamp, message: &Message, receivers: &mut Vec<Receiver>) {
        let upgrade = self.common.config.mqtt.upgrade_qos;
        for receiver in receivers.drain(..) {
            let item = Queued {
                message: message.clone(),
                qos: effective_qos(message.qos(), receiver.qos, upgrade),
                retain: message.retain() && receiver.retain_as_published,
                subscription_ids: receiver.ids,
                shared: None,
            };
            self.deliver(now, receiver.session, item);
        }
        self.receivers = std::mem::take(receivers);
    }
}

/// The QoS of a delivery (§3.8.4): the lower of the two, or with `upgrade_qos` the higher.
pub(super) fn effective_qos(published: QoS, subscribed: QoS, upgrade: bool) -> QoS {
    if upgrade {
        published.max(subscribed)
    } else {
        published.min(subscribed)
    }
}

impl Receiver {
    fn new(subscriber: &Subscriber, retain_as_published: bool) -> Receiver {
        let mut receiver = Receiver {
            session: subscriber.session,
            qos: subscriber.options.qos,
            retain_as_published,
            ids: SubscriptionIds::new(),
        };
        receiver.add_id(subscriber.id);
        receiver
    }

    fn merge(&mut self, subscriber: &Subscriber, retain_as_published: bool) {
        self.qos = self.qos.max(subscriber.options.qos);
        self.retain_as_published |= retain_as_published;
        self.add_id(subscriber.id);
    }

    fn add_id(&mut self, id: u32) {
        if id != 0 {
            self.ids.push(id);
        }
    }
}
