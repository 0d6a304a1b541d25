//! The latest records, in memory.

use std::{collections::VecDeque, sync::Arc};

use broker_core::store::{Page, Record, Sequence};
use bytes::Bytes;

/// What a record costs beside its data.
const RECORD_COST: usize = 64;
/// What a group costs beside its records.
const CHUNK_COST: usize = 128;

/// A record in memory, and where it stands in its segment.
#[derive(Clone, Debug)]
pub(crate) struct RingRecord {
    pub(crate) record: Record,
    pub(crate) indexed: bool,
    pub(crate) offset: u32,
}

/// The records of a group.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The segment that the group is in.
    pub(crate) base: Sequence,
    pub(crate) first: Sequence,
    pub(crate) next: Sequence,
    /// Where the group ends in the segment.
    pub(crate) end_offset: u64,
    pub(crate) records: Vec<RingRecord>,
    /// Of the records' data.
    pub(crate) bytes: u64,
}

impl Chunk {
    fn cost(&self) -> usize {
        CHUNK_COST + self.bytes as usize + self.records.len() * RECORD_COST
    }

    /// The records from a place on.
    pub(crate) fn since(&self, from: Sequence) -> &[RingRecord] {
        let start = self.records.partition_point(|entry| entry.record.sequence < from);
        &self.records[start..]
    }
}

/// The latest groups, within a bound of bytes; the last group always.
#[derive(Debug)]
pub(crate) struct Ring {
    chunks: VecDeque<Arc<Chunk>>,
    cost: usize,
    cost_max: usize,
    /// All records from here on are here.
    first: Sequence,
}

impl Ring {
    pub(crate) fn new(first: Sequence, cost_max: usize) -> Ring {
        Ring {
            chunks: VecDeque::new(),
            cost: 0,
            cost_max,
            first,
        }
    }

    /// All records from here on are in memory.
    pub(crate) fn first(&self) -> Sequence {
        self.first
    }

    pub(crate) fn push(&mut self, chunk: Arc<Chunk>) {
        self.cost += chunk.cost();
        self.chunks.push_back(chunk);
        while self.cost > self.cost_max
            && self.chunks.len() > 1
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.cost -= oldest.cost();
            // Nobody who waits has missed a commit without records.
            if !oldest.records.is_empty() {
                self.first = oldest.next;
            }
        }
    }

    fn position(&self, from: Sequence) -> usize {
        self.chunks.partition_point(|chunk| chunk.next <= from)
    }

    /// The groups that have something from `from` on, until their records fill a page.
    pub(crate) fn page(&self, from: Sequence, page: Page) -> Vec<Arc<Chunk>> {
        let (mut items, mut bytes) = (0, 0);
        self.chunks
            .range(self.position(from)..)
            .take_while(|chunk| {
                let open = items < usize::from(page.items_max.get()) && bytes < page.bytes_max.max(1) as u64;
                if chunk.first >= from {
                    items += chunk.records.len();
                    bytes += chunk.bytes;
                }
                open
            })
            .cloned()
            .collect()
    }

    /// The groups from `from` on, at most `max`.
    pub(crate) fn chunks(&self, from: Sequence, max: usize) -> Vec<Arc<Chunk>> {
        self.chunks
            .range(self.position(from)..)
            .take(max)
            .cloned()
            .collect()
    }

    /// A single record.
    pub(crate) fn get(&self, sequence: Sequence) -> Option<Bytes> {
        let chunk = self.chunks.get(self.position(sequence))?;
        let entry = chunk.since(sequence).first()?;
        (entry.record.sequence == sequence).then(|| entry.record.data.clone())
    }

    /// Bytes of the records from `from` on, if they are all here.
    pub(crate) fn bytes_since(&self, from: Sequence) -> Option<u64> {
        if from < self.first() {
            return None;
        }
        let at = self.position(from);
        let boundary: u64 = self.chunks.get(at).map_or(0, |chunk| {
            chunk
                .since(from)
                .iter()
                .map(|entry| entry.record.data.len() as u64)
                .sum()
        });
        let rest: u64 = self.chunks.iter().skip(at + 1).map(|chunk| chunk.bytes).sum();
        Some(boundary + rest)
    }
}

