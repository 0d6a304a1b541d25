//! Verification of everything on disk.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use broker_core::store::{Entry, Sequence};

use super::{CheckReport, Done, OpsError, Severity, Tell, open_directory};
use crate::{
    files::{File, Files, RealFiles},
    log::{
        frame::{Body, HEADER_BYTES, Header, Seed},
        index::{self, MemoryIndex},
        scan::{Scanned, Scanner},
        segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_base},
    },
    options::OpenError,
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
        indexes: BTreeMap::new(),
        bytes_total: 0,
    };
    check.look_around(dir)?;
    let segments = check.list_log()?;
    check.open_tables(segments.first().map(|(base, _)| *base))?;
    let extent = check.segments(&segments)?;
    check.stray_indexes()?;
    check.entries(extent)?;
    Ok(check.report)
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
    /// Index files by base; those of segments are taken out.
    indexes: BTreeMap<Sequence, PathBuf>,
    bytes_total: u64,
}

/// Between two segments.
#[derive(Clone, Copy, Default)]
struct Before {
    /// After the last commit.
    next: Sequence,
    /// Of the segment, if its header is whole.
    number: Option<u32>,
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
        let can_rebuild = first == Some(Sequence::FIRST);
        let is_gap = first.is_some_and(|first| first > position);
        match opened {
            Ok(tables) if is_gap => {
                let begins = first.unwrap_or_default().0;
                let what = format!(
                    "the entries end before sequence {}, the log begins at {begins}: writes in between are missing",
                    position.0
                );
                self.report.add(Severity::Error, &path, what, "restore a backup");
                self.tables = tables;
            }
            Ok(tables) => self.tables = tables,
            Err(reason) if !can_rebuild => {
                let advice = "restore a backup: the log does not reach back far enough to make them again";
                self.report.add(
                    Severity::Error,
                    &path,
                    format!("cannot be opened: {reason}"),
                    advice,
                );
            }
            Err(reason) if !self.repair => {
                let advice = "repair: the log has everything since the store was made";
                self.report.add(
                    Severity::Error,
                    &path,
                    format!("cannot be opened: {reason}"),
                    advice,
                );
            }
            Err(reason) => self.move_tables_aside(&reason)?,
        }
        Ok(())
    }

    fn move_tables_aside(&mut self, reason: &str) -> Result<(), OpsError> {
        let path = self.tables_dir.clone();
        let aside = (1_u64..)
            .map(|number| path.with_extension(format!("damaged{number}")))
            .find(|aside| !aside.exists())
            .expect("there are fewer directories than numbers");
        fs::rename(&path, &aside).map_err(OpsError::io("move aside", &path))?;
        self.report.repaired += 1;
        let what = format!("could not be opened ({reason}); moved to {}", aside.display());
        self.report.add(
            Severity::Warning,
            &path,
            what,
            "nothing: the log makes them again at the next start",
        );
        Ok(())
    }

    /// Goes through the log; returns the first and the next sequence.
    fn segments(&mut self, segments: &[(Sequence, PathBuf)]) -> Result<(Sequence, Sequence), OpsError> {
        let mut before = Before::default();
        let mut done = 0;
        for (at, (base, path)) in segments.iter().enumerate() {
            let file = RealFiles.open(path).map_err(OpsError::io("open", path))?;
            let len = file.len().map_err(OpsError::io("examine", path))?;
            self.report.segments += 1;
            self.report.log_bytes += len;
            let segment = Segment {
                base: *base,
                path,
                file,
                len,
                is_last: at + 1 == segments.len(),
                done,
            };
            before = self.segment(&segment, before)?;
            done += len;
        }
        let first = segments.first().map_or(Sequence::FIRST, |(base, _)| *base);
        Ok((first, before.next.max(first)))
    }

    fn segment(&mut self, segment: &Segment<'_>, before: Before) -> Result<Before, OpsError> {
        let number = self.header(segment, before)?;
        if segment.base < before.next {
            let what = format!(
                "begins at {}, the segment before it ends at {}",
                segment.base.0, before.next.0
            );
            self.report.add(Severity::Error, segment.path, what, RESTORE);
        }
        let mut index = MemoryIndex::new(segment.base);
        let mut next = segment.base.max(before.next);
        let start = SEGMENT_HEADER_BYTES.min(segment.len);
        let file = Arc::clone(&segment.file);
        let mut scanner = Scanner::new(file, segment.len, start, segment.base, self.seed);
        let mut lost: Option<(u64, u64)> = None;
        loop {
            match scanner.step().map_err(OpsError::io("read", segment.path))? {
                Scanned::Frame(offset, header, body) => {
                    if let Some((from, to)) = lost.take() {
                        let what = format!(
                            "bytes {from} to {to} are damaged: sequences {} to {} are lost",
                            next.0,
                            header.first.0.saturating_sub(1)
                        );
                        self.report.add(Severity::Error, segment.path, what, RESTORE);
                    }
                    self.commit(segment.path, &header, body)?;
                    for record in body.records() {
                        let at = offset + (HEADER_BYTES + record.offset) as u64;
                        let at = u32::try_from(at).unwrap_or(u32::MAX);
                        index.push(record.sequence, at, record.indexed, record.data);
                    }
                    next = header.next();
                    (self.tell)(Done {
                        what: "reading the log",
                        done: segment.done + offset,
                        total: self.bytes_total,
                    });
                }
                Scanned::Lost(from, to) => lost = Some((lost.map_or(from, |(from, _)| from), to)),
                Scanned::End => break,
            }
        }
        if let Some((from, to)) = lost {
            self.damaged_end(segment, from, to, next)?;
        }
        self.index(segment, &index)?;
        Ok(Before { next, number })
    }

    fn header(&mut self, segment: &Segment<'_>, before: Before) -> Result<Option<u32>, OpsError> {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        if segment.len < SEGMENT_HEADER_BYTES {
            let severity = if segment.is_last {
                Severity::Warning
            } else {
                Severity::Error
            };
            let advice = if segment.is_last { BY_ITSELF } else { RESTORE };
            self.report
                .add(severity, segment.path, "it ends within its header", advice);
            return Ok(None);
        }
        segment
            .file
            .read_at(&mut bytes, 0)
            .map_err(OpsError::io("read", segment.path))?;
        let Some(header) = SegmentHeader::parse(&bytes, self.seed) else {
            let what = format!(
                "its header is damaged, or it is not of store {:016x}",
                self.store_id
            );
            self.report.add(
                Severity::Error,
                segment.path,
                what,
                "nothing, if no commits are lost",
            );
            return Ok(None);
        };
        if header.base != segment.base {
            let what = format!("its header says {}: it was renamed", header.base.0);
            self.report
                .add(Severity::Error, segment.path, what, "give it its name again");
        }
        if let Some(number) = before.number
            && header.number != number.wrapping_add(1)
        {
            let what = format!(
                "it is number {}, the one before it {number}: some are missing",
                header.number
            );
            self.report.add(Severity::Error, segment.path, what, RESTORE);
        }
        Ok(Some(header.number))
    }

    /// Nothing that is whole follows these bytes in the segment.
    fn damaged_end(
        &mut self,
        segment: &Segment<'_>,
        from: u64,
        to: u64,
        next: Sequence,
    ) -> Result<(), OpsError> {
        if !segment.is_last {
            let what = format!(
                "bytes {from} to {to} are damaged: sequences from {} on are lost",
                next.0
            );
            self.report.add(Severity::Error, segment.path, what, RESTORE);
            return Ok(());
        }
        let what = format!(
            "bytes {from} to {to} are no whole commit, as when the power failed while it was written"
        );
        self.report.add(Severity::Warning, segment.path, what, BY_ITSELF);
        if self.repair {
            let cut = segment.file.truncate(from).and_then(|()| segment.file.sync());
            cut.map_err(OpsError::io("cut", segment.path))?;
            self.report.repaired += 1;
        }
        Ok(())
    }

    fn commit(&mut self, path: &Path, header: &Header, body: Body<'_>) -> Result<(), OpsError> {
        self.report.commits += 1;
        self.report.records += u64::from(header.records);
        let Some((tree, position)) = &self.tables else {
            return Ok(());
        };
        if header.first >= *position {
            return Ok(());
        }
        for write in body.writes() {
            // What the log says was written may have been replaced, but not be older.
            let found = tree.get(&write.key);
            let is_old = |entry: &Entry| entry.revision.0 < header.first.0;
            match found {
                Ok(entry) if entry.as_ref().is_some_and(is_old) => {
                    let what = format!(
                        "the tables have an older {} than the write at {}",
                        write.key.as_str(),
                        header.first.0
                    );
                    self.report.add(Severity::Error, path, what, RESTORE);
                }
                Ok(_) => {}
                Err(error) => {
                    let what = format!("{} cannot be read: {error}", write.key.as_str());
                    self.report.add(
                        Severity::Error,
                        &self.tables_dir.clone(),
                        what,
                        "restore a backup",
                    );
                }
            }
        }
        Ok(())
    }

    fn index(&mut self, segment: &Segment<'_>, index: &MemoryIndex) -> Result<(), OpsError> {
        let found = self.indexes.remove(&segment.base);
        if segment.is_last {
            return Ok(());
        }
        let path = segment.path.with_extension("idx");
        if found.is_none() {
            let advice = "nothing: it is made when somebody reads the segment";
            self.report
                .add(Severity::Note, &path, "it is not made yet", advice);
        } else {
            let bytes = fs::read(&path).map_err(OpsError::io("read", &path))?;
            if bytes == index::encode(index, segment.len, self.seed) {
                return Ok(());
            }
            self.report.add(
                Severity::Warning,
                &path,
                "it is not the index of its segment",
                BY_ITSELF,
            );
        }
        if self.repair {
            index::write(index, segment.len, &RealFiles, &path, self.seed)
                .map_err(OpsError::io("write", &path))?;
            self.report.repaired += 1;
        }
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
    fn entries(&mut self, (first, next): (Sequence, Sequence)) -> Result<(), OpsError> {
        let Some((tree, position)) = self.tables.take() else {
            return Ok(());
        };
        let path = self.tables_dir.clone();
        if position > next && first < next {
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
            Err(error) => {
                self.report
                    .add(Severity::Error, &path, error.to_string(), restore);
                return Ok(());
            }
        };
        for entry in entries {
            let found = entry.and_then(|entry| Ok((tree.get(&entry.key)?, entry)));
            match found {
                Err(error) => {
                    // Nothing tells where the next one would be.
                    self.report
                        .add(Severity::Error, &path, error.to_string(), restore);
                    return Ok(());
                }
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

/// A segment that is being checked.
struct Segment<'a> {
    base: Sequence,
    path: &'a Path,
    file: Arc<dyn File>,
    len: u64,
    is_last: bool,
    /// Bytes of the segments before it.
    done: u64,
}
