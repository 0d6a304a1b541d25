//! What must last: a turn of the shard is one commit, and what promises it is held until the commit has completed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    ClientId, Event, LinkId, Message, PacketId, ShardId, Timestamp,
    filter_index::FilterId,
    session::{SessionKey, SharedTarget, Tenant},
    store::{
        JournalError, JournalReply, JournalRequest, Key, NewRecord, Sequence, Value, Write,
        format::{Name, Token, encode_message},
    },
};

use super::{FastMap, Link, Output, Shard, ShardMessage, Ticket};

/// Bytes of one commit; what a turn has beyond goes into further ones.
const COMMIT_BYTES: usize = 1 << 20;
/// Changes of failed commits that are tried again with every new one.
const REDO_AT_ONCE: usize = 256;
/// Bytes that wait for the store; beyond, who adds to them is not read until there are half as many.
const HOLD_BYTES: usize = 8 << 20;

/// Something that happens when a commit has completed.
#[derive(Debug)]
pub(super) enum Held {
    /// The client may be told, on this connection.
    Event {
        link: LinkId,
        connection: u64,
        event: Event,
    },
    /// The client of this link may be told that its session sleeps.
    Asleep(LinkId),
    /// The packet identifier of a QoS 2 message is known to be received, unless the commit fails.
    Received(ClientId, PacketId),
    /// That of one which was released is forgotten, unless the commit fails.
    Released(ClientId, PacketId),
    /// A subscription gets messages from the commit's place on.
    Subscribed {
        client_id: ClientId,
        route: FilterId,
        group: Option<Arc<str>>,
    },
    /// How far a session has come is known to the store, unless the commit fails.
    Flushed {
        client_id: ClientId,
        /// Deliveries whose entries are removed.
        finished: Vec<PacketId>,
        /// Complete deliveries beyond the cursor.
        complete: Vec<Sequence>,
    },
    /// A message of a shared group is a member's for good.
    Taken(Arc<SharedTarget>, Sequence),
    /// A new shared group, by its number here, is known to the store.
    Owned(u64),
    /// So is how far one has come, unless the commit fails, and which messages beyond are settled.
    GroupFlushed(u64, Vec<Sequence>),
    /// Another shard may know that what it announced is seen, and lasts.
    Passed(ShardId, u64),
    /// A correction of a retained message's entry has its place.
    Corrected(Box<str>),
    /// A message is retained, unless the commit fails.
    Retained(Message),
    /// A session of this name has ended for the store too, unless the commit fails.
    Removed(Token),
    /// A message was delayed, unless the commit fails.
    Kept(Timestamp, u64),
    /// A delayed message or a Will was published, unless the commit fails.
    Delayed(Timestamp, u64, Message),
}

/// A commit, gathered or on its way.
#[derive(Debug, Default)]
pub(super) struct Commit {
    ticket: Option<Ticket>,
    held: Vec<Held>,
    bytes: usize,
    /// What it changes, until it is known to have done so.
    pub(super) writes: Vec<Write>,
}

/// The commits of a shard.
#[derive(Debug, Default)]
pub(super) struct Commits {
    records: Vec<NewRecord>,
    /// The one that is gathered.
    pub(super) open: Commit,
    /// On their way, in their order.
    pub(super) under_way: VecDeque<Commit>,
    /// Bytes of all of them.
    bytes: usize,
    /// Not taken by the driver yet.
    requests: VecDeque<(Ticket, JournalRequest)>,
    /// Links that are not read because too much waits.
    paused: BTreeSet<LinkId>,
    /// Changes that failed commits were to make: they come first in the next one.
    pub(super) redo: BTreeMap<Key, Value>,
    /// Sessions that have ended and that the store still has, with how many commits say so.
    pub(super) removing: FastMap<Token, u32>,
    /// When that is tried after a failure, if nothing else is committed before.
    pub(super) retry_at: Option<Timestamp>,
}

