//! The end of a connection, and of a session.

use std::sync::Arc;

use crate::{
    Closing, Disconnect, DisconnectCause, Event, LinkId, MessageParts, Properties, ReasonCode, Timestamp,
    Will,
    session::{Presence, SessionKey},
};

use super::{Link, Shard, connect::Stage};

impl Shard {
    /// The peer reports the end of its connection.
    pub(super) fn disconnect(&mut self, now: Timestamp, link: LinkId, disconnect: &Disconnect) {
        match self.links.get(&link) {
            Some(&Link::Online(key)) => {
                if let Some(interval) = disconnect.session_expiry_interval {
                    let limit = self.common.config.mqtt.session_expiry_interval.as_secs();
                    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
                    self.session_mut(key).expiry_interval = interval.min(limit);
                }
                self.end_connection(now, key, disconnect.cause, None, &disconnect.user_properties);
            }
            Some(Link::Connecting(connecting)) => {
                if let Stage::Asked(ticket) = connecting.stage {
                    self.tickets.remove(&ticket);
                }
                self.links.remove(&link);
            }
            None => {}
        }
    }

    /// Tells every client that the server shuts down and ends its connection; sessions stay as they are.
    pub fn shut_down(&mut self, now: Timestamp) {
        self.now = now;
        let mut links: Vec<LinkId> = self.links.keys().copied().collect();
        links.sort_unstable();
        for link in links {
            let closing = Closing::new(ReasonCode::ServerShuttingDown);
            match self.links.get(&link) {
                Some(&Link::Online(key)) => self.close_session(now, key, closing),
                Some(Link::Connecting(_)) => self.refuse(now, link, closing),
                None => {}
            }
        }
        self.apply_effects(now);
    }

    /// Ends the connection of an online session for a reason of the broker's.
    pub(super) fn close_session(&mut self, now: Timestamp, key: SessionKey, closing: Closing) {
        self.end_connection(
            now,
            key,
            DisconnectCause::ByServer(closing.reason),
            Some(closing),
            &[],
        );
    }

    /// The session loses its connection; `tell`: what the client is told. Ends the session too if it does not
    /// outlive its connection.
    pub(super) fn end_connection(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        cause: DisconnectCause,
        tell: Option<Closing>,
        user_properties: &[(String, String)],
    ) {
        let session = self.session_mut(key);
        let Presence::Online {
            link, connected_at, ..
        } = session.presence
        else {
            return;
        };
        let expires_at = match session.expiry_interval {
            u32::MAX => Timestamp::NEVER,
            seconds => now.after_secs(u64::from(seconds)),
        };
        session.presence = Presence::Offline {
            expires_at,
            will_at: Timestamp::NEVER,
        };
        session.exchange = None;
        session.outgoing.disconnect();
        session.retry_at = Timestamp::NEVER;
        if cause == DisconnectCause::Normal {
            session.will = None;
        }
        self.links.remove(&link);
        self.metrics.client_disconnected.inc();
        self.stats
            .connections
            .set(self.stats.connections.get().saturating_sub(1));
        if let Some(closing) = tell {
            self.emit(link, Event::Close(Box::new(closing)));
        }
        self.announce_presence(key, false);
        self.disconnected_point(now, key, cause, connected_at, user_properties);
        self.schedule_will(now, key);
        if self.session(key).expiry_interval == 0 {
            self.terminate(now, key, Some(cause));
        } else {
            self.redispatch_session(now, key);
            self.arm_session(key);
        }
    }

    /// Ends the session: publishes a Will that waits, gives away what others may have, forgets the rest.
    pub(super) fn terminate(&mut self, now: Timestamp, key: SessionKey, cause: Option<DisconnectCause>) {
        // The Will is published when the session ends, whatever its delay [MQTT-3.1.3-9].
        if let Some(will) = self.session_mut(key).will.take() {
            self.publish_will(now, key, &will);
        }
        let shared = self.session_mut(key).outgoing.take_shared(|_| true);
        let subscriptions: Vec<_> = self.session(key).subscriptions.iter().cloned().collect();
        for subscription in subscriptions {
            self.remove_subscription(key, subscription.route, subscription.kind.group());
        }
        for item in shared {
            self.redispatch(now, item, None);
        }

        self.metrics.session_terminated.inc();
        let session = self.sessions.remove(key.0 as usize);
        for replay in session.replays.iter() {
            self.replays.remove(&replay.number);
        }
        self.by_client.remove(&session.client.client_id);
        self.terminated_point(now, &session.client.client_id, cause);
        self.stats.sessions.set(self.sessions.len() as u64);
    }

    fn schedule_will(&mut self, now: Timestamp, key: SessionKey) {
        let session = self.session_mut(key);
        let Some(will) = &session.will else { return };
        if will.delay_interval == 0 {
            let will = session.will.take().expect("looked at above");
            return self.publish_will(now, key, &will);
        }
        let at = now.after_secs(u64::from(will.delay_interval));
        if let Presence::Offline { will_at, .. } = &mut session.presence {
            *will_at = at;
        }
    }

    /// Publishes the Will of the session's last connection (§3.1.2.5).
    pub(super) fn publish_will(&mut self, now: Timestamp, key: SessionKey, will: &Will) {
        let client = Arc::clone(&self.session(key).client);
        let parts = MessageParts {
            topic: &will.topic,
            qos: will.qos,
            retain: will.retain,
            expiry_interval: will.expiry_interval,
            properties: Properties::from_validated(&will.properties),
            payload: &will.payload,
        };
        let Some(message) = parts.publish(now, &client) else {
            return;
        };
        let Ok(message) = self.admit_message(now, key, message) else {
            return;
        };
        self.metrics.wills_published.inc();
        // Nobody is left to be told of a limit: the limit has counted it.
        let _ = self.dispatch(now, message, Some(key));
    }
}
