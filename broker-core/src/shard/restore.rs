//! The start: sessions, retained and delayed messages as the store has them, before anybody can connect.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    Message, PacketId, ShardId, Timestamp,
    session::{Kind, SessionKey, Subscription},
    store::{
        Entry, Key, Sequence,
        format::{
            CursorEntry, DelayedEntry, FilterEntry, FormatError, GroupEntry, Name, OutgoingEntry,
            SessionEntry, Token, decode_message,
        },
        record_topic,
    },
};

use super::{Shard, ShardMessage};

/// What was found and is not a session yet.
#[derive(Debug, Default)]
pub(super) struct Restoring {
    pub(super) sessions: BTreeMap<Token, Parts>,
    pub(super) groups: BTreeMap<Token, GroupParts>,
    pub(super) expired: Vec<Key>,
    /// Sessions whose clients were connected when the process was killed, with their entries.
    pub(super) cut_off: Vec<(SessionKey, Box<[u8]>)>,
}

/// The other shards are asked whether they have seen all routes.
#[derive(Debug)]
pub(super) struct Settling {
    number: u64,
    waiting: usize,
    covers: u64,
}

/// Entries of one session. There may be a million at once: as small as can be.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// A [`SessionEntry`], which has been read once.
    pub(super) session: Option<Box<[u8]>>,
    pub(super) filters: Vec<FilterPart>,
    pub(super) cursor: Option<Box<CursorEntry>>,
    /// What most sessions have not.
    pub(super) exchanges: Option<Box<Exchanges>>,
}

/// A subscription.
#[derive(Debug)]
pub(super) struct FilterPart {
    /// Names its entry.
    pub(super) token: Token,
    pub(super) subscription: Option<Subscription>,
    /// Its retained messages have not all been sent.
    pub(super) replay: bool,
}

/// Deliveries and messages under way, and notes.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    pub(super) received: Vec<PacketId>,
    pub(super) outgoing: Vec<(PacketId, OutgoingEntry)>,
    pub(super) complete: Vec<Sequence>,
    pub(super) notes: Vec<(u16, Bytes)>,
}

/// Entries of one shared group.
#[derive(Debug, Default)]
pub(super) struct GroupParts {
    pub(super) entry: Option<GroupEntry>,
    pub(super) taken: Vec<Sequence>,
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
                self.parts(client).session = Some(value[..].into());
            }
            Name::Cursor(client) => {
                let cursor = CursorEntry::decode(value)?;
                self.parts(client).cursor = Some(Box::new(cursor));
            }
            Name::Filter(client, filter) => {
                let found = FilterEntry::decode(value)?;
                if Token::of(&found.filter) != filter {
                    return Err(FormatError);
                }
                let part = FilterPart {
                    token: filter,
                    subscription: self.restore_filter(&found, Sequence(entry.revision.0)),
                    replay: found.replay,
                };
                let filters = &mut self.parts(client).filters;
                if filters.is_empty() {
                    filters.reserve_exact(1);
                }
                filters.push(part);
            }
            Name::Received(client, packet_id) => self.exchanges(client).received.push(packet_id),
            Name::Outgoing(client, packet_id) => {
                let outgoing = OutgoingEntry::decode(value)?;
                self.exchanges(client).outgoing.push((packet_id, outgoing));
            }
            Name::Complete(client, sequence) => self.exchanges(client).complete.push(sequence),
            Name::Note(client, number) => {
                // The value may be a part of something larger.
                let note = (number, Bytes::copy_from_slice(value));
                self.exchanges(client).notes.push(note);
            }
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

    pub(super) fn restoring(&mut self) -> &mut Restoring {
        self.restoring.get_or_insert_default()
    }

    fn parts(&mut self, client: Token) -> &mut Parts {
        self.restoring().sessions.entry(client).or_default()
    }

    fn exchanges(&mut self, client: Token) -> &mut Exchanges {
        self.parts(client).exchanges.get_or_insert_default()
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
            self.close_full_commit();
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
        self.has_begun() && self.settling.is_none() && self.restoring.is_none()
    }
}

impl Parts {
    /// The packet identifier and the number of the next delivery: the last one may be later than the cursor.
    pub(super) fn go_on(&self) -> (PacketId, u64) {
        let cursor = self.cursor.as_ref();
        let cursor = cursor.map_or((PacketId::FIRST, 0), |cursor| (cursor.packet_id, cursor.order));
        let outgoing = self.exchanges.iter().flat_map(|exchanges| &exchanges.outgoing);
        let last = outgoing.max_by_key(|(_, entry)| entry.order);
        match last {
            Some((packet_id, entry)) if entry.order > cursor.1 => (packet_id.next(), entry.order),
            _ => cursor,
        }
    }
}
