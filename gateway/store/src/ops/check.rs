//! Verification of everything on disk.

mod segment;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use broker_core::store::Sequence;

use super::{CheckReport, Done, OpsError, Severity, Tell, open_directory};
use crate::{
    files::{Files, RealFiles},
    log::{frame::Seed, segment::segment_base},
    options::OpenError,
    reserve,
    tables::EntryTree,
};

/// Memory for blocks of the tables while they are read.
const CACHE_BYTES: u64 = 16 << 20;
/// Entries between two reports of progress.
const REPORT_ENTRIES: u64 = 10_000;

const RESTORE: &str = "restore a backup, or start the node without what is lost";
const BY_ITSELF: &str = "nothing: the store mends it when it is opened";

/// Verifies every frame, record, index file, and entry of the store in `dir`, and that they agree. Nothing is changed,
/// unless `repair` is true: then a torn end of the log is cut off, index files are made again, and tables that the log
/// can rebuild are moved aside.
///
/// # Errors
/// There is no store, another process has it open, or a file cannot be read.
pub fn check(dir: &Path, repair: bool, tell: Tell<'_>) -> Result<CheckReport, OpsError> {
    let directory = open_directory(dir)?;
    let mut check = Check {
        log_dir: dir.join("log"),
        tables_dir: dir.join("tables"),
        store_id: directory.store_id,
        seed: Seed::new(directory.store_id),
        repair,
        tell,
        report: CheckReport::default(),
        tables: None,
        can_rebuild: false,
        indexes: BTreeMap::new(),
        bytes_total: 0,
    };
    check.look_around(dir)?;
    let segments = check.list_log()?;
    check.open_tables(segments.first().map(|(base, _)| *base))?;
    let next = check.segments(&segments)?;
    check.stray_indexes()?;
    check.entries(next)?;
    Ok(check.report)
}

fn is_empty(path: &Path) -> std::io::Result<bool> {
    Ok(path.metadata()?.len() == 0)
}

struct Check<'a> {
    log_dir: PathBuf,
    tables_dir: PathBuf,
    store_id: u64,
    seed: Seed,
    repair: bool,
    tell: Tell<'a>,
    report: CheckReport,
    /// With the first sequence that they do not have.
    tables: Option<(EntryTree, Sequence)>,
    /// The log reaches back to the first commit.
    can_rebuild: bool,
    /// Index files by base; those of segments are taken out.
    indexes: BTreeMap<Sequence, PathBuf>,
    bytes_total: u64,
}

