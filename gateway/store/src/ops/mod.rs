//! What an operator does with a store: check it, look into it, move it.
//!
//! [`check`], [`stats`], [`export`], [`compact`] and [`restore`] work on a store that no process has open; they take its
//! lock. [`Store::backup`](crate::Store::backup) works while the store does. None of them prints: they report to a
//! callback and return what there is to say.

mod archive;
mod backup;
mod check;
mod export;
mod restore;
mod stats;
mod tar;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use broker_core::store::{Fault, Sequence};
use thiserror::Error;

use crate::{
    Store,
    directory::Directory,
    log::{
        frame::{Body, Header, Seed},
        scan::{Scanned, Scanner},
        segment::SEGMENT_HEADER_BYTES,
    },
    options::{OpenError, Options},
};

pub use backup::BackupOptions;
pub use check::check;
pub use export::export;
pub use restore::restore;
pub use stats::{StatsReport, TableStats, TopicStats, compact, stats};

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// What is being done, such as "reading the log".
    pub what: &'static str,
    /// Bytes or entries that are done.
    pub done: u64,
    /// Of so many; 0: nobody knows.
    pub total: u64,
}

/// Told now and then how far an operation is.
pub type Tell<'a> = &'a mut dyn FnMut(Done);

/// Why an operation was not done. The text says what an operator can do.
#[derive(Debug, Error)]
pub enum OpsError {
    /// There is no store in this directory.
    #[error("{} holds no store: name the data directory of a node (`node.data_dir`)", .0.display())]
    NoStore(PathBuf),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The operating system failed.
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
    /// What was to be written is there already.
    #[error("{} exists: name another path, or move it away", .0.display())]
    Exists(PathBuf),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// The archive is not one, is cut off, or was changed since it was written.
    #[error("{} cannot be restored: {reason}; try an older backup", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store is damaged where the operation needs it whole.
    #[error("the store is damaged: {0}; `tidegate store check` tells more")]
    Damaged(String),
    /// The running store failed.
    #[error(transparent)]
    Store(#[from] Fault),
}

impl OpsError {
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpsError {
        let path = path.into();
        move |error| OpsError::Io { action, path, error }
    }
}

/// Takes a directory that has a store, so that none is made where somebody mistyped.
fn open_directory(dir: &Path) -> Result<Directory, OpsError> {
    let version = dir.join(archive::VERSION);
    if !version.try_exists().map_err(OpsError::io("examine", &version))? {
        return Err(OpsError::NoStore(dir.to_owned()));
    }
    Ok(Directory::open(dir)?)
}

/// Opens a store that must be there.
fn open_store(dir: &Path) -> Result<Store, OpsError> {
    open_directory(dir)?;
    let mut options = Options::new(dir);
    // What only looks needs no room.
    options.reserve_bytes = Some(0);
    Ok(Store::open(options)?)
}

/// Gives every commit of an open store to `each`, over what is damaged.
fn read_log(
    store: &Store,
    tell: Tell<'_>,
    each: &mut dyn FnMut(&Header, Body<'_>) -> Result<(), OpsError>,
) -> Result<(), OpsError> {
    let snapshot = store.engine.view.snapshot();
    let seed = Seed::new(store.directory.store_id);
    let total = snapshot
        .segments
        .iter()
        .map(|segment| snapshot.len_of(segment))
        .sum();
    let mut before = 0;
    for segment in &*snapshot.segments {
        let len = snapshot.len_of(segment);
        let file = store
            .files
            .open(&segment.path)
            .map_err(OpsError::io("open", &segment.path))?;
        let mut scanner = Scanner::new(file, len, SEGMENT_HEADER_BYTES, segment.base, seed);
        loop {
            match scanner.step().map_err(OpsError::io("read", &segment.path))? {
                Scanned::Frame(offset, header, body) => {
                    each(&header, body)?;
                    tell(Done {
                        what: "reading the log",
                        done: before + offset,
                        total,
                    });
                }
                Scanned::Lost(from, to) => {
                    tracing::warn!(path = %segment.path.display(), from, to, "damaged bytes are passed over");
                }
                Scanned::End => break,
            }
        }
        before += len;
    }
    Ok(())
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing is wrong.
    Note,
    /// Nothing is lost, and the store will mend it by itself when it is opened.
    Warning,
    /// Something is lost, or the store cannot be opened.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// Something that a check has noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    pub path: PathBuf,
    /// What it is.
    pub what: String,
    /// What to do about it; may be empty.
    pub advice: String,
}

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// In the order in which they were noticed, at most [`CheckReport::FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Further ones.
    pub findings_omitted: u64,
    /// The worst of all.
    pub worst: Option<Severity>,
    /// Segments of the log.
    pub segments: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Commits that are whole.
    pub commits: u64,
    /// Their records.
    pub records: u64,
    /// Entries in the tables.
    pub entries: u64,
    /// Findings that were mended.
    pub repaired: u64,
}

impl CheckReport {
    /// Findings that are kept.
    pub const FINDINGS_MAX: usize = 1000;

    fn add(&mut self, severity: Severity, path: &Path, what: impl Into<String>, advice: &str) {
        self.worst = self.worst.max(Some(severity));
        if self.findings.len() == Self::FINDINGS_MAX {
            self.findings_omitted += 1;
            return;
        }
        self.findings.push(Finding {
            severity,
            path: path.to_owned(),
            what: what.into(),
            advice: advice.to_owned(),
        });
    }
}

/// What was exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Lines that are entries.
    pub entries: u64,
    /// Lines that are records.
    pub records: u64,
    /// Bytes of all lines.
    pub bytes: u64,
}

/// What a compaction has gained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Bytes of the tables' files before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
}

/// What is in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// Entries; further writes to them are in the log.
    pub entries: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// All commits before this place are in it.
    pub next: Sequence,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity, self.path.display(), self.what)?;
        if !self.advice.is_empty() {
            write!(f, "; what to do: {}", self.advice)?;
        }
        Ok(())
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        if self.findings_omitted > 0 {
            writeln!(f, "and {} more", self.findings_omitted)?;
        }
        write!(
            f,
            "{} segments, {} bytes, {} commits, {} records, {} entries",
            self.segments, self.log_bytes, self.commits, self.records, self.entries
        )?;
        if self.repaired > 0 {
            write!(f, "; repaired: {}", self.repaired)?;
        }
        match self.worst {
            None | Some(Severity::Note) => f.write_str("\nthe store is whole"),
            Some(Severity::Warning) => f.write_str("\nnothing is lost"),
            Some(Severity::Error) => f.write_str("\nthe store is damaged"),
        }
    }
}

impl fmt::Display for ExportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} entries, {} records, {} bytes",
            self.entries, self.records, self.bytes
        )
    }
}

impl fmt::Display for CompactReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tables: {} bytes before, {} bytes after",
            self.bytes_before, self.bytes_after
        )
    }
}

impl fmt::Display for BackupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} entries, {} bytes of log, all commits before sequence {}; {} bytes in the archive",
            self.entries, self.log_bytes, self.next.0, self.archive_bytes
        )
    }
}
