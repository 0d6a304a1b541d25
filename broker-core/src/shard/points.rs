//! The points at which this shard calls hooks, and what the hooks want done.

use std::sync::Arc;

use crate::{
    ClientId, ClientInfo, Closing, Connect, DisconnectCause, Message, ReasonCode, Timestamp,
    admission::{Action, AuthorizationCache, Verdict},
    hooks::{ClientConnected, ClientDisconnected, HookContext, HookEffect, HookPoint},
    session::{Session, SessionKey},
};

use super::Shard;

impl Shard {
    pub(super) fn connect_point(&mut self, now: Timestamp, connect: &mut Connect) -> Result<(), ReasonCode> {
        let common = Arc::clone(&self.common);
        if !common.hooks.wants(HookPoint::ClientConnect) {
            return Ok(());
        }
        // The identifier has said which shard the client belongs to: it stays.
        let client_id = connect.client_id.clone();
        let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
        let verdict = common.hooks.client_connect(&mut context, connect);
        connect.client_id = client_id;
        verdict
    }

    /// Returns the user properties that hooks add to the answer.
    pub(super) fn connack_point(
        &mut self,
        now: Timestamp,
        connect: &Connect,
        reason: ReasonCode,
    ) -> Vec<(String, String)> {
        let mut user_properties = Vec::new();
        if self.common.hooks.wants(HookPoint::ClientConnack) {
            let common = Arc::clone(&self.common);
            let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
            common
                .hooks
                .client_connack(&mut context, connect, reason, &mut user_properties);
        }
        user_properties
    }

    pub(super) fn connected_point(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        connect: &Connect,
        session_present: bool,
    ) {
        let common = Arc::clone(&self.common);
        let Some(session) = self.sessions[key.0 as usize].online() else {
            return;
        };
        let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
        if session_present {
            common.hooks.session_resumed(&mut context, &session.client);
        } else {
            common.hooks.session_created(&mut context, &session.client);
        }
        let connected = ClientConnected {
            client: &session.client,
            connected_at: now,
            keep_alive: common
                .config
                .mqtt
                .imposed_keep_alive(connect.keep_alive)
                .unwrap_or(connect.keep_alive),
            clean_start: connect.clean_start,
            session_expiry_interval: session.expiry_interval,
            receive_maximum: connect.receive_maximum,
            is_bridge: connect.is_bridge,
            session_present,
            user_properties: &connect.user_properties,
        };
        common.hooks.client_connected(&mut context, &connected);
    }

    pub(super) fn disconnected_point(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        cause: DisconnectCause,
        connected_at: Timestamp,
        user_properties: &[(String, String)],
    ) {
        let common = Arc::clone(&self.common);
        let Some(Session { client, .. }) = self.sessions[key.0 as usize].online() else {
            return;
        };
        let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
        let disconnected = ClientDisconnected {
            client,
            connected_at,
            cause,
            user_properties,
        };
        common.hooks.client_disconnected(&mut context, &disconnected);
    }

    pub(super) fn taken_over_point(&mut self, now: Timestamp, client_id: &ClientId) {
        let common = Arc::clone(&self.common);
        let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
        common.hooks.session_taken_over(&mut context, client_id);
    }

    pub(super) fn discarded_point(&mut self, now: Timestamp, client_id: &ClientId) {
        let common = Arc::clone(&self.common);
        let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
        common.hooks.session_discarded(&mut context, client_id);
    }

    pub(super) fn terminated_point(
        &mut self,
        now: Timestamp,
        client_id: &ClientId,
        cause: Option<DisconnectCause>,
    ) {
        let common = Arc::clone(&self.common);
        let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
        common.hooks.session_terminated(&mut context, client_id, cause);
    }

    pub(super) fn dropped_point(
        &mut self,
        now: Timestamp,
        message: &Message,
        client: Option<&Arc<ClientInfo>>,
        reason: &'static str,
    ) {
        if self.common.hooks.wants(HookPoint::MessageDropped) {
            let common = Arc::clone(&self.common);
            let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
            common
                .hooks
                .message_dropped(&mut context, message, client, reason);
        }
    }

    pub(super) fn delivered_point(&mut self, now: Timestamp, key: SessionKey, message: &Message) {
        let common = Arc::clone(&self.common);
        let Some(Session { client, .. }) = self.sessions[key.0 as usize].online() else {
            return;
        };
        let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
        common.hooks.message_delivered(&mut context, client, message);
    }

    pub(super) fn acked_point(&mut self, now: Timestamp, key: SessionKey, message: &Message) {
        if self.common.hooks.wants(HookPoint::MessageAcked) {
            let common = Arc::clone(&self.common);
            let Some(Session { client, .. }) = self.sessions[key.0 as usize].online() else {
                return;
            };
            let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
            common.hooks.message_acked(&mut context, client, message);
        }
    }

    /// May the client do this? `topic` in its own words. Hooks first, then the sources and, if the client is connected,
    /// their cache.
    pub(super) fn authorize(
        &mut self,
        now: Timestamp,
        key: Option<SessionKey>,
        client: &Arc<ClientInfo>,
        action: Action,
        topic: &str,
    ) -> bool {
        let common = &self.common;
        let verdict = if common.hooks.wants(HookPoint::ClientAuthorize) {
            let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
            common.hooks.client_authorize(&mut context, client, action, topic)
        } else {
            Verdict::Ignore
        };
        let allowed = match verdict {
            Verdict::Allow => true,
            Verdict::Deny => false,
            Verdict::Ignore => {
                let mut none = AuthorizationCache::default();
                let session = key.and_then(|key| self.sessions.get_mut(key.0 as usize)?.online_mut());
                let cache = session.map_or(&mut none, |session| &mut session.authorization_cache);
                common
                    .admission
                    .authorization
                    .check(now, client, cache, action, topic)
            }
        };
        let metrics = &self.metrics;
        if allowed {
            metrics.authorization_allow.inc()
        } else {
            metrics.authorization_deny.inc()
        }
        allowed
    }

    /// Does what the hooks of this turn want done.
    pub(super) fn apply_effects(&mut self, now: Timestamp) {
        // An effect may lead to points whose hooks want more. Bounded, so that hooks that feed each other end.
        for _ in 0..8 {
            if self.effects.is_empty() {
                return;
            }
            let effects: Vec<HookEffect> = self.effects.drain().collect();
            for effect in effects {
                self.apply_effect(now, effect);
            }
        }
    }

    fn apply_effect(&mut self, now: Timestamp, effect: HookEffect) {
        match effect {
            HookEffect::Publish(message) => {
                // A hook has nobody to tell that its own message met a limit: the limit has counted it.
                let _ = self.dispatch(now, message, None);
            }
            HookEffect::Subscribe(client_id, filters) => {
                if let Some(&key) = self.by_client.get(&client_id) {
                    self.subscribe_internal(now, key, filters);
                }
            }
            HookEffect::Unsubscribe(client_id, filters) => {
                if let Some(&key) = self.by_client.get(&client_id) {
                    for filter in filters {
                        self.end_subscription(now, key, &filter);
                    }
                }
            }
            HookEffect::Disconnect(client_id, reason) => {
                if let Some(&key) = self.by_client.get(&client_id) {
                    self.close_session(now, key, Closing::new(reason));
                }
            }
        }
    }
}
