//! The start: what was found in the store becomes sessions and groups again.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    ClientId, Timestamp,
    session::{
        Dormant, DormantWill, Kind, Outgoing, Rest, SessionKey, SharedTarget, Sleeper, Subscriptions, Tenant,
    },
    store::{
        Sequence,
        format::{Name, PresenceEntry, SessionEntry, Token},
    },
};

use super::{
    RouteChange, Shard,
    dormant::{deadlines, presence_of},
    owned::OwnedGroup,
    restore::{GroupParts, Parts},
    route::Member,
};

impl Shard {
    pub(super) fn restore_group(&mut self, token: Token, parts: GroupParts) {
        match parts.entry {
            Some(entry) => {
                let target = Arc::new(SharedTarget {
                    filter: entry.filter.into(),
                    group: entry.group.into(),
                });
                self.owned.add(OwnedGroup::restored(
                    target,
                    token,
                    entry.next,
                    parts.taken.into_iter().collect(),
                ));
            }
            None => {
                for sequence in parts.taken {
                    self.delete(Name::Taken(token, sequence));
                }
            }
        }
    }

    /// Parts of a session that has ended, or whose own entry is lost.
    pub(super) fn forget_parts(&mut self, token: Token, parts: Parts) {
        let mut routes = BTreeSet::new();
        for part in parts.filters {
            self.close_full_commit();
            self.delete(Name::Filter(token, part.token));
            if let Some(one) = part.subscription {
                if one.kind.group().is_none() {
                    self.discount_subscription(one.route, one.durable);
                }
                routes.insert(one.route);
            }
        }
        // Several may be of one route.
        for route in routes {
            self.drop_route_if_empty(route);
        }
        if parts.cursor.is_some() {
            self.delete(Name::Cursor(token));
        }
        let exchanges = parts.exchanges.unwrap_or_default();
        for packet_id in exchanges.received {
            self.delete(Name::Received(token, packet_id));
        }
        for (packet_id, _) in exchanges.outgoing {
            self.delete(Name::Outgoing(token, packet_id));
        }
        for sequence in exchanges.complete {
            self.delete(Name::Complete(token, sequence));
        }
        for (number, _) in exchanges.notes {
            self.delete(Name::Note(token, number));
        }
    }

    pub(super) fn restore_session(
        &mut self,
        now: Timestamp,
        token: Token,
        encoded: Box<[u8]>,
        mut parts: Parts,
    ) {
        // It has been read before.
        let Ok(entry) = SessionEntry::decode(&encoded) else {
            return;
        };
        let mut subscriptions = Subscriptions::default();
        let mut replays: Vec<Arc<str>> = Vec::new();
        for part in std::mem::take(&mut parts.filters) {
            let Some(one) = part.subscription else { continue };
            if part.replay {
                replays.push(self.index.name(one.route).into());
            }
            if let Some(old) = subscriptions.insert(one)
                && old.kind.group().is_none()
            {
                self.discount_subscription(old.route, old.durable);
            }
        }
        subscriptions.shrink();
        let client_id = entry.client.client_id.clone();
        let (expires_at, will_at, until, was_online) = presence(now, &entry);
        let sleeper = restore_sleeper(until, &mut parts);
        let cursor = parts.cursor.as_deref().copied();
        let first = subscriptions
            .iter()
            .map(|one| one.since)
            .min()
            .unwrap_or(Sequence::FIRST);
        let (packet_id, order) = parts.go_on();
        let rest = self.restore_rest(token, parts, replays);
        let dormant = Dormant {
            client_id: client_id.clone(),
            expiry_interval: entry.expiry_interval,
            expires_at,
            will_at,
            will: entry.will.clone().map(|will| {
                let client = Arc::new(entry.client.clone());
                Box::new(DormantWill { will, client })
            }),
            next: cursor.map_or(first, |cursor| cursor.next),
            repeats_before: entry.repeats_before,
            packet_id,
            order,
            subscriptions,
            rest,
            sleeper,
            armed: Timestamp::NEVER,
        };
        let count = dormant.subscriptions.len() as u64;
        self.stats.subscriptions.add(count);
        let at = self.sessions.insert(Tenant::Dormant(Box::new(dormant)));
        let key = SessionKey(u32::try_from(at).expect("fewer than 2^32 sessions fit into memory"));
        self.by_client.insert(client_id.clone(), key);
        if until < Timestamp::NEVER {
            self.join_routes(key);
        }
        self.restore_memberships(key, &client_id);
        self.restore_exclusive(key, &client_id);
        if was_online {
            self.restoring().cut_off.push((key, encoded));
        }
        self.arm_session(key);
    }

    /// The journal's end is known: messages before it may have been sent to those who were connected when the process
    /// was killed. From here on nobody is.
    pub(super) fn restored(&mut self) {
        let end = self.tail.next;
        let Some(restoring) = &self.restoring else {
            return;
        };
        for (key, _) in &restoring.cut_off {
            if let Tenant::Dormant(dormant) = &mut self.sessions[key.0 as usize] {
                dormant.repeats_before = end;
            }
        }
        self.write_cut_off();
    }

