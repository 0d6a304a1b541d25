use std::{path::PathBuf, sync::Arc, time::Duration};

use broker_core::store::{Durability, Fault};
use tracing::info;

use crate::{
    directory::Directory,
    engine::{Closing, Committed, Engine, Threads},
    files::Files,
    journal::JournalHandle,
    kv::KvHandle,
    log::{frame::Seed, recover::Recovery},
    options::{OpenError, Options, Progress},
    reserve::{GaveWay, Reserve},
    stats::StoreStats,
    tables::Tables,
};

const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 4 << 10..=1 << 30;
const RECORD_BYTES_MAX: usize = 512 << 20;

/// An open data directory. When it is dropped, everything submitted is committed first.
pub struct Store {
    pub(crate) engine: Arc<Engine>,
    threads: Threads,
    pub(crate) dir: PathBuf,
    pub(crate) files: Arc<dyn Files>,
    /// Held until everything is written.
    pub(crate) directory: Directory,
}

impl Store {
    /// Opens the store in a directory, or makes a new one: takes the lock, cuts off what a crash left half written,
    /// brings the tables up to the end of the log. It takes about a second per gigabyte of log that was not sealed.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was changed but for what recovery repaired.
    pub fn open(mut options: Options) -> Result<Store, OpenError> {
        check(&options)?;
        let directory = Directory::open(&options.dir)?;
        let stats = Arc::new(StoreStats::default());
        let (tables, applied) = Tables::open(
            &options.dir.join("tables"),
            options.tables_backlog_bytes,
            options.tables_cache_bytes,
            Arc::clone(&stats),
        )?;
        let reserve = Reserve::open(&options, Arc::clone(&stats));
        let mut report = options.progress.take();
        let recovered = Recovery {
            files: &*options.files,
            dir: &options.dir.join("log"),
            store_id: directory.store_id,
            seed: Seed::new(directory.store_id),
            applied,
            dedup_window_millis: millis(options.dedup_window),
            dedup_ids_max: options.dedup_ids_max,
            stats: &stats,
            replay: &mut |commit| replay(&tables, &reserve, commit),
            progress: &mut |progress: Progress| {
                if let Some(report) = &mut report {
                    report(progress);
                }
            },
        }
        .run()?;
        tables.begin(recovered.next);
        info!(
            dir = %options.dir.display(), segments = recovered.segments.len(), next = recovered.next.0,
            "the store is open"
        );
        let start = Engine::start(
            &options,
            directory.store_id,
            recovered,
            Arc::new(tables),
            reserve,
            stats,
        );
        let (engine, threads) =
            start.map_err(|error| OpenError::io("start threads for", &options.dir, error))?;
        Ok(Store {
            engine,
            threads,
            dir: options.dir,
            files: options.files,
            directory,
        })
    }

    /// A handle on the log.
    pub fn journal(&self) -> JournalHandle {
        JournalHandle::new(Arc::clone(&self.engine))
    }

    /// A handle on the entries.
    pub fn kv(&self) -> KvHandle {
        KvHandle::new(Arc::clone(&self.engine))
    }

    /// What the store has done, and how it is.
    pub fn stats(&self) -> Arc<StoreStats> {
        Arc::clone(&self.engine.stats)
    }

    /// Ends the store as `kill -9` would: what is in flight is neither committed nor answered, the tables are not
    /// brought up to date.
    #[cfg(any(test, feature = "test-support"))]
    pub fn kill(mut self) {
        self.engine.close(&mut self.threads, Closing::Abrupt);
        self.engine.tables.abandon();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.engine.close(&mut self.threads, Closing::Orderly);
        self.engine.tables.close();
    }
}

/// Applies a commit of the log; a full disk must not keep the store closed while there is a reserve.
fn replay(tables: &Tables, reserve: &Reserve, commit: &Committed) -> Result<(), Fault> {
    match tables.replay(commit) {
        Err(Fault::Full) if reserve.give_way(reserve.tries()) == GaveWay::Freed => {
            tables.persist()?;
            tables.replay(commit)
        }
        other => other,
    }
}

fn check(options: &Options) -> Result<(), OpenError> {
    if options.durability == Durability::None {
        return Err(OpenError::Option(
            "durability none needs no data directory: the store in memory is for that",
        ));
    }
    if !SEGMENT_BYTES.contains(&options.segment_bytes) {
        return Err(OpenError::Option("a segment has from 4 KiB to 1 GiB"));
    }
    if options.record_bytes_max > RECORD_BYTES_MAX {
        return Err(OpenError::Option("a record has at most 512 MiB"));
    }
    if options.in_flight_max == 0 {
        return Err(OpenError::Option("a handle has at least one request in flight"));
    }
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
