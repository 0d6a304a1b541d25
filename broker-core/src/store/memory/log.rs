use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    has_room,
    index::{Index, Matches},
};
use crate::{
    store::{Interest, JournalReply, Keep, NewRecord, Page, Record, Sequence, record_topic},
    topic,
};

/// Bytes that a record takes beyond its data: its places in the log and in its topic, its allocation.
const RECORD_OVERHEAD: u64 = 112;

/// Records that one answer passes over at most; the next goes on, so that other handles need not wait long.
const PASS_OVER_MAX: u64 = 16_384;

/// Topics that are looked up for one answer at most. If filters with wildcards may match more, going through the log
/// is cheaper: mostly a page is full soon.
const TOPICS_MAX: usize = 1024;

/// The records, by increasing sequence. Commits without records leave gaps.
#[derive(Default)]
pub(super) struct Log {
    records: VecDeque<Slot>,
    index: Index,
    /// Bytes of the records' data.
    bytes: u64,
    /// The last record that was trimmed.
    trimmed: Sequence,
    /// Records that went because of the limit of bytes.
    dropped: u64,
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

    #[cfg(test)]
    pub(super) fn index(&self) -> &Index {
        &self.index
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
            self.forget(&slot);
        }
        give_back(&mut self.records);
    }

    /// Drops the oldest records until the rest has at most so many bytes, or is one.
    pub(super) fn keep_within(&mut self, bytes_max: u64) {
        while self.bytes > bytes_max
            && self.records.len() > 1
            && let Some(slot) = self.records.pop_front()
        {
            self.forget(&slot);
            self.dropped += 1;
        }
    }

    /// How many records [`Log::keep_within`] has dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn forget(&mut self, slot: &Slot) {
        self.trimmed = slot.sequence;
        self.bytes -= slot.data.len() as u64;
        if let Some(topic) = slot.topic() {
            self.index.pop(topic);
        }
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
        match self.index.matches(interest, from, TOPICS_MAX) {
            Some(matches) => self.read_topics(matches, keep, page, end),
            None => self.read_everything(interest, from, keep, page, end),
        }
    }

    /// Finds what is of interest by its topics.
    pub(super) fn read_topics(
        &self,
        mut matches: Matches<'_>,
        keep: Keep,
        page: Page,
        end: Sequence,
    ) -> JournalReply {
        let mut passed_over = 0;
        while passed_over < PASS_OVER_MAX && exceeds(keep, matches.items(), matches.bytes()) {
            matches.next();
            passed_over += 1;
        }
        let is_kept = !exceeds(keep, matches.items(), matches.bytes());
        let (mut records, mut bytes) = (Vec::new(), 0);
        while is_kept
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

    /// Finds what is of interest by going through the log.
    pub(super) fn read_everything(
        &self,
        interest: &Interest,
        from: Sequence,
        keep: Keep,
        page: Page,
        end: Sequence,
    ) -> JournalReply {
        let is_meant = |slot: &Slot| {
            let mut filters = interest.filters.iter();
            slot.topic()
                .is_some_and(|topic| filters.any(|filter| topic::matches(filter, topic)))
        };
        let position = self.position(from);
        let kept_from = self.kept_from(position, keep, is_meant);
        let (mut records, mut bytes, mut passed_over) = (Vec::new(), 0, 0);
        let mut more = None;
        for (looked_at, slot) in (0..).zip(self.records.range(position..)) {
            if !has_room(page, records.len(), bytes) || looked_at == PASS_OVER_MAX {
                more = Some(slot.sequence);
                break;
            }
            if !is_meant(slot) {
                continue;
            }
            if slot.sequence < kept_from {
                passed_over += 1;
            } else {
                bytes += slot.data.len();
                records.push(slot.record());
            }
        }
        JournalReply::Found {
            records,
            next: more.unwrap_or(end),
            at_end: more.is_none(),
            passed_over,
        }
    }

    /// The first place of what is to be kept of the records from `position` on, or one where nothing is passed over.
    fn kept_from(&self, position: usize, keep: Keep, is_meant: impl Fn(&Slot) -> bool) -> Sequence {
        let (mut items, mut bytes) = ((self.records.len() - position) as u64, self.bytes);
        if !exceeds(keep, items, bytes) {
            return Sequence::FIRST;
        }
        (items, bytes) = (0, 0);
        for slot in self.records.range(position..).rev().filter(|slot| is_meant(slot)) {
            (items, bytes) = (items + 1, bytes + slot.data.len() as u64);
            if exceeds(keep, items, bytes) {
                return slot.sequence.next();
            }
        }
        Sequence::FIRST
    }

    fn position(&self, place: Sequence) -> usize {
        self.records.partition_point(|slot| slot.sequence < place)
    }

    fn get(&self, place: Sequence) -> Option<&Slot> {
        let slot = self.records.get(self.position(place))?;
        (slot.sequence == place).then_some(slot)
    }
}

/// True if these are more than should be kept.
fn exceeds(keep: Keep, items: u64, bytes: u64) -> bool {
    let is_over = |value, max| max != 0 && value > max;
    items > 1 && (is_over(items, keep.items_max) || is_over(bytes, keep.bytes_max))
}

/// Gives back memory that was needed for much more than is there now.
pub(super) fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > 32 && queue.len() < queue.capacity() / 4 {
        queue.shrink_to(queue.len() * 2);
    }
}
