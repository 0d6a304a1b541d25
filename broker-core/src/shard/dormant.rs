//! Persistent sessions between connections, and their own entries.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    ClientId, Timestamp, Will,
    filter_index::FilterId,
    session::{Dormant, DormantWill, Outgoing, Reading, Rest, Session, SessionKey, Stored, Tenant},
    store::{
        Sequence,
        format::{CursorEntry, Name, PresenceEntry, SessionEntry, Token},
    },
};

use super::{Shard, flush::Changes, route::Subscriber};

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
            replayed: Vec::new(),
            had: BTreeSet::new(),
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
            token: dormant.token(),
            next: dormant.next,
            reading: Reading::Behind,
            beyond: Sequence::FIRST,
            ahead: BTreeSet::new(),
            complete: BTreeSet::new(),
            settled_from: dormant.settled_from(),
            unsettled: u32::try_from(
                dormant
                    .subscriptions
                    .iter()
                    .filter(|one| one.since == Sequence::END)
                    .count(),
            )
            .expect("fewer than 2^32 subscriptions"),
            replayed: Vec::new(),
            had: BTreeSet::new(),
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
        let token = dormant.token();
        self.put(Name::Session(token), entry.encode());
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
        expiry_interval: session.expiry_interval,
        expires_at,
        will_at,
        will,
        subscriptions: std::mem::take(&mut session.subscriptions),
        next: stored.next,
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
