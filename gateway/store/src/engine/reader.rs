//! The thread that reads the log for those who are behind.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
};

use broker_core::{
    shard::Ticket,
    store::{Fault, Interest, JournalReply, Keep, Page, Record, Sequence},
};

use super::{
    Engine, JournalAnswer, Slot,
    read::{Progress, Read},
    segments::Segments,
};
use crate::{
    log::{frame::Seed, segment::Segment, view::Snapshot},
    options::Options,
};

/// Records that are fetched between two looks at the work done.
const FETCH_STEP: usize = 64;
/// Entries that a tail looks at together.
const TAIL_STEP: u32 = 256;

/// What the reader thread is told.
pub(crate) enum ReaderMessage {
    /// Something is asked.
    Task(Task),
    /// Much was committed: it is to be indexed while it is in memory.
    Follow,
    /// These segments are gone.
    Dropped(Vec<Arc<Segment>>),
    /// The store closes.
    Close,
}

/// What is asked, and by whom.
pub(crate) struct Task {
    pub(crate) slot: Arc<Slot<JournalAnswer>>,
    pub(crate) ticket: Ticket,
    pub(crate) job: Job,
}

/// What is asked.
pub(crate) enum Job {
    /// The records that somebody is interested in.
    Read {
        interest: Arc<Interest>,
        from: Sequence,
        keep: Keep,
        page: Page,
    },
    /// Single records; those before `at` were found or do not exist.
    Fetch {
        sequences: Vec<Sequence>,
        at: usize,
        records: Vec<Record>,
    },
    /// All records from a place on.
    Tail { from: Sequence, page: Page },
}

impl Task {
    /// The store is closed.
    pub(crate) fn refuse(self) {
        self.slot
            .complete([(self.ticket, Err(Fault::Unavailable.into()))]);
    }
}

pub(super) struct Reader {
    inbox: Receiver<ReaderMessage>,
    engine: Arc<Engine>,
    segments: Segments,
    /// Work that a task may do at first before another has its turn.
    work_max: u64,
    /// Tasks, and how much work each may do.
    tasks: VecDeque<(Task, u64)>,
}

impl Reader {
    pub(super) fn new(
        engine: Arc<Engine>,
        options: &Options,
        seed: Seed,
        inbox: Receiver<ReaderMessage>,
    ) -> Reader {
        Reader {
            inbox,
            segments: Segments::new(Arc::clone(&engine), options, seed),
            engine,
            work_max: options.read_work_max.max(1),
            tasks: VecDeque::new(),
        }
    }

    pub(super) fn run(mut self) {
        while self.listen() {
            if let Some((mut task, work_max)) = self.tasks.pop_front() {
                self.segments.work = 0;
                match self.execute(&mut task.job, work_max) {
                    Some(answer) => task.slot.complete([(task.ticket, answer)]),
                    // What it has found so far is remembered, but may be forgotten again: next time it may do more.
                    None => self.tasks.push_back((task, work_max.saturating_mul(2))),
                }
            }
        }
        for (task, _) in self.tasks {
            task.refuse();
        }
        for message in self.inbox.try_iter() {
            match message {
                ReaderMessage::Task(task) => task.refuse(),
                ReaderMessage::Dropped(segments) => self.segments.dropped(&segments),
                ReaderMessage::Follow | ReaderMessage::Close => {}
            }
        }
    }