impl Commits {
    fn has_open(&self) -> bool {
        !self.records.is_empty() || !self.open.writes.is_empty() || !self.redo.is_empty()
    }

    /// After a failure what is to be changed again waits for a while, and so does, if it is much, everything else.
    fn waits(&self, now: Timestamp) -> bool {
        let has_news = !self.records.is_empty() || !self.open.writes.is_empty();
        self.retry_at.is_some_and(|at| now < at) && (!has_news || self.redo.len() > REDO_AT_ONCE)
    }

    /// When the next commit may be tried, if one waits for that.
    pub(super) fn retry_at(&self) -> Timestamp {
        self.retry_at
            .filter(|_| self.has_open())
            .unwrap_or(Timestamp::NEVER)
    }

    fn is_idle(&self) -> bool {
        !self.has_open() && self.under_way.is_empty()
    }

    /// Commits whose completion somebody waits for.
    pub(super) fn len(&self) -> usize {
        self.under_way.len() + usize::from(self.has_open())
    }

    fn grow(&mut self, bytes: usize) {
        self.open.bytes += bytes;
        self.bytes += bytes;
    }
}

impl Shard {
    /// Appends a message to the journal with the turn's commit. Returns its number among the commit's records.
    pub(super) fn append(&mut self, message: &Message, indexed: bool) -> usize {
        self.close_full_commit();
        let data = encode_message(message);
        self.commits.grow(data.len() + size_of::<NewRecord>());
        self.commits.records.push(NewRecord { data, indexed });
        self.commits.records.len() - 1
    }

    /// Changes an entry with the turn's commit.
    pub(super) fn write(&mut self, name: Name, value: Value) {
        let bytes = match &value {
            Value::Put(bytes) => bytes.len(),
            Value::PutRecord(_) | Value::Delete => 0,
        };
        self.commits.grow(bytes + size_of::<Write>() + 64);
        // What fails with its message stands until then, so the store has to know of it.
        let replaces = !matches!(name, Name::Delayed(..));
        let key = name.key();
        if replaces && !self.commits.redo.is_empty() {
            self.commits.redo.remove(&key);
        }
        self.commits.open.writes.push(Write { key, value });
    }

    pub(super) fn put(&mut self, name: Name, value: Bytes) {
        self.write(name, Value::Put(value));
    }

    pub(super) fn delete(&mut self, name: Name) {
        self.write(name, Value::Delete);
    }

    /// Begins another commit if the turn's has grown large. Not between things that belong together.
    pub(super) fn close_full_commit(&mut self) {
        if self.commits.open.bytes >= COMMIT_BYTES {
            self.close_commit();
        }
    }

    /// The commit that is gathered has messages.
    pub(super) fn has_records(&self) -> bool {
        !self.commits.records.is_empty()
    }

    /// Lets `held` happen when everything that was changed up to now is committed.
    pub(super) fn hold(&mut self, held: Held) {
        if self.commits.has_open() {
            self.commits.open.held.push(held);
        } else if let Some(last) = self.commits.under_way.back_mut() {
            last.held.push(held);
        } else {
            self.happen(held, Sequence::FIRST);
        }
    }

    /// Tells the client of a link that is connected something when that has happened.
    pub(super) fn hold_event(&mut self, link: LinkId, event: Event) {
        let Some(&Link::Online(key)) = self.links.get(&link) else {
            return;
        };
        let session = self.session_mut(key);
        session.held += 1;
        let connection = session.connection;
        self.hold(Held::Event {
            link,
            connection,
            event,
        });
    }

    /// The session that has this connection on the link: the link may have another by now.
    pub(super) fn connected(&self, link: LinkId, connection: u64) -> Option<SessionKey> {
        match self.links.get(&link) {
            Some(&Link::Online(key)) if self.session(key).connection == connection => Some(key),
            _ => None,
        }
    }

