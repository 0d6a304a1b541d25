//! The end of a connection, and of a session.

use std::sync::Arc;

use crate::{
    ClientInfo, Closing, Disconnect, DisconnectCause, Event, LinkId, MessageParts, Properties, ReasonCode,
    Timestamp, Will,
    session::{SessionKey, Tenant},
};

use super::{Link, Shard, asleep::sleep_of, commit::Held, connect::Stage, dormant::deadlines};

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
                if disconnect.cause == DisconnectCause::Normal && !disconnect.keeps_will {
                    self.session_mut(key).will = None;
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
        let Some(session) = self.online_mut(key) else {
            return;
        };
        let (link, connected_at) = (session.link, session.connected_at);
        let expiry_interval = session.expiry_interval;
        // Who wakes and falls asleep again has not been there for others.
        let is_silent = session.is_awake();
        let until = sleep_of(session, now, cause);
        session.outgoing.disconnect();
        session.retry_at = Timestamp::NEVER;
        // Nothing is sent on it any more, not even the client's own Will.
        session.congested = true;
        // A Will that is still there is kept for the next connection.
        let is_goodbye = cause == DisconnectCause::Normal;
        if is_goodbye && expiry_interval == 0 {
            session.will = None;
        }
        self.links.remove(&link);
        self.stats
            .connections
            .set(self.stats.connections.get().saturating_sub(1));
        if let Some(closing) = tell {
            self.emit(link, Event::Close(Box::new(closing)));
        }
        self.announce_presence(key, false);
        if !is_silent {
            self.metrics.client_disconnected.inc();
            self.disconnected_point(now, key, cause, connected_at, user_properties);
        }
        let will_at = if until.is_some() || is_goodbye {
            Timestamp::NEVER
        } else {
            self.schedule_will(now, key)
        };
        if expiry_interval == 0 && until.is_none() {
            return self.terminate(now, key, Some(cause));
        }
        self.redispatch_session(now, key);
        self.settle_shared(key);
        match until {
            Some(until) => self.fall_asleep(key, until),
            None => {
                if let Some(sleeper) = &mut self.session_mut(key).sleeper {
                    sleeper.until = Timestamp::NEVER;
                    sleeper.awake = None;
                }
                let (expires_at, _) = deadlines(now, expiry_interval, None);
                self.go_dormant(key, expires_at, will_at);
            }
        }
        if let (Some(_), DisconnectCause::Asleep(_)) = (until, cause) {
            self.metrics.client_asleep.inc();
            self.hold(Held::Asleep(link));
        }
    }

    /// Ends the session: publishes a Will that waits, gives away what others may have, forgets the rest.
    pub(super) fn terminate(&mut self, now: Timestamp, key: SessionKey, cause: Option<DisconnectCause>) {
        self.publish_waiting_will(now, key);
        if let Some(token) = self.token(key) {
            self.delete_session_entries(token, key);
        }
        self.give_back(key, |_| true);
        self.settle_all_shared(key);
        let shared = match self.online_mut(key) {
            Some(session) => session.outgoing.take_shared(|_| true),
            None => Vec::new(),
        };
        let tenant = self.end_subscriptions(key);
        for item in shared {
            self.redispatch(now, item, None);
        }

        self.metrics.session_terminated.inc();
        let client_id = tenant.client_id().clone();
        if let Tenant::Online(session) = tenant {
            for replay in session.replays.iter() {
                self.replays.remove(&replay.number);
            }
        }
        self.by_client.remove(&client_id);
        self.terminated_point(now, &client_id, cause);
        self.stats.sessions.set(self.sessions.len() as u64);
    }

    /// The Will is published when the session ends, whatever its delay [MQTT-3.1.3-9], but not one that is kept for the
    /// next connection.
    fn publish_waiting_will(&mut self, now: Timestamp, key: SessionKey) {
        let waiting = match &mut self.sessions[key.0 as usize] {
            Tenant::Online(session) => {
                let client = Arc::clone(&session.client);
                session.will.take().map(|will| (*will, client))
            }
            Tenant::Dormant(dormant) => {
                let waiting = dormant.will.take().filter(|_| dormant.will_at < Timestamp::NEVER);
                waiting.map(|waiting| (waiting.will, waiting.client))
            }
            Tenant::Ending(_) => None,
        };
        if let Some((will, client)) = waiting {
            self.publish_will(now, key, &client, &will);
        }
    }

    /// Publishes the Will now, or says when.
    fn schedule_will(&mut self, now: Timestamp, key: SessionKey) -> Timestamp {
        let session = self.session_mut(key);
        let Some(will) = &session.will else {
            return Timestamp::NEVER;
        };
        if will.delay_interval > 0 {
            return now.after_secs(u64::from(will.delay_interval));
        }
        self.publish_waiting_will(now, key);
        Timestamp::NEVER
    }

    /// Publishes the Will of the session's last connection (§3.1.2.5).
    pub(super) fn publish_will(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        client: &Arc<ClientInfo>,
        will: &Will,
    ) {
        let parts = MessageParts {
            topic: &will.topic,
            qos: will.qos,
            retain: will.retain,
            expiry_interval: will.expiry_interval,
            properties: Properties::from_validated(&will.properties),
            payload: &will.payload,
        };
        let Some(message) = parts.publish(now, client) else {
            return;
        };
        let Ok(message) = self.admit_message(now, Some(key), client, message) else {
            return;
        };
        self.metrics.wills_published.inc();
        // Nobody is left to be told of a limit: the limit has counted it.
        let dispatched = self.dispatch(now, message.clone(), Some(key));
        if dispatched.is_ok_and(|dispatched| dispatched.is_stored) {
            self.hold_again(now, message);
        }
    }
}
