//! Subscriptions: those of clients, and what they come to at the broker.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use broker_core::{Message, Subscribe, SubscribeOptions, Unsubscribe, topic};
use mqtt::codec::{self, Packet};

use super::*;

/// Subscriptions of one client.
const SUBSCRIPTIONS_MAX: usize = 256;

/// So long after SUBACK, and after each retained message, a subscriber is given retained messages.
const FRESH: Duration = Duration::from_secs(10);

/// Retained messages of which a subscriber is known to have been given them already.
const GIVEN_MAX: usize = 256;

/// Filters in one SUBSCRIBE of everybody's; more, if there would be more than [`RESUBSCRIBES_MAX`] otherwise.
const FILTERS_PER_PACKET: usize = 32;

/// SUBSCRIBEs of everybody's filters on a new connection.
const RESUBSCRIBES_MAX: usize = 8192;

/// Exchanges under way above which no SUBSCRIBE of a client is taken. MQTT knows 65 535.
const SUBSCRIBING_MAX: usize = 32_768;

/// Exchanges under way above which filters that nobody wants any more wait for others to be ended.
const UNSUBSCRIBING_MAX: usize = 49_152;

/// What the gateway knows of one filter.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    subscribers: Vec<Subscriber>,
}

#[derive(Clone, Debug)]
struct Subscriber {
    key: SessionKey,
    qos: QoS,
    /// Until then it is given retained messages.
    fresh_until: Timestamp,
    /// Those that it was given, as hashes of their topics: they come again if another client subscribes meanwhile.
    given: Vec<u64>,
}

impl Subscriber {
    /// Whether a retained message is one that it has asked for and was not given yet.
    fn takes_retained(&mut self, now: Timestamp, topic: u64) -> bool {
        if self.fresh_until < now {
            self.given = Vec::new();
            return false;
        }
        self.fresh_until = self.fresh_until.max(now.after(FRESH));
        let is_new = !self.given.contains(&topic);
        if is_new && self.given.len() < GIVEN_MAX {
            self.given.push(topic);
        }
        is_new
    }
}

impl Filter {
    /// What the broker is asked for.
    fn highest(&self) -> QoS {
        self.subscribers
            .iter()
            .map(|subscriber| subscriber.qos)
            .max()
            .unwrap_or_default()
    }
}

impl Aggregated {
    /// For whom a message is, and the highest quality of service that each has asked for.
    pub(super) fn subscribers(&mut self, now: Timestamp, message: &Message) -> BTreeMap<SessionKey, QoS> {
        let mut hasher = DefaultHasher::new();
        message.topic().hash(&mut hasher);
        let topic = hasher.finish();
        let mut matching = Vec::new();
        self.filters
            .for_each_match(message.topic(), |id, _| matching.push(id));
        let mut to = BTreeMap::new();
        for id in matching {
            for subscriber in &mut self.filters.get_mut(id).subscribers {
                if message.retain() && !subscriber.takes_retained(now, topic) {
                    continue;
                }
                let highest = to.entry(subscriber.key).or_insert(subscriber.qos);
                *highest = subscriber.qos.max(*highest);
            }
        }
        to
    }

    pub(super) fn subscribe(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        subscribe: &Subscribe,
        out: &mut Output,
    ) {
        let is_open = self.is_open();
        let is_busy = self.exchanges.len() >= SUBSCRIBING_MAX;
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let mut codes = Vec::new();
        let mut asked = Vec::new();
        for (filter, options) in &subscribe.filters {
            let is_known = session.subscriptions.contains(filter);
            let refusal = match is_open {
                false => Some(ReasonCode::ServerUnavailable),
                true if is_busy => Some(ReasonCode::QuotaExceeded),
                // One of the clients of a group gets a message; here the group would be one client of the broker.
                true if filter.starts_with("$share/") || filter.starts_with("$queue/") => {
                    Some(ReasonCode::SharedSubscriptionsNotSupported)
                }
                true if !topic::is_valid_filter(filter) => Some(ReasonCode::TopicFilterInvalid),
                true if !is_known && session.subscriptions.len() >= SUBSCRIPTIONS_MAX => {
                    Some(ReasonCode::QuotaExceeded)
                }
                true => None,
            };
            codes.push(refusal);
            if refusal.is_none() {
                session.subscriptions.insert(filter.clone());
                asked.push((filter.clone(), options.qos));
            }
        }
        if asked.is_empty() {
            let codes = codes.into_iter().flatten().collect();
            return session.tell(Event::SubAck(subscribe.packet_id, codes), out);
        }
        let mut wanted = Vec::new();
        for (name, qos) in &asked {
            let id = self.filters.insert(name);
            let filter = self.filters.get_mut(id);
            filter.subscribers.retain(|subscriber| subscriber.key != key);
            let (qos, fresh_until) = (*qos, Timestamp::NEVER);
            filter.subscribers.push(Subscriber {
                key,
                qos,
                fresh_until,
                given: Vec::new(),
            });
            wanted.push((name.as_str(), filter.highest()));
            self.stale_filters.remove(name);
        }
        let own = self.free_id();
        if let Some(connection) = self.open() {
            connection.send(now, &packet(own, &subscriptions(&wanted)), out);
        }
        let filters = asked.into_iter().map(|(name, _)| name).collect();
        let id = subscribe.packet_id;
        self.exchanges.insert(
            own,
            Exchange::Subscribe {
                key,
                id,
                filters,
                codes,
            },
        );
    }