    /// Tells a client something that follows from nothing that has to last, but not before what was held for it.
    pub(super) fn acknowledge(&mut self, link: LinkId, event: Event) {
        let waits = match self.links.get(&link) {
            Some(&Link::Online(key)) => self.session(key).held > 0,
            _ => false,
        };
        if waits {
            self.hold_event(link, event);
        } else {
            self.emit(link, event);
        }
    }

    /// The client adds to what waits for the store: it is not read while that is too much.
    pub(super) fn pause_if_full(&mut self, link: LinkId) {
        if self.commits.bytes > HOLD_BYTES && self.commits.paused.insert(link) {
            self.metrics.store_pauses.inc();
            self.outputs.push_back(Output::Hold(link));
        }
    }

    pub(super) fn close_commit(&mut self) {
        // With a new delivery goes the cursor: an entry that the delivery replaces is not needed to tell what is done.
        for key in std::mem::take(&mut self.flush_now) {
            self.flush_session(key);
        }
        if !self.commits.has_open() || self.commits.waits(self.now) {
            return;
        }
        self.commits.retry_at = None;
        if !self.commits.redo.is_empty() {
            // By itself: a store that is full takes entries longer than messages. If it fails, so does the next.
            let mut commit = Commit::default();
            for (key, value) in std::mem::take(&mut self.commits.redo) {
                if let (Some(Name::Session(token)), Value::Delete) = (Name::parse(&key), &value) {
                    *self.commits.removing.entry(token).or_default() += 1;
                    commit.held.push(Held::Removed(token));
                }
                commit.writes.push(Write { key, value });
            }
            self.request_commit(commit, Vec::new());
        }
        if self.commits.has_open() {
            let commit = std::mem::take(&mut self.commits.open);
            let records = std::mem::take(&mut self.commits.records);
            self.request_commit(commit, records);
        } else if let Some(last) = self.commits.under_way.back_mut() {
            // What waited for the changes that are tried again, and changes nothing itself.
            last.held.append(&mut self.commits.open.held);
        }
    }

    fn request_commit(&mut self, mut commit: Commit, records: Vec<NewRecord>) {
        let ticket = Ticket(self.next_number());
        commit.ticket = Some(ticket);
        let request = JournalRequest::Commit {
            records,
            writes: commit.writes.clone(),
            dedup: None,
        };
        self.commits.under_way.push_back(commit);
        self.commits.requests.push_back((ticket, request));
    }

    /// Asks the store for something other than a commit.
    pub(super) fn ask_store(&mut self, request: JournalRequest) -> Ticket {
        let ticket = Ticket(self.next_number());
        self.commits.requests.push_back((ticket, request));
        ticket
    }

    /// Moves what this shard wants of its journal to the end of `requests`. To be submitted before batches leave for
    /// other shards, and answered by [`Shard::handle_stored`].
    pub fn take_store_requests(&mut self, requests: &mut VecDeque<(Ticket, JournalRequest)>) {
        self.close_commit();
        requests.append(&mut self.commits.requests);
    }

    /// A completion of the journal.
    pub fn handle_stored(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        result: Result<JournalReply, JournalError>,
    ) {
        self.now = now;
        let is_commit = self
            .commits
            .under_way
            .front()
            .is_some_and(|commit| commit.ticket == Some(ticket));
        if is_commit {
            self.committed(now, result);
        } else {
            self.store_answered(now, ticket, result);
        }
        self.apply_effects(now);
    }

    fn committed(&mut self, now: Timestamp, result: Result<JournalReply, JournalError>) {
        let Some(commit) = self.commits.under_way.pop_front() else {
            return;
        };
        self.commits.bytes -= commit.bytes;
        match result {
            Ok(JournalReply::Committed { first, .. }) => {
                self.await_sweep(now);
                for held in commit.held {
                    self.happen(held, first);
                }
            }
            Ok(_) => unreachable!("a commit is answered by Committed"),
            Err(error) => {
                self.metrics.store_failures.inc();
                self.redo(now, commit.writes, &error);
                for held in commit.held {
                    self.fail(now, held, &error);
                }
            }
        }
        if self.has_begun() {
            self.write_cut_off();
        }
        if self.commits.bytes <= HOLD_BYTES / 2 {
            for link in std::mem::take(&mut self.commits.paused) {
                self.outputs.push_back(Output::Release(link));
            }
        }
    }

