//! The start: sessions, retained and delayed messages as the store has them, before anybody can connect.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    ClientId, Message, PacketId, ShardId, Timestamp,
    session::{
        Dormant, DormantWill, Kind, Outgoing, Rest, SessionKey, SharedTarget, Subscription, Subscriptions,
        Tenant,
    },
    store::{
        Entry, Key, Sequence,
        format::{
            CursorEntry, DelayedEntry, FilterEntry, FormatError, GroupEntry, Name, OutgoingEntry,
            PresenceEntry, SessionEntry, Token, decode_message,
        },
        record_topic,
    },
};

use super::{RouteChange, Shard, ShardMessage, group::OwnedGroup, route::Member};

/// What was found and is not a session yet.
#[derive(Debug, Default)]
pub(super) struct Restoring {
    sessions: BTreeMap<Token, Parts>,
    groups: BTreeMap<Token, GroupParts>,
    expired: Vec<Key>,
    /// Sessions whose clients were connected when the process was killed.
    cut_off: Vec<(SessionKey, SessionEntry)>,
}

/// The other shards are asked whether they have seen all routes.
#[derive(Debug)]
pub(super) struct Settling {
    number: u64,
    waiting: usize,
    covers: u64,
}

#[derive(Debug, Default)]
struct Parts {
    session: Option<SessionEntry>,
    cursor: Option<CursorEntry>,
    filters: Vec<(Name, Option<Subscription>, bool)>,
    received: Vec<PacketId>,
    outgoing: Vec<(PacketId, OutgoingEntry)>,
    complete: Vec<Sequence>,
}

#[derive(Debug, Default)]
struct GroupParts {
    entry: Option<GroupEntry>,
    taken: Vec<Sequence>,
}

/// An entry that cannot be given back to anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {key}: {cause}")]
pub struct RestoreError {
    /// Its name.
    pub key: Box<str>,
    /// What is wrong with it.
    pub cause: FormatError,
}

/// The shard, of `shards`, that an entry of the store belongs to. `None` if it is not a shard's.
pub fn home(entry: &Entry, shards: u16) -> Option<ShardId> {
    match Name::parse(&entry.key)? {
        Name::Retained(_) => record_topic(&entry.value).map(|topic| super::partition(topic, shards)),
        name => Some(name.shard(shards)),
    }
}

impl Shard {
    /// Takes back an entry that the store has. All entries whose [`home`] this shard is are to be given to it, in any
    /// order, before [`Shard::begin`]; nobody may connect before that.
    ///
    /// # Errors
    /// If it cannot be read: what it belongs to is restored without it.
    pub fn restore(&mut self, now: Timestamp, entry: &Entry) -> Result<(), RestoreError> {
        self.now = now;
        // The worker has turns between the entries: what is due waits until everybody can be reached.
        self.is_starting = true;
        let Some(name) = Name::parse(&entry.key) else {
            return Ok(());
        };
        self.restore_named(now, name, entry).map_err(|cause| {
            self.metrics.store_unreadable.inc();
            RestoreError {
                key: entry.key.as_str().into(),
                cause,
            }
        })
    }

    fn restore_named(&mut self, now: Timestamp, name: Name, entry: &Entry) -> Result<(), FormatError> {
        let value = &entry.value;
        match name {
            Name::Session(client) => {
                let session = SessionEntry::decode(value)?;
                if Token::of(session.client.client_id.as_str()) != client {
                    return Err(FormatError);
                }
                self.parts(client).session = Some(session);
            }
            Name::Cursor(client) => self.parts(client).cursor = Some(CursorEntry::decode(value)?),
            Name::Filter(client, filter) => {
                let found = FilterEntry::decode(value)?;
                if Token::of(&found.filter) != filter {
                    return Err(FormatError);
                }
                let (subscription, replay) = (
                    self.restore_filter(&found, Sequence(entry.revision.0)),
                    found.replay,
                );
                self.parts(client).filters.push((name, subscription, replay));
            }
            Name::Received(client, packet_id) => self.parts(client).received.push(packet_id),
            Name::Outgoing(client, packet_id) => {
                let outgoing = OutgoingEntry::decode(value)?;
                self.parts(client).outgoing.push((packet_id, outgoing));
            }
            Name::Complete(client, sequence) => self.parts(client).complete.push(sequence),
            Name::Group(group) => {
                let found = GroupEntry::decode(value)?;
                self.group_parts(group).entry = Some(found);
            }
            Name::Taken(group, sequence) => self.group_parts(group).taken.push(sequence),
            Name::Retained(_) => {
                let message = decode_message(value, &mut self.tail.origins)?;
                self.restore_retained(now, message, &entry.key);
            }
            Name::Delayed(at, number) => {
                let record = DelayedEntry::decode(value)?.record;
                let message = decode_message(&record, &mut self.tail.origins)?;
                self.keep_delayed(Timestamp::from_millis(at), number, message);
            }
        }
        Ok(())
    }

