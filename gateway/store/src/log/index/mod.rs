//! Which topics a segment has, and where its records stand.
//!
//! A record's *ordinal* counts the records of a segment that can be read, from 0. Every record has an [`Entry`]; those
//! that are indexed are listed with their topic, too.

mod disk;
mod matched;
mod memory;
mod pages;

use std::io;

use broker_core::store::Sequence;

pub(crate) use disk::{DiskIndex, IndexFile, encode, write};
pub(crate) use matched::{Hit, MatchCache, Matched};
pub(crate) use memory::MemoryIndex;
pub(crate) use pages::PageCache;
#[cfg(test)]
pub(crate) use pages::PageWriter;

/// No topic: a record that is not indexed.
pub(crate) const NO_TOPIC: u32 = u32::MAX;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its sequence, from the segment's base.
    pub(crate) place: u32,
    /// Its offset in the segment.
    pub(crate) offset: u32,
    /// Bytes of its data.
    pub(crate) len: u32,
    /// Number of its topic, or [`NO_TOPIC`].
    pub(crate) topic: u32,
}

/// The index of one segment, wherever it is. Errors mean that it has to be made again.
pub(crate) trait Index {
    /// Place of ordinal 0 of the entries.
    fn base(&self) -> Sequence;
    /// Records.
    fn records(&self) -> u32;
    /// Topics.
    fn topics(&self) -> u32;
    /// A record.
    fn entry(&mut self, ordinal: u32) -> io::Result<Entry>;
    /// The number of a topic.
    fn lookup(&mut self, topic: &str) -> io::Result<Option<u32>>;
    /// Calls `found` with number and name of every topic that starts with `prefix`.
    fn scan(&mut self, prefix: &str, found: &mut dyn FnMut(u32, &str)) -> io::Result<()>;
    /// Calls `found` with the topics from a number on, which were added last; a file has got none.
    fn scan_new(&mut self, from: u32, found: &mut dyn FnMut(u32, &str)) -> io::Result<()>;
    /// Adds the entries from an ordinal on, at most `max`.
    fn entries(&mut self, from: u32, max: u32, entries: &mut Vec<Entry>) -> io::Result<()>;
    /// Records of a topic, and the bytes of their data.
    fn sums(&mut self, topic: u32) -> io::Result<(u32, u64)>;
    /// The ordinal of the n-th record of a topic.
    fn posting(&mut self, topic: u32, n: u32) -> io::Result<u32>;

    /// The first ordinal whose sequence is `from` or later.
    fn lower_bound(&mut self, from: Sequence) -> io::Result<u32> {
        let place = from.0.saturating_sub(self.base().0);
        let (mut low, mut high) = (0, if place == 0 { 0 } else { self.records() });
        while low < high {
            let middle = low + (high - low) / 2;
            if u64::from(self.entry(middle)?.place) < place {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// How many records of a topic have an ordinal below `ordinal`.
    fn postings_before(&mut self, topic: u32, ordinal: u32) -> io::Result<u32> {
        let (mut low, mut high) = (0, if ordinal == 0 { 0 } else { self.sums(topic)?.0 });
        while low < high {
            let middle = low + (high - low) / 2;
            if self.posting(topic, middle)? < ordinal {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// An index that says what cannot be.
pub(crate) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the index is damaged")
}