    /// Lets the store know that they are not connected, as many as it takes at once.
    pub(super) fn write_cut_off(&mut self) {
        while !self.is_store_busy() {
            let Some(restoring) = &mut self.restoring else {
                return;
            };
            let Some((key, encoded)) = restoring.cut_off.pop() else {
                self.restoring = None;
                return;
            };
            let (Tenant::Dormant(dormant), Ok(mut entry)) =
                (&self.sessions[key.0 as usize], SessionEntry::decode(&encoded))
            else {
                continue;
            };
            entry.repeats_before = dormant.repeats_before;
            entry.presence = presence_of(dormant);
            let token = dormant.token();
            self.close_full_commit();
            self.put(Name::Session(token), entry.encode());
        }
    }

    fn restore_rest(&mut self, token: Token, parts: Parts, replays: Vec<Arc<str>>) -> Option<Box<Rest>> {
        let exchanges = parts.exchanges.unwrap_or_default();
        let (awaiting_rel, complete) = (exchanges.received, exchanges.complete);
        let mut outgoing = Vec::with_capacity(exchanges.outgoing.len());
        for (packet_id, entry) in exchanges.outgoing {
            // What a shared group had leased and may lease to others, it does.
            if entry.is_lease() {
                self.delete(Name::Outgoing(token, packet_id));
            } else {
                outgoing.push((packet_id, entry));
            }
        }
        if outgoing.is_empty() && awaiting_rel.is_empty() && complete.is_empty() && replays.is_empty() {
            return None;
        }
        let mut deliveries = Outgoing::new(1);
        let target = |filter: &str, group: &str| {
            Arc::new(SharedTarget {
                filter: filter.into(),
                group: group.into(),
            })
        };
        let unreadable = deliveries.restore(outgoing, &mut self.tail.origins, target);
        self.metrics.store_unreadable.add(unreadable);
        Some(Box::new(Rest {
            outgoing: deliveries,
            awaiting_rel,
            complete: complete.into_iter().collect(),
            replays,
        }))
    }

    fn restore_memberships(&mut self, key: SessionKey, client_id: &ClientId) {
        let tenant = &self.sessions[key.0 as usize];
        let shared = tenant.subscriptions().iter().filter_map(|one| {
            one.kind
                .group()
                .map(|group| (one.route, Arc::<str>::from(group), one.durable))
        });
        let shared: Vec<_> = shared.collect();
        self.stats.subscriptions_shared.add(shared.len() as u64);
        for (route, group, durable) in shared {
            let filter: Box<str> = self.index.name(route).into();
            let member = Member {
                shard: self.id,
                client_id: client_id.clone(),
                durable,
            };
            let target = self.add_member(&filter, &group, member, false);
            self.announce(&RouteChange::Member {
                target,
                client_id: client_id.clone(),
                online: false,
                durable,
            });
        }
    }

    /// Topics that it holds alone are its own again.
    fn restore_exclusive(&mut self, key: SessionKey, client_id: &ClientId) {
        let subscriptions = self.sessions[key.0 as usize].subscriptions().iter();
        let exclusive = subscriptions.filter(|one| one.kind == Kind::Exclusive);
        let topics: Vec<Box<str>> = exclusive.map(|one| self.index.name(one.route).into()).collect();
        for topic in topics {
            let number = self.next_number();
            // Nobody has claimed it before, and nobody waits for the answer.
            self.claim_exclusive(client_id.clone(), number, 0, &topic);
        }
    }
}

/// When the session ends, its Will is published, and the sleep of its client is over; and whether it was there when the
/// process was killed. One that was connected lost its connection then; that is counted from the start of this process.
fn presence(now: Timestamp, entry: &SessionEntry) -> (Timestamp, Timestamp, Timestamp, bool) {
    let will = entry.will.as_ref();
    match entry.presence {
        PresenceEntry::Offline { expires_at, will_at } => (expires_at, will_at, Timestamp::NEVER, false),
        PresenceEntry::Asleep { until, is_awake } => {
            let (expires_at, will_at) = deadlines(until, entry.expiry_interval, will);
            (expires_at, will_at, until, is_awake)
        }
        PresenceEntry::Online => {
            let (expires_at, will_at) = deadlines(now, entry.expiry_interval, will);
            (expires_at, will_at, Timestamp::NEVER, true)
        }
    }
}

fn restore_sleeper(until: Timestamp, parts: &mut Parts) -> Option<Box<Sleeper>> {
    let mut sleeper = Sleeper::default();
    sleeper.until = until;
    let exchanges = parts.exchanges.as_mut();
    for (number, value) in exchanges
        .into_iter()
        .flat_map(|exchanges| exchanges.notes.drain(..))
    {
        // The limit was kept when they were written.
        sleeper.note(number, Some(value));
    }
    (!sleeper.is_empty()).then(|| Box::new(sleeper))
}