    /// More waits for the store than anybody should add to.
    pub(super) fn is_store_busy(&self) -> bool {
        self.commits.bytes > HOLD_BYTES / 2
    }

    /// Nothing waits for the store.
    pub fn is_committed(&self) -> bool {
        self.commits.is_idle()
    }

    fn happen(&mut self, held: Held, first: Sequence) {
        match held {
            Held::Event {
                link,
                connection,
                event,
            } => {
                let Some(key) = self.connected(link, connection) else {
                    return;
                };
                let session = self.session_mut(key);
                session.held = session.held.saturating_sub(1);
                let opens = matches!(event, Event::Connected(_));
                self.emit(link, event);
                if opens {
                    let session = self.session_mut(key);
                    session.opening = false;
                    session.end_sleep();
                    self.ready.push_back(key);
                }
            }
            Held::Asleep(link) => {
                if !self.links.contains_key(&link) {
                    self.emit(link, Event::Asleep);
                }
            }
            Held::Subscribed {
                client_id,
                route,
                group,
            } => self.subscription_settled(&client_id, route, group.as_deref(), first),
            Held::Taken(target, sequence) => self.settle(&target, sequence, true),
            Held::Owned(_) => self.group_stored(),
            Held::Passed(shard, operation) => self.outbound.push(shard, ShardMessage::Passed(operation)),
            Held::Corrected(topic) => self.corrected(&topic, first),
            Held::Removed(token) => self.removed(token),
            Held::Retained(_)
            | Held::Received(..)
            | Held::Released(..)
            | Held::Flushed { .. }
            | Held::GroupFlushed(..)
            | Held::Kept(..)
            | Held::Delayed(..) => {}
        }
    }

    /// Everything that the store has of a session is removed.
    pub(super) fn delete_session_entries(&mut self, token: Token, key: SessionKey) {
        self.delete(Name::Session(token));
        self.delete(Name::Cursor(token));
        *self.commits.removing.entry(token).or_default() += 1;
        self.hold(Held::Removed(token));
        let tenant = &self.sessions[key.0 as usize];
        let sleeper = match tenant {
            Tenant::Online(session) => session.sleeper.as_ref(),
            Tenant::Dormant(dormant) => dormant.sleeper.as_ref(),
            Tenant::Ending(_) => None,
        };
        let notes = sleeper.iter().flat_map(|sleeper| sleeper.notes());
        let notes: Vec<u16> = notes.map(|(number, _)| *number).collect();
        let (outgoing, awaiting_rel, complete) = match tenant {
            Tenant::Online(session) => (
                session.outgoing.stored_ids(),
                session.awaiting_rel.clone(),
                session.stored.as_ref().map(|stored| stored.complete.clone()),
            ),
            Tenant::Dormant(dormant) => match &dormant.rest {
                Some(rest) => (
                    rest.outgoing.stored_ids(),
                    rest.awaiting_rel.clone(),
                    Some(rest.complete.clone()),
                ),
                None => (Vec::new(), Vec::new(), None),
            },
            Tenant::Ending(_) => return,
        };
        for number in notes {
            self.delete(Name::Note(token, number));
        }
        for packet_id in outgoing {
            self.delete(Name::Outgoing(token, packet_id));
        }
        for packet_id in awaiting_rel {
            self.delete(Name::Received(token, packet_id));
        }
        for sequence in complete.into_iter().flatten() {
            self.delete(Name::Complete(token, sequence));
        }
    }
}
