//! What is written and synced together, and who is told.

use std::sync::Arc;

use broker_core::{
    Timestamp,
    shard::Ticket,
    store::{
        DedupId, Fault, JournalError, JournalReply, Key, KvError, KvReply, NewRecord, Record, Revision,
        Sequence, Value, Write,
    },
};
use hashbrown::HashMap;

use super::{Committed, JournalAnswer, KvAnswer, KvWrite, Resolved, Slot, dedup::Dedup};
use crate::log::{
    frame::{HEADER_BYTES, NewFrame, RECORD_OVERHEAD, Seed},
    ring::{Chunk, RingRecord},
    segment::Totals,
};

/// Bytes of the largest commit: its length fits in 32 bits wherever it stands.
const COMMIT_BYTES_MAX: usize = 1 << 30;

/// Who is told what, if the group is committed.
enum Outcome {
    Journal(Arc<Slot<JournalAnswer>>, Ticket, JournalAnswer),
    Kv(Arc<Slot<KvAnswer>>, Ticket, KvAnswer),
}

/// Commits on their way into the log.
pub(super) struct Group {
    /// Their frames.
    pub(super) buffer: Vec<u8>,
    seed: Seed,
    first: Sequence,
    pub(super) next: Sequence,
    pub(super) commits: u64,
    pub(super) duplicates: u64,
    pub(super) last: Timestamp,
    totals: Totals,
    records: Vec<RingRecord>,
    committed: Vec<Committed>,
    ids: Vec<(Timestamp, DedupId)>,
    places: HashMap<DedupId, (Sequence, Sequence), foldhash::fast::RandomState>,
    /// The entries that the group changes, from the first compare-and-set on.
    fresh: Option<HashMap<Key, Option<Revision>, foldhash::fast::RandomState>>,
    outcomes: Vec<Outcome>,
}

impl Group {
    pub(super) fn new(seed: Seed) -> Group {
        Group {
            buffer: Vec::new(),
            seed,
            first: Sequence::FIRST,
            next: Sequence::FIRST,
            commits: 0,
            duplicates: 0,
            last: Timestamp::default(),
            totals: Totals::default(),
            records: Vec::new(),
            committed: Vec::new(),
            ids: Vec::new(),
            places: HashMap::default(),
            fresh: None,
            outcomes: Vec::new(),
        }
    }

    /// Begins anew, with the memory that it has.
    pub(super) fn begin(&mut self, next: Sequence) {
        self.buffer.clear();
        self.first = next;
        self.next = next;
        self.commits = 0;
        self.duplicates = 0;
        self.totals = Totals::default();
        self.ids.clear();
        self.places.clear();
        self.fresh = None;
    }

    /// True if nobody waits for it.
    pub(super) fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// Adds a commit of a journal handle; `refusal` is why it cannot be done.
    pub(super) fn add_commit(
        &mut self,
        to: (Arc<Slot<JournalAnswer>>, Ticket),
        now: Timestamp,
        (records, writes): (Vec<NewRecord>, Vec<Write>),
        dedup: Option<(DedupId, &mut Dedup)>,
        refusal: Option<Fault>,
    ) {
        let id = dedup.as_ref().map(|(id, _)| *id);
        let answer = match dedup.and_then(|(id, known)| self.find(now, id, known)) {
            Some((first, next)) => {
                self.duplicates += 1;
                Ok(JournalReply::Committed {
                    first,
                    next,
                    duplicate: true,
                })
            }
            None => match refusal {
                Some(fault) => {
                    let error = fault.into();
                    note_failure(&to.0, &error);
                    Err(error)
                }
                None => {
                    let (first, next) = self.frame(now, id, records, writes);
                    Ok(JournalReply::Committed {
                        first,
                        next,
                        duplicate: false,
                    })
                }
            },
        };
        self.outcomes.push(Outcome::Journal(to.0, to.1, answer));
    }

