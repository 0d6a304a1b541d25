//! The index of a sealed segment as a file of pages:
//!
//! ```text
//! header    magic · base u64 · bytes of the segment u64 · records u32 · topics u32 · postings u32 · bytes of names u32
//! entries   one per record: place u32 · offset u32 · length u32 · topic u32
//! topics    by name, and one behind the last: start of the name u32 · first posting u32 · bytes of its records u32
//! postings  ordinals u32, topic by topic
//! names
//! ```

use std::{cmp::Ordering, io, path::Path, sync::Arc};

use broker_core::store::Sequence;

use super::{
    Entry, Index, MemoryIndex, NO_TOPIC, PageCache, damaged,
    pages::{CONTENT_BYTES, PageWriter},
};
use crate::{
    files::{File, Files},
    log::frame::{Seed, u32_at, u64_at},
};

const MAGIC: [u8; 8] = *b"TGIDX\0\0\x01";
const HEADER_BYTES: u64 = 40;
const ENTRY_BYTES: u64 = 16;
const TOPIC_BYTES: u64 = 12;
const POSTING_BYTES: u64 = 4;

/// An index file, opened.
#[derive(Clone)]
pub(crate) struct IndexFile {
    file: Arc<dyn File>,
    base: Sequence,
    seed: Seed,
    records: u32,
    topics: u32,
    postings: u32,
    names_len: u32,
}

/// An index file with the pages that were read of it.
pub(crate) struct DiskIndex<'a> {
    pub(crate) index: &'a IndexFile,
    pub(crate) pages: &'a mut PageCache,
}

struct TopicRow {
    name_at: u32,
    first_posting: u32,
    bytes: u32,
}

/// Writes the index of a sealed segment of `segment_len` bytes; returns the bytes written.
pub(crate) fn write(
    index: &MemoryIndex,
    segment_len: u64,
    files: &dyn Files,
    path: &Path,
    seed: Seed,
) -> io::Result<u64> {
    let bytes = encode(index, segment_len, seed);
    let temporary = path.with_extension("tmp");
    // Left from a try that failed.
    let _ = files.remove(&temporary);
    files.create(&temporary)?.append(&bytes)?;
    // Not synced: a page that does not arrive is seen by its CRC, and the index is made again.
    files.rename(&temporary, path)?;
    Ok(bytes.len() as u64)
}

/// The file of an index.
pub(crate) fn encode(index: &MemoryIndex, segment_len: u64, seed: Seed) -> Vec<u8> {
    let sorted = index.topics_sorted();
    let mut rank = vec![NO_TOPIC; sorted.len()];
    let (mut postings, mut names_len) = (0, 0);
    for (at, topic) in (0..).zip(&sorted) {
        rank[*topic as usize] = at;
        postings += index.ordinals(*topic).len() as u32;
        names_len += index.name(*topic).len() as u32;
    }
    let mut writer = PageWriter::new(seed);
    writer.write(&MAGIC);
    writer.write(&index.base().0.to_le_bytes());
    writer.write(&segment_len.to_le_bytes());
    for number in [index.records(), sorted.len() as u32, postings, names_len] {
        writer.write(&number.to_le_bytes());
    }
    for entry in index.all_entries() {
        let topic = rank.get(entry.topic as usize).copied().unwrap_or(NO_TOPIC);
        for number in [entry.place, entry.offset, entry.len, topic] {
            writer.write(&number.to_le_bytes());
        }
    }
    let (mut name_at, mut first) = (0, 0);
    for topic in &sorted {
        for number in [name_at, first, index.bytes(*topic)] {
            writer.write(&number.to_le_bytes());
        }
        name_at += index.name(*topic).len() as u32;
        first += index.ordinals(*topic).len() as u32;
    }
    for number in [name_at, first, 0] {
        writer.write(&number.to_le_bytes());
    }
    for topic in &sorted {
        for ordinal in index.ordinals(*topic) {
            writer.write(&ordinal.to_le_bytes());
        }
    }
    for topic in &sorted {
        writer.write(index.name(*topic).as_bytes());
    }
    writer.finish()
}

impl IndexFile {
    /// Opens the index of the sealed segment with this base and length.
    pub(crate) fn open(
        file: Arc<dyn File>,
        base: Sequence,
        segment_len: u64,
        seed: Seed,
        pages: &mut PageCache,
    ) -> io::Result<IndexFile> {
        pages.forget(base.0);
        let header = pages.page(base.0, &*file, 0, seed)?;
        let number = |at| u32_at(&header, at).ok_or_else(damaged);
        let fits = header[..8] == MAGIC
            && u64_at(&header, 8) == Some(base.0)
            && u64_at(&header, 16) == Some(segment_len);
        if !fits {
            return Err(damaged());
        }
        Ok(IndexFile {
            base,
            seed,
            records: number(24)?,
            topics: number(28)?,
            postings: number(32)?,
            names_len: number(36)?,
            file,
        })
    }

