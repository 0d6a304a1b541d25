//! Persistent sessions between connections, and what the store is told of them.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    ClientId, QoS, Timestamp, Will,
    filter_index::FilterId,
    session::{
        Dormant, DormantWill, Kind, Outgoing, Reading, Rest, Session, SessionKey, SharedTarget, Stored,
        Tenant,
    },
    store::{
        Sequence,
        format::{CursorEntry, FilterEntry, Name, OutgoingState, PresenceEntry, SessionEntry, Token},
    },
};

use super::{Shard, commit::Held, route::Subscriber};

/// Acknowledgements of QoS 1 and complete exchanges of QoS 2 are written together after this time. What is lost of
/// them in a crash makes QoS 1 messages come again, marked as repetitions.
const FLUSH_MS: u64 = 250;
/// Sessions whose changes are written in one go.
const FLUSH_SLICE: usize = 256;

impl Shard {
    /// The name of the session's entries, if it has any.
    pub(super) fn token(&self, key: SessionKey) -> Option<Token> {
        self.sessions.get(key.0 as usize)?.token()
    }

    /// What makes a session that will outlive its connection known to the store.
    pub(super) fn new_stored(&self, client_id: &ClientId) -> Box<Stored> {
        Box::new(Stored {
            token: Token::of(client_id.as_str()),
            next: self.tail.next,
            // Until the journal is known to be read to its end, which nothing has to be read for if it is.
            reading: if self.has_begun() {
                Reading::Live
            } else {
                Reading::Behind
            },
            beyond: Sequence::FIRST,
            ahead: BTreeSet::new(),
            complete: BTreeSet::new(),
            settled_from: Sequence::FIRST,
            unsettled: 0,
            interest: None,
            is_dirty: false,
            cursor: None,
            repeats_before: Sequence::FIRST,
            fetching: None,
        })
    }

    /// Writes the session's own entry, as one that is connected.
    pub(super) fn store_session(&mut self, key: SessionKey) {
        let session = self.session(key);
        let Some(token) = session.stored.as_ref().map(|stored| stored.token) else {
            return;
        };
        let entry = SessionEntry {
            client: (*session.client).clone(),
            expiry_interval: session.expiry_interval,
            presence: PresenceEntry::Online,
            will: session.will.as_deref().cloned(),
            repeats_before: session
                .stored
                .as_ref()
                .map_or(Sequence::FIRST, |stored| stored.repeats_before),
        };
        self.put(Name::Session(token), entry.encode());
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
        match tenant {
            Tenant::Online(session) => {
                if let Some(stored) = &mut session.stored {
                    stored.unsettled = stored.unsettled.saturating_sub(1);
                    stored.settled_from = stored.settled_from.max(since);
                }
                if is_new && group.is_none() {
                    // From here on what is published reaches it as it is published.
                    session.replays.begin(self.index.name(route), self.now);
                }
            }
            Tenant::Dormant(dormant) => dormant.settled_from = dormant.settled_from.max(since),
        }
    }

    /// The store is told later what has changed.
    pub(super) fn mark_dirty(&mut self, now: Timestamp, key: SessionKey) {
        let Some(session) = self.sessions[key.0 as usize].online_mut() else {
            return;
        };
        let Some(stored) = &mut session.stored else { return };
        if !stored.is_dirty {
            stored.is_dirty = true;
            if self.dirty.is_empty() {
                self.flush_at = Timestamp::from_millis(now.as_millis().saturating_add(FLUSH_MS));
            }
            self.dirty.push_back(key);
        }
    }

    /// Writes what has changed of some sessions and groups.
    pub(super) fn flush_due(&mut self, now: Timestamp) {
        for _ in 0..FLUSH_SLICE {
            match self.dirty.pop_front() {
                Some(key) => {
                    self.close_full_commit();
                    if let Some(stored) = self.online_mut(key).and_then(|session| session.stored.as_mut()) {
                        stored.is_dirty = false;
                    }
                    self.flush_session(key);
                }
                None => break,
            }
        }
        self.flush_groups();
        self.flush_at = if self.dirty.is_empty() {
            Timestamp::NEVER
        } else {
            now
        };
    }