    fn restoring(&mut self) -> &mut Restoring {
        self.restoring.get_or_insert_default()
    }

    fn parts(&mut self, client: Token) -> &mut Parts {
        self.restoring().sessions.entry(client).or_default()
    }

    fn group_parts(&mut self, group: Token) -> &mut GroupParts {
        self.restoring().groups.entry(group).or_default()
    }

    fn restore_retained(&mut self, now: Timestamp, message: Message, key: &Key) {
        if message.is_expired(now) {
            self.restoring().expired.push(key.clone());
        } else {
            self.retained.insert(message);
            self.stats.retained.set(self.retained.len() as u64);
        }
    }

    /// The route of a plain subscription counts at once; a member joins its group when its client is known.
    fn restore_filter(&mut self, found: &FilterEntry, revision: Sequence) -> Option<Subscription> {
        let (kind, filter) = Kind::split(&found.filter)?;
        let route = self.index.insert(filter);
        let may_last = found.options.qos > crate::QoS::AtMostOnce || self.common.config.mqtt.upgrade_qos;
        if kind.group().is_none() {
            self.count_subscription(route, may_last);
        }
        Some(Subscription {
            route,
            kind,
            options: found.options,
            id: found.id,
            durable: may_last,
            since: found.since.unwrap_or(revision),
        })
    }

    /// Makes sessions of what was given to [`Shard::restore`].
    pub(super) fn finish_restore(&mut self, now: Timestamp) {
        let Some(restoring) = &mut self.restoring else {
            return;
        };
        let sessions = std::mem::take(&mut restoring.sessions);
        let groups = std::mem::take(&mut restoring.groups);
        let expired = std::mem::take(&mut restoring.expired);
        for key in expired {
            if let Some(name) = Name::parse(&key) {
                self.delete(name);
            }
        }
        for (token, parts) in groups {
            self.restore_group(token, parts);
        }
        for (token, mut parts) in sessions {
            match parts.session.take() {
                Some(session) => self.restore_session(now, token, session, parts),
                None => self.forget_parts(token, parts),
            }
        }
        self.stats.sessions.set(self.sessions.len() as u64);
        self.stats.topics.set(self.index.len() as u64);
        self.confirm_routes();
    }

    /// Lets the other shards say when they have seen all that was announced.
    fn confirm_routes(&mut self) {
        if self.routes_confirmed == self.routes_changed {
            return;
        }
        let number = self.next_number();
        let mut waiting = 0;
        for shard in self.outbound.others() {
            self.outbound.push(shard, ShardMessage::Barrier(number));
            waiting += 1;
        }
        self.settling = Some(Settling {
            number,
            waiting,
            covers: self.routes_changed,
        });
    }

    /// Another shard has seen what was announced. False if it was not asked by [`Shard::confirm_routes`].
    pub(super) fn routes_passed(&mut self, number: u64) -> bool {
        let Some(settling) = self
            .settling
            .as_mut()
            .filter(|settling| settling.number == number)
        else {
            return false;
        };
        settling.waiting -= 1;
        if settling.waiting == 0 {
            self.routes_confirmed = self.routes_confirmed.max(settling.covers);
            self.settling = None;
        }
        true
    }

    /// True once the shard follows the journal and all other shards route to the sessions that it has restored: when
    /// that is so of every shard, clients may connect.
    pub fn is_settled(&self) -> bool {
        self.has_begun() && self.settling.is_none()
    }