    /// SUBACK.
    pub(super) fn subscribed(
        &mut self,
        now: Timestamp,
        id: PacketId,
        granted: &[ReasonCode],
        out: &mut Output,
    ) {
        let exchange = match self.exchanges.get(&id) {
            Some(Exchange::Subscribe { .. } | Exchange::Resubscribe) => self.exchanges.remove(&id),
            _ => None,
        };
        let Some(Exchange::Subscribe {
            key,
            id,
            filters,
            mut codes,
        }) = exchange
        else {
            return;
        };
        let mut granted = granted.iter().copied();
        let mut names = filters.into_iter();
        for code in codes.iter_mut().filter(|code| code.is_none()) {
            let answer = granted.next().unwrap_or(ReasonCode::UnspecifiedError);
            let Some(name) = names.next() else {
                break;
            };
            *code = Some(answer);
            if answer.is_error() {
                if let Some(session) = self.sessions.get_mut(&key) {
                    session.subscriptions.remove(&name);
                }
                if self.drop_subscriber(&name, key) {
                    self.end_filter(now, name, None, out);
                }
            } else if let Some(found) = self.filters.find(&name) {
                let subscribers = &mut self.filters.get_mut(found).subscribers;
                if let Some(subscriber) = subscribers.iter_mut().find(|one| one.key == key) {
                    subscriber.fresh_until = now.after(FRESH);
                    // What was asked for on behalf of others may be more than this client wants.
                    *code = Some(answer.min(ReasonCode::granted(subscriber.qos)));
                }
            }
        }
        if let Some(session) = self.sessions.get(&key) {
            let codes = codes.into_iter().flatten().collect();
            session.tell(Event::SubAck(id, codes), out);
        }
    }

    /// The session is no longer subscribed. True, if nobody else is.
    pub(super) fn drop_subscriber(&mut self, name: &str, key: SessionKey) -> bool {
        let Some(id) = self.filters.find(name) else {
            return false;
        };
        let filter = self.filters.get_mut(id);
        filter.subscribers.retain(|subscriber| subscriber.key != key);
        let is_unused = filter.subscribers.is_empty();
        if is_unused {
            self.filters.remove(id);
        }
        is_unused
    }

    /// Ends the subscription to a filter that nobody wants any more.
    pub(super) fn end_filter(
        &mut self,
        now: Timestamp,
        name: String,
        client: Option<(SessionKey, PacketId, usize)>,
        out: &mut Output,
    ) {
        if !self.is_open() || self.exchanges.len() >= UNSUBSCRIBING_MAX {
            self.stale_filters.insert(name);
            if let Some((key, id, count)) = client {
                self.tell_unsubscribed(key, id, count, out);
            }
            return;
        }
        let id = self.free_id();
        if let Some(connection) = self.open() {
            let filters = [name.as_str()];
            let packet = Packet::Unsubscribe(codec::Unsubscribe::new(id, &filters));
            connection.send(now, &packet, out);
        }
        self.exchanges.insert(id, Exchange::Unsubscribe(name, client));
    }

    pub(super) fn unsubscribe(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        unsubscribe: &Unsubscribe,
        out: &mut Output,
    ) {
        let count = unsubscribe.filters.len();
        let mut unused = Vec::new();
        for name in &unsubscribe.filters {
            if let Some(session) = self.sessions.get_mut(&key) {
                session.subscriptions.remove(name);
            }
            if self.drop_subscriber(name, key) {
                unused.push(name.clone());
            }
        }
        // The client hears of it when the broker has done the last of it, or at once if there is nothing to do there.
        let last = unused.pop().filter(|_| self.is_open());
        for name in unused {
            self.end_filter(now, name, None, out);
        }
        match last {
            Some(name) => self.end_filter(now, name, Some((key, unsubscribe.packet_id, count)), out),
            None => self.tell_unsubscribed(key, unsubscribe.packet_id, count, out),
        }
    }

