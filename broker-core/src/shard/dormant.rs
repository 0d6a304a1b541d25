//! Persistent sessions between connections, and their own entries.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    ClientId, ClientInfo, Connect, Timestamp, Will,
    session::{Awake, Dormant, DormantWill, Outgoing, Reading, Rest, Session, SessionKey, Stored, Tenant},
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
            gate: Sequence::END,
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

    /// Writes the session's own entry, as one that is connected or awake.
    pub(super) fn store_session(&mut self, key: SessionKey) {
        let session = self.session(key);
        let Some(token) = session.stored.as_ref().map(|stored| stored.token) else {
            return;
        };
        let presence = match &session.sleeper {
            // If the process is killed now, the client sleeps on.
            Some(sleeper) if sleeper.awake.is_some() && sleeper.until < Timestamp::NEVER => {
                PresenceEntry::Asleep {
                    until: sleeper.until,
                    is_awake: true,
                }
            }
            _ => PresenceEntry::Online,
        };
        let entry = SessionEntry {
            client: (*session.client).clone(),
            expiry_interval: session.expiry_interval,
            presence,
            will: session.will.as_deref().cloned(),
            repeats_before: session
                .stored
                .as_ref()
                .map_or(Sequence::FIRST, |stored| stored.repeats_before),
        };
        self.put(Name::Session(token), entry.encode());
    }

    /// The connection of a persistent session has ended: little of it is left in memory. If its client sleeps, as
    /// `Session::sleeper` says, so is what waits for it at QoS 0.
    pub(super) fn go_dormant(&mut self, key: SessionKey, expires_at: Timestamp, will_at: Timestamp) {
        let tail = self.tail.next;
        let keeps_qos0 = self.common.config.mqtt.mqueue_store_qos0;
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
        session.sleeper = session.sleeper.take().filter(|sleeper| !sleeper.is_empty());
        let is_asleep = session
            .sleeper
            .as_ref()
            .is_some_and(|sleeper| sleeper.until < Timestamp::NEVER);
        session.outgoing.park(is_asleep && keeps_qos0);
        let cursor = CursorEntry {
            next: stored.next,
            packet_id: session.outgoing.next_packet_id(),
            order: session.outgoing.sent(),
        };
        let changes = Changes::of(&mut session.outgoing, &mut stored.complete, cursor.next);
        let (client, will) = (Arc::clone(&session.client), session.will.as_deref().cloned());
        let dormant = dormant_of(session, &stored, &replays, (expires_at, will_at));
        let entry = entry_of(&dormant, &client, will);
        let client_id = dormant.client_id.clone();
        for (number, _) in &replays {
            self.replays.remove(number);
        }
        self.put(Name::Session(stored.token), entry.encode());
        let cursor = Some(cursor).filter(|_| stored.cursor != Some(cursor));
        self.write_changes(client_id, stored.token, changes, cursor);
        self.sessions[key.0 as usize] = Tenant::Dormant(Box::new(dormant));
        if !is_asleep {
            self.leave_routes(key);
        }
        self.arm_session(key);
    }

    /// Messages reach the session's plain subscriptions as they are published.
    pub(super) fn join_routes(&mut self, key: SessionKey) {
        let subscriptions = self.sessions[key.0 as usize].subscriptions().iter();
        for one in subscriptions.filter(|one| one.kind.group().is_none()) {
            self.index.get_mut(one.route).subscribers.insert(Subscriber {
                session: key,
                id: one.id.unwrap_or(0),
                options: one.options,
                durable: one.durable,
            });
        }
    }

    /// They do not any more.
    pub(super) fn leave_routes(&mut self, key: SessionKey) {
        let subscriptions = self.sessions[key.0 as usize].subscriptions().iter();
        for one in subscriptions.filter(|one| one.kind.group().is_none()) {
            self.index.get_mut(one.route).subscribers.remove(key);
        }
    }

    /// The client of a persistent session is back: `session` is what its CONNECT makes of it, and gets everything
    /// that was kept.
    pub(super) fn resume(
        &mut self,
        key: SessionKey,
        mut session: Session,
        connect: &Connect,
    ) -> Vec<Arc<str>> {
        let (begun, end) = (self.has_begun(), self.tail.next);
        let mut stored = self.new_stored(&session.client.client_id);
        let place = &mut self.sessions[key.0 as usize];
        let Tenant::Dormant(dormant) = place else {
            return Vec::new();
        };
        let subscriptions = dormant.subscriptions.iter();
        let unsettled = subscriptions.filter(|one| one.since == Sequence::END).count();
        stored.next = dormant.next;
        stored.reading = Reading::Behind;
        stored.settled_from = dormant.settled_from();
        stored.unsettled = u32::try_from(unsettled).expect("fewer than 2^32 subscriptions");
        stored.repeats_before = dormant.repeats_before;
        if connect.wake.is_some() {
            // What is committed from now on waits for the next time.
            stored.gate = end;
        } else if begun && dormant.next >= end {
            stored.reading = Reading::Live;
        }
        if connect.keeps_old_will() {
            session.will = dormant.will.take().map(|waiting| Box::new(waiting.will));
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
        session.stored = Some(stored);
        session.sleeper = dormant.sleeper.take();
        if connect.wake.is_some() {
            session.expiry_interval = dormant.expiry_interval;
            session.sleeper.get_or_insert_default().awake = Some(Awake {
                qos0_left: session.outgoing.queued_qos0(),
                is_drained: false,
            });
        }
        *place = Tenant::Online(Box::new(session));
        self.join_routes(key);
        replays
    }

    /// The Will of a session without a connection was published.
    pub(super) fn store_without_will(&mut self, key: SessionKey, client: &Arc<ClientInfo>) {
        let Tenant::Dormant(dormant) = &self.sessions[key.0 as usize] else {
            return;
        };
        let entry = entry_of(dormant, client, None);
        let token = dormant.token();
        self.put(Name::Session(token), entry.encode());
    }
}

/// The entry of a session without a connection.
fn entry_of(dormant: &Dormant, client: &ClientInfo, will: Option<Will>) -> SessionEntry {
    SessionEntry {
        client: client.clone(),
        expiry_interval: dormant.expiry_interval,
        presence: presence_of(dormant),
        will,
        repeats_before: dormant.repeats_before,
    }
}

pub(super) fn presence_of(dormant: &Dormant) -> PresenceEntry {
    match dormant.asleep_until() {
        Timestamp::NEVER => PresenceEntry::Offline {
            expires_at: dormant.expires_at,
            will_at: dormant.will_at,
        },
        until => PresenceEntry::Asleep {
            until,
            is_awake: false,
        },
    }
}

/// When the session of a client that counts as lost from `lost_at` on ends, and when its Will is published.
pub(super) fn deadlines(
    lost_at: Timestamp,
    expiry_interval: u32,
    will: Option<&Will>,
) -> (Timestamp, Timestamp) {
    let expires_at = match expiry_interval {
        u32::MAX => Timestamp::NEVER,
        seconds => lost_at.after_secs(u64::from(seconds)),
    };
    let will_at = will.map_or(Timestamp::NEVER, |will| {
        lost_at.after_secs(u64::from(will.delay_interval)).min(expires_at)
    });
    (expires_at, will_at)
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
    let rest = Rest {
        outgoing,
        awaiting_rel,
        complete: stored.complete.clone(),
        replays: replays.iter().map(|(_, filter)| Arc::clone(filter)).collect(),
    };
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
        rest: (!rest.is_empty()).then(|| Box::new(rest)),
        sleeper: session.sleeper.take(),
        armed: session.armed,
    }
}
