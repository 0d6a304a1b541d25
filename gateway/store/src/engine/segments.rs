//! Indexes and records of all segments, as the reader thread has them.

use std::{collections::BTreeMap, io, sync::Arc};

use broker_core::store::{Interest, Sequence};
use bytes::Bytes;
use hashbrown::HashSet;
use tracing::{info, warn};

use super::Engine;
use crate::{
    files::{File, Files},
    log::{
        frame::{RECORD_OVERHEAD, Seed, record_at},
        index::{self, DiskIndex, Entry, Index, IndexFile, MatchCache, Matched, MemoryIndex, PageCache},
        scan::{Scanned, Scanner},
        segment::{SEGMENT_HEADER_BYTES, Segment},
        view::Snapshot,
    },
    options::Options,
    stats::add,
};

/// Segment and index files that stay open.
const FILES_MAX: usize = 64;
/// Bytes that are read at a time when records that follow each other are wanted.
const READ_AHEAD: u64 = 128 << 10;
/// Damaged records that are remembered as reported; more are passed over without a word.
const REPORTED_MAX: usize = 1024;
/// Groups that are indexed between two looks at the log.
const CHUNKS: usize = 256;

/// Why a segment cannot be asked: it is gone, or cannot be read.
pub(super) struct Gone;

pub(super) struct Segments {
    engine: Arc<Engine>,
    files: Arc<dyn Files>,
    seed: Seed,
    /// The index of the segment that grows, up to `indexed`.
    active: MemoryIndex,
    indexed: Sequence,
    indexed_offset: u64,
    sealed: BTreeMap<Sequence, Sealed>,
    /// Counts uses.
    clock: u64,
    memory_max: usize,
    pages: PageCache,
    matches: MatchCache,
    open: Vec<(Sequence, Arc<dyn File>)>,
    /// What was read last of a segment: its base, the offset, the bytes.
    ahead: (Sequence, u64, Vec<u8>),
    /// Records that were found damaged and reported: each once, as far as this goes.
    reported: HashSet<(Sequence, u32), foldhash::fast::RandomState>,
    /// Work done since it was last asked, in records or topics looked at, about.
    pub(super) work: u64,
}

struct Sealed {
    index: SealedIndex,
    used: u64,
    cost: usize,
}

enum SealedIndex {
    Memory(Box<MemoryIndex>),
    File(IndexFile),
}

impl Segments {
    pub(super) fn new(engine: Arc<Engine>, options: &Options, seed: Seed) -> Segments {
        let snapshot = engine.view.snapshot();
        let base = snapshot
            .segments
            .last()
            .map_or(Sequence::FIRST, |segment| segment.base);
        Segments {
            engine,
            files: Arc::clone(&options.files),
            seed,
            active: MemoryIndex::new(base),
            indexed: base,
            indexed_offset: SEGMENT_HEADER_BYTES,
            sealed: BTreeMap::new(),
            clock: 0,
            memory_max: options.index_bytes / 2,
            pages: PageCache::new(options.index_bytes / 4),
            matches: MatchCache::new(options.index_bytes / 4),
            open: Vec::new(),
            ahead: (Sequence(0), 0, Vec::new()),
            reported: HashSet::default(),
            work: 0,
        }
    }

    /// Indexes what was committed since.
    pub(super) fn follow(&mut self) {
        loop {
            let snapshot = self.engine.view.snapshot();
            if self.indexed >= snapshot.next {
                return;
            }
            match self.engine.view.ring_chunks(self.indexed, CHUNKS) {
                Some(chunks) => {
                    for chunk in chunks {
                        self.begin_segment(chunk.base, &snapshot);
                        for entry in chunk.since(self.indexed) {
                            let sequence = entry.record.sequence;
                            self.active
                                .push(sequence, entry.offset, entry.indexed, &entry.record.data);
                        }
                        self.work += chunk.records.len() as u64;
                        self.indexed = chunk.next;
                        self.indexed_offset = chunk.end_offset;
                    }
                }
                None => self.follow_file(&snapshot),
            }
        }
    }