    /// UNSUBACK.
    pub(super) fn unsubscribed(&mut self, now: Timestamp, id: PacketId, out: &mut Output) {
        let Some(Exchange::Unsubscribe(..)) = self.exchanges.get(&id) else {
            return;
        };
        if let Some(Exchange::Unsubscribe(_, Some((key, id, count)))) = self.exchanges.remove(&id) {
            self.tell_unsubscribed(key, id, count, out);
        }
        if let Some(name) = self.stale_filters.pop_first() {
            self.end_filter(now, name, None, out);
        }
    }

    fn tell_unsubscribed(&self, key: SessionKey, id: PacketId, count: usize, out: &mut Output) {
        if let Some(session) = self.sessions.get(&key) {
            session.tell(Event::UnsubAck(id, vec![ReasonCode::Success; count]), out);
        }
    }

    /// The connection is lost: what was asked on it is not answered any more.
    pub(super) fn abandon_subscribing(&mut self, out: &mut Output) {
        let is_publish = |exchange: &Exchange| matches!(exchange, Exchange::Publish { .. });
        let asked: Vec<_> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| !is_publish(exchange))
            .map(|(&id, _)| id)
            .collect();
        for id in asked {
            match self.exchanges.remove(&id) {
                Some(Exchange::Subscribe {
                    key,
                    id,
                    filters,
                    codes,
                }) => {
                    for name in &filters {
                        if let Some(session) = self.sessions.get_mut(&key) {
                            session.subscriptions.remove(name);
                        }
                        if self.drop_subscriber(name, key) {
                            self.stale_filters.insert(name.clone());
                        }
                    }
                    let failed = |code: Option<_>| code.unwrap_or(ReasonCode::ServerUnavailable);
                    if let Some(session) = self.sessions.get(&key) {
                        let codes = codes.into_iter().map(failed).collect();
                        session.tell(Event::SubAck(id, codes), out);
                    }
                }
                // The broker may have kept the session with the subscription in it: it is told again then.
                Some(Exchange::Unsubscribe(name, client)) => {
                    if self.filters.find(&name).is_none() {
                        self.stale_filters.insert(name);
                    }
                    if let Some((key, id, count)) = client {
                        self.tell_unsubscribed(key, id, count, out);
                    }
                }
                Some(Exchange::Resubscribe) => self.must_resubscribe = true,
                _ => {}
            }
        }
    }

    /// The broker has no session of the gateway: it is told everything again. Clients are given retained messages, as
    /// they may have missed what replaced them.
    pub(super) fn resubscribe(&mut self, now: Timestamp, out: &mut Output) {
        let ids: Vec<_> = self.filters.iter().map(|(id, _)| id).collect();
        let per_packet = FILTERS_PER_PACKET.max(ids.len().div_ceil(RESUBSCRIBES_MAX));
        for chunk in ids.chunks(per_packet) {
            let own = self.free_id();
            for &id in chunk {
                for subscriber in &mut self.filters.get_mut(id).subscribers {
                    subscriber.fresh_until = now.after(FRESH);
                    subscriber.given = Vec::new();
                }
            }
            let filters = &self.filters;
            let wanted: Vec<_> = chunk
                .iter()
                .map(|&id| (filters.name(id), filters.get(id).highest()))
                .collect();
            if let Some(connection) = &mut self.connection {
                connection.send(now, &packet(own, &subscriptions(&wanted)), out);
            }
            self.exchanges.insert(own, Exchange::Resubscribe);
        }
    }
}

fn subscriptions<'a>(wanted: &[(&'a str, QoS)]) -> Vec<codec::Subscription<'a>> {
    let subscription = |&(filter, qos): &(&'a str, QoS)| codec::Subscription {
        filter,
        options: SubscribeOptions {
            qos,
            ..SubscribeOptions::default()
        },
    };
    wanted.iter().map(subscription).collect()
}

fn packet<'a>(id: PacketId, list: &'a [codec::Subscription<'a>]) -> Packet<'a> {
    Packet::Subscribe(codec::Subscribe::new(id, list))
}
