//! From a session's queue to its connection.

use crate::{
    Delivery, Event, LinkId, PacketId, QoS, Timestamp,
    hooks::HookPoint,
    session::{Presence, Queued, Sending, SessionKey},
};

use super::Shard;

/// Messages that one session sends before others have their turn.
const SLICE: usize = 256;

impl Shard {
    /// One message for one session: at once if it may, else it waits, within the session's limits.
    pub(super) fn deliver(&mut self, now: Timestamp, key: SessionKey, item: Queued) {
        let session = &mut *self.sessions[key.0 as usize];
        if item.message.retain() {
            for replay in session.replays.asking() {
                replay.overtake(item.message.topic());
            }
        }
        match session.presence {
            Presence::Online {
                link,
                congested: false,
                ..
            } if session.outgoing.has_room(item.qos) => {
                if item.qos == QoS::AtMostOnce {
                    return self.send(now, link, key, item, None, false);
                }
                let packet_id = session.outgoing.send(now, item.clone());
                self.send(now, link, key, item, Some(packet_id), false);
                self.arm_retry(now, key);
            }
            Presence::Offline { .. } if item.qos == QoS::AtMostOnce => {
                self.metrics.delivery_dropped.inc();
                self.metrics.delivery_dropped_qos0.inc();
            }
            _ => self.enqueue(now, key, item),
        }
    }

    fn enqueue(&mut self, now: Timestamp, key: SessionKey, item: Queued) {
        let limits = &self.common.config.mqtt;
        let (len_max, bytes_max) = (limits.max_mqueue_len, limits.max_mqueue_bytes);
        let session = &mut *self.sessions[key.0 as usize];
        let cut = session.outgoing.enqueue(item, len_max, bytes_max);
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
        for _ in 0..SLICE {
            let Some(session) = self.sessions.get_mut(key.0 as usize) else {
                return;
            };
            let Presence::Online {
                link,
                congested: false,
                ..
            } = session.presence
            else {
                return;
            };
            match session.outgoing.next_sending(now, &mut expired) {
                Some(sending) => self.put(now, link, key, sending),
                None => {
                    self.drop_expired(now, key, &mut expired);
                    self.arm_retry(now, key);
                    return self.pump_replays(now, key);
                }
            }
        }
        self.drop_expired(now, key, &mut expired);
        self.ready.push_back(key);
    }

    pub(super) fn put(&mut self, now: Timestamp, link: LinkId, key: SessionKey, sending: Sending) {
        match sending {
            Sending::Publish { item, packet_id, dup } => self.send(now, link, key, item, packet_id, dup),
            Sending::Release(packet_id) => {
                self.emit(link, Event::PubRel(packet_id, crate::ReasonCode::Success))
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
        let Queued {
            message,
            qos,
            retain,
            subscription_ids,
            ..
        } = item;
        self.emit(
            link,
            Event::Deliver(Delivery {
                message,
                packet_id,
                qos,
                dup,
                retain,
                subscription_ids,
            }),
        );
    }

    pub(super) fn set_congested(&mut self, key: SessionKey, is_congested: bool) {
        if let Presence::Online { congested, .. } = &mut self.session_mut(key).presence {
            *congested = is_congested;
        }
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

    pub(super) fn drop_delivery(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        item: &Queued,
        reason: &'static str,
    ) {
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
        let session = &mut *self.sessions[key.0 as usize];
        if session.retry_at == Timestamp::NEVER && !session.is_v5() && session.outgoing.inflight_len() > 0 {
            session.retry_at = now.after(interval);
            self.arm_session(key);
        }
    }
}
