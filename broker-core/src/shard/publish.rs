//! PUBLISH: from a client's message to everybody who wants it.

use smallvec::SmallVec;

use crate::{
    Closing, DenyAction, Event, LinkId, Message, PacketId, Publish, QoS, ReasonCode, ShardId, Timestamp,
    admission::Action,
    filter_index::FilterId,
    hooks::{HookContext, HookPoint, TopicUse},
    session::SessionKey,
    store::{
        Value,
        format::{Name, Token},
    },
    topic,
};

use super::{Shard, ShardMessage, commit::Held, delayed, route::ShardSet};

/// What became of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dispatched {
    /// Somebody may get it.
    pub(super) is_matched: bool,
    /// It is part of the turn's commit.
    pub(super) is_stored: bool,
}

impl Dispatched {
    fn reason(self) -> ReasonCode {
        if self.is_matched {
            ReasonCode::Success
        } else {
            ReasonCode::NoMatchingSubscribers
        }
    }
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
                let (reason, is_stored) = match self.accept(now, key, message) {
                    Ok(dispatched) => (dispatched.reason(), dispatched.is_stored),
                    Err(Refusal::Answer(reason)) => (reason, false),
                    Err(Refusal::Close(reason)) => return self.close_session(now, key, Closing::new(reason)),
                };
                if is_stored {
                    self.pause_if_full(link);
                }
                if let (QoS::AtLeastOnce, Some(packet_id)) = (qos, packet_id) {
                    let event = Event::PubAck(packet_id, reason);
                    if is_stored {
                        self.hold_event(link, event);
                    } else {
                        self.acknowledge(link, event);
                    }
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
                if let Some(token) = self.token(key) {
                    self.delete(Name::Received(token, packet_id));
                }
            }
            self.metrics.packets_duplicate.inc();
            let reason = if is_reused {
                ReasonCode::PacketIdentifierInUse
            } else {
                ReasonCode::Success
            };
            // If the first one still waits for the store, so does this answer.
            return self.hold_event(link, Event::PubRec(packet_id, reason));
        }
        if session.awaiting_rel.len() >= limit {
            // [MQTT-3.3.4-9]
            self.metrics.quota_exceeded.inc();
            return self.close_session(now, key, Closing::new(ReasonCode::ReceiveMaximumExceeded));
        }
        match self.accept(now, key, message) {
            Ok(dispatched) => {
                let reason = dispatched.reason();
                self.receive_exactly_once(link, key, packet_id, reason, true, dispatched.is_stored);
            }
            Err(Refusal::Answer(reason)) => {
                // A 3.x client reads every PUBREC as success and goes on with PUBREL.
                let is_awaited = !reason.is_error() || !self.session(key).is_v5();
                self.receive_exactly_once(link, key, packet_id, reason, is_awaited, false);
            }
            Err(Refusal::Close(reason)) => self.close_session(now, key, Closing::new(reason)),
        }
    }

    /// Answers a QoS 2 message. If it is to be released, its packet identifier is remembered until then, by the store
    /// too if the session outlives its connection.
    fn receive_exactly_once(
        &mut self,
        link: LinkId,
        key: SessionKey,
        packet_id: PacketId,
        reason: ReasonCode,
        is_awaited: bool,
        is_stored: bool,
    ) {
        let mut is_stored = is_stored;
        if is_awaited && let Some(session) = self.online_mut(key) {
            session.awaiting_rel.push(packet_id);
            let client_id = session.client.client_id.clone();
            if let Some(token) = self.token(key) {
                self.put(Name::Received(token, packet_id), bytes::Bytes::new());
                is_stored = true;
            }
            if is_stored {
                self.hold(Held::Received(client_id, packet_id));
            }
        }
        let event = Event::PubRec(packet_id, reason);
        if is_stored {
            self.pause_if_full(link);
            self.hold_event(link, event);
        } else {
            self.acknowledge(link, event);
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
    fn accept(&mut self, now: Timestamp, key: SessionKey, message: Message) -> Result<Dispatched, Refusal> {
        self.check_form(&message)?;
        let client = std::sync::Arc::clone(&self.session(key).client);
        let message = self.admit_message(now, Some(key), &client, message)?;
        self.dispatch(now, message, Some(key)).map_err(Refusal::Answer)
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
        key: Option<SessionKey>,
        client: &std::sync::Arc<crate::ClientInfo>,
        mut message: Message,
    ) -> Result<Message, Refusal> {
        self.number(&mut message);
        if self.common.hooks.wants(HookPoint::TopicRewrite) {
            message = self.rewrite(client, message);
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
        if is_forged || !self.authorize(now, key, client, action, topic) {
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

    fn rewrite(&self, client: &crate::ClientInfo, message: Message) -> Message {
        let rewritten = self
            .common
            .hooks
            .topic_rewrite(client, TopicUse::Publish, message.local_topic());
        let renamed = rewritten
            .and_then(|topic| message.with_topic(&format!("{}{topic}", client.mountpoint), message.retain()));
        renamed.unwrap_or(message)
    }

    fn number(&mut self, message: &mut Message) {
        self.published += 1;
        message.set_id(u64::from(self.id.0) << 48 | self.published);
    }

    /// Hands an admitted message out, or keeps it for later (`$delayed/`).
    ///
    /// # Errors
    /// The code for the publisher if the message can be neither handed out nor kept.
    pub(super) fn dispatch(
        &mut self,
        now: Timestamp,
        mut message: Message,
        publisher: Option<SessionKey>,
    ) -> Result<Dispatched, ReasonCode> {
        if message.id() == 0 {
            self.number(&mut message);
        }
        if message.local_topic().starts_with("$delayed/") {
            return self.delay(now, &message);
        }
        let (is_matched, is_durable) = self.route(now, &message, publisher);
        let is_stored = self.store_message(&message, is_durable);
        if !is_matched && !message.retain() {
            // What the node says of itself mostly goes unheard: counted, it would hide what clients lose.
            if !message.topic().starts_with("$SYS/") {
                self.metrics.messages_dropped.inc();
                self.metrics.messages_dropped_no_subscribers.inc();
            }
            self.dropped_point(now, &message, None, "no_subscribers");
        }
        Ok(Dispatched {
            is_matched,
            is_stored,
        })
    }

    /// Makes the message part of the turn's commit if that is for somebody. True if so.
    fn store_message(&mut self, message: &Message, is_durable: bool) -> bool {
        let is_retained = message.retain() && self.retain(message);
        if !is_durable && !is_retained {
            return false;
        }
        let record = self.append(message, is_durable);
        if is_retained {
            let name = Name::Retained(Token::of(message.topic()));
            let value = if message.payload().is_empty() {
                Value::Delete
            } else {
                Value::PutRecord(record)
            };
            self.write(name, value);
            self.hold(Held::Retained(message.clone()));
        }
        true
    }

    /// The same for a message that was handed out before and could not be committed then.
    pub(super) fn store_again(&mut self, message: &Message) -> bool {
        let mut is_durable = false;
        self.index
            .for_each_match(message.topic(), |_, route| is_durable |= route.is_durable());
        let is_durable = is_durable && self.may_last(message);
        self.store_message(message, is_durable)
    }

    /// Matches the message once: to the sessions of this shard, to other shards, to one member of each group. Returns
    /// whether there is anybody, and whether some of them get it from the journal.
    fn route(&mut self, now: Timestamp, message: &Message, publisher: Option<SessionKey>) -> (bool, bool) {
        let mut groups: SmallVec<[FilterId; 4]> = SmallVec::new();
        let (mut remote, mut remote_durable) = (ShardSet::default(), ShardSet::default());
        let mut is_durable = false;
        let mut receivers = self.collect(message, publisher, None, |id, route| {
            remote = remote.union(route.remote);
            remote_durable = remote_durable.union(route.remote_durable);
            is_durable |= route.is_durable();
            if route.groups.is_some() {
                groups.push(id);
            }
        });
        let is_stored = is_durable && self.may_last(message);
        // What is published at QoS 0 may be delivered so, and is not waited for then.
        if !is_stored || message.qos() == QoS::AtMostOnce {
            remote = remote.union(remote_durable);
        }
        let mut is_matched =
            !receivers.is_empty() || !self.sleepers.is_empty() || !remote.is_empty() || is_durable;
        self.hand_out(now, message, &mut receivers, is_stored);
        for shard in remote.iter() {
            self.forward(shard, ShardMessage::Publish(message.clone(), is_stored));
        }
        for id in groups {
            is_matched |= self.route_shared(now, message, publisher, id, is_stored);
        }
        (is_matched, is_stored)
    }

    pub(super) fn forward(&mut self, shard: ShardId, message: ShardMessage) {
        self.metrics.messages_forward.inc();
        self.outbound.push(shard, message);
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
