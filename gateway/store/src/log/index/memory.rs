use std::{hash::BuildHasher, io};

use broker_core::store::{Sequence, record_topic};
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::{Entry, Index, NO_TOPIC, damaged};

/// New topics that a scan looks at one by one before they are sorted in.
const UNSORTED_MIN: usize = 1024;

/// The index of a segment in memory, to which records can be added.
#[derive(Clone)]
pub(crate) struct MemoryIndex {
    base: Sequence,
    entries: Vec<Entry>,
    topics: Vec<Topic>,
    names: String,
    by_name: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    /// Numbers of the topics by name; the later ones are not in it yet.
    sorted: Vec<u32>,
}

#[derive(Clone)]
struct Topic {
    name_at: u32,
    name_len: u16,
    bytes: u32,
    ordinals: SmallVec<[u32; 4]>,
}

impl MemoryIndex {
    pub(crate) fn new(base: Sequence) -> MemoryIndex {
        MemoryIndex {
            base,
            entries: Vec::new(),
            topics: Vec::new(),
            names: String::new(),
            by_name: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
            sorted: Vec::new(),
        }
    }

    /// Adds the next record.
    pub(crate) fn push(&mut self, sequence: Sequence, offset: u32, indexed: bool, data: &[u8]) {
        let ordinal = self.entries.len() as u32;
        let topic = match record_topic(data) {
            Some(name) if indexed => self.topic(name),
            _ => NO_TOPIC,
        };
        if let Some(topic) = self.topics.get_mut(topic as usize) {
            topic.bytes += data.len() as u32;
            topic.ordinals.push(ordinal);
        }
        self.entries.push(Entry {
            // A segment ends long before its places are too many for this.
            place: u32::try_from(sequence.0.saturating_sub(self.base.0)).unwrap_or(u32::MAX),
            offset,
            len: data.len() as u32,
            topic,
        });
    }

    fn topic(&mut self, name: &str) -> u32 {
        let hash = self.hasher.hash_one(name);
        let (topics, names) = (&self.topics, &self.names);
        if let Some(number) = self
            .by_name
            .find(hash, |number| topics[*number as usize].name(names) == name)
        {
            return *number;
        }
        let number = self.topics.len() as u32;
        let topic = Topic {
            name_at: self.names.len() as u32,
            name_len: name.len() as u16,
            bytes: 0,
            ordinals: SmallVec::new(),
        };
        self.names.push_str(name);
        self.topics.push(topic);
        let (topics, names, hasher) = (&self.topics, &self.names, &self.hasher);
        self.by_name.insert_unique(hash, number, |number| {
            hasher.hash_one(topics[*number as usize].name(names))
        });
        number
    }

    /// Sorts all topics in.
    fn sort(&mut self) {
        let known = self.sorted.len();
        self.sorted.extend(known as u32..self.topics.len() as u32);
        let (topics, names) = (&self.topics, &self.names);
        // A stable sort merges the sorted part with the rest.
        self.sorted[known..].sort_unstable_by_key(|number| topics[*number as usize].name(names));
        self.sorted
            .sort_by_key(|number| topics[*number as usize].name(names));
    }

    /// Numbers of all topics, by name.
    pub(crate) fn topics_sorted(&self) -> Vec<u32> {
        let mut sorted: Vec<u32> = (0..self.topics.len() as u32).collect();
        sorted.sort_unstable_by_key(|number| self.name(*number));
        sorted
    }

    pub(crate) fn name(&self, topic: u32) -> &str {
        self.topics[topic as usize].name(&self.names)
    }

    pub(crate) fn ordinals(&self, topic: u32) -> &[u32] {
        &self.topics[topic as usize].ordinals
    }

    pub(crate) fn bytes(&self, topic: u32) -> u32 {
        self.topics[topic as usize].bytes
    }

    pub(crate) fn all_entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Memory that it takes, about.
    pub(crate) fn cost(&self) -> usize {
        let spilled = |topic: &Topic| {
            if topic.ordinals.spilled() {
                topic.ordinals.capacity() * 4
            } else {
                0
            }
        };
        self.entries.capacity() * size_of::<Entry>()
            + self.topics.capacity() * size_of::<Topic>()
            + self.topics.iter().map(spilled).sum::<usize>()
            + self.names.capacity()
            + self.by_name.capacity() * 5
            + self.sorted.capacity() * 4
    }
}

impl Topic {
    fn name<'a>(&self, names: &'a str) -> &'a str {
        let start = self.name_at as usize;
        &names[start..start + usize::from(self.name_len)]
    }
}

impl Index for MemoryIndex {
    fn base(&self) -> Sequence {
        self.base
    }

    fn records(&self) -> u32 {
        self.entries.len() as u32
    }

    fn topics(&self) -> u32 {
        self.topics.len() as u32
    }

    fn entry(&mut self, ordinal: u32) -> io::Result<Entry> {
        self.entries.get(ordinal as usize).copied().ok_or_else(damaged)
    }

    fn lookup(&mut self, topic: &str) -> io::Result<Option<u32>> {
        let (topics, names) = (&self.topics, &self.names);
        let hash = self.hasher.hash_one(topic);
        Ok(self
            .by_name
            .find(hash, |number| topics[*number as usize].name(names) == topic)
            .copied())
    }

    fn scan(&mut self, prefix: &str, found: &mut dyn FnMut(u32, &str)) -> io::Result<()> {
        let unsorted = self.topics.len() - self.sorted.len();
        if unsorted > UNSORTED_MIN.max(self.sorted.len() / 16) {
            self.sort();
        }
        let start = self.sorted.partition_point(|number| self.name(*number) < prefix);
        let sorted = self.sorted[start..].iter().copied();
        for number in sorted.take_while(|number| self.name(*number).starts_with(prefix)) {
            found(number, self.name(number));
        }
        for number in self.sorted.len() as u32..self.topics.len() as u32 {
            if self.name(number).starts_with(prefix) {
                found(number, self.name(number));
            }
        }
        Ok(())
    }

    fn scan_new(&mut self, from: u32, found: &mut dyn FnMut(u32, &str)) -> io::Result<()> {
        for number in from..self.topics.len() as u32 {
            found(number, self.name(number));
        }
        Ok(())
    }

    fn entries(&mut self, from: u32, max: u32, entries: &mut Vec<Entry>) -> io::Result<()> {
        entries.extend(self.entries.iter().skip(from as usize).take(max as usize));
        Ok(())
    }

    fn sums(&mut self, topic: u32) -> io::Result<(u32, u64)> {
        let topic = self.topics.get(topic as usize).ok_or_else(damaged)?;
        Ok((topic.ordinals.len() as u32, topic.bytes.into()))
    }

    fn posting(&mut self, topic: u32, n: u32) -> io::Result<u32> {
        let topic = self.topics.get(topic as usize).ok_or_else(damaged)?;
        topic.ordinals.get(n as usize).copied().ok_or_else(damaged)
    }
}