    fn topics_at(&self) -> u64 {
        HEADER_BYTES + ENTRY_BYTES * u64::from(self.records)
    }

    fn postings_at(&self) -> u64 {
        self.topics_at() + TOPIC_BYTES * (u64::from(self.topics) + 1)
    }

    fn names_at(&self) -> u64 {
        self.postings_at() + POSTING_BYTES * u64::from(self.postings)
    }
}

impl DiskIndex<'_> {
    /// Calls `each` with the pieces of the content from `at` on.
    fn content(&mut self, mut at: u64, mut len: usize, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        while len > 0 {
            let number = u32::try_from(at / CONTENT_BYTES as u64).map_err(|_| damaged())?;
            let start = (at % CONTENT_BYTES as u64) as usize;
            let page = self
                .pages
                .page(self.index.base.0, &*self.index.file, number, self.index.seed)?;
            let piece = &page[start..CONTENT_BYTES.min(start + len)];
            each(piece);
            at += piece.len() as u64;
            len -= piece.len();
        }
        Ok(())
    }

    fn numbers<const N: usize>(&mut self, at: u64) -> io::Result<[u32; N]> {
        let mut bytes = [0_u8; 16];
        let mut filled = 0;
        self.content(at, N * 4, |piece| {
            bytes[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        })?;
        let mut numbers = [0; N];
        for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(4)) {
            *number = u32_at(bytes, 0).ok_or_else(damaged)?;
        }
        Ok(numbers)
    }

    fn row(&mut self, topic: u32) -> io::Result<TopicRow> {
        if topic > self.index.topics {
            return Err(damaged());
        }
        let at = self.index.topics_at() + TOPIC_BYTES * u64::from(topic);
        let [name_at, first_posting, bytes] = self.numbers(at)?;
        Ok(TopicRow {
            name_at,
            first_posting,
            bytes,
        })
    }

    fn name(&mut self, topic: u32, name: &mut Vec<u8>) -> io::Result<()> {
        let (start, end) = (self.row(topic)?.name_at, self.row(topic + 1)?.name_at);
        let len = end
            .checked_sub(start)
            .filter(|len| *len <= u32::from(u16::MAX))
            .ok_or_else(damaged)?;
        if end > self.index.names_len {
            return Err(damaged());
        }
        name.clear();
        let at = self.index.names_at() + u64::from(start);
        self.content(at, len as usize, |piece| name.extend_from_slice(piece))
    }

    /// The first topic that is not less than `wanted`, and whether it is equal.
    fn search(&mut self, wanted: &str) -> io::Result<(u32, bool)> {
        let mut name = Vec::new();
        let (mut low, mut high) = (0, self.index.topics);
        while low < high {
            let middle = low + (high - low) / 2;
            self.name(middle, &mut name)?;
            match name.as_slice().cmp(wanted.as_bytes()) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok((middle, true)),
                Ordering::Greater => high = middle,
            }
        }
        Ok((low, false))
    }
}

