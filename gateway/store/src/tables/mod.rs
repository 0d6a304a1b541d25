//! The entries as the writes in the log made them. `crate::engine` says what it needs of them.
//!
//! The tables are a tree of sorted files ([`lsm_tree`], the tree inside fjall) and nothing else: no second log.
//! Everything that is not in the files yet is in the node's log and is applied again when the store opens. So a flush
//! of the tree is what makes writes durable here, and its files never have to be repaired after a crash: they are
//! replaced as a whole by the next set, in one rename.
//!
//! # The way of a write
//!
//! ```text
//! writer thread ── committed ──> overlay ── store-tables ──> tree, in memory ── flush ──> files
//!                                   └────────┬─────────────────────┘ └──────────────────────┘
//!                                     reads see all of it: store-tables-read
//! ```
//!
//! The writer thread only puts writes into the overlay, a map by key, so that a flush, which takes as long as the disk
//! does, holds nobody up. Writes to one key that come faster than they are applied become one.
//!
//! # Memory
//!
//! | what | at most |
//! |---|---|
//! | overlay | a quarter of `tables_backlog_bytes`, and one group of commits; beyond, commits wait |
//! | writes in the tree's memory | two quarters: one being filled, one being flushed |
//! | blocks of files that were read | `tables_cache_bytes` |
//! | indexes and filters of files | about 2 bytes per entry |
//! | compaction | about 8 MiB |
//! | history for watches | 8192 changes, 512 KiB of keys |
//!
//! With the defaults of 16 MiB each that is at most 40 MiB and 2 MiB per million entries.
//!
//! # Bad days
//!
//! No room, or a disk that fails: the flush is tried again every second, the log keeps what is not flushed, reads and
//! commits go on until the overlay is full; then `wait_for_room` says why. A damaged file is noticed by the checksum
//! of its blocks: at the opening, which then fails, or by a read, which then fails.

mod overlay;
mod query;
#[cfg(test)]
mod tests;
mod tree;
mod work;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use broker_core::store::{Fault, Key, Revision, Sequence};

use crate::{
    engine::Committed,
    options::OpenError,
    stats::{StoreStats, set},
};

use overlay::{History, Overlay};
pub(crate) use overlay::{Pending, Writes};
pub(crate) use query::{Query, Question};
pub(crate) use tree::{Entries, EntryTree, TreeError, TreeSize};

/// What is applied at a time, so that not every small commit wakes a thread.
const APPLY_BYTES: usize = 256 << 10;

/// The tables of a store.
pub(crate) struct Tables {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    path: PathBuf,
    tree: EntryTree,
    stats: Arc<StoreStats>,
    /// Bytes of writes in the tree's memory that are flushed together, and of the overlay.
    quarter: usize,
    state: Mutex<State>,
    /// There is something to apply or to flush.
    work: Condvar,
    /// Something was applied or flushed, or failed to be.
    progress: Condvar,
    compaction: Mutex<Compaction>,
    /// Something about the compaction changed.
    compaction_changed: Condvar,
    queries: query::Queries,
    /// Somebody waits for changes.
    is_watched: AtomicBool,
}

struct State {
    overlay: Overlay,
    history: History,
    /// The place after the last commit that was told.
    committed: Sequence,
    /// The first sequence that is not in the files.
    persisted: Sequence,
    /// What is before this is to be flushed.
    flush_wanted: Sequence,
    /// Why the latest attempt to apply or flush failed; nothing while another is under way because somebody asked.
    trouble: Option<TreeError>,
    /// The latest attempt that ended has failed.
    has_failed: bool,
    is_closing: bool,
    /// Nothing is flushed any more.
    is_abandoned: bool,
}

#[derive(Default)]
struct Compaction {
    is_wanted: bool,
    is_closing: bool,
    /// The latest attempt failed, so nobody should wait for it.
    is_failing: bool,
}

