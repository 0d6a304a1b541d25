//! From a session's queue to its connection.

use crate::{
    Delivery, Event, LinkId, PacketId, QoS, Timestamp,
    hooks::HookPoint,
    session::{Queued, Sending, SessionKey, Stored},
    store::format::Name,
};

use super::Shard;

/// Messages that one session sends before others have their turn.
const SLICE: usize = 256;

impl Shard {
    /// One message for one connected session: at once if it may, else it waits, within the session's limits.
    pub(super) fn deliver(&mut self, now: Timestamp, key: SessionKey, item: Queued) {
        let Some(session) = self.sessions[key.0 as usize].online_mut() else {
            return;
        };
        if item.message.retain() {
            for replay in session.replays.asking() {
                replay.overtake(item.message.topic());
            }
        }
        let is_fetching = session
            .stored
            .as_ref()
            .is_some_and(|stored| stored.fetching.is_some());
        if !session.takes_messages() || is_fetching || !session.outgoing.has_room(item.qos) {
            return self.enqueue(now, key, item);
        }
        let link = session.link;
        if item.qos == QoS::AtMostOnce {
            return self.send(now, link, key, item, None, false);
        }
        let packet_id = session.outgoing.send(now, item.clone());
        self.send(now, link, key, item, Some(packet_id), false);
        self.arm_retry(now, key);
    }

    pub(super) fn enqueue(&mut self, now: Timestamp, key: SessionKey, item: Queued) {
        let limits = &self.common.config.mqtt;
        let (mut len_max, mut bytes_max) = (limits.max_mqueue_len, limits.max_mqueue_bytes);
        if item.sequence.is_some() && (item.shared.is_some() || !self.ranks_backlogs()) {
            // It is one of a bounded number, and the journal keeps the limits.
            (len_max, bytes_max) = (0, 0);
        }
        let cut = self.session_mut(key).outgoing.enqueue(item, len_max, bytes_max);
        for item in cut {
            self.metrics.delivery_dropped.inc();
            if item.qos == QoS::AtMostOnce {
                self.metrics.delivery_dropped_qos0.inc();
            } else {
                self.metrics.delivery_dropped_queue_full.inc();
            }
            self.drop_delivery(now, key, &item, "queue_full");
        }
    }

    /// Sends what waits, as far as the client's window and its connection allow.
    pub(super) fn pump(&mut self, now: Timestamp, key: SessionKey) {
        let mut expired = Vec::new();
        let is_ranked = self.ranks_backlogs();
        for _ in 0..SLICE {
            let Some(session) = self.online_mut(key) else {
                return;
            };
            let is_fetching = session
                .stored
                .as_ref()
                .is_some_and(|stored| stored.fetching.is_some());
            if !session.takes_messages() || is_fetching {
                return;
            }
            if is_ranked && !session.stored.as_deref().is_none_or(Stored::has_read_all) {
                // What goes first is not known yet.
                return self.read_on(key);
            }
            let link = session.link;
            match session.outgoing.next_sending(now, &mut expired) {
                Some(sending) => {
                    if let Some(awake) = session
                        .sleeper
                        .as_mut()
                        .and_then(|sleeper| sleeper.awake.as_mut())
                    {
                        awake.count(&sending);
                    }
                    self.put_on_wire(now, link, key, sending);
                }
                None => {
                    self.drop_expired(now, key, &mut expired);
                    self.arm_retry(now, key);
                    self.read_on(key);
                    self.pump_replays(now, key);
                    return self.tell_drained(key);
                }
            }
        }
        self.drop_expired(now, key, &mut expired);
        self.read_on(key);
        self.tell_drained(key);
        self.ready.push_back(key);
    }

    pub(super) fn put_on_wire(&mut self, now: Timestamp, link: LinkId, key: SessionKey, sending: Sending) {
        match sending {
            Sending::Publish { item, packet_id, dup } => self.send(now, link, key, item, packet_id, dup),
            Sending::Release(packet_id) => {
                self.acknowledge(link, Event::PubRel(packet_id, crate::ReasonCode::Success))
            }
        }
    }

