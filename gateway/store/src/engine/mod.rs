//! Between the handles and the log.
//!
//! What the tables have to offer the engine (`crate::tables::Tables`, shared by `Arc`):
//!
//! - `open`: the tables and the first sequence that they do **not** have durably; the engine then calls `replay` with
//!   every commit of the log from there on, in order, before anything else, and `begin` once.
//! - `committed`: called by the writer thread once per group, in order, after the log is synced and before anybody is
//!   told: the commits with writes, and the last one in any case. From its return on `current` and every read of the
//!   `Kv` see the writes. It neither waits for a disk nor looks at the log, because the log's lock is held: so nobody
//!   sees the records of a commit without its entries.
//! - `current`: revision of a key, for compare-and-set; the writer thread adds what it has not committed yet.
//! - `wait_for_room`: called by the writer thread before it takes new commits; blocks while too much is not applied.
//! - `persist`: called by the keeper thread; what is committed becomes durable in the tables.
//!
//! What the engine offers the `Kv` handle: a [`Slot`] for its answers, and [`Engine::submit`] with
//! [`Submission::Kv`].

mod dedup;
mod group;
mod keeper;
mod read;
mod reader;
mod segments;
mod slot;
mod writer;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use broker_core::{
    Timestamp,
    shard::Ticket,
    store::{
        DedupId, Durability, Fault, JournalError, JournalReply, Key, KvError, KvReply, NewRecord, Revision,
        Sequence, Write,
    },
};
use bytes::Bytes;
use smallvec::SmallVec;
use tracing::error;

use crate::{
    log::{frame::Seed, recover::Recovered, view::View, writer::LogWriter},
    options::Options,
    reserve::Reserve,
    stats::{State, StoreStats},
    tables::Tables,
};

pub(crate) use reader::{Job, ReaderMessage, Task};
pub(crate) use slot::Slot;

/// What a [`Journal`](broker_core::store::Journal) handle is told.
pub(crate) type JournalAnswer = Result<JournalReply, JournalError>;
/// What a [`Kv`](broker_core::store::Kv) handle is told.
pub(crate) type KvAnswer = Result<KvReply, KvError>;

/// The writes of a commit that the log has.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    /// The commit's place, and the revision of what it wrote.
    pub(crate) first: Sequence,
    /// The place after it.
    pub(crate) next: Sequence,
    /// In order; of several to one key the last counts.
    pub(crate) writes: Vec<Resolved>,
}

/// A write with its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// Which entry.
    pub(crate) key: Key,
    /// `None`: removed.
    pub(crate) value: Option<Bytes>,
}

/// A compare-and-set.
#[derive(Clone, Debug)]
pub(crate) struct KvWrite {
    /// Which entry.
    pub(crate) key: Key,
    /// The revision it must have; `None`: it must not exist.
    pub(crate) expected: Option<Revision>,
    /// `None`: removed.
    pub(crate) value: Option<Bytes>,
}

/// What the writer thread is asked for.
pub(crate) enum Submission {
    /// A commit of a journal handle.
    Commit {
        slot: Arc<Slot<JournalAnswer>>,
        ticket: Ticket,
        now: Timestamp,
        records: Vec<NewRecord>,
        writes: Vec<Write>,
        dedup: Option<DedupId>,
        /// Failed commits that the handle knew of.
        failures_known: u64,
    },
    /// A write of a `Kv` handle. Answered with `Written`, `Conflict` or a fault.
    Kv {
        slot: Arc<Slot<KvAnswer>>,
        ticket: Ticket,
        now: Timestamp,
        write: KvWrite,
    },
}

/// What the threads and handles of a store share.
pub(crate) struct Engine {
    pub(crate) view: View,
    pub(crate) stats: Arc<StoreStats>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) reserve: Reserve,
    pub(crate) durability: Durability,
    pub(crate) limits: Limits,
    intake: Intake,
    reader: Sender<ReaderMessage>,
    keeper: Sender<KeeperMessage>,
    slots: Mutex<Vec<Weak<Slot<JournalAnswer>>>>,
}

/// What a commit or handle is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) record_bytes_max: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) dedup_window: std::time::Duration,
    pub(crate) dedup_ids_max: usize,
}

/// What the keeper thread is told.
pub(crate) enum KeeperMessage {
    /// A segment has ended; this is its file.
    Rolled(Arc<dyn crate::files::File>),
    /// The floor has moved.
    Trimmed,
    /// The store closes.
    Close,
}

/// What waits to be committed.
struct Intake {
    queue: Mutex<IntakeQueue>,
    arrived: Condvar,
}

#[derive(Default)]
struct IntakeQueue {
    submissions: VecDeque<Submission>,
    closing: Option<Closing>,
}

/// How the store ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// What was submitted is committed.
    Orderly,
    /// At once, as when the process is killed.
    Abrupt,
}

/// The threads of a store.
#[derive(Default)]
pub(crate) struct Threads {
    writer: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<()>>,
}