    /// Takes all messages; waits for one if there is nothing to do. False: the store closes.
    fn listen(&mut self) -> bool {
        loop {
            let message = if self.tasks.is_empty() {
                self.inbox.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.inbox.try_recv()
            };
            match message {
                Ok(ReaderMessage::Task(task)) => self.tasks.push_back((task, self.work_max)),
                Ok(ReaderMessage::Follow) => self.segments.follow(),
                Ok(ReaderMessage::Dropped(segments)) => self.segments.dropped(&segments),
                Ok(ReaderMessage::Close) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// `None`: it has used up its turn.
    fn execute(&mut self, job: &mut Job, work_max: u64) -> Option<JournalAnswer> {
        // In this order: what the snapshot has is indexed.
        let snapshot = self.engine.view.snapshot();
        self.segments.follow();
        match job {
            Job::Read {
                interest,
                from,
                keep,
                page,
            } => {
                let read = Read {
                    segments: &mut self.segments,
                    snapshot: &snapshot,
                    interest,
                    page: *page,
                    work_max,
                };
                match read.run(*from, *keep) {
                    Progress::Found(reply) => Some(Ok(reply)),
                    Progress::Unfinished => None,
                }
            }
            Job::Fetch {
                sequences,
                at,
                records,
            } => self.fetch(&snapshot, sequences, at, records),
            Job::Tail { from, page } => Some(self.tail(&snapshot, *from, *page)),
        }
    }

    fn fetch(
        &mut self,
        snapshot: &Snapshot,
        sequences: &[Sequence],
        at: &mut usize,
        records: &mut Vec<Record>,
    ) -> Option<JournalAnswer> {
        for sequence in sequences[*at..].iter().take(FETCH_STEP) {
            *at += 1;
            records.extend(self.fetch_one(snapshot, *sequence));
        }
        (*at == sequences.len()).then(|| Ok(JournalReply::Fetched(std::mem::take(records))))
    }

    fn fetch_one(&mut self, snapshot: &Snapshot, sequence: Sequence) -> Option<Record> {
        if sequence < snapshot.floor || sequence >= snapshot.next {
            return None;
        }
        let data = match self.engine.view.ring_get(sequence) {
            Some(data) => data,
            None => {
                let segment = Arc::clone(snapshot.segments.get(snapshot.segment_of(sequence)?)?);
                let entry = self.segments.index(snapshot, &segment, |index| {
                    let ordinal = index.lower_bound(sequence)?;
                    if ordinal == index.records() {
                        return Ok(None);
                    }
                    Ok(Some(index.entry(ordinal)?))
                });
                let entry = entry.ok().flatten()?;
                if segment.base.0 + u64::from(entry.place) != sequence.0 {
                    return None;
                }
                self.segments.record(snapshot, &segment, entry)?
            }
        };
        Some(Record { sequence, data })
    }

    /// A page of all records. No work limit: every entry looked at is a record found.
    fn tail(&mut self, snapshot: &Snapshot, from: Sequence, page: Page) -> JournalAnswer {
        if from < snapshot.floor {
            return Err(broker_core::store::JournalError::OutOfRange(
                self.engine.view.extent(),
            ));
        }
        let mut found = super::read::PageFill::new(page);
        let start = snapshot.segment_of(from).unwrap_or(0);
        for segment in &snapshot.segments[start..] {
            let mut at = None;
            loop {
                let mut entries = Vec::new();
                let next = self.segments.index(snapshot, segment, |index| {
                    entries.clear();
                    let ordinal = match at {
                        Some(ordinal) => ordinal,
                        None => index.lower_bound(from)?,
                    };
                    index.entries(ordinal, TAIL_STEP, &mut entries)?;
                    Ok(ordinal + entries.len() as u32)
                });
                let Ok(next) = next else { break };
                at = Some(next);
                if entries.is_empty() {
                    break;
                }
                for entry in entries {
                    let sequence = Sequence(segment.base.0 + u64::from(entry.place));
                    if sequence >= snapshot.next {
                        break;
                    }
                    if found.is_full() {
                        return Ok(JournalReply::Records {
                            records: found.records,
                            next: sequence,
                        });
                    }
                    if let Some(data) = self.segments.record(snapshot, segment, entry) {
                        found.push(Record { sequence, data });
                    }
                }
            }
        }
        Ok(JournalReply::Records {
            records: found.records,
            next: snapshot.next,
        })
    }
}