    fn find(&self, now: Timestamp, id: DedupId, known: &mut Dedup) -> Option<(Sequence, Sequence)> {
        self.places.get(&id).copied().or_else(|| known.find(now, id))
    }

    /// Adds a compare-and-set, if the entry is as expected. `current` looks up what was committed before the group.
    pub(super) fn add_write(
        &mut self,
        to: (Arc<Slot<KvAnswer>>, Ticket),
        now: Timestamp,
        write: KvWrite,
        current: impl FnOnce(&Key) -> Result<Option<Revision>, Fault>,
    ) {
        let committed = &self.committed;
        let fresh = self.fresh.get_or_insert_with(|| {
            let mut fresh = HashMap::default();
            committed.iter().for_each(|commit| note(&mut fresh, commit));
            fresh
        });
        let found = fresh
            .get(&write.key)
            .copied()
            .map_or_else(|| current(&write.key), Ok);
        let answer = match found {
            Err(fault) => Err(fault.into()),
            Ok(current) if current != write.expected => Err(KvError::Conflict { current }),
            Ok(_) => {
                let value = write.value.map_or(Value::Delete, Value::Put);
                let write = Write {
                    key: write.key,
                    value,
                };
                let (first, _) = self.frame(now, None, Vec::new(), vec![write]);
                Ok(KvReply::Written(Revision(first.0)))
            }
        };
        self.outcomes.push(Outcome::Kv(to.0, to.1, answer));
    }

    fn frame(
        &mut self,
        time: Timestamp,
        dedup: Option<DedupId>,
        records: Vec<NewRecord>,
        writes: Vec<Write>,
    ) -> (Sequence, Sequence) {
        let first = self.next;
        let mut offset = self.buffer.len() + HEADER_BYTES;
        let frame = NewFrame {
            first,
            time,
            dedup,
            records: &records,
            writes: &writes,
        };
        frame.write(&mut self.buffer, self.seed);
        let next = Sequence(first.0 + (records.len() as u64).max(1));
        let commit = Committed {
            first,
            next,
            writes: writes
                .into_iter()
                .filter_map(|write| resolve(write, &records))
                .collect(),
        };
        if !commit.writes.is_empty() {
            if let Some(fresh) = &mut self.fresh {
                note(fresh, &commit);
            }
            self.committed.push(commit);
        }
        self.totals.records += records.len() as u64;
        for (sequence, NewRecord { data, indexed }) in (first.0..).zip(records) {
            let len = data.len();
            self.totals.record_bytes += len as u64;
            self.records.push(RingRecord {
                record: Record {
                    sequence: Sequence(sequence),
                    data,
                },
                indexed,
                // From the start of the group; a group is far smaller than this can count.
                offset: offset as u32,
            });
            offset += RECORD_OVERHEAD + len;
        }
        if let Some(id) = dedup {
            self.totals.dedups += 1;
            self.ids.push((time, id));
            self.places.insert(id, (first, next));
        }
        self.commits += 1;
        self.last = self.last.max(time);
        self.next = next;
        (first, next)
    }

    /// Records, bytes and ids that it adds to the log.
    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// It stands in the log: what becomes visible. The group began at this offset of the segment with this base.
    pub(super) fn visible(&mut self, base: Sequence, offset: u64) -> (Chunk, Vec<Committed>) {
        let mut records = std::mem::take(&mut self.records);
        for record in &mut records {
            record.offset += offset as u32;
        }
        let chunk = Chunk {
            base,
            first: self.first,
            next: self.next,
            end_offset: offset + self.buffer.len() as u64,
            records,
            bytes: self.totals.record_bytes,
        };
        let mut committed = std::mem::take(&mut self.committed);
        if committed.last().is_none_or(|last| last.next < self.next) {
            // So that the tables know that they miss nothing.
            committed.push(Committed {
                first: Sequence(self.next.0 - 1),
                next: self.next,
                writes: Vec::new(),
            });
        }
        (chunk, committed)
    }