    fn restore_group(&mut self, token: Token, parts: GroupParts) {
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
    fn forget_parts(&mut self, token: Token, parts: Parts) {
        let mut routes = BTreeSet::new();
        for (name, subscription, _) in parts.filters {
            self.close_full_commit();
            self.delete(name);
            if let Some(one) = subscription {
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
        for packet_id in parts.received {
            self.delete(Name::Received(token, packet_id));
        }
        for (packet_id, _) in parts.outgoing {
            self.delete(Name::Outgoing(token, packet_id));
        }
        for sequence in parts.complete {
            self.delete(Name::Complete(token, sequence));
        }
    }

    fn restore_session(&mut self, now: Timestamp, token: Token, mut entry: SessionEntry, mut parts: Parts) {
        let mut subscriptions = Subscriptions::default();
        let mut replays: Vec<Arc<str>> = Vec::new();
        for (_, subscription, replay) in std::mem::take(&mut parts.filters) {
            let Some(one) = subscription else { continue };
            if replay {
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
        let was_online = entry.presence == PresenceEntry::Online;
        let (expires_at, will_at) =
            presence(now, &entry.presence, entry.expiry_interval, entry.will.as_ref());
        let cursor = parts.cursor;
        let first = subscriptions
            .iter()
            .map(|one| one.since)
            .min()
            .unwrap_or(Sequence::FIRST);
        let (packet_id, order) = parts.go_on();
        let rest = self.restore_rest(token, parts, replays);
        let dormant = Dormant {
            client_id: client_id.clone(),
            token,
            expiry_interval: entry.expiry_interval,
            expires_at,
            will_at,
            will: entry.will.clone().map(|will| {
                let client = Arc::new(entry.client.clone());
                Box::new(DormantWill { will, client })
            }),
            next: cursor.map_or(first, |cursor| cursor.next),
            settled_from: subscriptions
                .iter()
                .map(|one| one.since)
                .max()
                .unwrap_or(Sequence::FIRST),
            repeats_before: entry.repeats_before,
            packet_id,
            order,
            subscriptions,
            rest,
            armed: Timestamp::NEVER,
        };
        let count = dormant.subscriptions.len() as u64;
        self.stats.subscriptions.add(count);
        let at = self.sessions.insert(Tenant::Dormant(Box::new(dormant)));
        let key = SessionKey(u32::try_from(at).expect("fewer than 2^32 sessions fit into memory"));
        self.by_client.insert(client_id.clone(), key);
        self.restore_memberships(key, &client_id);
        self.restore_exclusive(key, &client_id);
        if was_online {
            entry.presence = PresenceEntry::Offline { expires_at, will_at };
            self.restoring().cut_off.push((key, entry));
        }
        self.arm_session(key);
    }

    /// The journal's end is known: messages before it may have been sent to those who were connected when the process
    /// was killed. From here on nobody is.
    pub(super) fn restored(&mut self) {
        let end = self.tail.next;
        let Some(restoring) = self.restoring.take() else {
            return;
        };
        for (key, mut entry) in restoring.cut_off {
            let Tenant::Dormant(dormant) = &mut self.sessions[key.0 as usize] else {
                continue;
            };
            dormant.repeats_before = end;
            entry.repeats_before = end;
            let token = dormant.token;
            self.close_full_commit();
            self.put(Name::Session(token), entry.encode());
        }
    }

    fn restore_rest(&mut self, token: Token, parts: Parts, replays: Vec<Arc<str>>) -> Option<Box<Rest>> {
        let (awaiting_rel, complete) = (parts.received, parts.complete);
        let mut outgoing = Vec::with_capacity(parts.outgoing.len());
        for (packet_id, entry) in parts.outgoing {
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
}

impl Parts {
    /// The packet identifier and the number of the next delivery: the last one may be later than the cursor.
    fn go_on(&self) -> (PacketId, u64) {
        let cursor = self
            .cursor
            .map_or((PacketId::FIRST, 0), |cursor| (cursor.packet_id, cursor.order));
        let last = self.outgoing.iter().max_by_key(|(_, entry)| entry.order);
        match last {
            Some((packet_id, entry)) if entry.order > cursor.1 => (packet_id.next(), entry.order),
            _ => cursor,
        }
    }
}

/// When a session ends and its Will is published. If its client was connected when the process was killed, it lost its
/// connection then; that is counted from the start of this one.
fn presence(
    now: Timestamp,
    presence: &PresenceEntry,
    expiry_interval: u32,
    will: Option<&crate::Will>,
) -> (Timestamp, Timestamp) {
    match *presence {
        PresenceEntry::Offline { expires_at, will_at } => (expires_at, will_at),
        PresenceEntry::Online => {
            let expires_at = match expiry_interval {
                u32::MAX => Timestamp::NEVER,
                seconds => now.after_secs(u64::from(seconds)),
            };
            let will_at = will.map_or(Timestamp::NEVER, |will| {
                now.after_secs(u64::from(will.delay_interval))
            });
            (
                expires_at,
                will_at.min(if will.is_some() {
                    expires_at
                } else {
                    Timestamp::NEVER
                }),
            )
        }
    }
}
