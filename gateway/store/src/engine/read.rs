//! A backlog, read through the topic indexes.

use std::sync::Arc;

use broker_core::store::{Interest, JournalReply, Keep, Page, Record, Sequence};

use super::segments::Segments;
use crate::log::{
    index::{Hit, Index, Matched},
    segment::Segment,
    view::Snapshot,
};

/// Matching records that are looked up together.
const STEP: usize = 128;

/// Records of an answer, until it is full.
pub(super) struct PageFill {
    page: Page,
    bytes: usize,
    pub(super) records: Vec<Record>,
}

impl PageFill {
    pub(super) fn new(page: Page) -> PageFill {
        PageFill {
            page,
            bytes: 0,
            records: Vec::new(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        let full =
            self.records.len() >= usize::from(self.page.items_max.get()) || self.bytes >= self.page.bytes_max;
        full && !self.records.is_empty()
    }

    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record.data.len();
        self.records.push(record);
    }
}

/// What came of a turn.
pub(super) enum Progress {
    Found(JournalReply),
    /// It has to go on, from the beginning, with what it has loaded.
    Unfinished,
}

/// A read under way.
pub(super) struct Read<'a> {
    pub(super) segments: &'a mut Segments,
    pub(super) snapshot: &'a Snapshot,
    pub(super) interest: &'a Arc<Interest>,
    pub(super) page: Page,
    pub(super) work_max: u64,
}

impl Read<'_> {
    pub(super) fn run(mut self, from: Sequence, keep: Keep) -> Progress {
        let from = from.max(self.snapshot.floor);
        let (start, passed_over) = if keep == Keep::default() {
            (from, 0)
        } else {
            match self.passed_over(from, keep) {
                Some(found) => found,
                None => return Progress::Unfinished,
            }
        };
        let (records, next) = self.collect(start);
        Progress::Found(JournalReply::Found {
            at_end: next >= self.snapshot.indexed_end,
            records,
            next,
            passed_over,
        })
    }

    fn is_exhausted(&self) -> bool {
        self.segments.work > self.work_max
    }

    /// The segments that may have something from a place on.
    fn range(&self, from: Sequence) -> Vec<Arc<Segment>> {
        let start = self.snapshot.segment_of(from).unwrap_or(0);
        self.snapshot.segments[start..].to_vec()
    }

    /// Where the part of the backlog begins that is kept, and how many records stand before it. `None`: that is too
    /// much work for one turn.
    fn passed_over(&mut self, from: Sequence, keep: Keep) -> Option<(Sequence, u64)> {
        let unlimited = |max| if max == 0 { u64::MAX } else { max };
        let mut left = Left {
            items: unlimited(keep.items_max),
            bytes: unlimited(keep.bytes_max),
            any: false,
        };
        let segments = self.range(from);
        let mut start = None;
        let mut passed_over = 0;
        for segment in segments.iter().rev() {
            if self.is_exhausted() {
                return None;
            }
            let end = segment.end.get().map_or(Sequence::END, |end| end.next);
            let is_whole = segment.base >= from && end <= self.snapshot.next;
            let mut walked = 0;
            let before = left;
            let found = self
                .segments
                .matched(self.snapshot, segment, self.interest, |index, matched| {
                    // Asked again if the index was damaged.
                    left = before;
                    let below = visible(index, self.snapshot)?;
                    let low = index.lower_bound(from)?;
                    if start.is_some() {
                        return Ok((None, matched.count(index, low, below)?));
                    }
                    if is_whole && left.take_all(matched.sums(index)?) {
                        return Ok((None, 0));
                    }
                    let mut first = None;
                    matched.before(index, below, &mut |(ordinal, entry)| {
                        walked += 1;
                        let kept = ordinal >= low && left.take(entry.len.into());
                        if !kept && ordinal >= low {
                            first = Some((ordinal, entry.place));
                        }
                        kept
                    })?;
                    match first {
                        None => Ok((None, 0)),
                        Some((ordinal, place)) => Ok((Some(place), matched.count(index, low, ordinal + 1)?)),
                    }
                });
            self.segments.work += walked;
            let Ok((first, count)) = found else { continue };
            passed_over += count;
            if let Some(place) = first {
                start = Some(Sequence(segment.base.0 + u64::from(place) + 1));
            }
        }
        Some((start.unwrap_or(from), passed_over))
    }

    /// The records from a place on, until the page is full or the turn is used up, and where to go on.
    fn collect(&mut self, from: Sequence) -> (Vec<Record>, Sequence) {
        let mut found = PageFill::new(self.page);
        for segment in self.range(from) {
            let mut at = None;
            loop {
                let wanted = usize::from(self.page.items_max.get()) - found.records.len();
                let mut hits: Vec<Hit> = Vec::new();
                let step = self
                    .segments
                    .matched(self.snapshot, &segment, self.interest, |index, matched| {
                        hits.clear();
                        step(
                            index,
                            matched,
                            (at, from),
                            wanted.clamp(1, STEP),
                            self.snapshot,
                            &mut hits,
                        )
                    });
                let Ok((next, place, is_end)) = step else { break };
                for (_, entry) in hits {
                    let sequence = Sequence(segment.base.0 + u64::from(entry.place));
                    if found.is_full() {
                        return (found.records, sequence);
                    }
                    if let Some(data) = self.segments.record(self.snapshot, &segment, entry) {
                        found.push(Record { sequence, data });
                    }
                }
                if is_end {
                    break;
                }
                at = Some(next);
                self.segments.work += 256;
                let here = Sequence(segment.base.0 + u64::from(place));
                if here > from && (found.is_full() || self.is_exhausted()) {
                    return (found.records, here);
                }
            }
            let end = segment.end.get().map_or(self.snapshot.next, |end| end.next);
            if end > from && end < self.snapshot.next && (found.is_full() || self.is_exhausted()) {
                return (found.records, end);
            }
        }
        (found.records, self.snapshot.next)
    }
}

