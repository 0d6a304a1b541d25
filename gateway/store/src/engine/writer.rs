//! The thread that commits.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use broker_core::store::Fault;

use super::{Closing, Engine, KeeperMessage, ReaderMessage, Submission, dedup::Dedup, group, group::Group};
use crate::{
    log::{
        frame::NewFrame,
        recover::Recovered,
        segment::Totals,
        writer::{AppendError, LogWriter},
    },
    options::Options,
    reserve::GaveWay,
    stats::{add, max, set},
};

/// Bytes of frames that stay allocated between groups.
const BUFFER_KEPT: usize = 1 << 20;
/// How often a group is written before it is given up, if room comes free each time.
const APPENDS_MAX: usize = 3;

pub(super) struct Writer {
    engine: Arc<Engine>,
    log: Option<LogWriter>,
    dedup: Dedup,
    group: Group,
    group_bytes_max: usize,
    group_wait: Duration,
    /// As it was at the latest group.
    was_reserve_spent: bool,
    /// Bytes committed since the reader was told to follow.
    unread: usize,
    /// Bytes after which it is told.
    unread_max: usize,
}

impl Writer {
    pub(super) fn new(engine: Arc<Engine>, options: &Options, store_id: u64, recovered: Recovered) -> Writer {
        let mut dedup = Dedup::new(options.dedup_window, options.dedup_ids_max);
        for known in &recovered.ids {
            dedup.insert(known.time, known.id, (known.first, known.next));
        }
        Writer {
            log: LogWriter::new(&engine, options, store_id, &recovered),
            engine,
            dedup,
            group: Group::new(crate::log::frame::Seed::new(store_id)),
            group_bytes_max: options.group_bytes_max,
            group_wait: options.group_wait,
            was_reserve_spent: false,
            unread: 0,
            unread_max: options.ring_bytes / 4,
        }
    }

    pub(super) fn run(mut self) {
        let _watch = Watch(Arc::clone(&self.engine));
        let Some(mut log) = self.log.take() else { return };
        let mut waiting = VecDeque::new();
        loop {
            let closing = self.take(&mut waiting);
            if closing == Some(Closing::Abrupt) {
                return;
            }
            if waiting.is_empty() {
                break;
            }
            self.commit(&mut log, &mut waiting);
        }
        // What was only handed to the operating system is made durable now; nobody waits for it.
        if !log.sync && log.failed.is_none() {
            let _ = log.sync_segment();
        }
    }

