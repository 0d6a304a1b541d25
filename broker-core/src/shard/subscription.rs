//! How a subscription begins and ends: in its session, in the routes, in the store.

use std::sync::Arc;

use crate::{
    ClientId, ReasonCode, Timestamp,
    filter_index::FilterId,
    hooks::{HookContext, HookPoint},
    session::{Kind, SessionKey, Subscription, Tenant},
    store::{
        Sequence,
        format::{FilterEntry, Name, Token},
    },
};

use super::{
    RouteChange, Shard,
    commit::Held,
    route::{Member, Subscriber},
    subscribe::{Operation, Planned, replay_is_wanted},
};

impl Shard {
    pub(super) fn make_subscriptions(&mut self, now: Timestamp, key: SessionKey, operation: &mut Operation) {
        let limit = self.common.config.mqtt.max_subscriptions;
        for planned in &mut operation.filters {
            if planned.code.is_error() {
                continue;
            }
            if limit > 0
                && self.session(key).subscriptions.len() >= limit
                && !self.is_subscribed(key, planned)
            {
                self.metrics.quota_exceeded.inc();
                planned.code = ReasonCode::QuotaExceeded;
                if planned.kind == Kind::Exclusive {
                    let client_id = self.session(key).client.client_id.clone();
                    self.release_exclusive(&client_id, &planned.filter);
                }
                continue;
            }
            self.add_subscription(now, key, planned, operation.id);
        }
    }

    pub(super) fn is_subscribed(&self, key: SessionKey, planned: &Planned) -> bool {
        let route = self.index.find(&planned.filter);
        route.is_some_and(|route| {
            self.session(key)
                .subscriptions
                .get(route, planned.kind.group())
                .is_some()
        })
    }

    /// Makes one subscription of a connected session, and tells the store and the other shards if they have to know
    /// of it.
    pub(super) fn add_subscription(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        planned: &mut Planned,
        id: Option<u32>,
    ) {
        let route_id = self.index.insert(&planned.filter);
        let is_stored = self.token(key).is_some();
        let may_last = planned.options.qos > crate::QoS::AtMostOnce || self.common.config.mqtt.upgrade_qos;
        let mut subscription = Subscription {
            route: route_id,
            kind: planned.kind.clone(),
            options: planned.options,
            id,
            durable: is_stored && may_last,
            since: if is_stored { Sequence::END } else { Sequence::FIRST },
        };
        let old = self
            .session(key)
            .subscriptions
            .get(route_id, planned.kind.group())
            .cloned();
        if let Some(old) = &old
            && (old.durable || !subscription.durable)
        {
            // What it was to get, it gets [MQTT-3.8.4-3].
            subscription.since = old.since;
        }
        let is_settled =
            subscription.since < Sequence::END || old.as_ref().is_some_and(|old| old.since == Sequence::END);
        let durable = subscription.durable;
        let session = self.session_mut(key);
        session.subscriptions.insert(subscription);
        if let Some(stored) = &mut session.stored {
            stored.interest = None;
            stored.unsettled += u32::from(!is_settled);
        }
        planned.is_new = old.is_none();
        if planned.kind != Kind::Exclusive && old.as_ref().is_some_and(|old| old.kind == Kind::Exclusive) {
            let client_id = self.session(key).client.client_id.clone();
            self.release_exclusive(&client_id, &planned.filter);
        }
        if let Some(old) = old.as_ref().filter(|old| old.kind != planned.kind) {
            // Its entry has the old prefix in its name.
            self.unstore_subscription(key, &old.kind, &planned.filter);
        }
        self.metrics.client_subscribe.inc();
        if planned.is_new {
            self.stats.subscriptions.add(1);
        }
        if let Kind::Shared(group) = planned.kind.clone() {
            self.join_group(key, planned, &group, durable);
        } else {
            let is_same = old.as_ref().is_some_and(|old| old.durable == durable);
            if !is_same {
                self.count_subscription(route_id, durable);
            }
            self.index.get_mut(route_id).subscribers.insert(Subscriber {
                session: key,
                id: id.unwrap_or(0),
                options: planned.options,
                durable,
            });
            if let Some(old) = old.filter(|_| !is_same) {
                self.discount_subscription(route_id, old.durable);
            }
        }
        self.stats.topics.set(self.index.len() as u64);
        if is_stored {
            self.write_subscription(key, route_id, planned, is_settled);
        }
        self.subscribed_point(now, key, planned);
    }