/// The records from `from` on that fit on a page, and where the next page goes on.
pub(crate) fn fill_page(chunks: &[Arc<Chunk>], from: Sequence, page: Page) -> (Vec<Record>, Sequence) {
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut next = from;
    for chunk in chunks {
        for entry in chunk.since(from) {
            let full = records.len() == usize::from(page.items_max.get()) || bytes >= page.bytes_max;
            if full && !records.is_empty() {
                return (records, next);
            }
            bytes += entry.record.data.len();
            next = entry.record.sequence.next();
            records.push(entry.record.clone());
        }
        next = chunk.next;
    }
    (records, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(first: u64, sizes: &[usize]) -> Arc<Chunk> {
        let records: Vec<_> = (first..)
            .zip(sizes)
            .map(|(sequence, size)| RingRecord {
                record: Record {
                    sequence: Sequence(sequence),
                    data: vec![sequence as u8; *size].into(),
                },
                indexed: true,
                offset: 0,
            })
            .collect();
        Arc::new(Chunk {
            base: Sequence(1),
            first: Sequence(first),
            next: Sequence(first + sizes.len().max(1) as u64),
            end_offset: 0,
            bytes: sizes.iter().sum::<usize>() as u64,
            records,
        })
    }

    fn page(items: u16, bytes_max: usize) -> Page {
        Page {
            items_max: items.try_into().unwrap(),
            bytes_max,
        }
    }

    fn read(ring: &Ring, from: u64, page: Page) -> (Vec<u64>, u64) {
        let (records, next) = fill_page(&ring.page(Sequence(from), page), Sequence(from), page);
        (records.iter().map(|record| record.sequence.0).collect(), next.0)
    }

    #[test]
    fn pages_end_at_items_or_bytes_and_pass_over_commits_without_records() {
        let mut ring = Ring::new(Sequence(5), 1 << 20);
        for chunk in [chunk(5, &[10, 10, 10]), chunk(8, &[]), chunk(9, &[10, 10])] {
            ring.push(chunk);
        }
        assert_eq!(read(&ring, 5, page(2, 1000)), (vec![5, 6], 7));
        assert_eq!(read(&ring, 7, page(1, 1000)), (vec![7], 9));
        assert_eq!(read(&ring, 6, page(9, 11)), (vec![6, 7], 9));
        assert_eq!(read(&ring, 6, page(9, 0)), (vec![6], 7));
        assert_eq!(read(&ring, 8, page(9, 1000)), (vec![9, 10], 11));
        assert_eq!(read(&ring, 11, page(9, 1000)), (vec![], 11));
        assert_eq!(ring.bytes_since(Sequence(7)), Some(30));
        assert_eq!(ring.get(Sequence(8)), None);
        assert_eq!(ring.get(Sequence(10)).unwrap()[0], 10);
    }

    #[test]
    fn the_oldest_groups_go_first_and_the_last_stays() {
        let mut ring = Ring::new(Sequence(1), 3 * (100 + RECORD_COST + CHUNK_COST));
        for first in 1..=5 {
            ring.push(chunk(first, &[100]));
        }
        assert_eq!(ring.first(), Sequence(3));
        assert_eq!(ring.bytes_since(Sequence(2)), None);
        ring.push(chunk(6, &[10_000]));
        assert_eq!(ring.first(), Sequence(6));
        // Commits without records take memory, too, but nobody misses them.
        for first in 7..1000 {
            ring.push(chunk(first, &[]));
        }
        assert!(ring.chunks.len() < 10);
        assert_eq!(ring.first(), Sequence(7));
    }
}