    pub(super) fn flush_session(&mut self, key: SessionKey) {
        let tail = self.tail.next;
        let Some(session) = self.sessions.get_mut(key.0 as usize).and_then(Tenant::online_mut) else {
            return;
        };
        let Some(stored) = &mut session.stored else { return };
        if stored.reading == Reading::Live && tail < Sequence::END {
            stored.next = stored.next.max(tail);
        }
        let (token, next) = (stored.token, stored.next);
        let client_id = session.client.client_id.clone();
        let cursor = CursorEntry {
            next: session.outgoing.unsent(next),
            packet_id: session.outgoing.next_packet_id(),
            order: session.outgoing.sent(),
        };
        let is_new = session
            .stored
            .as_mut()
            .is_some_and(|stored| stored.cursor.replace(cursor) != Some(cursor));
        let mut complete = std::mem::take(&mut session.stored.as_mut().expect("checked above").complete);
        let outgoing = &mut session.outgoing;
        let changes = Changes::of(outgoing, &mut complete, cursor.next);
        session.stored.as_mut().expect("checked above").complete = complete;
        self.write_changes(client_id, token, changes, is_new.then_some(cursor));
    }

    fn write_changes(
        &mut self,
        client_id: ClientId,
        token: Token,
        changes: Changes,
        cursor: Option<CursorEntry>,
    ) {
        if let Some(cursor) = cursor {
            self.put(Name::Cursor(token), cursor.encode());
        }
        for packet_id in &changes.finished {
            self.delete(Name::Outgoing(token, *packet_id));
        }
        for (packet_id, entry) in changes.outgoing {
            if let OutgoingState::Published {
                sequence: Some(sequence),
                qos: QoS::ExactlyOnce,
                shared: Some((filter, group)),
                ..
            } = &entry.state
            {
                let target = SharedTarget {
                    filter: filter.as_str().into(),
                    group: group.as_str().into(),
                };
                self.take_for_good(&Arc::new(target), *sequence);
            }
            self.put(Name::Outgoing(token, packet_id), entry.encode());
        }
        for sequence in &changes.complete {
            self.put(Name::Complete(token, *sequence), bytes::Bytes::new());
        }
        for sequence in changes.passed {
            self.delete(Name::Complete(token, sequence));
        }
        let (finished, complete) = (changes.finished, changes.complete);
        if cursor.is_some() || !finished.is_empty() || !complete.is_empty() {
            self.hold(Held::Flushed {
                client_id,
                finished,
                complete,
            });
        }
    }

    /// The connection of a persistent session has ended: little of it is left in memory.
    pub(super) fn sleep(&mut self, key: SessionKey, expires_at: Timestamp, will_at: Timestamp) {
        let tail = self.tail.next;
        let Some(session) = self.online_mut(key) else {
            return;
        };
        let Some(mut stored) = session.stored.take() else {
            return;
        };
        if stored.reading == Reading::Live && tail < Sequence::END {
            stored.next = stored.next.max(tail);
        }
        stored.next = session.outgoing.unsent(stored.next);
        // The replay that was interrupted starts over.
        let replays: Vec<(u64, Arc<str>)> = session
            .replays
            .iter()
            .map(|replay| (replay.number, Arc::clone(&replay.filter)))
            .collect();
        session.outgoing.park();
        let cursor = CursorEntry {
            next: stored.next,
            packet_id: session.outgoing.next_packet_id(),
            order: session.outgoing.sent(),
        };
        let changes = Changes::of(&mut session.outgoing, &mut stored.complete, cursor.next);
        let entry = SessionEntry {
            client: (*session.client).clone(),
            expiry_interval: session.expiry_interval,
            presence: PresenceEntry::Offline { expires_at, will_at },
            will: session.will.as_deref().cloned(),
            repeats_before: stored.repeats_before,
        };
        let dormant = dormant_of(session, &stored, &replays, (expires_at, will_at));
        let client_id = dormant.client_id.clone();
        for (number, _) in &replays {
            self.replays.remove(number);
        }
        let routes: Vec<FilterId> = {
            let plain = dormant
                .subscriptions
                .iter()
                .filter(|one| one.kind.group().is_none());
            plain.map(|one| one.route).collect()
        };
        for route in routes {
            self.index.get_mut(route).subscribers.remove(key);
        }
        self.put(Name::Session(stored.token), entry.encode());
        let cursor = Some(cursor).filter(|_| stored.cursor != Some(cursor));
        self.write_changes(client_id, stored.token, changes, cursor);
        self.sessions[key.0 as usize] = Tenant::Dormant(Box::new(dormant));
        self.arm_session(key);
    }

