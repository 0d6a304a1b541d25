//! The store of a node: a directory, or memory if nothing has to outlive the process.

mod keeper;
mod restore;
mod watch;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc::channel},
    time::{Duration, Instant},
};

use broker_core::store::{
    Durability, Journal, Kv,
    memory::{MemoryLimits, MemoryStore},
};
use store::{
    OpenError, Options, Progress, Store, StoreStats,
    ops::{BackupOptions, Done},
};

use crate::{
    config::Settings,
    control::{Answer, ControlSocket, Request, Service},
};

pub(super) use keeper::{Keeper, Low, Told};
pub use restore::RestoreError;
pub(super) use restore::restore;
pub(super) use watch::Condition;

/// Bytes of the largest record: the largest packet that can be permitted (256 MB), and room for what is stored with
/// it.
const RECORD_BYTES_MAX: usize = 257 << 20;

/// Bytes of messages that are kept in memory at the most, with `durability = none`.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// How often a long start says how far it is.
const REPORT: Duration = Duration::from_secs(2);

/// Time that the store has to write what is left.
const CLOSE: Duration = Duration::from_secs(10);

/// An open store.
pub(super) enum Storage {
    /// It ends with the process.
    Memory(MemoryStore),
    /// It is a directory.
    Disk(Arc<Store>),
}

/// What there is to tell about a store.
#[derive(Clone)]
pub(super) enum StorageStats {
    /// It ends with the process.
    Memory(MemoryStore),
    /// It is a directory.
    Disk(Arc<StoreStats>),
}

impl StorageStats {
    /// Calls `visit` with every number: what happened since the start, and how it is now.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&str, u64)) {
        let stats = match self {
            StorageStats::Memory(store) => return visit("trimmed.by_size", store.records_dropped()),
            StorageStats::Disk(stats) => stats,
        };
        for (name, value) in [
            ("commits", &stats.commits),
            ("commits.duplicate", &stats.duplicates),
            ("commits.refused_full", &stats.commits_refused_full),
            ("records", &stats.records),
            ("records.bytes", &stats.record_bytes),
            ("log.bytes_written", &stats.bytes_appended),
            ("log.bytes", &stats.log_bytes),
            ("log.segments", &stats.segments),
            ("index.bytes_written", &stats.index_bytes_written),
            ("index.rebuilt", &stats.indexes_rebuilt),
            ("groups", &stats.groups),
            ("groups.commits_max", &stats.group_commits_max),
            ("fsyncs", &stats.fsyncs),
            ("fsyncs.microseconds", &stats.fsync_micros),
            ("trimmed.by_cursor", &stats.trimmed_by_cursor),
            ("trimmed.by_age", &stats.trimmed_by_age),
            ("trimmed.by_size", &stats.trimmed_by_size),
            ("recovery.torn_bytes", &stats.torn_bytes),
            ("recovery.corrupt_frames", &stats.corrupt_frames),
            ("recovery.lost_sequences", &stats.lost_sequences),
            ("tables.lag", &stats.tables_lag),
        ] {
            visit(name, value.load(Relaxed));
        }
    }
}

impl Storage {
    /// Opens the store that the settings ask for. May take long, if much has to be read again: then the log says how
    /// far it is.
    pub(super) fn open(settings: &Settings) -> Result<Storage, OpenError> {
        let asked = &settings.store;
        if asked.durability == Durability::None {
            let bytes_max = asked.max_bytes.unwrap_or(u64::MAX).min(MEMORY_BYTES_MAX);
            return Ok(Storage::Memory(MemoryStore::new(MemoryLimits {
                // Sessions, retained and delayed messages have limits of their own.
                bytes_max: u64::MAX,
                log_bytes_max: Some(bytes_max),
                item_bytes_max: RECORD_BYTES_MAX,
                ..MemoryLimits::default()
            })));
        }
        let options = Options {
            durability: asked.durability,
            segment_bytes: asked.segment_bytes,
            max_bytes: asked.max_bytes,
            max_age: asked.max_age,
            record_bytes_max: RECORD_BYTES_MAX,
            progress: Some(report()),
            ..Options::new(&settings.node.data_dir)
        };
        let store = Store::open(options)?;
        Ok(Storage::Disk(Arc::new(store)))
    }

    /// Another handle on the log and, by its commits, on the entries.
    pub(super) fn journal(&self) -> Box<dyn Journal> {
        match self {
            Storage::Memory(store) => Box::new(store.journal()),
            Storage::Disk(store) => Box::new(store.journal()),
        }
    }

    /// Another handle on the entries.
    pub(super) fn kv(&self) -> Box<dyn Kv> {
        match self {
            Storage::Memory(store) => Box::new(store.kv()),
            Storage::Disk(store) => Box::new(store.kv()),
        }
    }

    pub(super) fn stats(&self) -> StorageStats {
        match self {
            Storage::Memory(store) => StorageStats::Memory(store.clone()),
            Storage::Disk(store) => StorageStats::Disk(store.stats()),
        }
    }

    /// Opens the socket for operators in the data directory. Without it the node works, but is backed up only after it
    /// has ended.
    pub(super) fn open_control(&self, dir: &Path) -> Option<ControlSocket> {
        let Storage::Disk(store) = self else { return None };
        let (store, stats) = (Arc::clone(store), self.stats());
        let service: Service = Box::new(move |request, tell| match request {
            Request::Stats => {
                stats.visit(&mut |name, value| tell(Answer::Text(format!("{name} {value}"))));
                Ok(())
            }
            Request::Backup(path) => back_up(&store, &path, tell),
        });
        match ControlSocket::open(dir, service) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "control.sock cannot be opened: `tidegate store backup` does not reach this node");
                None
            }
        }
    }

    /// Writes what is left and closes the files. A disk that does not answer in time is left to itself: what it was
    /// not seen to take has not been acknowledged.
    pub(super) fn close(self) {
        let Storage::Disk(store) = self else { return };
        let (closed, is_closed) = channel();
        let close = move || {
            // A backup that was given up may still read: the store is then left as a crash would leave it, which
            // loses nothing.
            drop(Arc::into_inner(store));
            // Whoever no longer waits has said so.
            let _ = closed.send(());
        };
        if let Err(error) = std::thread::Builder::new().name("close".to_owned()).spawn(close) {
            tracing::warn!(%error, "no thread to close the store; it is left as a crash would leave it");
        } else if is_closed.recv_timeout(CLOSE).is_err() {
            tracing::error!("the store did not close in time; it is left as a crash would leave it");
        }
    }
}

/// Says every few seconds how far the opening is.
fn report() -> Box<dyn FnMut(Progress) + Send> {
    let mut reported = Instant::now();
    Box::new(move |progress| {
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            let Progress {
                bytes,
                bytes_total,
                commits,
            } = progress;
            tracing::info!(bytes, bytes_total, commits, "reading the log of the store");
        }
    })
}

fn back_up(store: &Store, archive: &Path, tell: &mut dyn FnMut(Answer)) -> Result<(), String> {
    tracing::info!(archive = %archive.display(), "backup begins");
    let progress = &mut |done: Done| {
        let Done { done, total, .. } = done;
        tell(Answer::Progress { done, total });
    };
    match store.backup(archive, &BackupOptions::default(), progress) {
        Ok(report) => {
            tracing::info!(archive = %archive.display(), bytes = report.archive_bytes, "backup is complete");
            tell(Answer::Text(report.to_string()));
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, "backup failed");
            Err(error.to_string())
        }
    }
}
