use std::{io, path::PathBuf, sync::Arc, time::Duration};

use broker_core::store::Durability;
use thiserror::Error;

use crate::files::{Files, RealFiles};

/// How a [`Store`](crate::Store) is opened.
pub struct Options {
    /// The data directory; made if it does not exist.
    pub dir: PathBuf,
    /// What a completed commit survives. [`Durability::None`] is refused: the back end for it is the one in memory.
    pub durability: Durability,
    /// A segment of the log ends when it has this many bytes; one commit may be larger. From 4 KiB to 1 GiB, default
    /// 64 MiB.
    pub segment_bytes: u64,
    /// When the log has more bytes than this, its oldest segments are dropped, also if somebody still wants them; the
    /// one that is being written stays. Default: no limit.
    pub max_bytes: Option<u64>,
    /// Segments whose last record is older are dropped, also if somebody still wants them; the one that is being
    /// written stays. Default: no limit.
    pub max_age: Option<Duration>,
    /// Bytes of a file that is given up when the disk is full, so that there is room to empty the store; 0: none.
    /// Default: as many as a segment, from 4 to 64 MiB.
    pub reserve_bytes: Option<u64>,
    /// Commits that are written and synced together have at most this many bytes, or are one. Default: 8 MiB.
    pub group_bytes_max: usize,
    /// How long the first commit of a group waits for others. Default 0: a group is what came while the group before
    /// was synced.
    pub group_wait: Duration,
    /// Bytes of the latest records that are kept in memory for tails. Default: 32 MiB.
    pub ring_bytes: usize,
    /// Memory for topic indexes of sealed segments and for what was read of index files. That of the segment being
    /// written comes on top: 16 bytes per record, and about 45 bytes and the name per topic. Default: 64 MiB.
    pub index_bytes: usize,
    /// Work that one `Read` may do before another has its turn: records and topics looked at, about. Default: 100 000,
    /// some milliseconds.
    pub read_work_max: u64,
    /// Memory for writes that the tables do not have yet; beyond, commits wait. Default: 16 MiB.
    pub tables_backlog_bytes: usize,
    /// Memory for what was read of the tables. Default: 16 MiB.
    pub tables_cache_bytes: u64,
    /// Bytes of the largest record and of the largest value. At most 512 MiB, default: 2 MiB.
    pub record_bytes_max: usize,
    /// Requests of one handle submitted and not polled. Default: 4096.
    pub in_flight_max: usize,
    /// How long a dedup id is remembered. Default: two minutes.
    pub dedup_window: Duration,
    /// Dedup ids remembered, 64 bytes each. Default: 65 536.
    pub dedup_ids_max: usize,
    /// Where the log's files are. The tables are always real files.
    pub files: Arc<dyn Files>,
    /// Told about long work while the store opens: when 64 MiB of log or more have to be read.
    pub progress: Option<Box<dyn FnMut(Progress) + Send>>,
}

impl Options {
    /// A store in this directory with the default of everything else, [`Durability::Sync`].
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            durability: Durability::Sync,
            segment_bytes: 64 << 20,
            max_bytes: None,
            max_age: None,
            reserve_bytes: None,
            group_bytes_max: 8 << 20,
            group_wait: Duration::ZERO,
            ring_bytes: 32 << 20,
            index_bytes: 64 << 20,
            read_work_max: 100_000,
            tables_backlog_bytes: 16 << 20,
            tables_cache_bytes: 16 << 20,
            record_bytes_max: 2 << 20,
            in_flight_max: 4096,
            dedup_window: Duration::from_secs(120),
            dedup_ids_max: 65_536,
            files: Arc::new(RealFiles),
            progress: None,
        }
    }
}

/// How far the opening of a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the log that were read.
    pub bytes: u64,
    /// Bytes of the log that have to be read.
    pub bytes_total: u64,
    /// Commits that were found in them.
    pub commits: u64,
}

/// Why a store cannot be opened. The text says what an operator can do.
#[derive(Debug, Error)]
pub enum OpenError {
    /// An option is out of its bounds.
    #[error("{0}")]
    Option(&'static str),
    /// Another process has the store open.
    #[error("{} is used by another process: end it, or give this node a data directory of its own", .0.display())]
    Locked(PathBuf),
    /// The directory has files, but none of a store.
    #[error(
        "{} is not empty and holds no store (no file VERSION): name an empty directory, or restore VERSION from a \
         backup",
        .0.display()
    )]
    Foreign(PathBuf),
    /// The store was written by a later release.
    #[error(
        "{} has store format {found}, this release reads up to {known}: install the release that wrote it, or a \
         later one",
        dir.display()
    )]
    Newer {
        /// The data directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The latest format that this release knows.
        known: u32,
    },
    /// The file VERSION does not say what it should.
    #[error("{} is damaged: restore it from a backup", .0.display())]
    Version(PathBuf),
    /// This process may not use the directory.
    #[error("no permission for {}: give the user of this process read and write access to it", .0.display())]
    Permission(PathBuf),
    /// The directory is on a read-only file system.
    #[error("{} is read-only: mount its file system for writing (it may have been remounted after a disk error)", .0.display())]
    ReadOnly(PathBuf),
    /// The file system has no room for what has to be written to open the store.
    #[error("no room on the file system of {}: make room and start again", .0.display())]
    Full(PathBuf),
    /// The operating system failed in another way.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
    /// The tables cannot be opened.
    #[error(
        "cannot open the tables in {}: {reason}; restore the store from a backup, or see `tidegate store check`",
        path.display()
    )]
    Tables {
        /// Directory of the tables.
        path: PathBuf,
        /// What their store says.
        reason: String,
    },
}

impl OpenError {
    /// The error for what the operating system said about `path`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, error: io::Error) -> OpenError {
        let path = path.into();
        match error.kind() {
            io::ErrorKind::PermissionDenied => OpenError::Permission(path),
            io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly(path),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::Full(path),
            _ => OpenError::Io { action, path, error },
        }
    }
}
