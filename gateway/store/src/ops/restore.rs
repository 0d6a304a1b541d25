//! A store from a backup.

use std::{
    fs,
    io::{self, BufReader, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use broker_core::store::Sequence;

use super::{
    BackupReport, Done, OpsError, Severity, Tell,
    archive::{ArchiveReader, ENTRIES, ENTRIES_BYTES, LOG, Manifest, Next, VERSION, read_entry},
    backup::sync_directory_of,
    check,
};
use crate::{
    log::segment::segment_base,
    tables::{EntryTree, Pending, TreeError, Writes},
};

/// Where a store is put together before it is put in place.
const STAGING: &str = "restoring";
const VERSION_BYTES_MAX: u64 = 4096;
/// Of a member with entries: the usual, and the largest entry there can be.
const ENTRIES_BYTES_MAX: u64 = ENTRIES_BYTES as u64 + (513 << 20);
/// Writes in memory before they are flushed.
const FLUSH_BYTES: u64 = 8 << 20;
const CACHE_BYTES: u64 = 4 << 20;
const CHUNK_BYTES: usize = 256 << 10;

/// Makes a store in `dir`, which must be empty or not exist, from a backup. Everything is written and verified in a
/// directory inside of it, and then moved; the file that makes a directory a store comes last.
///
/// # Errors
/// The directory is not empty or cannot be written; the archive cannot be read, is not whole, or is not what was
/// written. Then the directory is empty again.
pub fn restore(archive: &Path, dir: &Path, tell: Tell<'_>) -> Result<BackupReport, OpsError> {
    let file = fs::File::open(archive).map_err(OpsError::io("open", archive))?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(OpsError::io("make", dir))?;
    let mut listed = fs::read_dir(dir).map_err(OpsError::io("list", dir))?;
    if listed.next().is_some() {
        return Err(OpsError::Exists(dir.to_owned()));
    }
    let staging = dir.join(STAGING);
    fs::create_dir(&staging).map_err(OpsError::io("make", &staging))?;
    let made = fill(archive, file, &staging, tell).and_then(|report| {
        put_in_place(&staging, dir)?;
        Ok(report)
    });
    if made.is_err() {
        // Nothing in it makes a store of the directory.
        let _ = fs::remove_dir_all(&staging);
    }
    made
}

fn fill(archive: &Path, file: fs::File, staging: &Path, tell: Tell<'_>) -> Result<BackupReport, OpsError> {
    let archive_bytes = file.metadata().map_err(OpsError::io("examine", archive))?.len();
    let refused = |reason: String| OpsError::Archive {
        path: archive.to_owned(),
        reason,
    };
    let log = staging.join("log");
    fs::create_dir(&log).map_err(OpsError::io("make", &log))?;
    let (tree, _) = EntryTree::open(&staging.join("tables"), CACHE_BYTES)?;
    let mut target = Target {
        staging,
        log,
        tree,
        entries: 0,
        log_bytes: 0,
        failed: None,
    };
    let mut reader = ArchiveReader::new(BufReader::with_capacity(CHUNK_BYTES, file));
    let mut done = 0;
    let manifest = loop {
        let step = reader.step(&mut |name, content| {
            let bytes = target.member(name, content)?;
            done += bytes;
            tell(Done {
                what: "reading the backup",
                done,
                total: archive_bytes,
            });
            Ok(())
        });
        match step {
            Ok(Next::Member) => {}
            Ok(Next::End(manifest)) => break manifest,
            Err(error) => return Err(target.failed.take().unwrap_or_else(|| refused(error.to_string()))),
        }
    };
    if manifest.entries != target.entries {
        return Err(refused(format!(
            "it has {} entries of {}",
            target.entries, manifest.entries
        )));
    }
    let report = target.finish(&manifest, archive_bytes)?;
    let found = check(staging, false, tell)?;
    let worst = found
        .findings
        .iter()
        .find(|finding| finding.severity == Severity::Error);
    if let Some(finding) = worst {
        return Err(refused(format!(
            "the store in it is damaged: {}: {}",
            finding.path.display(),
            finding.what
        )));
    }
    Ok(report)
}

/// What is made from members.
struct Target<'a> {
    staging: &'a Path,
    log: PathBuf,
    tree: EntryTree,
    entries: u64,
    log_bytes: u64,
    /// What went wrong here, and not with the archive.
    failed: Option<OpsError>,
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Target<'_> {
    /// Returns its bytes.
    fn member(&mut self, name: &str, content: &mut dyn Read) -> io::Result<u64> {
        if name == VERSION {
            let path = self.staging.join(VERSION);
            self.copy(content.take(VERSION_BYTES_MAX), &path)
        } else if name.starts_with(ENTRIES) {
            self.entries(name, content)
        } else if let Some(name) = name.strip_prefix(LOG)
            && segment_base(Path::new(name)).is_some()
            && !name.contains('/')
        {
            let path = self.log.join(name);
            let bytes = self.copy(content, &path)?;
            self.log_bytes += bytes;
            Ok(bytes)
        } else {
            Err(invalid(format!("{name} is no member of a backup")))
        }
    }

    fn entries(&mut self, name: &str, content: &mut dyn Read) -> io::Result<u64> {
        let mut bytes = Vec::new();
        content.take(ENTRIES_BYTES_MAX).read_to_end(&mut bytes)?;
        let mut writes = Writes::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (entry, after) = read_entry(rest).ok_or_else(|| invalid(format!("{name} is damaged")))?;
            rest = after;
            self.entries += 1;
            let pending = Pending {
                revision: entry.revision,
                value: Some(entry.value),
            };
            writes.insert(entry.key, pending);
        }
        let applied = self.apply(&writes, Sequence::FIRST);
        self.note(applied)?;
        Ok(bytes.len() as u64)
    }

    fn apply(&self, writes: &Writes, position: Sequence) -> Result<(), OpsError> {
        let failed = |error: TreeError| OpsError::Store(error.into());
        self.tree.apply(writes, position).map_err(failed)?;
        if self.tree.unflushed_bytes() >= FLUSH_BYTES || position > Sequence::FIRST {
            self.tree.flush().map_err(failed)?;
        }
        Ok(())
    }

    fn copy(&mut self, mut content: impl Read, path: &Path) -> io::Result<u64> {
        let created = fs::File::create_new(path).map_err(OpsError::io("make", path));
        let mut file = self.note(created)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut bytes = 0;
        loop {
            let read = content.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            let written = file
                .write_all(&chunk[..read])
                .map_err(OpsError::io("write", path));
            self.note(written)?;
            bytes += read as u64;
        }
        let synced = file.sync_all().map_err(OpsError::io("sync", path));
        self.note(synced)?;
        Ok(bytes)
    }

    fn note<T>(&mut self, done: Result<T, OpsError>) -> io::Result<T> {
        done.map_err(|error| {
            let text = invalid(error.to_string());
            self.failed = Some(error);
            text
        })
    }

    fn finish(self, manifest: &Manifest, archive_bytes: u64) -> Result<BackupReport, OpsError> {
        self.apply(&Writes::new(), manifest.position)?;
        while self
            .tree
            .compact()
            .map_err(|error| OpsError::Store(error.into()))?
        {}
        sync_directory_of(&self.log.join("."))?;
        Ok(BackupReport {
            entries: self.entries,
            log_bytes: self.log_bytes,
            archive_bytes,
            next: manifest.next,
        })
    }
}

fn put_in_place(staging: &Path, dir: &Path) -> Result<(), OpsError> {
    for name in ["log", "tables"] {
        let from = staging.join(name);
        fs::rename(&from, dir.join(name)).map_err(OpsError::io("move", from))?;
    }
    sync_directory_of(&dir.join(VERSION))?;
    let from = staging.join(VERSION);
    fs::rename(&from, dir.join(VERSION)).map_err(OpsError::io("move", from))?;
    fs::remove_dir_all(staging).map_err(OpsError::io("remove", staging))?;
    sync_directory_of(&dir.join(VERSION))
}
