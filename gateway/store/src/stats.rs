use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What a store has done and how it is. Counters start with the process.
#[derive(Debug, Default)]
pub struct StoreStats {
    /// Commits that the log has taken; duplicates are not counted.
    pub commits: AtomicU64,
    /// Records of these commits.
    pub records: AtomicU64,
    /// Bytes of these records.
    pub record_bytes: AtomicU64,
    /// Bytes written to the log, everything included.
    pub bytes_appended: AtomicU64,
    /// Bytes written to index files.
    pub index_bytes_written: AtomicU64,
    /// Groups of commits written.
    pub groups: AtomicU64,
    /// Commits of the largest group.
    pub group_commits_max: AtomicU64,
    /// Commits of the latest group.
    pub group_commits_last: AtomicU64,
    /// Syncs of the log.
    pub fsyncs: AtomicU64,
    /// Microseconds spent in them, in all.
    pub fsync_micros: AtomicU64,
    /// Microseconds of the longest.
    pub fsync_micros_max: AtomicU64,
    /// Commits refused because an id was committed before.
    pub duplicates: AtomicU64,
    /// Commits that failed because there was no room.
    pub commits_refused_full: AtomicU64,
    /// Bytes kept for a full disk.
    pub reserve_bytes: AtomicU64,
    /// Segments of the log.
    pub segments: AtomicU64,
    /// Bytes of the log's segments.
    pub log_bytes: AtomicU64,
    /// Records dropped because nobody needs them any more.
    pub trimmed_by_cursor: AtomicU64,
    /// Records dropped because they were older than the limit.
    pub trimmed_by_age: AtomicU64,
    /// Records dropped because the log was larger than the limit.
    pub trimmed_by_size: AtomicU64,
    /// Bytes cut off the end of the log when it was opened: commits that were never acknowledged.
    pub torn_bytes: AtomicU64,
    /// Places in the log where a commit could not be read.
    pub corrupt_frames: AtomicU64,
    /// Sequences that were lost there.
    pub lost_sequences: AtomicU64,
    /// Index files that were missing or damaged and made again.
    pub indexes_rebuilt: AtomicU64,
    /// Places of the log whose writes are not in the tables' files yet: they would be read again after a crash.
    pub tables_lag: AtomicU64,
    state: AtomicU8,
    /// When the group began that is being written or synced, in milliseconds since the Unix epoch; 0: none is.
    write_began: AtomicU64,
}

/// Whether a store takes commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Ok,
    /// The last one found no room. The next is tried again; if the reserve was given up, not those with records.
    Full,
    /// No more, until it is opened again.
    Failed,
}

impl StoreStats {
    /// Whether the store takes commits.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Ok,
            1 => State::Full,
            _ => State::Failed,
        }
    }

    /// How long the group that is being written and synced has been under way: what a disk that does not answer is
    /// known by, before it answers.
    pub fn write_under_way(&self) -> Duration {
        match self.write_began.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_millis(wall_clock_millis().saturating_sub(began)),
        }
    }

    /// A group is being written from now on (`true`), or is done.
    pub(crate) fn set_writing(&self, writing: bool) {
        let began = if writing { wall_clock_millis() } else { 0 };
        self.write_began.store(began, Ordering::Relaxed);
    }

    /// Returns the state before. A failed store stays so.
    pub(crate) fn set_state(&self, state: State) -> State {
        let before = self.state();
        if before != State::Failed {
            self.state.store(state as u8, Ordering::Relaxed);
        }
        before
    }
}

/// Milliseconds since the Unix epoch, by the computer's clock.
pub(crate) fn wall_clock_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

pub(crate) fn set(gauge: &AtomicU64, number: u64) {
    gauge.store(number, Ordering::Relaxed);
}

pub(crate) fn max(gauge: &AtomicU64, number: u64) {
    gauge.fetch_max(number, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_is_final() {
        let stats = StoreStats::default();
        assert_eq!(stats.set_state(State::Full), State::Ok);
        assert_eq!(stats.set_state(State::Ok), State::Full);
        stats.set_state(State::Failed);
        stats.set_state(State::Ok);
        assert_eq!(stats.state(), State::Failed);
    }
}
