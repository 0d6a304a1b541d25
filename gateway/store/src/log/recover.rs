//! What the log holds when a store is opened.
//!
//! Read are the last segment, those with writes that the tables do not have durably, and those with dedup ids that
//! are still remembered; of the others only the header.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use broker_core::{
    Timestamp,
    store::{DedupId, Fault, Sequence},
};
use tracing::{info, warn};

use super::{
    frame::{Body, Header, RECORD_OVERHEAD, Seed},
    scan::{Scanned, Scanner},
    segment::{SEGMENT_HEADER_BYTES, Segment, SegmentEnd, SegmentHeader, Totals, segment_base},
    writer::create_segment,
};
use crate::{
    engine::Committed,
    files::{File, Files},
    options::{OpenError, Progress},
    stats::{StoreStats, add, set},
};

/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 64 << 20;

/// A dedup id that the log has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecoveredId {
    pub(crate) id: DedupId,
    pub(crate) first: Sequence,
    pub(crate) next: Sequence,
    pub(crate) time: Timestamp,
}

/// The log as it was found, ready to be appended to.
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) file: Arc<dyn File>,
    pub(crate) number: u32,
    pub(crate) len: u64,
    pub(crate) next: Sequence,
    pub(crate) totals: Totals,
    pub(crate) last: Timestamp,
    /// The latest ids, oldest first.
    pub(crate) ids: VecDeque<RecoveredId>,
}

/// What recovery needs to know.
pub(crate) struct Recovery<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) dir: &'a Path,
    pub(crate) store_id: u64,
    pub(crate) seed: Seed,
    /// The tables have the writes before this one durably.
    pub(crate) applied: Sequence,
    pub(crate) dedup_window_millis: u64,
    pub(crate) dedup_ids_max: usize,
    pub(crate) stats: &'a StoreStats,
    pub(crate) replay: &'a mut dyn FnMut(&Committed) -> Result<(), Fault>,
    pub(crate) progress: &'a mut dyn FnMut(Progress),
}

/// A segment file as the directory shows it.
struct Candidate {
    base: Sequence,
    path: PathBuf,
    file: Arc<dyn File>,
    len: u64,
    header: Option<SegmentHeader>,
}