impl Tables {
    /// The tables in `dir`, and the first sequence that they do not have durably.
    ///
    /// # Errors
    /// The directory cannot be used, or its files are damaged.
    pub(crate) fn open(
        dir: &Path,
        backlog_bytes: usize,
        cache_bytes: u64,
        stats: Arc<StoreStats>,
    ) -> Result<(Tables, Sequence), OpenError> {
        let (tree, position) = EntryTree::open(dir, cache_bytes)?;
        let shared = Arc::new(Shared {
            path: dir.to_owned(),
            tree,
            stats,
            quarter: (backlog_bytes / 4).max(64 << 10),
            state: Mutex::new(State {
                overlay: Overlay::default(),
                history: History::new(Revision(position.0.saturating_sub(1))),
                committed: position,
                persisted: position,
                flush_wanted: position,
                trouble: None,
                has_failed: false,
                is_closing: false,
                is_abandoned: false,
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
            compaction: Mutex::default(),
            compaction_changed: Condvar::new(),
            queries: query::Queries::default(),
            is_watched: AtomicBool::new(false),
        });
        let tables = Tables {
            shared,
            threads: Mutex::default(),
        };
        tables.start("store-tables", work::apply)?;
        tables.start("store-compact", work::compact)?;
        tables.start("store-query", query::answer)?;
        Ok((tables, position))
    }

    fn start(&self, name: &str, run: fn(&Shared)) -> Result<(), OpenError> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&shared))
            .map_err(|error| OpenError::io("start a thread for", &self.shared.path, error))?;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push(thread);
        Ok(())
    }

    /// Applies a commit of the log while the store opens, before `begin`.
    ///
    /// # Errors
    /// As for [`wait_for_room`](Self::wait_for_room).
    pub(crate) fn replay(&self, commit: &Committed) -> Result<(), Fault> {
        self.wait_for_room()?;
        let mut state = self.shared.state();
        // What is there already would do no harm, but need not be done.
        if commit.next > state.committed {
            state.committed = commit.next;
            state.overlay.insert(commit.clone());
            self.shared.wake_work(&state);
        }
        Ok(())
    }

    /// The log goes on at `next`; from now on `committed` is called.
    pub(crate) fn begin(&self, next: Sequence) {
        let mut state = self.shared.state();
        state.committed = state.committed.max(next);
        state.history = History::new(Revision(state.committed.0.saturating_sub(1)));
    }

    /// These commits are in the log, in this order, all after those before.
    pub(crate) fn committed(&self, commits: Vec<Committed>) {
        let mut state = self.shared.state();
        for commit in commits {
            state.committed = commit.next;
            state.history.push(&commit);
            state.overlay.insert(commit);
        }
        self.shared.wake_work(&state);
        self.shared.count_lag(&state);
        drop(state);
        if self.shared.is_watched.load(Ordering::Acquire) {
            self.shared.queries.wake();
        }
    }

    /// The revision of an entry, with all writes told by `committed`. May read a file.
    ///
    /// # Errors
    /// A file is damaged or cannot be read.
    pub(crate) fn current(&self, key: &Key) -> Result<Option<Revision>, Fault> {
        Ok(self.shared.get(key)?.map(|entry| entry.revision))
    }

    /// Waits while too much is committed and not applied.
    ///
    /// # Errors
    /// [`Fault::Full`] if there is no room for the tables, which is tried again all the time; [`Fault::Failed`] if
    /// they cannot be written for another reason.
    pub(crate) fn wait_for_room(&self) -> Result<(), Fault> {
        let mut state = self.shared.state();
        while state.overlay.bytes() > self.shared.quarter {
            if let Some(trouble) = &state.trouble {
                return Err(trouble.clone().into());
            }
            if state.is_closing {
                return Err(Fault::Unavailable);
            }
            state = wait(&self.shared.progress, state);
        }
        Ok(())
    }

    /// Makes durable what is committed, and returns the first sequence that is not.
    ///
    /// # Errors
    /// As for [`wait_for_room`](Self::wait_for_room).
    pub(crate) fn persist(&self) -> Result<Sequence, Fault> {
        let mut state = self.shared.state();
        let wanted = state.committed;
        state.flush_wanted = state.flush_wanted.max(wanted);
        // What failed before is tried at once.
        state.trouble = None;
        self.shared.work.notify_one();
        while state.persisted < wanted {
            if let Some(trouble) = &state.trouble {
                return Err(trouble.clone().into());
            }
            if state.is_closing {
                return Err(Fault::Unavailable);
            }
            state = wait(&self.shared.progress, state);
        }
        Ok(state.persisted)
    }

    /// Answers a query, now or when what it waits for has happened.
    pub(crate) fn ask(&self, query: Query) {
        self.shared.queries.push(query);
    }

    /// All entries after some commit, and the first sequence that they do not know. What was committed after the
    /// tables were last applied is in the log alone.
    ///
    /// # Errors
    /// The files contradict each other.
    pub(crate) fn snapshot(&self) -> Result<(Entries, Sequence), TreeError> {
        self.shared.tree.snapshot()
    }

    /// Merges all files, leaving out what was replaced or deleted.
    ///
    /// # Errors
    /// There is no room, or a file is damaged.
    pub(crate) fn compact_all(&self) -> Result<(), Fault> {
        Ok(self.shared.tree.compact_all()?)
    }

    /// What the files say.
    pub(crate) fn size(&self) -> TreeSize {
        self.shared.tree.size()
    }

    /// Applies what is left, makes it durable, and ends the work. What fails is in the log.
    pub(crate) fn close(&self) {
        let _ = self.persist();
        self.end();
    }

    /// Ends the work as the end of the process would: what is not flushed is lost.
    #[cfg(any(test, feature = "test-support"))]
    pub(crate) fn abandon(&self) {
        // Without this a thread that has begun to apply would flush before it looks.
        self.shared.state().is_abandoned = true;
        self.end();
    }

    fn end(&self) {
        self.shared.state().is_closing = true;
        self.shared.work.notify_all();
        self.shared.progress.notify_all();
        self.shared.compaction().is_closing = true;
        self.shared.compaction_changed.notify_all();
        self.shared.queries.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the tables has panicked");
            }
        }
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compaction(&self) -> MutexGuard<'_, Compaction> {
        self.compaction.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_work(&self, state: &State) {
        if state.overlay.fresh_bytes() >= APPLY_BYTES.min(self.quarter) {
            self.work.notify_one();
        }
    }

    fn count_lag(&self, state: &State) {
        let lag = state.committed.0.saturating_sub(state.persisted.0);
        set(&self.stats.tables_lag, lag);
    }

    /// An entry as the latest commit left it.
    fn get(&self, key: &Key) -> Result<Option<broker_core::store::Entry>, TreeError> {
        if let Some(pending) = self.state().overlay.get(key) {
            return Ok(pending.value.clone().map(|value| broker_core::store::Entry {
                key: key.clone(),
                revision: pending.revision,
                value,
            }));
        }
        // What left the overlay in between is in the tree.
        self.tree.get(key)
    }
}

fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// The error if the log does not reach back to what the tables need.
pub(crate) fn gap(dir: &Path, needed: Sequence, first: Sequence) -> OpenError {
    OpenError::Tables {
        path: dir.to_owned(),
        reason: format!(
            "they end before sequence {}, but the log begins at {}: what was written in between is missing",
            needed.0, first.0
        ),
    }
}