    /// The records go on in this segment.
    fn begin_segment(&mut self, base: Sequence, snapshot: &Snapshot) {
        if base == self.active.base() {
            return;
        }
        let index = std::mem::replace(&mut self.active, MemoryIndex::new(base));
        let ended = index.base();
        self.indexed = self.indexed.max(base);
        self.indexed_offset = SEGMENT_HEADER_BYTES;
        if snapshot
            .segments
            .binary_search_by_key(&ended, |segment| segment.base)
            .is_ok()
        {
            self.keep_sealed(ended, SealedIndex::Memory(Box::new(index)));
        } else {
            self.forget(&[ended]);
        }
    }

    /// Indexes what is no longer in memory.
    fn follow_file(&mut self, snapshot: &Snapshot) {
        let base = self.active.base();
        let at = snapshot.segments.partition_point(|segment| segment.base < base);
        let Some(segment) = snapshot.segments.get(at).cloned() else {
            self.indexed = snapshot.next;
            return;
        };
        if segment.base == base {
            let len = snapshot.len_of(&segment);
            let mut scanner = match self.file(&segment) {
                Ok(file) => Scanner::new(file, len, self.indexed_offset.min(len), self.indexed, self.seed),
                Err(error) => {
                    self.unreadable(&segment, &error);
                    return self.pass(snapshot, at);
                }
            };
            if let Err(error) = scan_into(&mut self.active, &mut scanner) {
                self.unreadable(&segment, &error);
            }
            self.indexed_offset = len;
            self.work += len / 64;
        } else {
            return self.begin_segment(segment.base, snapshot);
        }
        self.pass(snapshot, at);
    }

    /// Everything of the segment was looked at: goes on with the next one.
    fn pass(&mut self, snapshot: &Snapshot, at: usize) {
        match snapshot.segments.get(at + 1) {
            Some(next) => self.begin_segment(next.base, snapshot),
            None => self.indexed = snapshot.next,
        }
    }

    fn unreadable(&self, segment: &Segment, error: &io::Error) {
        add(&self.engine.stats.corrupt_frames, 1);
        warn!(path = %segment.path.display(), "a segment of the log cannot be read, its records are passed over: {error}");
    }