impl Recovery<'_> {
    /// Reads what has to be read, cuts off what was never acknowledged, and replays.
    pub(crate) fn run(mut self) -> Result<Recovered, OpenError> {
        let mut candidates = self.candidates()?;
        if let Some(first) = candidates.first()
            && first.base > self.applied
        {
            let tables = self.dir.with_file_name("tables");
            return Err(crate::tables::gap(&tables, self.applied, first.base));
        }
        // Places that a torn commit had are not used again, in case somebody was told.
        let mut unused = Sequence::FIRST;
        let mut torn_places = 0;
        while let Some(last) = candidates.last_mut() {
            let torn = self.cut_tail(last)?;
            torn_places += torn.div_ceil(RECORD_OVERHEAD as u64);
            last.len -= torn;
            if last.len > SEGMENT_HEADER_BYTES || last.header.is_some() {
                break;
            }
            // Its making was interrupted.
            unused = unused.max(last.base);
            let path = last.path.clone();
            candidates.pop();
            self.files
                .remove(&path)
                .map_err(|error| OpenError::io("remove", path, error))?;
        }
        let segments = self.segments(&candidates);
        let mut recovered = self.read(candidates, segments)?;
        recovered.next = Sequence(recovered.next.max(unused).0 + torn_places);
        Ok(recovered)
    }

    fn candidates(&self) -> Result<Vec<Candidate>, OpenError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::io(action, path, error)
        };
        self.files.create_dir(self.dir).map_err(io("make", self.dir))?;
        let mut candidates = Vec::new();
        for path in self.files.list(self.dir).map_err(io("list", self.dir))? {
            let Some(base) = segment_base(&path) else { continue };
            let file = self.files.open(&path).map_err(io("open", &path))?;
            let len = file.len().map_err(io("examine", &path))?;
            let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
            let header = if len < SEGMENT_HEADER_BYTES {
                None
            } else {
                file.read_at(&mut bytes, 0).map_err(io("read", &path))?;
                SegmentHeader::parse(&bytes, self.seed).filter(|header| header.base == base)
            };
            candidates.push(Candidate {
                base,
                path,
                file,
                len,
                header,
            });
        }
        candidates.sort_by_key(|candidate| candidate.base);
        self.remove_strays(&candidates);
        for pair in candidates.windows(2) {
            if let [
                Candidate {
                    header: Some(a),
                    path,
                    ..
                },
                Candidate {
                    header: Some(b),
                    base,
                    ..
                },
            ] = pair
                && b.number != a.number.wrapping_add(1)
            {
                add(&self.stats.corrupt_frames, 1);
                warn!(after = %path.display(), before = base.0, "a segment of the log is missing: its records are lost");
            }
        }
        Ok(candidates)
    }

    /// Removes indexes without a segment and what was being written, as a crash leaves them.
    fn remove_strays(&self, candidates: &[Candidate]) {
        let Ok(paths) = self.files.list(self.dir) else {
            return;
        };
        for path in paths {
            let base = segment_base(&path.with_extension("log"));
            let stray = match path.extension().and_then(|extension| extension.to_str()) {
                Some("tmp") => base.is_some(),
                Some("idx") => base.is_some_and(|base| {
                    candidates
                        .binary_search_by_key(&base, |known| known.base)
                        .is_err()
                }),
                _ => false,
            };
            if stray && let Err(error) = self.files.remove(&path) {
                warn!(path = %path.display(), "a file that is of no use cannot be removed: {error}");
            }
        }
    }

    /// Cuts the last segment after the last commit that is whole. What was written together with a torn commit was
    /// not acknowledged either and goes with it, so that nothing comes back without what was committed before it.
    /// Returns the bytes cut off.
    fn cut_tail(&self, last: &Candidate) -> Result<u64, OpenError> {
        let io = |action| move |error| OpenError::io(action, &last.path, error);
        let mut scanner = self.scanner(last);
        let mut torn = None;
        loop {
            match scanner.step().map_err(io("read"))? {
                Scanned::Frame(offset, header, _) => {
                    let group = offset.saturating_sub(u64::from(header.group_back));
                    if torn.is_some_and(|torn| group > torn) {
                        torn = None;
                    }
                }
                Scanned::Lost(from, _) => torn = torn.or(Some(from)),
                Scanned::End => break,
            }
        }
        let Some(from) = torn else { return Ok(0) };
        let bytes = last.len - from;
        add(&self.stats.torn_bytes, bytes);
        warn!(
            path = %last.path.display(), from, bytes,
            "the end of the log is torn, as after a crash while it was written: it is cut off"
        );
        let cut = last.file.truncate(from).and_then(|()| last.file.sync());
        cut.map_err(io("cut"))?;
        Ok(bytes)
    }

    fn scanner(&self, candidate: &Candidate) -> Scanner {
        let at = SEGMENT_HEADER_BYTES.min(candidate.len);
        Scanner::new(
            Arc::clone(&candidate.file),
            candidate.len,
            at,
            candidate.base,
            self.seed,
        )
    }

    /// The segments with what their headers tell; those whose header is damaged are taken to hold records only.
    fn segments(&self, candidates: &[Candidate]) -> Vec<Arc<Segment>> {
        let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(candidates.len());
        let mut guess = Totals::default();
        for candidate in candidates {
            let before = candidate.header.map_or(guess, |header| header.before);
            if candidate.header.is_none() {
                add(&self.stats.corrupt_frames, 1);
                warn!(path = %candidate.path.display(), "the header of a segment is damaged; its records are read");
            }
            if let Some(previous) = segments.last() {
                let len = self.stats_len(candidates, previous.base);
                previous.end.get_or_init(|| SegmentEnd {
                    next: candidate.base,
                    len,
                    totals: before,
                    last: candidate
                        .header
                        .map_or(Timestamp::default(), |header| header.created),
                });
            }
            guess = Totals {
                records: before.records,
                record_bytes: before.record_bytes + candidate.len,
                dedups: before.dedups + 1,
            };
            segments.push(Arc::new(Segment::new(self.dir, candidate.base, before)));
        }
        segments
    }

    fn stats_len(&self, candidates: &[Candidate], base: Sequence) -> u64 {
        let at = candidates.partition_point(|candidate| candidate.base < base);
        candidates.get(at).map_or(0, |candidate| candidate.len)
    }

    /// Whether a segment that is not the last has to be read.
    fn is_wanted(&self, segment: &Segment, last: Timestamp) -> bool {
        segment.end.get().is_none_or(|end| {
            let remembered =
                end.last.as_millis().saturating_add(self.dedup_window_millis) >= last.as_millis();
            end.next > self.applied || (end.totals.dedups > segment.before.dedups && remembered)
        })
    }

    fn read(
        &mut self,
        candidates: Vec<Candidate>,
        mut segments: Vec<Arc<Segment>>,
    ) -> Result<Recovered, OpenError> {
        let newest = candidates.iter().rev().find_map(|candidate| candidate.header);
        let newest = newest.map_or(Timestamp::default(), |header| header.created);
        let wanted: Vec<bool> = segments
            .iter()
            .map(|segment| self.is_wanted(segment, newest))
            .collect();
        let sizes = candidates.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
        let mut state = Replay {
            next: segments.first().map_or(Sequence::FIRST, |segment| segment.base),
            totals: Totals::default(),
            last: newest,
            ids: VecDeque::new(),
            progress: Progress {
                bytes: 0,
                bytes_total: sizes.map(|(candidate, _)| candidate.len).sum(),
                commits: 0,
            },
        };
        self.report(state.progress);
        for ((candidate, segment), wanted) in candidates.iter().zip(&segments).zip(&wanted) {
            state.totals = segment.before;
            state.next = state.next.max(segment.base);
            if *wanted {
                self.read_segment(candidate, &mut state)?;
            }
        }
        self.report(state.progress);
        if self.applied > state.next {
            warn!(
                log = state.next.0,
                tables = self.applied.0,
                "the tables know later commits than the log: its end was lost"
            );
            state.next = self.applied;
        }
        let bytes: u64 = candidates.iter().map(|candidate| candidate.len).sum();
        let (file, len, number) = match candidates.into_iter().next_back() {
            Some(last) => {
                let number = last.header.map_or(0, |header| header.number);
                (last.file, last.len, number)
            }
            None => {
                segments.push(Arc::new(Segment::new(self.dir, state.next, state.totals)));
                (self.begin(&state)?, SEGMENT_HEADER_BYTES, 0)
            }
        };
        set(&self.stats.segments, segments.len() as u64);
        set(&self.stats.log_bytes, bytes.max(len));
        Ok(Recovered {
            segments,
            file,
            number,
            len,
            next: state.next,
            totals: state.totals,
            last: state.last,
            ids: state.ids,
        })
    }

    /// Tells how far it is, if it takes long enough for that.
    fn report(&mut self, progress: Progress) {
        if progress.bytes_total >= REPORT_BYTES {
            (self.progress)(progress);
        }
    }

    /// The first segment of a log without any.
    fn begin(&self, state: &Replay) -> Result<Arc<dyn File>, OpenError> {
        let segment = Segment::new(self.dir, state.next, state.totals);
        let header = SegmentHeader {
            base: state.next,
            created: state.last,
            before: state.totals,
            number: 0,
        };
        create_segment(self.files, &segment, &header.bytes(self.store_id, self.seed))
            .and_then(|file| file.sync().map(|()| file))
            .and_then(|file| self.files.sync_dir(self.dir).map(|()| file))
            .map_err(|error| OpenError::io("begin the log", segment.path, error))
    }

    fn read_segment(&mut self, candidate: &Candidate, state: &mut Replay) -> Result<(), OpenError> {
        let mut scanner = self.scanner(candidate);
        let start = state.progress.bytes;
        let mut lost = None;
        loop {
            match scanner
                .step()
                .map_err(|error| OpenError::io("read", &candidate.path, error))?
            {
                Scanned::Frame(offset, header, body) => {
                    if let Some((from, to)) = lost.take() {
                        self.report_lost(candidate, from..to, state.next..header.first);
                    }
                    self.replay_frame(&header, body, state)?;
                    let bytes = start + offset + header.frame_len();
                    if bytes / REPORT_BYTES > state.progress.bytes / REPORT_BYTES {
                        self.report(Progress {
                            bytes,
                            ..state.progress
                        });
                        info!(
                            bytes,
                            total = state.progress.bytes_total,
                            commits = state.progress.commits,
                            "reading the log"
                        );
                    }
                    state.progress.bytes = bytes;
                }
                Scanned::Lost(from, to) => lost = Some((lost.map_or(from, |(from, _)| from), to)),
                Scanned::End => break,
            }
        }
        if let Some((from, to)) = lost {
            self.report_lost(candidate, from..to, state.next..state.next);
        }
        state.progress.bytes = start + candidate.len;
        Ok(())
    }

    fn report_lost(
        &self,
        candidate: &Candidate,
        bytes: std::ops::Range<u64>,
        sequences: std::ops::Range<Sequence>,
    ) {
        let lost = sequences.end.0.saturating_sub(sequences.start.0);
        add(&self.stats.corrupt_frames, 1);
        add(&self.stats.lost_sequences, lost);
        warn!(
            path = %candidate.path.display(), from = bytes.start, to = bytes.end,
            first = sequences.start.0, lost,
            "a part of the log is damaged; what follows it was recovered"
        );
    }

    fn replay_frame(&mut self, header: &Header, body: Body<'_>, state: &mut Replay) -> Result<(), OpenError> {
        state.next = header.next();
        state.last = state.last.max(header.time);
        state.progress.commits += 1;
        for record in body.records() {
            state.totals.records += 1;
            state.totals.record_bytes += record.data.len() as u64;
        }
        if let Some(id) = header.dedup {
            state.totals.dedups += 1;
            if state.ids.len() == self.dedup_ids_max {
                state.ids.pop_front();
            }
            state.ids.push_back(RecoveredId {
                id,
                first: header.first,
                next: header.next(),
                time: header.time,
            });
        }
        if header.first >= self.applied && header.writes > 0 {
            let commit = Committed {
                first: header.first,
                next: header.next(),
                writes: body.writes(),
            };
            (self.replay)(&commit).map_err(|fault| OpenError::Tables {
                path: self.dir.with_file_name("tables"),
                reason: fault.to_string(),
            })?;
        }
        Ok(())
    }
}

/// How far the reading of the log is.
struct Replay {
    next: Sequence,
    totals: Totals,
    last: Timestamp,
    ids: VecDeque<RecoveredId>,
    progress: Progress,
}
