//! SUBSCRIBE (§3.8).

use std::{collections::HashSet, sync::Arc};

use crate::{
    ClientId, Closing, Config, DenyAction, Event, LinkId, PacketId, ReasonCode, RetainHandling, Subscribe,
    SubscribeOptions, Timestamp,
    admission::Action,
    hooks::{HookContext, HookPoint, TopicUse},
    session::{Kind, SessionKey},
    topic,
};

use super::{Shard, ShardMessage};

/// A SUBSCRIBE on its way to its SUBACK.
#[derive(Debug)]
pub(super) struct Operation {
    link: LinkId,
    connection: u64,
    client_id: ClientId,
    packet_id: PacketId,
    pub(super) id: Option<u32>,
    pub(super) filters: Vec<Planned>,
    /// Answers of other shards that are missing.
    waiting: usize,
    stage: Stage,
    /// Changes of routes that the other shards will have seen when they have answered.
    covers: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Exclusive topics are claimed.
    Claiming,
    /// The subscriptions are made; the other shards confirm that they route to this one.
    Announcing,
}

/// One filter of it.
#[derive(Debug)]
pub(super) struct Planned {
    /// With the client's mountpoint, without its prefix.
    pub(super) filter: String,
    pub(super) kind: Kind,
    pub(super) options: SubscribeOptions,
    /// Its code in the SUBACK.
    pub(super) code: ReasonCode,
    pub(super) is_new: bool,
}

impl Operation {
    /// The exclusive topics that it has asked for and not been refused.
    fn claims(&self) -> impl Iterator<Item = &str> {
        let claimed = |planned: &&Planned| planned.kind == Kind::Exclusive && !planned.code.is_error();
        self.filters
            .iter()
            .filter(claimed)
            .map(|planned| planned.filter.as_str())
    }
}

impl Shard {
    pub(super) fn subscribe(
        &mut self,
        now: Timestamp,
        link: LinkId,
        key: SessionKey,
        mut subscribe: Subscribe,
    ) {
        let common = Arc::clone(&self.common);
        let denied = if common.hooks.wants(HookPoint::ClientSubscribe) {
            let client = Arc::clone(&self.session(key).client);
            let mut context = HookContext::new(now, &common.config.node_name, &mut self.effects);
            common
                .hooks
                .client_subscribe(&mut context, &client, &mut subscribe)
        } else {
            Vec::new()
        };
        let mut filters = Vec::with_capacity(subscribe.filters.len());
        for (at, (filter, options)) in subscribe.filters.iter().enumerate() {
            let refused = denied.get(at).copied().flatten();
            let planned = self.plan(&common.config, now, key, filter, *options, refused);
            if planned.code == common.config.deny_code.reason()
                && common.config.deny_action == DenyAction::Disconnect
            {
                return self.close_session(now, key, Closing::new(ReasonCode::NotAuthorized));
            }
            filters.push(planned);
        }
        let (packet_id, id) = (subscribe.packet_id, subscribe.subscription_id);
        let client_id = self.session(key).client.client_id.clone();
        let mut operation = Operation {
            link,
            connection: self.session(key).connection,
            client_id,
            packet_id,
            id,
            filters,
            waiting: 0,
            stage: Stage::Claiming,
            covers: 0,
        };
        let number = self.next_number();
        for (at, planned) in operation.filters.iter_mut().enumerate() {
            if planned.kind == Kind::Exclusive && !planned.code.is_error() {
                match self.claim_exclusive(operation.client_id.clone(), number, at, &planned.filter) {
                    Some(true) => {}
                    Some(false) => planned.code = ReasonCode::QuotaExceeded,
                    None => operation.waiting += 1,
                }
            }
        }
        self.advance(now, number, operation);
    }

    /// What becomes of one filter, apart from what other shards have to say.
    fn plan(
        &mut self,
        config: &Config,
        now: Timestamp,
        key: SessionKey,
        filter: &str,
        mut options: SubscribeOptions,
        refused: Option<ReasonCode>,
    ) -> Planned {
        let client = Arc::clone(&self.session(key).client);
        let rewritten = self
            .common
            .hooks
            .topic_rewrite(&client, TopicUse::Subscribe, filter);
        let filter = rewritten.as_deref().unwrap_or(filter);
        let limits = &config.mqtt;
        options.qos = options.qos.min(limits.max_qos_allowed);
        let mut planned = Planned {
            filter: String::new(),
            kind: Kind::Plain,
            options,
            code: ReasonCode::TopicFilterInvalid,
            is_new: false,
        };
        let Some((kind, rest)) = Kind::split(filter) else {
            return planned;
        };
        planned.filter = format!("{}{rest}", client.mountpoint);
        let is_valid = topic::is_valid_filter(&planned.filter)
            && topic::levels(rest) <= usize::from(limits.max_topic_levels)
            && !(kind == Kind::Exclusive && topic::has_wildcard(rest));
        planned.code = if let Some(code) = refused {
            code
        } else if !is_valid {
            ReasonCode::TopicFilterInvalid
        } else if matches!(kind, Kind::Shared(_)) && !limits.shared_subscription {
            ReasonCode::SharedSubscriptionsNotSupported
        } else if topic::has_wildcard(rest) && !limits.wildcard_subscription {
            ReasonCode::WildcardSubscriptionsNotSupported
        } else if kind == Kind::Exclusive && !limits.exclusive_subscription {
            ReasonCode::TopicFilterInvalid
        } else if !self.authorize(
            now,
            Some(key),
            &client,
            Action::Subscribe { qos: options.qos },
            rest,
        ) {
            config.deny_code.reason()
        } else {
            ReasonCode::granted(options.qos)
        };
        planned.kind = kind;
        planned
    }

