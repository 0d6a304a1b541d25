//! A backup of a store that works.

use std::{
    fs,
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use broker_core::store::Sequence;

use super::{
    BackupReport, Done, OpsError, Tell,
    archive::{ArchiveWriter, ENTRIES, ENTRIES_BYTES, LOG, Manifest, VERSION, write_entry},
};
use crate::{
    Store,
    engine::Engine,
    files::{File, Files},
    log::segment::Segment,
    tables::Entries,
};

/// Bytes read of the log at a time.
const CHUNK_BYTES: u64 = 256 << 10;
/// A segment that is dropped while it is opened is passed over by looking again; more often is no coincidence.
const LOOKS_MAX: usize = 16;

/// How a backup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupOptions {
    /// Bytes read and written per second at most, so that the disk has time for the node. `None`: no limit.
    /// Default: 32 MiB.
    pub bytes_per_second: Option<u64>,
}

impl Default for BackupOptions {
    fn default() -> BackupOptions {
        BackupOptions {
            bytes_per_second: Some(32 << 20),
        }
    }
}

impl Store {
    /// Writes a backup into one file, a tar archive, while the store works: everything that was committed when this is
    /// called, and perhaps more, but always all commits up to one place. Other threads of the store are not held up but
    /// by the load on the disk. It is written under the name with `.partial` behind it, and renamed when it is on stable
    /// storage.
    ///
    /// This takes as long as it takes: it is to be called from a thread of its own.
    ///
    /// # Errors
    /// The archive exists, cannot be written, or the store cannot be read.
    pub fn backup(
        &self,
        archive: &Path,
        options: &BackupOptions,
        tell: Tell<'_>,
    ) -> Result<BackupReport, OpsError> {
        if archive.try_exists().map_err(OpsError::io("examine", archive))? {
            return Err(OpsError::Exists(archive.to_owned()));
        }
        let mut partial = archive.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let made = self.write_backup(&partial, options, tell).and_then(|report| {
            fs::rename(&partial, archive).map_err(OpsError::io("rename", &partial))?;
            sync_directory_of(archive)?;
            Ok(report)
        });
        if made.is_err() {
            // What there is of it is of no use; it is in nobody's way if it cannot be removed.
            let _ = fs::remove_file(&partial);
        }
        made
    }

    fn write_backup(
        &self,
        partial: &Path,
        options: &BackupOptions,
        tell: Tell<'_>,
    ) -> Result<BackupReport, OpsError> {
        let file = create_private(partial)?;
        let source = Source::hold(&self.engine, &*self.files)?;
        let version = self.dir.join(VERSION);
        let version = fs::read(&version).map_err(OpsError::io("read", version))?;
        let log_bytes = source.log.iter().map(|held| held.len).sum();
        let mut progress = Progress {
            tell,
            done: 0,
            total: log_bytes + self.engine.tables.size().bytes,
        };
        let mut archive = ArchiveWriter::new(BufWriter::new(file), options.bytes_per_second);
        let Source { entries, log, .. } = source;
        archive
            .member(VERSION, &version)
            .map_err(OpsError::io("write", partial))?;
        let entries = write_entries(&mut archive, entries, &mut progress, partial)?;
        for held in &log {
            write_segment(&mut archive, held, &mut progress, partial)?;
        }
        let (out, manifest): (BufWriter<fs::File>, Manifest) = archive
            .finish(source.position, source.next, entries)
            .map_err(OpsError::io("write", partial))?;
        let file = out.into_inner().map_err(|error| error.into_error());
        let file = file.map_err(OpsError::io("write", partial))?;
        file.sync_all().map_err(OpsError::io("sync", partial))?;
        let archive_bytes = file.metadata().map_err(OpsError::io("examine", partial))?.len();
        Ok(BackupReport {
            entries: manifest.entries,
            log_bytes,
            archive_bytes,
            next: manifest.next,
        })
    }
}

/// A new file that nobody else may read, as it has what clients have said. One that an earlier try left goes.
fn create_private(path: &Path) -> Result<fs::File, OpsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(OpsError::io("remove", path)(error));
        }
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let created = options.write(true).create_new(true).mode(0o600).open(path);
    created.map_err(OpsError::io("create", path))
}

/// Waits until the name of a file is on stable storage.
pub(super) fn sync_directory_of(path: &Path) -> Result<(), OpsError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    fs::File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(OpsError::io("sync", parent))
}