    /// Remembers the ids of the group.
    pub(super) fn remember(&mut self, dedup: &mut Dedup) {
        for (time, id) in self.ids.drain(..) {
            if let Some(place) = self.places.remove(&id) {
                dedup.insert(time, id, place);
            }
        }
    }

    /// Tells everybody what became of it; `failed`: nothing of it was done.
    pub(super) fn tell(&mut self, failed: Option<&Fault>) {
        self.records.clear();
        self.committed.clear();
        let mut journals: Vec<Told<JournalAnswer>> = Vec::new();
        let mut kvs: Vec<Told<KvAnswer>> = Vec::new();
        for outcome in self.outcomes.drain(..) {
            match outcome {
                Outcome::Journal(slot, ticket, answer) => {
                    let answer = match failed {
                        Some(fault) if answer.is_ok() => {
                            let error = fault.clone().into();
                            note_failure(&slot, &error);
                            Err(error)
                        }
                        _ => answer,
                    };
                    sort_in(&mut journals, slot, (ticket, answer));
                }
                Outcome::Kv(slot, ticket, answer) => {
                    // A conflict may be with a write that was not done either.
                    let conflict = matches!(answer, Err(KvError::Conflict { .. }));
                    let answer = match failed {
                        Some(fault) if answer.is_ok() || conflict => Err(fault.clone().into()),
                        _ => answer,
                    };
                    sort_in(&mut kvs, slot, (ticket, answer));
                }
            }
        }
        journals
            .into_iter()
            .for_each(|(slot, answers)| slot.complete(answers));
        kvs.into_iter().for_each(|(slot, answers)| slot.complete(answers));
    }
}

/// What was submitted behind it without knowing of it must fail too.
fn note_failure(slot: &Slot<JournalAnswer>, error: &JournalError) {
    if let Some(fault) = error.takes_along() {
        slot.fail(fault);
    }
}

type Told<A> = (Arc<Slot<A>>, Vec<(Ticket, A)>);

/// Adds an answer to those of its handle, so that each handle is woken once. There are few handles.
fn sort_in<A>(told: &mut Vec<Told<A>>, slot: Arc<Slot<A>>, answer: (Ticket, A)) {
    match told.iter_mut().rev().find(|(other, _)| Arc::ptr_eq(other, &slot)) {
        Some((_, answers)) => answers.push(answer),
        None => told.push((slot, vec![answer])),
    }
}

fn note(fresh: &mut HashMap<Key, Option<Revision>, foldhash::fast::RandomState>, commit: &Committed) {
    for write in &commit.writes {
        let revision = write.value.as_ref().map(|_| Revision(commit.first.0));
        fresh.insert(write.key.clone(), revision);
    }
}

fn resolve(write: Write, records: &[NewRecord]) -> Option<Resolved> {
    let value = match write.value {
        Value::Put(value) => Some(value),
        Value::PutRecord(number) => Some(records.get(number)?.data.clone()),
        Value::Delete => None,
    };
    Some(Resolved {
        key: write.key,
        value,
    })
}

/// Why a commit is too large, if it is.
pub(super) fn too_large(records: &[NewRecord], writes: &[Write], bytes_max: usize) -> Option<Fault> {
    let values = writes.iter().filter_map(|write| match &write.value {
        Value::Put(value) => Some(value.len()),
        Value::PutRecord(_) | Value::Delete => None,
    });
    let mut sizes = records.iter().map(|record| record.data.len()).chain(values);
    if let Some(bytes) = sizes.find(|bytes| *bytes > bytes_max) {
        return Some(Fault::TooLarge { bytes, bytes_max });
    }
    let bytes = NewFrame::len(records, writes);
    (bytes > COMMIT_BYTES_MAX).then_some(Fault::TooLarge {
        bytes,
        bytes_max: COMMIT_BYTES_MAX,
    })
}