impl Intake {
    fn lock(&self) -> MutexGuard<'_, IntakeQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Starts the threads on a log as it was recovered.
    pub(crate) fn start(
        options: &Options,
        store_id: u64,
        recovered: Recovered,
        tables: Arc<Tables>,
        reserve: Reserve,
        stats: Arc<StoreStats>,
    ) -> std::io::Result<(Arc<Engine>, Threads)> {
        let (reader, reader_inbox) = channel();
        let (keeper, keeper_inbox) = channel();
        let Recovered { segments, totals, .. } = &recovered;
        let engine = Arc::new(Engine {
            view: View::new(
                segments.clone(),
                recovered.len,
                recovered.next,
                *totals,
                options.ring_bytes,
            ),
            stats: Arc::clone(&stats),
            tables,
            reserve,
            durability: options.durability,
            limits: Limits {
                record_bytes_max: options.record_bytes_max,
                in_flight_max: options.in_flight_max,
                dedup_window: options.dedup_window,
                dedup_ids_max: options.dedup_ids_max,
            },
            intake: Intake {
                queue: Mutex::default(),
                arrived: Condvar::new(),
            },
            reader,
            keeper,
            slots: Mutex::default(),
        });
        let threads = engine.spawn(options, store_id, recovered, (reader_inbox, keeper_inbox))?;
        Ok((engine, threads))
    }

    fn spawn(
        self: &Arc<Engine>,
        options: &Options,
        store_id: u64,
        recovered: Recovered,
        inboxes: (Receiver<ReaderMessage>, Receiver<KeeperMessage>),
    ) -> std::io::Result<Threads> {
        let seed = Seed::new(store_id);
        let reader = reader::Reader::new(Arc::clone(self), options, seed, inboxes.0);
        let keeper = keeper::Keeper::new(Arc::clone(self), options, inboxes.1);
        let writer = writer::Writer::new(Arc::clone(self), options, store_id, recovered);
        let builder = |name: &str| thread::Builder::new().name(name.into());
        Ok(Threads {
            reader: Some(builder("store-reader").spawn(move || reader.run())?),
            keeper: Some(builder("store-keeper").spawn(move || keeper.run())?),
            writer: Some(builder("store-writer").spawn(move || writer.run())?),
        })
    }

    /// Ends the threads: the writer, the keeper, the reader.
    pub(crate) fn close(&self, threads: &mut Threads, closing: Closing) {
        self.intake.lock().closing = Some(closing);
        self.intake.arrived.notify_one();
        join(threads.writer.take());
        self.reserve.close();
        // In this order: the keeper tells the reader what it has dropped. Without a receiver there is no thread to tell.
        let _ = self.keeper.send(KeeperMessage::Close);
        join(threads.keeper.take());
        let _ = self.reader.send(ReaderMessage::Close);
        join(threads.reader.take());
    }

    /// Hands commits and writes to the writer thread.
    pub(crate) fn submit(&self, submissions: impl IntoIterator<Item = Submission>) {
        let mut queue = self.intake.lock();
        if queue.closing.is_none() {
            let idle = queue.submissions.is_empty();
            queue.submissions.extend(submissions);
            drop(queue);
            if idle {
                self.intake.arrived.notify_one();
            }
            return;
        }
        drop(queue);
        submissions
            .into_iter()
            .for_each(|submission| submission.refuse(&Fault::Unavailable));
    }

    /// Asks the reader thread.
    pub(crate) fn ask(&self, task: Task) {
        if let Err(refused) = self.reader.send(ReaderMessage::Task(task))
            && let ReaderMessage::Task(task) = refused.0
        {
            task.refuse();
        }
    }

    /// Tells the keeper thread that the floor has moved.
    pub(crate) fn trimmed(&self) {
        // A store that closes drops nothing any more.
        let _ = self.keeper.send(KeeperMessage::Trimmed);
    }

    /// Lets a handle know when it is told something; it is forgotten when its handle is dropped.
    pub(crate) fn register(&self, slot: &Arc<Slot<JournalAnswer>>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(Arc::downgrade(slot));
    }

    /// Wakes the handles whose tails wait.
    fn wake_tails(&self) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting: SmallVec<[_; 16]> = slots
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|slot| slot.has_waiting_tail())
            .collect();
        // A waker may do anything, so no lock is held.
        drop(slots);
        waiting.iter().for_each(|slot| slot.wake());
    }

    /// The writer thread has panicked: nothing is committed any more.
    fn give_up(&self) {
        error!(
            "the thread that commits has panicked, nothing is acknowledged until the store is opened again"
        );
        self.stats.set_state(State::Failed);
        let mut queue = self.intake.lock();
        queue.closing = Some(Closing::Abrupt);
        let submissions = std::mem::take(&mut queue.submissions);
        drop(queue);
        let fault = Fault::Failed("the thread that commits has panicked".into());
        submissions
            .into_iter()
            .for_each(|submission| submission.refuse(&fault));
    }
}

impl Submission {
    /// Answers with a fault.
    fn refuse(self, fault: &Fault) {
        match self {
            Submission::Commit { slot, ticket, .. } => slot.complete([(ticket, Err(fault.clone().into()))]),
            Submission::Kv { slot, ticket, .. } => slot.complete([(ticket, Err(fault.clone().into()))]),
        }
    }
}

impl LogWriter {
    fn new(engine: &Engine, options: &Options, store_id: u64, recovered: &Recovered) -> Option<LogWriter> {
        Some(LogWriter {
            files: Arc::clone(&options.files),
            dir: options.dir.join("log"),
            store_id,
            seed: Seed::new(store_id),
            segment_bytes: options.segment_bytes,
            sync: options.durability == Durability::Sync,
            stats: Arc::clone(&engine.stats),
            segment: Arc::clone(recovered.segments.last()?),
            number: recovered.number,
            file: Arc::clone(&recovered.file),
            len: recovered.len,
            next: recovered.next,
            totals: recovered.totals,
            last: recovered.last,
            // Whoever made it may have crashed before its name was synced.
            dir_dirty: true,
            roll_due: false,
            failed: None,
        })
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        error!("a thread of the store has panicked");
    }
}
