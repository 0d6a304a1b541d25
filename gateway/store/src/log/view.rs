//! What of the log is committed, as every handle and thread sees it. No lock here is held across a system call.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use broker_core::store::{Extent, Page, Record, Sequence};
use bytes::Bytes;

use super::{
    ring::{Chunk, Ring, fill_page},
    segment::{Segment, SegmentEnd, Totals},
};

/// The committed log.
pub(crate) struct View {
    inner: Mutex<Inner>,
    /// Copies of `inner.next` and `inner.indexed_end`, for a look without the lock.
    next: AtomicU64,
    indexed_end: AtomicU64,
}

struct Inner {
    next: Sequence,
    indexed_end: Sequence,
    floor: Sequence,
    /// Bytes of records ever appended before `floor`; up to a segment less where nobody knows.
    floor_bytes: u64,
    totals: Totals,
    segments: Arc<Vec<Arc<Segment>>>,
    active_len: u64,
    ring: Ring,
}

/// The log at one moment.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// Everything before it is trimmed.
    pub(crate) floor: Sequence,
    pub(crate) next: Sequence,
    /// Nothing indexed stands here or beyond.
    pub(crate) indexed_end: Sequence,
    /// By base; the last one is not sealed.
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    /// Committed bytes of the last segment.
    pub(crate) active_len: u64,
}

impl Snapshot {
    /// The segment that has this place, if it is not dropped.
    pub(crate) fn segment_of(&self, sequence: Sequence) -> Option<usize> {
        self.segments
            .partition_point(|segment| segment.base <= sequence)
            .checked_sub(1)
    }

    /// Committed bytes of a segment.
    pub(crate) fn len_of(&self, segment: &Segment) -> u64 {
        segment.end.get().map_or(self.active_len, |end| end.len)
    }
}

/// What a tail finds in memory.
pub(crate) enum Tail {
    /// Records, at least one, and where to go on.
    Records(Vec<Record>, Sequence),
    /// No record yet; the place may have moved over commits without records.
    AtEnd(Sequence),
    /// It has fallen behind what is in memory.
    Cold,
    /// It asks for what is not there.
    OutOfRange(Extent),
}