    /// Waits for submissions; none: the store closes.
    fn take(&self, waiting: &mut VecDeque<Submission>) -> Option<Closing> {
        let intake = &self.engine.intake;
        let mut queue = intake.lock();
        while waiting.is_empty() && queue.submissions.is_empty() && queue.closing.is_none() {
            queue = intake
                .arrived
                .wait(queue)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if !self.group_wait.is_zero() && queue.closing.is_none() {
            drop(queue);
            std::thread::sleep(self.group_wait);
            queue = intake.lock();
        }
        if waiting.is_empty() {
            std::mem::swap(waiting, &mut queue.submissions);
        } else {
            waiting.append(&mut queue.submissions);
        }
        queue.closing
    }

    /// Commits a group from the front of what waits.
    fn commit(&mut self, log: &mut LogWriter, waiting: &mut VecDeque<Submission>) {
        let room = self.look_for_room(log);
        self.group.begin(log.next);
        while let Some(submission) = waiting.front() {
            let bytes = self.group.buffer.len() + submission.bytes();
            if bytes > self.group_bytes_max && !self.group.is_empty() {
                break;
            }
            if let Some(submission) = waiting.pop_front() {
                self.add(submission, &room);
            }
        }
        add(&self.engine.stats.duplicates, self.group.duplicates);
        if self.group.buffer.is_empty() {
            self.group.tell(None);
            return;
        }
        self.engine.stats.set_writing(true);
        let appended = self.append(log);
        self.engine.stats.set_writing(false);
        match appended {
            Ok(offset) => self.publish(log, offset),
            Err(error) => {
                let fault = match error {
                    AppendError::Full => {
                        add(&self.engine.stats.commits_refused_full, self.group.commits);
                        Fault::Full
                    }
                    AppendError::Failed(why) => Fault::Failed(why),
                };
                self.group.tell(Some(&fault));
            }
        }
        if self.group.buffer.capacity() > BUFFER_KEPT {
            self.group.buffer = Vec::new();
        }
    }

    /// Why no entries can be written, if they cannot.
    fn look_for_room(&mut self, log: &mut LogWriter) -> Result<(), Fault> {
        let reserve = &self.engine.reserve;
        let room = self.engine.tables.wait_for_room();
        if room == Err(Fault::Full) && reserve.give_way(reserve.tries()) == GaveWay::Freed {
            // So that it tries more often now. While the store closes nobody listens.
            let _ = self.engine.keeper.send(KeeperMessage::Trimmed);
        }
        let is_spent = reserve.is_spent();
        if is_spent && !self.was_reserve_spent {
            // The segment has records, and may be all there is; only those that have ended are dropped.
            log.end_segment();
        }
        self.was_reserve_spent = is_spent;
        room
    }

    fn add(&mut self, submission: Submission, room: &Result<(), Fault>) {
        let engine = &self.engine;
        match submission {
            Submission::Commit {
                slot,
                ticket,
                now,
                records,
                writes,
                dedup,
                failures_known,
            } => {
                let refusal = group::too_large(&records, &writes, engine.limits.record_bytes_max)
                    .or_else(|| slot.failed_beyond(failures_known))
                    .or_else(|| room.clone().err().filter(|_| !writes.is_empty()))
                    .or_else(|| (self.was_reserve_spent && !records.is_empty()).then_some(Fault::Full));
                if refusal == Some(Fault::Full) {
                    add(&engine.stats.commits_refused_full, 1);
                }
                let dedup = dedup.map(|id| (id, &mut self.dedup));
                self.group
                    .add_commit((slot, ticket), now, (records, writes), dedup, refusal);
            }
            Submission::Kv {
                slot,
                ticket,
                now,
                write,
            } => {
                let bytes = write.value.as_ref().map_or(0, bytes::Bytes::len);
                let bytes_max = engine.limits.record_bytes_max;
                self.group.add_write((slot, ticket), now, write, |key| {
                    if bytes > bytes_max {
                        return Err(Fault::TooLarge { bytes, bytes_max });
                    }
                    room.clone()?;
                    engine.tables.current(key)
                });
            }
        }
    }

    /// Writes and syncs the group. Returns where it begins in the segment.
    fn append(&mut self, log: &mut LogWriter) -> Result<u64, AppendError> {
        let engine = Arc::clone(&self.engine);
        for _ in 0..APPENDS_MAX {
            let tries = engine.reserve.tries();
            match self.try_append(log) {
                Err(AppendError::Full) => {}
                done => return done,
            }
            match engine.reserve.give_way(tries) {
                GaveWay::Stopped => {}
                GaveWay::Freed => {
                    // So that it tries more often now. While the store closes nobody listens.
                    let _ = engine.keeper.send(KeeperMessage::Trimmed);
                    // The room is for what helps to make more.
                    if self.group.totals().records > 0 {
                        break;
                    }
                }
                GaveWay::Nothing => break,
            }
        }
        Err(AppendError::Full)
    }

    fn try_append(&mut self, log: &mut LogWriter) -> Result<u64, AppendError> {
        let engine = &self.engine;
        if let Some(rolled) = log.make_room(self.group.buffer.len() as u64, self.group.last)? {
            engine.view.rolled(rolled.end, rolled.next, log.len);
            // While the store closes nobody listens.
            let _ = engine.keeper.send(KeeperMessage::Rolled(rolled.file));
        }
        let offset = log.len;
        log.append(&self.group.buffer)?;
        Ok(offset)
    }

    /// The group is committed: makes it visible, then tells.
    fn publish(&mut self, log: &mut LogWriter, offset: u64) {
        let engine = &self.engine;
        let added = self.group.totals();
        log.next = self.group.next;
        log.last = log.last.max(self.group.last);
        log.totals = Totals {
            records: log.totals.records + added.records,
            record_bytes: log.totals.record_bytes + added.record_bytes,
            dedups: log.totals.dedups + added.dedups,
        };
        add(&engine.stats.groups, 1);
        add(&engine.stats.commits, self.group.commits);
        add(&engine.stats.records, added.records);
        add(&engine.stats.record_bytes, added.record_bytes);
        max(&engine.stats.group_commits_max, self.group.commits);
        set(&engine.stats.group_commits_last, self.group.commits);
        let (chunk, committed) = self.group.visible(log.segment.base, offset);
        engine
            .view
            .publish(chunk, log.totals, || engine.tables.committed(committed));
        engine.reserve.committed();
        self.group.remember(&mut self.dedup);
        self.group.tell(None);
        engine.wake_tails();
        self.unread += self.group.buffer.len();
        if self.unread >= self.unread_max {
            self.unread = 0;
            // While the store closes nobody listens.
            let _ = engine.reader.send(ReaderMessage::Follow);
        }
    }
}

/// Notices when the thread panics.
struct Watch(Arc<Engine>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.give_up();
        }
    }
}

impl Submission {
    /// Bytes in the log, about.
    fn bytes(&self) -> usize {
        match self {
            Submission::Commit { records, writes, .. } => NewFrame::len(records, writes),
            Submission::Kv { write, .. } => {
                NewFrame::len(&[], &[]) + KV_WRITE_COST + write.value.as_ref().map_or(0, bytes::Bytes::len)
            }
        }
    }
}

/// Bytes of a key and what stands before it, at most.
const KV_WRITE_COST: usize = 261;