    fn write_subscription(&mut self, key: SessionKey, route: FilterId, planned: &Planned, is_settled: bool) {
        let is_replayed = planned.kind.group().is_none() && replay_is_wanted(planned.options, planned.is_new);
        // The commit's place is the subscription's: messages before it in this turn are older.
        if self.has_records() {
            self.close_commit();
        }
        self.store_subscription(key, route, planned.kind.group(), is_replayed, !is_settled);
        if !is_settled {
            let group = match &planned.kind {
                Kind::Shared(group) => Some(Arc::clone(group)),
                _ => None,
            };
            let client_id = self.session(key).client.client_id.clone();
            self.hold(Held::Subscribed {
                client_id,
                route,
                group,
            });
        }
    }

    /// One more plain subscription of a kind.
    pub(super) fn count_subscription(&mut self, route: FilterId, durable: bool) {
        let count = self.index.get_mut(route).count_mut(durable);
        *count += 1;
        if *count == 1 {
            let filter = self.index.name(route).into();
            self.announce(&RouteChange::Add { filter, durable });
        }
    }

    /// One plain subscription of a kind less.
    pub(super) fn discount_subscription(&mut self, route: FilterId, durable: bool) {
        let count = self.index.get_mut(route).count_mut(durable);
        *count -= 1;
        if *count == 0 {
            let filter = self.index.name(route).into();
            self.announce(&RouteChange::Remove { filter, durable });
        }
    }

    fn join_group(&mut self, key: SessionKey, planned: &Planned, name: &Arc<str>, durable: bool) {
        let client_id = self.session(key).client.client_id.clone();
        let member = Member {
            shard: self.id,
            client_id: client_id.clone(),
            durable,
        };
        let target = self.add_member(&planned.filter, name, member, true);
        if planned.is_new {
            self.stats.subscriptions_shared.add(1);
        }
        self.announce(&RouteChange::Member {
            target,
            client_id,
            online: true,
            durable,
        });
    }

    fn subscribed_point(&mut self, now: Timestamp, key: SessionKey, planned: &Planned) {
        if !self.common.hooks.wants(HookPoint::SessionSubscribed) {
            return;
        }
        let common = Arc::clone(&self.common);
        let client = Arc::clone(&self.session(key).client);
        let words = planned.kind.describe(&planned.filter[client.mountpoint.len()..]);
        let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
        common
            .hooks
            .session_subscribed(&mut context, &client, &words, planned.options, planned.is_new);
    }

    /// Takes one subscription out of the session and of the routes.
    pub(super) fn remove_subscription(
        &mut self,
        key: SessionKey,
        route_id: FilterId,
        group: Option<&str>,
    ) -> Option<Subscription> {
        let tenant = &mut self.sessions[key.0 as usize];
        let removed = tenant.subscriptions_mut().remove(route_id, group)?;
        let client_id = tenant.client_id().clone();
        if let Some(stored) = tenant.online_mut().and_then(|session| session.stored.as_mut()) {
            stored.interest = None;
        }
        let filter: Box<str> = self.index.name(route_id).into();
        self.unstore_subscription(key, &removed.kind, &filter);
        self.stats
            .subscriptions
            .set(self.stats.subscriptions.get().saturating_sub(1));
        match &removed.kind {
            Kind::Shared(group) => {
                self.stats
                    .subscriptions_shared
                    .set(self.stats.subscriptions_shared.get().saturating_sub(1));
                if let Some(target) = self.remove_member(&filter, group, &client_id) {
                    self.announce(&RouteChange::Leave { target, client_id });
                }
            }
            kind => {
                self.index.get_mut(route_id).subscribers.remove(key);
                if *kind == Kind::Exclusive {
                    self.release_exclusive(&client_id, &filter);
                }
                self.discount_subscription(route_id, removed.durable);
                self.drop_route_if_empty(route_id);
            }
        }
        Some(removed)
    }