    /// Asks the index of a segment; one that turns out to be damaged is made again.
    pub(super) fn index<T>(
        &mut self,
        snapshot: &Snapshot,
        segment: &Segment,
        mut ask: impl FnMut(&mut dyn Index) -> io::Result<T>,
    ) -> Result<T, Gone> {
        if segment.base == self.active.base() {
            return ask(&mut self.active).map_err(|_| Gone);
        }
        for _ in 0..2 {
            let answer = self.load(snapshot, segment).and_then(|()| {
                let sealed = self.sealed.get_mut(&segment.base).ok_or_else(not_found)?;
                match &mut sealed.index {
                    SealedIndex::Memory(index) => ask(&mut **index),
                    SealedIndex::File(index) => ask(&mut DiskIndex {
                        index,
                        pages: &mut self.pages,
                    }),
                }
            });
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Gone),
                Err(error) => {
                    warn!(path = %segment.index_path().display(), "an index is damaged and made again: {error}");
                    self.forget(&[segment.base]);
                    // What cannot be removed is replaced.
                    let _ = self.files.remove(&segment.index_path());
                }
            }
        }
        Err(Gone)
    }

    /// What the interest matches in a segment.
    pub(super) fn matched<T>(
        &mut self,
        snapshot: &Snapshot,
        segment: &Segment,
        interest: &Arc<Interest>,
        mut ask: impl FnMut(&mut dyn Index, &mut Matched) -> io::Result<T>,
    ) -> Result<T, Gone> {
        let mut matches = std::mem::replace(&mut self.matches, MatchCache::new(0));
        let answer = self.index(snapshot, segment, |index| {
            let mut matched = matches.take(interest, index)?;
            let answer = ask(index, &mut matched);
            matches.put(interest, segment.base, matched);
            answer
        });
        self.matches = matches;
        self.work += 64;
        answer
    }

    /// Makes sure that the index of a sealed segment is there.
    fn load(&mut self, snapshot: &Snapshot, segment: &Segment) -> io::Result<()> {
        self.clock += 1;
        if let Some(sealed) = self.sealed.get_mut(&segment.base) {
            sealed.used = self.clock;
            return Ok(());
        }
        let len = snapshot.len_of(segment);
        let opened = self
            .files
            .open(&segment.index_path())
            .and_then(|file| IndexFile::open(file, segment.base, len, self.seed, &mut self.pages));
        self.matches.forget(segment.base);
        let index = match opened {
            Ok(index) => SealedIndex::File(index),
            Err(_) => {
                let mut scanner = Scanner::new(
                    self.file(segment)?,
                    len,
                    SEGMENT_HEADER_BYTES.min(len),
                    segment.base,
                    self.seed,
                );
                let mut index = MemoryIndex::new(segment.base);
                scan_into(&mut index, &mut scanner)?;
                add(&self.engine.stats.indexes_rebuilt, 1);
                info!(path = %segment.path.display(), records = index.records(), "made the index of a segment again");
                self.work += len / 64;
                SealedIndex::Memory(Box::new(index))
            }
        };
        self.keep_sealed(segment.base, index);
        Ok(())
    }

    /// Keeps an index; what was not used for the longest time moves to a file, or is closed.
    fn keep_sealed(&mut self, base: Sequence, index: SealedIndex) {
        self.clock += 1;
        let cost = match &index {
            SealedIndex::Memory(index) => index.cost(),
            SealedIndex::File(_) => 0,
        };
        let used = self.clock;
        self.sealed.insert(base, Sealed { index, used, cost });
        while self.sealed.values().map(|sealed| sealed.cost).sum::<usize>() > self.memory_max {
            let in_memory = self
                .sealed
                .iter()
                .filter(|(other, sealed)| sealed.cost > 0 && **other != base);
            let Some(oldest) = in_memory
                .min_by_key(|(_, sealed)| sealed.used)
                .map(|(base, _)| *base)
            else {
                break;
            };
            self.spill(oldest);
        }
        while self.sealed.values().filter(|sealed| sealed.cost == 0).count() > FILES_MAX {
            let files = self.sealed.iter().filter(|(_, sealed)| sealed.cost == 0);
            let Some(oldest) = files.min_by_key(|(_, sealed)| sealed.used).map(|(base, _)| *base) else {
                break;
            };
            self.sealed.remove(&oldest);
        }
    }

    /// Writes an index to its file.
    fn spill(&mut self, base: Sequence) {
        self.matches.forget(base);
        let Some(Sealed {
            index: SealedIndex::Memory(index),
            ..
        }) = self.sealed.remove(&base)
        else {
            return;
        };
        let snapshot = self.engine.view.snapshot();
        let at = snapshot
            .segments
            .binary_search_by_key(&base, |segment| segment.base);
        let Some(segment) = at.ok().and_then(|at| snapshot.segments.get(at)) else {
            return;
        };
        let path = segment.index_path();
        match index::write(&index, snapshot.len_of(segment), &*self.files, &path, self.seed) {
            Ok(bytes) => add(&self.engine.stats.index_bytes_written, bytes),
            Err(error) => {
                warn!(path = %path.display(), "an index cannot be written; it is made again when it is needed: {error}");
            }
        }
    }

    /// Segments are gone: their indexes go, too. Only here, because here they are written.
    pub(super) fn dropped(&mut self, segments: &[Arc<Segment>]) {
        for segment in segments {
            self.forget(&[segment.base]);
            if let Err(error) = self.files.remove(&segment.index_path())
                && error.kind() != io::ErrorKind::NotFound
            {
                warn!(path = %segment.index_path().display(), "an index cannot be removed: {error}");
            }
        }
    }

    /// Forgets segments.
    pub(super) fn forget(&mut self, bases: &[Sequence]) {
        for base in bases {
            self.sealed.remove(base);
            self.pages.forget(base.0);
            self.matches.forget(*base);
            self.open.retain(|(open, _)| open != base);
            self.reported.retain(|(reported, _)| reported != base);
        }
    }

    fn file(&mut self, segment: &Segment) -> io::Result<Arc<dyn File>> {
        if let Some(at) = self.open.iter().position(|(base, _)| *base == segment.base) {
            let known = self.open.remove(at);
            let file = Arc::clone(&known.1);
            self.open.push(known);
            return Ok(file);
        }
        let file = self.files.open(&segment.path)?;
        if self.open.len() == FILES_MAX {
            self.open.remove(0);
        }
        self.open.push((segment.base, Arc::clone(&file)));
        Ok(file)
    }

    /// The data of a record. `None`: it cannot be read as it was written, which is counted.
    pub(super) fn record(&mut self, snapshot: &Snapshot, segment: &Segment, entry: Entry) -> Option<Bytes> {
        let sequence = Sequence(segment.base.0 + u64::from(entry.place));
        if sequence >= self.engine.view.ring_first()
            && let Some(data) = self.engine.view.ring_get(sequence)
        {
            return Some(data);
        }
        let (offset, len) = (u64::from(entry.offset), RECORD_OVERHEAD + entry.len as usize);
        let read = self.read(snapshot, segment, offset, len).and_then(|bytes| {
            let seed_checked = record_at(bytes.0, 0, sequence, bytes.1);
            let data = seed_checked.map(|(data, _)| Bytes::copy_from_slice(data));
            data.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong"))
        });
        read.inspect_err(|error| {
            if self.reported.len() == REPORTED_MAX || !self.reported.insert((segment.base, entry.offset)) {
                return;
            }
            add(&self.engine.stats.corrupt_frames, 1);
            add(&self.engine.stats.lost_sequences, 1);
            warn!(
                path = %segment.path.display(), offset, sequence = sequence.0,
                "a record cannot be read and is passed over: {error}"
            );
        })
        .ok()
    }

    fn read(
        &mut self,
        snapshot: &Snapshot,
        segment: &Segment,
        offset: u64,
        len: usize,
    ) -> io::Result<(&[u8], Seed)> {
        let (base, start, bytes) = &self.ahead;
        let end = start + bytes.len() as u64;
        let near = *base == segment.base && (*start..=end + READ_AHEAD).contains(&offset);
        if !(near && offset + len as u64 <= end) {
            let file = self.file(segment)?;
            let left = snapshot.len_of(segment).saturating_sub(offset);
            // Records far from each other are read one by one.
            let wanted = if near {
                (len as u64).max(READ_AHEAD).min(left)
            } else {
                len as u64
            };
            if wanted > left || wanted < len as u64 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut bytes = std::mem::take(&mut self.ahead.2);
            bytes.clear();
            bytes.resize(wanted as usize, 0);
            file.read_at(&mut bytes, offset)?;
            self.ahead = (segment.base, offset, bytes);
        }
        let start = (offset - self.ahead.1) as usize;
        Ok((&self.ahead.2[start..start + len], self.seed))
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// Adds the records of the frames that follow to an index; what is damaged is passed over.
fn scan_into(index: &mut MemoryIndex, scanner: &mut Scanner) -> io::Result<()> {
    use crate::log::frame::HEADER_BYTES;
    loop {
        match scanner.step()? {
            Scanned::Frame(offset, _, body) => {
                for record in body.records() {
                    let offset = offset as usize + HEADER_BYTES + record.offset;
                    index.push(record.sequence, offset as u32, record.indexed, record.data);
                }
            }
            Scanned::Lost(..) => {}
            Scanned::End => return Ok(()),
        }
    }
}