    /// Goes on with an operation for which nothing is missing any more.
    fn advance(&mut self, now: Timestamp, number: u64, mut operation: Operation) {
        let Some(key) = self.connected(operation.link, operation.connection) else {
            return self.abandon(&operation);
        };
        if operation.waiting == 0 && operation.stage == Stage::Claiming {
            operation.stage = Stage::Announcing;
            self.make_subscriptions(now, key, &mut operation);
            // Also for what another operation has announced and nobody has confirmed yet.
            if self.routes_confirmed < self.routes_changed {
                operation.covers = self.routes_changed;
                for shard in self.outbound.others() {
                    self.outbound.push(shard, ShardMessage::Barrier(number));
                    operation.waiting += 1;
                }
            }
        }
        if operation.waiting > 0 {
            self.operations.insert(number, operation);
            return;
        }
        self.routes_confirmed = self.routes_confirmed.max(operation.covers);
        let codes = operation.filters.iter().map(|planned| planned.code).collect();
        let event = Event::SubAck(operation.packet_id, codes);
        if self.token(key).is_some() {
            self.pause_if_full(operation.link);
            self.hold_event(operation.link, event);
        } else {
            self.acknowledge(operation.link, event);
        }
        for planned in operation.filters {
            // A shared subscription gets no retained messages (§4.8.2).
            // One that was ended before its SUBACK neither.
            let is_replayed = !planned.code.is_error() && planned.kind.group().is_none();
            if is_replayed && self.is_subscribed(key, &planned) {
                self.start_replay(
                    key,
                    &planned.filter,
                    planned.options,
                    operation.id,
                    planned.is_new,
                );
            }
        }
    }

    /// The client is gone before its SUBACK: what was claimed for it is free again, unless it holds it or has come back
    /// and asked for it anew.
    fn abandon(&mut self, operation: &Operation) {
        // One that is past its claims gives nothing back any more.
        if operation.stage != Stage::Claiming {
            return;
        }
        let others = self.operations.values();
        let others =
            others.filter(|other| other.stage == Stage::Claiming && other.client_id == operation.client_id);
        let wanted: HashSet<&str> = others.flat_map(Operation::claims).collect();
        let is_free =
            |topic: &&str| !wanted.contains(topic) && !self.holds_exclusive(&operation.client_id, topic);
        let free: Vec<&str> = operation.claims().filter(is_free).collect();
        for topic in free {
            self.release_exclusive(&operation.client_id, topic);
        }
    }

    fn holds_exclusive(&self, client_id: &ClientId, topic: &str) -> bool {
        let subscription = || {
            let tenant = &self.sessions[self.by_client.get(client_id)?.0 as usize];
            tenant.subscriptions().get(self.index.find(topic)?, None)
        };
        subscription().is_some_and(|subscription| subscription.kind == Kind::Exclusive)
    }

    /// An exclusive topic is or is not the client's.
    pub(super) fn exclusive_answered(&mut self, now: Timestamp, number: u64, at: usize, granted: bool) {
        let Some(mut operation) = self.operations.remove(&number) else {
            return;
        };
        operation.waiting -= 1;
        if !granted {
            operation.filters[at].code = ReasonCode::QuotaExceeded;
        }
        if operation.waiting == 0 {
            self.advance(now, number, operation);
        } else {
            self.operations.insert(number, operation);
        }
    }

    /// Another shard routes to this one from here on.
    pub(super) fn operation_passed(&mut self, now: Timestamp, number: u64) {
        if self.routes_passed(number) {
            return;
        }
        let Some(mut operation) = self.operations.remove(&number) else {
            return;
        };
        operation.waiting -= 1;
        self.advance(now, number, operation);
    }

    /// Subscriptions that a hook wants the client to have.
    pub(super) fn subscribe_internal(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        filters: Vec<(String, SubscribeOptions)>,
    ) {
        let Some(session) = self.online(key) else { return };
        let mountpoint = Arc::clone(&session.client.mountpoint);
        for (filter, options) in filters {
            let Some((kind, rest)) = Kind::split(&filter) else {
                continue;
            };
            if kind == Kind::Exclusive {
                continue;
            }
            let code = ReasonCode::granted(options.qos);
            let filter = format!("{mountpoint}{rest}");
            let mut planned = Planned {
                filter,
                kind,
                options,
                code,
                is_new: false,
            };
            if self.online(key).is_none() {
                return;
            }
            self.add_subscription(now, key, &mut planned, None);
            if planned.kind.group().is_none() {
                self.start_replay(key, &planned.filter, planned.options, None, planned.is_new);
            }
        }
    }
}

/// Whether a subscription gets the retained messages that match it (§3.8.3.1).
pub(super) fn replay_is_wanted(options: SubscribeOptions, is_new: bool) -> bool {
    match options.retain_handling {
        RetainHandling::Send => true,
        RetainHandling::SendIfNew => is_new,
        RetainHandling::DoNotSend => false,
    }
}