impl Index for DiskIndex<'_> {
    fn base(&self) -> Sequence {
        self.index.base
    }

    fn records(&self) -> u32 {
        self.index.records
    }

    fn topics(&self) -> u32 {
        self.index.topics
    }

    fn entry(&mut self, ordinal: u32) -> io::Result<Entry> {
        if ordinal >= self.index.records {
            return Err(damaged());
        }
        let [place, offset, len, topic] = self.numbers(HEADER_BYTES + ENTRY_BYTES * u64::from(ordinal))?;
        Ok(Entry {
            place,
            offset,
            len,
            topic,
        })
    }

    fn lookup(&mut self, topic: &str) -> io::Result<Option<u32>> {
        let (number, equal) = self.search(topic)?;
        Ok(equal.then_some(number))
    }

    fn scan(&mut self, prefix: &str, found: &mut dyn FnMut(u32, &str)) -> io::Result<()> {
        let mut name = Vec::new();
        for number in self.search(prefix)?.0..self.index.topics {
            self.name(number, &mut name)?;
            let name = std::str::from_utf8(&name).map_err(|_| damaged())?;
            if !name.starts_with(prefix) {
                break;
            }
            found(number, name);
        }
        Ok(())
    }

    fn scan_new(&mut self, _from: u32, _found: &mut dyn FnMut(u32, &str)) -> io::Result<()> {
        Ok(())
    }

    fn entries(&mut self, from: u32, max: u32, entries: &mut Vec<Entry>) -> io::Result<()> {
        let count = max.min(self.index.records.saturating_sub(from));
        let mut bytes = Vec::with_capacity(count as usize * ENTRY_BYTES as usize);
        let at = HEADER_BYTES + ENTRY_BYTES * u64::from(from);
        self.content(at, count as usize * ENTRY_BYTES as usize, |piece| {
            bytes.extend_from_slice(piece)
        })?;
        for bytes in bytes.chunks_exact(ENTRY_BYTES as usize) {
            let number = |at| u32_at(bytes, at).ok_or_else(damaged);
            entries.push(Entry {
                place: number(0)?,
                offset: number(4)?,
                len: number(8)?,
                topic: number(12)?,
            });
        }
        Ok(())
    }

    fn sums(&mut self, topic: u32) -> io::Result<(u32, u64)> {
        if topic >= self.index.topics {
            return Err(damaged());
        }
        let (row, next) = (self.row(topic)?, self.row(topic + 1)?);
        let count = next
            .first_posting
            .checked_sub(row.first_posting)
            .ok_or_else(damaged)?;
        Ok((count, row.bytes.into()))
    }

    fn posting(&mut self, topic: u32, n: u32) -> io::Result<u32> {
        let number = self
            .row(topic)?
            .first_posting
            .checked_add(n)
            .filter(|n| *n < self.index.postings);
        let number = number.ok_or_else(damaged)?;
        let [ordinal] = self.numbers(self.index.postings_at() + POSTING_BYTES * u64::from(number))?;
        if ordinal >= self.index.records {
            return Err(damaged());
        }
        Ok(ordinal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FaultyFiles;

    fn record(topic: &str, body: usize) -> Vec<u8> {
        let mut data = (topic.len() as u16).to_be_bytes().to_vec();
        data.extend_from_slice(topic.as_bytes());
        data.resize(data.len() + body, b'x');
        data
    }

    fn memory() -> MemoryIndex {
        let mut index = MemoryIndex::new(Sequence(100));
        for number in 0..3000_u32 {
            let topic = format!("plant/{}/t", number % 700);
            let sequence = Sequence(100 + u64::from(number) * 2);
            index.push(sequence, 64 + number * 50, number % 5 != 0, &record(&topic, 3));
        }
        index
    }

    fn contents(index: &mut dyn Index) -> Vec<(String, Vec<u32>, u64)> {
        let mut topics = Vec::new();
        index
            .scan("plant/", &mut |number, name| {
                topics.push((name.to_owned(), number))
            })
            .unwrap();
        topics.sort();
        topics
            .into_iter()
            .map(|(name, number)| {
                assert_eq!(index.lookup(&name).unwrap(), Some(number));
                let (count, bytes) = index.sums(number).unwrap();
                let places = (0..count).map(|n| {
                    let ordinal = index.posting(number, n).unwrap();
                    let entry = index.entry(ordinal).unwrap();
                    assert_eq!(entry.topic, number);
                    entry.place
                });
                let places = places.collect();
                (name, places, bytes)
            })
            .collect()
    }

    #[test]
    fn the_file_says_what_the_memory_says() {
        let files = FaultyFiles::new();
        let path = Path::new("/log/1.idx");
        files.create_dir(Path::new("/log")).unwrap();
        let seed = Seed::new(1);
        let mut memory = memory();
        write(&memory, 777, &files, path, seed).unwrap();
        let mut pages = PageCache::new(1 << 20);
        let file = files.open(path).unwrap();
        let index = IndexFile::open(Arc::clone(&file), Sequence(100), 777, seed, &mut pages).unwrap();
        let mut disk = DiskIndex {
            index: &index,
            pages: &mut pages,
        };
        let expected = contents(&mut memory);
        assert_eq!(expected.len(), 700 - 140);
        assert_eq!(contents(&mut disk), expected);
        for (from, ordinal) in [(0, 0), (100, 0), (101, 1), (102, 1), (6098, 2999), (6099, 3000)] {
            assert_eq!(disk.lower_bound(Sequence(from)).unwrap(), ordinal, "{from}");
            assert_eq!(memory.lower_bound(Sequence(from)).unwrap(), ordinal, "{from}");
        }
        assert_eq!(disk.lookup("plant/").unwrap(), None);
        for (base, len) in [(101, 777), (100, 778)] {
            let other = IndexFile::open(Arc::clone(&file), Sequence(base), len, seed, &mut pages);
            assert!(other.is_err());
        }
    }
}
