//! The sessions of this shard that get a message, each once.

use crate::{
    Message, QoS, SubscriptionIds, Timestamp,
    filter_index::FilterId,
    session::{Queued, SessionKey},
    store::Sequence,
};

use super::{
    Shard,
    publish::effective_qos,
    route::{Route, Subscriber},
};

/// A session of this shard that gets the message under way, with what its matching subscriptions amount to.
#[derive(Debug)]
pub(super) struct Receiver {
    session: SessionKey,
    qos: QoS,
    retain_as_published: bool,
    /// One of them is durable.
    durable: bool,
    ids: SubscriptionIds,
}

impl Shard {
    /// A message that another shard has matched: only for the plain subscribers here.
    pub(super) fn route_forwarded(&mut self, now: Timestamp, message: &Message, is_stored: bool) {
        let mut receivers = self.collect(message, None, None, |_, _| {});
        self.hand_out(now, message, &mut receivers, is_stored);
    }

    /// A message from the journal, for the durable subscribers here that have read everything before it.
    pub(super) fn route_stored(&mut self, now: Timestamp, message: &Message, sequence: Sequence) {
        let publisher = self.by_client.get(&message.origin().client_id).copied();
        let mut receivers = self.collect(message, publisher, Some(sequence), |_, _| {});
        let upgrade = self.common.config.mqtt.upgrade_qos;
        for receiver in receivers.drain(..) {
            let item = receiver.item(message, upgrade, Some(sequence));
            let had_it = message.retain()
                && self
                    .online_mut(receiver.session)
                    .and_then(|session| session.stored.as_mut())
                    .is_some_and(|stored| stored.take_had(message.id()));
            if receiver.durable && item.qos > QoS::AtMostOnce && !had_it {
                self.deliver_stored(now, receiver.session, item);
            }
        }
        self.receivers = receivers;
    }

    /// The receivers on this shard, each once: overlapping subscriptions of a session become one delivery at the
    /// highest QoS with all subscription identifiers ([MQTT-3.3.4-2..4], and [MQTT-3.3.5-1] of 3.1.1).
    ///
    /// Those whose clients sleep are gathered beside, once for each of their subscriptions, until
    /// [`Shard::hand_out`].
    ///
    /// With `sequence` only the subscriptions that get the message from this place of the journal.
    pub(super) fn collect(
        &mut self,
        message: &Message,
        publisher: Option<SessionKey>,
        sequence: Option<Sequence>,
        mut each: impl FnMut(FilterId, &Route),
    ) -> Vec<Receiver> {
        let mut receivers = std::mem::take(&mut self.receivers);
        self.published += 1;
        let number = self.published;
        let (sessions, metrics) = (&mut self.sessions, &self.metrics);
        let sleepers = &mut self.sleepers;
        // Its publisher may be a client of this shard though it comes from another: a delayed message does, after a
        // start with another number of shards.
        let publisher_id = &message.origin().client_id;
        self.index.for_each_match(message.topic(), |id, route| {
            each(id, route);
            route.subscribers.for_each(|subscriber| {
                // [MQTT-3.8.3-3]
                if subscriber.options.no_local
                    && (publisher == Some(subscriber.session)
                        || sessions[subscriber.session.0 as usize].client_id() == publisher_id)
                {
                    metrics.delivery_dropped.inc();
                    metrics.delivery_dropped_no_local.inc();
                    return;
                }
                let Some(session) = sessions[subscriber.session.0 as usize].online_mut() else {
                    if sequence.is_none() {
                        let retain_as_published = subscriber.options.retain_as_published;
                        sleepers.push(Receiver::new(subscriber, retain_as_published));
                    }
                    return;
                };
                if sequence.is_some_and(|sequence| !session.is_due(sequence, id)) {
                    return;
                }
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

    /// `is_stored`: who is durable gets it from the journal.
    pub(super) fn hand_out(
        &mut self,
        now: Timestamp,
        message: &Message,
        receivers: &mut Vec<Receiver>,
        is_stored: bool,
    ) {
        let upgrade = self.common.config.mqtt.upgrade_qos;
        for receiver in receivers.drain(..) {
            let item = receiver.item(message, upgrade, None);
            let may_be_stored = receiver.durable && item.qos > QoS::AtMostOnce;
            if is_stored && may_be_stored {
                continue;
            }
            if may_be_stored
                && message.retain()
                && let Some(session) = self.online_mut(receiver.session)
                && let Some(stored) = &mut session.stored
            {
                // It was published where nobody knew of the subscription yet. Retained, it is in the journal nevertheless.
                stored.note_had(message.id());
            }
            self.deliver(now, receiver.session, item);
        }
        self.receivers = std::mem::take(receivers);
        if !self.sleepers.is_empty() {
            self.hand_to_sleepers(now, message);
        }
    }

    /// What sleepers get at QoS 0; the rest stands in the journal.
    fn hand_to_sleepers(&mut self, now: Timestamp, message: &Message) {
        let upgrade = self.common.config.mqtt.upgrade_qos;
        let mut sleepers = std::mem::take(&mut self.sleepers);
        sleepers.sort_by_key(|receiver| receiver.session);
        sleepers.dedup_by(|next, first| {
            let is_same = next.session == first.session;
            if is_same {
                first.join(next);
            }
            is_same
        });
        for receiver in sleepers.drain(..) {
            let item = receiver.item(message, upgrade, None);
            if item.qos == QoS::AtMostOnce {
                self.keep_asleep(now, receiver.session, item);
            }
        }
        self.sleepers = sleepers;
    }
}

impl Receiver {
    fn new(subscriber: &Subscriber, retain_as_published: bool) -> Receiver {
        let mut receiver = Receiver {
            session: subscriber.session,
            qos: subscriber.options.qos,
            retain_as_published,
            durable: subscriber.durable,
            ids: SubscriptionIds::new(),
        };
        receiver.add_id(subscriber.id);
        receiver
    }

    fn merge(&mut self, subscriber: &Subscriber, retain_as_published: bool) {
        self.qos = self.qos.max(subscriber.options.qos);
        self.retain_as_published |= retain_as_published;
        self.durable |= subscriber.durable;
        self.add_id(subscriber.id);
    }

    /// Another subscription of the same session.
    fn join(&mut self, other: &Receiver) {
        self.qos = self.qos.max(other.qos);
        self.retain_as_published |= other.retain_as_published;
        self.durable |= other.durable;
        self.ids.extend(other.ids.iter().copied());
    }

    fn item(&self, message: &Message, upgrade: bool, sequence: Option<Sequence>) -> Queued {
        Queued {
            message: message.clone(),
            qos: effective_qos(message.qos(), self.qos, upgrade),
            retain: message.retain() && self.retain_as_published,
            subscription_ids: self.ids.clone(),
            shared: None,
            sequence,
            priority: 0,
        }
    }

    fn add_id(&mut self, id: u32) {
        if id != 0 {
            self.ids.push(id);
        }
    }
}
