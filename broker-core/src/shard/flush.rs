//! What the store is told of sessions that are connected, later and together.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    ClientId, PacketId, QoS, Timestamp,
    session::{Outgoing, Reading, SessionKey, SharedTarget, Tenant},
    store::{
        Sequence,
        format::{CursorEntry, Name, OutgoingEntry, OutgoingState, Token},
    },
};

use super::{Shard, commit::Held};

/// Acknowledgements of QoS 1 and complete exchanges of QoS 2 are written together after this time. What is lost of
/// them in a crash makes QoS 1 messages come again, marked as repetitions.
const FLUSH_MS: u64 = 250;
/// Sessions whose changes are written in one go.
const FLUSH_SLICE: usize = 256;

impl Shard {
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
        // More of the journal may be of no use to anybody.
        self.await_sweep(now);
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

    pub(super) fn write_changes(
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
}

/// What the store does not know yet of a session's deliveries.
pub(super) struct Changes {
    finished: Vec<PacketId>,
    outgoing: Vec<(PacketId, OutgoingEntry)>,
    complete: Vec<Sequence>,
    passed: Vec<Sequence>,
}

impl Changes {
    /// `cursor`: everything before it needs no mark of its own.
    pub(super) fn of(
        outgoing: &mut Outgoing,
        complete: &mut BTreeSet<Sequence>,
        cursor: Sequence,
    ) -> Changes {
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