    /// Forgets a filter that leads nowhere.
    pub(super) fn drop_route_if_empty(&mut self, id: FilterId) {
        let route = self.index.get_mut(id);
        if route.is_empty() {
            self.index.remove(id);
        }
        self.stats.topics.set(self.index.len() as u64);
    }

    /// Writes one subscription of a persistent session. `is_new`: it gets what stands in the journal from this commit
    /// on.
    pub(super) fn store_subscription(
        &mut self,
        key: SessionKey,
        route: FilterId,
        group: Option<&str>,
        replay: bool,
        is_new: bool,
    ) {
        let tenant = &self.sessions[key.0 as usize];
        let Some(token) = tenant.token() else { return };
        let Some(subscription) = tenant.subscriptions().get(route, group) else {
            return;
        };
        let filter = subscription.kind.describe(self.index.name(route));
        let since = match subscription.since {
            // It has been written before, but not committed as far as is known here: its client has no SUBACK yet, and
            // what it will have been promised then is later than what the tail has seen.
            Sequence::END if !is_new && self.has_begun() => Some(self.tail.next),
            Sequence::END => None,
            since => Some(since),
        };
        let entry = FilterEntry {
            options: subscription.options,
            id: subscription.id,
            since,
            replay,
            filter,
        };
        let name = Name::Filter(token, Token::of(&entry.filter));
        self.put(name, entry.encode());
    }

    /// Removes one subscription from the store.
    pub(super) fn unstore_subscription(&mut self, key: SessionKey, kind: &Kind, filter: &str) {
        if let Some(token) = self.token(key) {
            self.delete(Name::Filter(token, Token::of(&kind.describe(filter))));
        }
    }

    /// A subscription's commit has completed: what stands in the journal from `since` on is for it.
    pub(super) fn subscription_settled(
        &mut self,
        client_id: &ClientId,
        route: FilterId,
        group: Option<&str>,
        since: Sequence,
    ) {
        let Some(&key) = self.by_client.get(client_id) else {
            return;
        };
        let tenant = &mut self.sessions[key.0 as usize];
        let subscription = tenant.subscriptions_mut().get_mut(route, group);
        let is_new = match subscription.filter(|one| one.since == Sequence::END) {
            Some(subscription) => {
                subscription.since = since;
                true
            }
            None => false,
        };
        let mut is_replayed = false;
        match tenant {
            Tenant::Online(session) => {
                if let Some(stored) = &mut session.stored {
                    stored.unsettled = stored.unsettled.saturating_sub(1);
                    stored.settled_from = stored.settled_from.max(since);
                    if group.is_none() {
                        let before = stored.replayed.len();
                        stored.replayed.retain(|replayed| *replayed != route);
                        is_replayed = stored.replayed.len() < before;
                    }
                }
                if is_new && group.is_none() {
                    // From here on what is published reaches it as it is published.
                    session.replays.begin(self.index.name(route), self.now);
                }
                // It may have waited with reading.
                self.ready.push_back(key);
            }
            Tenant::Dormant(_) | Tenant::Ending(_) => {}
        }
        if is_replayed {
            self.store_subscription(key, route, None, false, false);
        }
    }

    /// Tells every other shard. A SUBACK waits until they have seen all that was announced before it.
    pub(super) fn announce(&mut self, change: &RouteChange) {
        if self.shards > 1 {
            self.routes_changed += 1;
            self.outbound.broadcast(change);
        }
    }
}