/// Finds the next matches of a segment. Returns the ordinal and the place where to go on, and whether this was all.
fn step(
    index: &mut dyn Index,
    matched: &Matched,
    (at, from): (Option<u32>, Sequence),
    max: usize,
    snapshot: &Snapshot,
    hits: &mut Vec<Hit>,
) -> std::io::Result<(u32, u32, bool)> {
    let records = visible(index, snapshot)?;
    let at = match at {
        Some(at) => at,
        None => index.lower_bound(from)?,
    };
    if matched.is_empty() || at >= records {
        return Ok((records, 0, true));
    }
    let next = matched.after(index, at, max, hits)?;
    hits.retain(|(ordinal, _)| *ordinal < records);
    if next >= records {
        return Ok((records, 0, true));
    }
    Ok((next, index.entry(next)?.place, false))
}

/// Records of a segment that were committed when the snapshot was taken.
fn visible(index: &mut dyn Index, snapshot: &Snapshot) -> std::io::Result<u32> {
    index.lower_bound(snapshot.next)
}

/// What may still be kept.
#[derive(Clone, Copy)]
struct Left {
    items: u64,
    bytes: u64,
    /// Something is kept.
    any: bool,
}

impl Left {
    fn take(&mut self, bytes: u64) -> bool {
        if self.any && (self.items == 0 || bytes > self.bytes) {
            return false;
        }
        // The last record is kept even if it is too large; then it is the only one.
        self.items = if bytes > self.bytes { 0 } else { self.items - 1 };
        self.bytes = self.bytes.saturating_sub(bytes);
        self.any = true;
        true
    }

    /// Takes all records of a segment if they fit.
    fn take_all(&mut self, (count, bytes): (u64, u64)) -> bool {
        let fits = count <= self.items && bytes <= self.bytes;
        if fits && count > 0 {
            self.items -= count;
            self.bytes -= bytes;
            self.any = true;
        }
        fits
    }
}
