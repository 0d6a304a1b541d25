//! UNSUBSCRIBE (§3.10).

use std::sync::Arc;

use crate::{
    Event, LinkId, ReasonCode, Timestamp, Unsubscribe,
    hooks::{HookContext, HookPoint, TopicUse},
    session::{Kind, SessionKey, SharedTarget},
};

use super::Shard;

impl Shard {
    pub(super) fn unsubscribe(
        &mut self,
        now: Timestamp,
        link: LinkId,
        key: SessionKey,
        mut unsubscribe: Unsubscribe,
    ) {
        if self.common.hooks.wants(HookPoint::ClientUnsubscribe) {
            let common = Arc::clone(&self.common);
            let client = Arc::clone(&self.session(key).client);
            let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
            common
                .hooks
                .client_unsubscribe(&mut context, &client, &mut unsubscribe);
        }
        let mut codes = Vec::with_capacity(unsubscribe.filters.len());
        for filter in &unsubscribe.filters {
            let client = &self.session(key).client;
            let rewritten = self
                .common
                .hooks
                .topic_rewrite(client, TopicUse::Unsubscribe, filter);
            let filter = rewritten.as_deref().unwrap_or(filter);
            codes.push(if self.end_subscription(now, key, filter) {
                ReasonCode::Success
            } else if Kind::split(filter).is_none() {
                ReasonCode::TopicFilterInvalid
            } else {
                ReasonCode::NoSubscriptionExisted
            });
        }
        let event = Event::UnsubAck(unsubscribe.packet_id, codes);
        if self.token(key).is_some() {
            self.pause_if_full(link);
            self.hold_event(link, event);
        } else {
            self.acknowledge(link, event);
        }
    }

    /// Ends one subscription, given in the client's words. False if there was none.
    pub(super) fn end_subscription(&mut self, now: Timestamp, key: SessionKey, filter: &str) -> bool {
        let Some(session) = self.online(key) else {
            return false;
        };
        let client = Arc::clone(&session.client);
        let Some((kind, rest)) = Kind::split(filter) else {
            return false;
        };
        let absolute = format!("{}{rest}", client.mountpoint);
        let Some(route) = self.index.find(&absolute) else {
            return false;
        };
        // `$local/x` and `x` are one subscription, but a plain UNSUBSCRIBE does not end an exclusive one.
        let Some(known) = self.session(key).subscriptions.get(route, kind.group()) else {
            return false;
        };
        if (known.kind == Kind::Exclusive) != (kind == Kind::Exclusive) {
            return false;
        }
        let Some(removed) = self.remove_subscription(key, route, kind.group()) else {
            return false;
        };
        self.metrics.client_unsubscribe.inc();
        if removed.kind.group().is_none() {
            self.stop_replay(key, &absolute);
        }
        if let Kind::Shared(group) = removed.kind {
            let target = SharedTarget {
                filter: absolute.into(),
                group,
            };
            self.give_back(key, |other| *other == target);
            for item in self
                .session_mut(key)
                .outgoing
                .take_shared(|other| *other == target)
            {
                self.redispatch(now, item, None);
            }
            // What waited behind it may go now.
            self.ready.push_back(key);
        }
        if self.common.hooks.wants(HookPoint::SessionUnsubscribed) {
            let common = Arc::clone(&self.common);
            let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
            common
                .hooks
                .session_unsubscribed(&mut context, &client, filter, removed.options);
        }
        true
    }
}