struct Progress<'a> {
    tell: Tell<'a>,
    done: u64,
    total: u64,
}

impl Progress<'_> {
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        (self.tell)(Done {
            what: "writing the backup",
            done: self.done,
            total: self.total.max(self.done),
        });
    }
}

/// A segment that stays readable, also if the store drops it.
struct Held {
    base: Sequence,
    file: Arc<dyn File>,
    len: u64,
}

/// Everything that was committed at one time.
struct Source {
    entries: Entries,
    /// The entries have nothing from here on.
    position: Sequence,
    log: Vec<Held>,
    next: Sequence,
}

impl Source {
    /// The log is held from where the entries end, or before; so it is opened first, and looked at again when the
    /// entries are fixed.
    fn hold(engine: &Engine, files: &dyn Files) -> Result<Source, OpsError> {
        for _ in 0..LOOKS_MAX {
            let mut open: Vec<(Arc<Segment>, Arc<dyn File>)> = Vec::new();
            if !open_segments(&engine.view.snapshot().segments, files, &mut open)? {
                continue;
            }
            let (entries, position) = engine
                .tables
                .snapshot()
                .map_err(broker_core::store::Fault::from)?;
            let snapshot = engine.view.snapshot();
            let last = open.last().map(|(segment, _)| segment.base);
            // If the last one is gone, others after it may be, too.
            let is_seamless = snapshot.segments.iter().any(|segment| Some(segment.base) == last);
            if !is_seamless || !open_segments(&snapshot.segments, files, &mut open)? {
                continue;
            }
            let held = open.into_iter().map(|(segment, file)| Held {
                base: segment.base,
                file,
                len: snapshot.len_of(&segment),
            });
            return Ok(Source {
                entries,
                position,
                log: held.collect(),
                next: snapshot.next,
            });
        }
        Err(OpsError::Damaged(
            "segments of the log vanish while they are opened".into(),
        ))
    }
}

/// Opens those segments that come after the ones that are open. False if one is there no more.
fn open_segments(
    segments: &[Arc<Segment>],
    files: &dyn Files,
    open: &mut Vec<(Arc<Segment>, Arc<dyn File>)>,
) -> Result<bool, OpsError> {
    let after = open.last().map(|(segment, _)| segment.base);
    for segment in segments
        .iter()
        .filter(|segment| after.is_none_or(|after| segment.base > after))
    {
        match files.open(&segment.path) {
            Ok(file) => open.push((Arc::clone(segment), file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(OpsError::io("open", &segment.path)(error)),
        }
    }
    Ok(true)
}

/// Returns how many there are.
fn write_entries<W: Write>(
    archive: &mut ArchiveWriter<W>,
    entries: Entries,
    progress: &mut Progress<'_>,
    path: &Path,
) -> Result<u64, OpsError> {
    let (mut count, mut members, mut content) = (0, 0_u64, Vec::new());
    let mut write = |content: &mut Vec<u8>| {
        let name = format!("{ENTRIES}{members}");
        archive
            .member(&name, content)
            .map_err(OpsError::io("write", path))?;
        progress.add(content.len() as u64);
        members += 1;
        content.clear();
        Ok::<_, OpsError>(())
    };
    for entry in entries {
        let entry = entry.map_err(|error| OpsError::Damaged(error.to_string()))?;
        write_entry(&entry, &mut content);
        count += 1;
        if content.len() >= ENTRIES_BYTES {
            write(&mut content)?;
        }
    }
    if !content.is_empty() {
        write(&mut content)?;
    }
    Ok(count)
}

fn write_segment<W: Write>(
    archive: &mut ArchiveWriter<W>,
    held: &Held,
    progress: &mut Progress<'_>,
    path: &Path,
) -> Result<(), OpsError> {
    let name = format!("{LOG}{:020}.log", held.base.0);
    let mut chunk = Vec::new();
    let written = archive.stream(&name, held.len, |at, write| {
        let bytes = CHUNK_BYTES.min(held.len - at);
        // At most a chunk.
        chunk.resize(bytes as usize, 0);
        held.file.read_at(&mut chunk, at)?;
        progress.add(bytes);
        write(&chunk)
    });
    written.map_err(OpsError::io("write a segment to", path))
}