    fn send(
        &mut self,
        now: Timestamp,
        link: LinkId,
        key: SessionKey,
        item: Queued,
        packet_id: Option<PacketId>,
        dup: bool,
    ) {
        let metrics = &self.metrics;
        metrics.messages_sent.inc();
        match item.qos {
            QoS::AtMostOnce => metrics.messages_qos0_sent.inc(),
            QoS::AtLeastOnce => metrics.messages_qos1_sent.inc(),
            QoS::ExactlyOnce => metrics.messages_qos2_sent.inc(),
        }
        if self.common.hooks.wants(HookPoint::MessageDelivered) {
            self.delivered_point(now, key, &item.message);
        }
        let mut dup = dup;
        if let (Some(sequence), QoS::AtLeastOnce) = (item.sequence, item.qos) {
            let session = self.session_mut(key);
            let stored = session.stored.as_ref();
            dup |= stored.is_some_and(|stored| sequence < stored.repeats_before)
                || (item.shared.is_some() && session.outgoing.take_repeated(sequence));
        }
        let is_from_journal = item.sequence.is_some();
        let is_exact = item.qos == QoS::ExactlyOnce;
        let must_be_stored = is_exact && self.must_be_stored(key, &item, packet_id);
        let Queued {
            message,
            qos,
            retain,
            subscription_ids,
            ..
        } = item;
        let event = Event::Deliver(Delivery {
            message,
            packet_id,
            qos,
            dup,
            retain,
            subscription_ids,
        });
        if must_be_stored {
            self.hold_event(link, event);
        } else if is_exact || is_from_journal {
            // A repetition does not overtake what the first one waits for, nor QoS 1 a message of QoS 2 before it.
            self.acknowledge(link, event);
        } else {
            self.emit(link, event);
        }
    }

    /// A QoS 2 message must have the same packet identifier after a crash: the store is told before it is sent. True
    /// if that is so and was not done before.
    fn must_be_stored(&mut self, key: SessionKey, item: &Queued, packet_id: Option<PacketId>) -> bool {
        let session = self.session_mut(key);
        let (Some(stored), Some(packet_id)) = (&session.stored, packet_id) else {
            return false;
        };
        let token = stored.token;
        if session.outgoing.is_stored(packet_id) {
            return false;
        }
        let Some(entry) = session.outgoing.store(packet_id) else {
            return false;
        };
        self.put(Name::Outgoing(token, packet_id), entry.encode());
        if let (Some(target), Some(sequence)) = (&item.shared, item.sequence) {
            self.take_for_good(target, sequence);
        }
        if self.flush_now.last() != Some(&key) {
            self.flush_now.push(key);
        }
        true
    }

    pub(super) fn set_congested(&mut self, key: SessionKey, is_congested: bool) {
        self.session_mut(key).congested = is_congested;
        if !is_congested {
            self.ready.push_back(key);
        }
    }

    fn drop_expired(&mut self, now: Timestamp, key: SessionKey, expired: &mut Vec<Queued>) {
        for item in expired.drain(..) {
            self.metrics.delivery_dropped.inc();
            self.metrics.delivery_dropped_expired.inc();
            self.drop_delivery(now, key, &item, "expired");
        }
    }

    /// It was not sent and will not be. A group that had leased it to the session is done with it.
    pub(super) fn drop_delivery(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        item: &Queued,
        reason: &'static str,
    ) {
        if let (Some(target), Some(sequence)) = (&item.shared, item.sequence) {
            self.settle(target, sequence, false);
        }
        if self.common.hooks.wants(HookPoint::MessageDropped) {
            let client = std::sync::Arc::clone(&self.session(key).client);
            self.dropped_point(now, &item.message, Some(&client), reason);
        }
    }

    /// A timer for repetitions, if this client gets any: one that stands is enough.
    fn arm_retry(&mut self, now: Timestamp, key: SessionKey) {
        let Some(interval) = self.common.config.mqtt.retry_interval else {
            return;
        };
        let Some(session) = self.online_mut(key) else {
            return;
        };
        if session.retry_at == Timestamp::NEVER
            && session.speaks_mqtt_3()
            && session.outgoing.inflight_len() > 0
        {
            session.retry_at = now.after(interval);
            self.arm_session(key);
        }
    }
}