    /// The client of a persistent session is back: `session` is what its CONNECT makes of it, and gets everything
    /// that was kept.
    pub(super) fn wake(&mut self, key: SessionKey, mut session: Session) -> Vec<Arc<str>> {
        let begun = self.has_begun();
        let place = &mut self.sessions[key.0 as usize];
        let Tenant::Dormant(dormant) = place else {
            return Vec::new();
        };
        let mut stored = Stored {
            token: dormant.token,
            next: dormant.next,
            reading: Reading::Behind,
            beyond: Sequence::FIRST,
            ahead: BTreeSet::new(),
            complete: BTreeSet::new(),
            settled_from: dormant.settled_from,
            unsettled: u32::try_from(
                dormant
                    .subscriptions
                    .iter()
                    .filter(|one| one.since == Sequence::END)
                    .count(),
            )
            .expect("fewer than 2^32 subscriptions"),
            interest: None,
            is_dirty: false,
            cursor: None,
            repeats_before: dormant.repeats_before,
            fetching: None,
        };
        if begun && dormant.next >= self.tail.next {
            stored.reading = Reading::Live;
        }
        session.subscriptions = std::mem::take(&mut dormant.subscriptions);
        session.outgoing.go_on(dormant.packet_id, dormant.order);
        let mut replays = Vec::new();
        if let Some(rest) = dormant.rest.take() {
            let Rest {
                mut outgoing,
                awaiting_rel,
                complete,
                replays: interrupted,
            } = *rest;
            outgoing.reconnect(session.outgoing.window());
            outgoing.go_on(dormant.packet_id, dormant.order);
            stored.ahead = outgoing.under_way_from(stored.next);
            stored.ahead.extend(&complete);
            stored.complete = complete;
            session.outgoing = outgoing;
            session.awaiting_rel = awaiting_rel;
            replays = interrupted;
        }
        session.armed = dormant.armed;
        session.stored = Some(Box::new(stored));
        let plain = session
            .subscriptions
            .iter()
            .filter(|one| one.kind.group().is_none());
        for one in plain {
            self.index.get_mut(one.route).subscribers.insert(Subscriber {
                session: key,
                id: one.id.unwrap_or(0),
                options: one.options,
                durable: one.durable,
            });
        }
        *place = Tenant::Online(Box::new(session));
        replays
    }

    /// The Will of a session without a connection was published.
    pub(super) fn store_without_will(&mut self, key: SessionKey, client: &Arc<crate::ClientInfo>) {
        let Tenant::Dormant(dormant) = &self.sessions[key.0 as usize] else {
            return;
        };
        let entry = SessionEntry {
            client: (**client).clone(),
            expiry_interval: dormant.expiry_interval,
            presence: PresenceEntry::Offline {
                expires_at: dormant.expires_at,
                will_at: Timestamp::NEVER,
            },
            will: None,
            repeats_before: dormant.repeats_before,
        };
        let token = dormant.token;
        self.put(Name::Session(token), entry.encode());
    }
}

/// What the store does not know yet of a session's deliveries.
struct Changes {
    finished: Vec<crate::PacketId>,
    outgoing: Vec<(crate::PacketId, crate::store::format::OutgoingEntry)>,
    complete: Vec<Sequence>,
    passed: Vec<Sequence>,
}

impl Changes {
    /// `cursor`: everything before it needs no mark of its own.
    fn of(outgoing: &mut Outgoing, complete: &mut BTreeSet<Sequence>, cursor: Sequence) -> Changes {
        let new: Vec<Sequence> = outgoing
            .take_completed()
            .into_iter()
            .filter(|place| *place >= cursor)
            .collect();
        let rest = complete.split_off(&cursor);
        let passed = std::mem::replace(complete, rest);
        complete.extend(&new);
        Changes {
            finished: outgoing.take_finished(),
            outgoing: outgoing.store_all(),
            complete: new,
            passed: passed.into_iter().collect(),
        }
    }
}

fn dormant_of(
    session: &mut Session,
    stored: &Stored,
    replays: &[(u64, Arc<str>)],
    (expires_at, will_at): (Timestamp, Timestamp),
) -> Dormant {
    let will = session.will.take().map(|will| {
        Box::new(DormantWill {
            will: Will::clone(&will),
            client: Arc::clone(&session.client),
        })
    });
    let (packet_id, order) = (session.outgoing.next_packet_id(), session.outgoing.sent());
    let outgoing = std::mem::replace(&mut session.outgoing, Outgoing::new(1));
    let awaiting_rel = std::mem::take(&mut session.awaiting_rel);
    session.subscriptions.shrink();
    let is_needed =
        !outgoing.is_idle() || !awaiting_rel.is_empty() || !stored.complete.is_empty() || !replays.is_empty();
    Dormant {
        client_id: session.client.client_id.clone(),
        token: stored.token,
        expiry_interval: session.expiry_interval,
        expires_at,
        will_at,
        will,
        subscriptions: std::mem::take(&mut session.subscriptions),
        next: stored.next,
        settled_from: stored.settled_from,
        repeats_before: stored.repeats_before,
        packet_id,
        order,
        rest: is_needed.then(|| {
            Box::new(Rest {
                outgoing,
                awaiting_rel,
                complete: stored.complete.clone(),
                replays: replays.iter().map(|(_, filter)| Arc::clone(filter)).collect(),
            })
        }),
        armed: session.armed,
    }
}