impl Check<'_> {
    fn look_around(&mut self, dir: &Path) -> Result<(), OpsError> {
        for entry in fs::read_dir(dir).map_err(OpsError::io("list", dir))? {
            let path = entry.map_err(OpsError::io("list", dir))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.starts_with("tables.damaged") {
                let advice = "remove it when the node works as it should";
                self.report
                    .add(Severity::Note, &path, "tables that a repair moved aside", advice);
            } else if name == reserve::NAME && is_empty(&path).map_err(OpsError::io("examine", &path))? {
                let what =
                    "the file system was full: messages are refused until there is room for this file again";
                let advice = "make room, or let sessions take what is stored for them";
                self.report.add(Severity::Note, &path, what, advice);
            }
        }
        Ok(())
    }

    fn list_log(&mut self) -> Result<Vec<(Sequence, PathBuf)>, OpsError> {
        let mut segments = Vec::new();
        let dir = self.log_dir.clone();
        if !dir.try_exists().map_err(OpsError::io("examine", &dir))? {
            return Ok(segments);
        }
        for path in RealFiles.list(&dir).map_err(OpsError::io("list", &dir))? {
            if let Some(base) = segment_base(&path) {
                self.bytes_total += path.metadata().map_err(OpsError::io("examine", &path))?.len();
                segments.push((base, path));
            } else if let Some(base) = segment_base(&path.with_extension("log"))
                && path.extension().is_some_and(|extension| extension == "idx")
            {
                self.indexes.insert(base, path);
            } else {
                self.report.add(Severity::Note, &path, "no file of the store", "");
            }
        }
        segments.sort();
        Ok(segments)
    }

    /// Opens the tables, if there are any; `first`: where the log begins.
    fn open_tables(&mut self, first: Option<Sequence>) -> Result<(), OpsError> {
        let path = self.tables_dir.clone();
        let is_there = path.try_exists().map_err(OpsError::io("examine", &path))?;
        let (position, opened) = if is_there {
            match EntryTree::open(&path, CACHE_BYTES) {
                Ok((tree, position)) => (position, Ok(Some((tree, position)))),
                Err(OpenError::Tables { reason, .. }) => (Sequence::FIRST, Err(reason)),
                Err(error) => return Err(error.into()),
            }
        } else {
            (Sequence::FIRST, Ok(None))
        };
        self.can_rebuild = first == Some(Sequence::FIRST);
        match opened {
            Ok(tables) => self.tables = tables,
            Err(reason) => return self.unusable_tables(&format!("cannot be opened: {reason}")),
        }
        if let Some(first) = first.filter(|first| *first > position) {
            let what = format!(
                "the entries end before sequence {}, the log begins at {}: writes in between are missing",
                position.0, first.0
            );
            self.report.add(Severity::Error, &path, what, "restore a backup");
        }
        Ok(())
    }

    /// Gives the tables up; if the log has everything, a repair moves them out of its way.
    fn unusable_tables(&mut self, what: &str) -> Result<(), OpsError> {
        self.tables = None;
        if self.can_rebuild && self.repair {
            return self.move_tables_aside(what);
        }
        let advice = if self.can_rebuild {
            "repair: the log has everything since the store was made"
        } else {
            "restore a backup: the log does not reach back far enough to make them again"
        };
        let path = self.tables_dir.clone();
        self.report.add(Severity::Error, &path, what, advice);
        Ok(())
    }

    fn move_tables_aside(&mut self, what: &str) -> Result<(), OpsError> {
        let path = self.tables_dir.clone();
        let aside = (1_u64..)
            .map(|number| path.with_extension(format!("damaged{number}")))
            .find(|aside| !aside.exists())
            .expect("there are fewer directories than numbers");
        fs::rename(&path, &aside).map_err(OpsError::io("move aside", &path))?;
        self.report.repaired += 1;
        let what = format!("{what}; moved to {}", aside.display());
        self.report.add(
            Severity::Warning,
            &path,
            what,
            "nothing: the log makes them again at the next start",
        );
        Ok(())
    }

    fn stray_indexes(&mut self) -> Result<(), OpsError> {
        for path in std::mem::take(&mut self.indexes).into_values() {
            self.report
                .add(Severity::Note, &path, "an index without its segment", "");
            if self.repair {
                fs::remove_file(&path).map_err(OpsError::io("remove", &path))?;
                self.report.repaired += 1;
            }
        }
        Ok(())
    }

    /// Reads every entry, and looks it up.
    fn entries(&mut self, next: Sequence) -> Result<(), OpsError> {
        let Some((tree, position)) = self.tables.take() else {
            return Ok(());
        };
        let path = self.tables_dir.clone();
        if position > next {
            let what = format!(
                "they are applied up to {}, the log ends at {}",
                position.0, next.0
            );
            let advice = "restore a backup: the end of the log is missing";
            self.report.add(Severity::Error, &path, what, advice);
        }
        let restore = "restore a backup";
        let total = tree.size().items as u64;
        let (entries, _) = match tree.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => return self.unusable_tables(&error.to_string()),
        };
        for entry in entries {
            let found = entry.and_then(|entry| Ok((tree.get(&entry.key)?, entry)));
            match found {
                // Nothing tells where the next one would be.
                Err(error) => return self.unusable_tables(&error.to_string()),
                Ok((found, entry)) if found.as_ref() != Some(&entry) => {
                    let what = format!("{} is found in a scan but not by its key", entry.key.as_str());
                    self.report.add(Severity::Error, &path, what, restore);
                }
                Ok((_, entry)) if entry.revision.0 >= position.0 => {
                    let what = format!("{} is newer than the position of the tables", entry.key.as_str());
                    self.report.add(Severity::Error, &path, what, restore);
                }
                Ok(_) => {}
            }
            self.report.entries += 1;
            if self.report.entries.is_multiple_of(REPORT_ENTRIES) {
                (self.tell)(Done {
                    what: "reading the entries",
                    done: self.report.entries,
                    total,
                });
            }
        }
        Ok(())
    }
}