impl View {
    pub(crate) fn new(
        segments: Vec<Arc<Segment>>,
        active_len: u64,
        next: Sequence,
        totals: Totals,
        ring_bytes: usize,
    ) -> View {
        let (floor, floor_bytes) = segments.first().map_or((next, totals.record_bytes), |first| {
            (first.base, first.before.record_bytes)
        });
        View {
            next: AtomicU64::new(next.0),
            // What stands in the log was not looked at: it may be indexed up to the end.
            indexed_end: AtomicU64::new(next.0),
            inner: Mutex::new(Inner {
                next,
                indexed_end: next,
                floor,
                floor_bytes,
                totals,
                segments: Arc::new(segments),
                active_len,
                ring: Ring::new(next, ring_bytes),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next commit will be here or later.
    pub(crate) fn next(&self) -> Sequence {
        Sequence(self.next.load(Ordering::SeqCst))
    }

    /// Nothing indexed stands here or beyond.
    pub(crate) fn indexed_end(&self) -> Sequence {
        Sequence(self.indexed_end.load(Ordering::SeqCst))
    }

    pub(crate) fn extent(&self) -> Extent {
        self.lock().extent()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        Snapshot {
            floor: inner.floor,
            next: inner.next,
            indexed_end: inner.indexed_end,
            segments: Arc::clone(&inner.segments),
            active_len: inner.active_len,
        }
    }

    /// A group is committed. `entries` is called before anybody sees the records.
    pub(crate) fn publish(&self, chunk: Chunk, totals: Totals, entries: impl FnOnce()) {
        let indexed = chunk.records.iter().rev().find(|entry| entry.indexed);
        let indexed_end = indexed.map(|entry| entry.record.sequence.next());
        let mut inner = self.lock();
        inner.next = chunk.next;
        inner.totals = totals;
        inner.active_len = chunk.end_offset;
        if let Some(end) = indexed_end {
            inner.indexed_end = end;
            self.indexed_end.store(end.0, Ordering::SeqCst);
        }
        self.next.store(chunk.next.0, Ordering::SeqCst);
        inner.ring.push(Arc::new(chunk));
        entries();
    }

    /// The last segment has ended, and another has begun.
    pub(crate) fn rolled(&self, end: SegmentEnd, segment: Arc<Segment>, len: u64) {
        let mut inner = self.lock();
        if let Some(last) = inner.segments.last() {
            last.end.get_or_init(|| end);
        }
        let mut segments = Vec::clone(&inner.segments);
        segments.push(segment);
        inner.segments = Arc::new(segments);
        inner.active_len = len;
    }

    /// Moves the floor up; `Ok(false)`: it was there before.
    pub(crate) fn trim(&self, upto: Sequence) -> Result<bool, Extent> {
        let mut inner = self.lock();
        if upto > inner.next {
            return Err(inner.extent());
        }
        Ok(inner.raise_floor(upto))
    }

    /// Takes the first `count` segments out, never the last one.
    pub(crate) fn drop_first(&self, count: usize) -> Vec<Arc<Segment>> {
        let mut inner = self.lock();
        let count = count.min(inner.segments.len().saturating_sub(1));
        let mut segments = Vec::clone(&inner.segments);
        let dropped: Vec<_> = segments.drain(..count).collect();
        if let Some(first) = segments.first().map(|segment| segment.base) {
            inner.raise_floor(first);
        }
        inner.segments = Arc::new(segments);
        dropped
    }

    /// The records from `from` on. A tail that `waited` has a right to what was committed since, also if it was trimmed.
    pub(crate) fn tail(&self, from: Sequence, page: Page, waited: bool) -> Tail {
        if from == self.next() {
            return Tail::AtEnd(from);
        }
        let inner = self.lock();
        let is_in_memory = from >= inner.ring.first();
        if (from < inner.floor && !(waited && is_in_memory)) || from > inner.next {
            return Tail::OutOfRange(inner.extent());
        }
        if !is_in_memory {
            return Tail::Cold;
        }
        let chunks = inner.ring.page(from, page);
        drop(inner);
        match fill_page(&chunks, from, page) {
            (records, next) if records.is_empty() => Tail::AtEnd(next),
            (records, next) => Tail::Records(records, next),
        }
    }

    /// The place from which on everything is in memory.
    pub(crate) fn ring_first(&self) -> Sequence {
        self.lock().ring.first()
    }

    /// Groups in memory that have something from a place on, at most `max`; `None`: that place is not in memory.
    pub(crate) fn ring_chunks(&self, from: Sequence, max: usize) -> Option<Vec<Arc<Chunk>>> {
        let inner = self.lock();
        (from >= inner.ring.first()).then(|| inner.ring.chunks(from, max))
    }

    /// The data of a record, if it is in memory.
    pub(crate) fn ring_get(&self, sequence: Sequence) -> Option<Bytes> {
        self.lock().ring.get(sequence)
    }
}

impl Inner {
    fn extent(&self) -> Extent {
        Extent {
            first: self.floor,
            next: self.next,
            bytes: self.totals.record_bytes.saturating_sub(self.floor_bytes),
        }
    }

    fn raise_floor(&mut self, upto: Sequence) -> bool {
        if upto <= self.floor {
            return false;
        }
        self.floor = upto;
        self.floor_bytes = if upto == self.next {
            self.totals.record_bytes
        } else if let Some(bytes) = self.ring.bytes_since(upto) {
            self.totals.record_bytes - bytes
        } else {
            let at = self.segments.partition_point(|segment| segment.base <= upto);
            let segment = at.checked_sub(1).and_then(|at| self.segments.get(at));
            segment.map_or(self.floor_bytes, |segment| segment.before.record_bytes)
        };
        true
    }
}
