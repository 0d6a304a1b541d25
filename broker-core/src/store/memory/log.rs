use std::collections::VecDeque;

use bytes::Bytes;

use super::{has_room, index::Index};
use crate::store::{Interest, JournalReply, Keep, NewRecord, Page, Record, Sequence, record_topic};

/// Bytes that a record takes beyond its data: its places in the log and in its topic, its allocation.
const RECORD_OVERHEAD: u64 = 112;

/// Records that one answer passes over at most; the next goes on. It is what the other handles wait for, at the most.
const PASS_OVER_MAX: u64 = 16_384;

/// The records, by increasing sequence. Commits without records leave gaps.
#[derive(Default)]
pub(super) struct Log {
    records: VecDeque<Slot>,
    index: Index,
    /// Bytes of the records' data.
    bytes: u64,
    /// The last record that was trimmed.
    trimmed: Sequence,
}

struct Slot {
    sequence: Sequence,
    data: Bytes,
    indexed: bool,
}

impl Slot {
    fn topic(&self) -> Option<&str> {
        record_topic(&self.data).filter(|_| self.indexed)
    }

    fn record(&self) -> Record {
        Record {
            sequence: self.sequence,
            data: self.data.clone(),
        }
    }
}

impl Log {
    /// All records before this place were trimmed.
    pub(super) fn first(&self) -> Sequence {
        self.trimmed.next()
    }

    /// Bytes of the records' data.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the log takes, in bytes.
    pub(super) fn charge(&self) -> u64 {
        self.bytes + self.records.len() as u64 * RECORD_OVERHEAD + self.index.charge()
    }

    /// By how much these records make the charge larger, at most.
    pub(super) fn growth(&self, records: &[NewRecord]) -> u64 {
        let growth = |record: &NewRecord| {
            let topic = record_topic(&record.data).filter(|_| record.indexed);
            RECORD_OVERHEAD + record.data.len() as u64 + topic.map_or(0, |topic| self.index.growth(topic))
        };
        records.iter().map(growth).sum()
    }

    /// Appends a record; its place is after that of every other.
    pub(super) fn push(&mut self, sequence: Sequence, record: &NewRecord) {
        let slot = Slot {
            sequence,
            data: record.data.clone(),
            indexed: record.indexed,
        };
        self.bytes += slot.data.len() as u64;
        if let Some(topic) = slot.topic() {
            self.index.push(topic, sequence, slot.data.len());
        }
        self.records.push_back(slot);
    }

    pub(super) fn trim(&mut self, upto: Sequence) {
        while let Some(slot) = self.records.pop_front_if(|slot| slot.sequence < upto) {
            self.trimmed = slot.sequence;
            self.bytes -= slot.data.len() as u64;
            if let Some(topic) = slot.topic() {
                self.index.pop(topic);
            }
        }
        give_back(&mut self.records);
    }

    pub(super) fn tail(&self, from: Sequence, page: Page, end: Sequence) -> (Vec<Record>, Sequence) {
        let (mut records, mut bytes) = (Vec::new(), 0);
        for slot in self.records.range(self.position(from)..) {
            if !has_room(page, records.len(), bytes) {
                return (records, slot.sequence);
            }
            bytes += slot.data.len();
            records.push(slot.record());
        }
        (records, end)
    }

    pub(super) fn fetch(&self, places: &[Sequence]) -> Vec<Record> {
        let slots = places.iter().filter_map(|place| self.get(*place));
        slots.map(Slot::record).collect()
    }

    pub(super) fn read(
        &self,
        interest: &Interest,
        from: Sequence,
        keep: Keep,
        page: Page,
        end: Sequence,
    ) -> JournalReply {
        let mut matches = self.index.matches(interest, from);
        let mut passed_over = 0;
        while passed_over < PASS_OVER_MAX && matches.exceed(keep) {
            matches.next();
            passed_over += 1;
        }
        let is_over = !matches.exceed(keep);
        let (mut records, mut bytes) = (Vec::new(), 0);
        while is_over
            && has_room(page, records.len(), bytes)
            && let Some(slot) = matches.next().and_then(|place| self.get(place))
        {
            bytes += slot.data.len();
            records.push(slot.record());
        }
        let next = matches.peek();
        JournalReply::Found {
            records,
            next: next.unwrap_or(end),
            at_end: next.is_none(),
            passed_over,
        }
    }

    fn position(&self, place: Sequence) -> usize {
        self.records.partition_point(|slot| slot.sequence < place)
    }

    fn get(&self, place: Sequence) -> Option<&Slot> {
        let slot = self.records.get(self.position(place))?;
        (slot.sequence == place).then_some(slot)
    }
}

/// Gives back memory that was needed for much more than is there now.
pub(super) fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > 32 && queue.len() < queue.capacity() / 4 {
        queue.shrink_to(queue.len() * 2);
    }
}
