//! Appending to the log.

use std::{io, path::PathBuf, sync::Arc, time::Instant};

use broker_core::{Timestamp, store::Sequence};
use tracing::{error, warn};

use super::{
    frame::Seed,
    segment::{SEGMENT_HEADER_BYTES, Segment, SegmentEnd, SegmentHeader, Totals},
};
use crate::{
    files::{File, Files},
    stats::{State, StoreStats, add, max},
};

/// Why a group was not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// No room; the log is as it was before.
    Full,
    /// Nobody knows what is in the log; nothing more is appended.
    Failed(Box<str>),
}

/// A segment that has ended.
pub(crate) struct Rolled {
    pub(crate) end: SegmentEnd,
    pub(crate) file: Arc<dyn File>,
    pub(crate) next: Arc<Segment>,
}

/// The end of the log.
pub(crate) struct LogWriter {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) dir: PathBuf,
    pub(crate) store_id: u64,
    pub(crate) seed: Seed,
    pub(crate) segment_bytes: u64,
    /// Whether a group is synced before it counts.
    pub(crate) sync: bool,
    pub(crate) stats: Arc<StoreStats>,
    pub(crate) segment: Arc<Segment>,
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn File>,
    /// Committed bytes of the segment.
    pub(crate) len: u64,
    pub(crate) next: Sequence,
    pub(crate) totals: Totals,
    /// Of the latest commit.
    pub(crate) last: Timestamp,
    /// The name of the segment may not be on stable storage.
    pub(crate) dir_dirty: bool,
    /// This segment must not go on: because the next could not be begun, whose file may still be there after a crash,
    /// or because this one is to be dropped soon.
    pub(crate) roll_due: bool,
    pub(crate) failed: Option<Box<str>>,
}

impl LogWriter {
    /// Ends the segment if `bytes` more would make it too long.
    pub(crate) fn make_room(&mut self, bytes: u64, now: Timestamp) -> Result<Option<Rolled>, AppendError> {
        if let Some(why) = &self.failed {
            return Err(AppendError::Failed(why.clone()));
        }
        let fits = self.len + bytes <= self.segment_bytes || self.len == SEGMENT_HEADER_BYTES;
        // Places in a segment are counted with 32 bits.
        let far = self.next.0 - self.segment.base.0 > 1 << 31;
        if fits && !far && !self.roll_due {
            return Ok(None);
        }
        self.roll_due = true;
        let segment = Segment::new(&self.dir, self.next, self.totals);
        let created = now.max(self.last);
        let header = SegmentHeader {
            base: self.next,
            created,
            before: self.totals,
            number: self.number.wrapping_add(1),
        };
        let file = create_segment(&*self.files, &segment, &header.bytes(self.store_id, self.seed));
        let file = file.map_err(|error| self.refuse("begin a segment", &error))?;
        add(&self.stats.bytes_appended, SEGMENT_HEADER_BYTES);
        add(&self.stats.segments, 1);
        add(&self.stats.log_bytes, SEGMENT_HEADER_BYTES);
        let end = SegmentEnd {
            next: self.next,
            len: self.len,
            totals: self.totals,
            last: created,
        };
        self.segment = Arc::new(segment);
        self.number = header.number;
        self.roll_due = false;
        self.len = SEGMENT_HEADER_BYTES;
        self.dir_dirty = true;
        Ok(Some(Rolled {
            end,
            file: std::mem::replace(&mut self.file, file),
            next: Arc::clone(&self.segment),
        }))
    }

    /// What comes next goes into another segment, so that this one can be dropped whole.
    pub(crate) fn end_segment(&mut self) {
        self.roll_due |= self.next > self.segment.base;
    }

    /// Appends a group of frames, and syncs it.
    pub(crate) fn append(&mut self, group: &[u8]) -> Result<(), AppendError> {
        if let Some(why) = &self.failed {
            return Err(AppendError::Failed(why.clone()));
        }
        if let Err(error) = self.file.append(group) {
            return Err(self.cut_back(&error));
        }
        if self.sync {
            self.sync_segment()?;
        }
        self.len += group.len() as u64;
        add(&self.stats.bytes_appended, group.len() as u64);
        add(&self.stats.log_bytes, group.len() as u64);
        Ok(())
    }

    /// Syncs the segment, and its name if that is new. A sync that fails is not tried again: the kernel may have
    /// dropped what it could not write, and would say yes.
    pub(crate) fn sync_segment(&mut self) -> Result<(), AppendError> {
        if let Some(why) = &self.failed {
            return Err(AppendError::Failed(why.clone()));
        }
        let start = Instant::now();
        let mut result = self.file.sync();
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        add(&self.stats.fsyncs, 1);
        add(&self.stats.fsync_micros, micros);
        max(&self.stats.fsync_micros_max, micros);
        if result.is_ok() && self.dir_dirty {
            result = self.files.sync_dir(&self.dir);
        }
        match result {
            Ok(()) => {
                self.dir_dirty = false;
                Ok(())
            }
            Err(error) => Err(self.fail("sync the log", &error)),
        }
    }

    /// Nothing is appended any more.
    pub(crate) fn fail(&mut self, action: &str, error: &io::Error) -> AppendError {
        let why: Box<str> = format!("cannot {action}: {error}").into();
        error!(path = %self.segment.path.display(), "the store has failed, nothing is acknowledged until it is opened again: {why}");
        self.stats.set_state(State::Failed);
        self.failed = Some(why.clone());
        AppendError::Failed(why)
    }

    /// A write did not end well: takes back the part that was written.
    fn cut_back(&mut self, error: &io::Error) -> AppendError {
        // Frames that were refused must not come back after a crash, so the cut is synced, too.
        let cut = self
            .file
            .truncate(self.len)
            .and_then(|()| if self.sync { self.file.sync() } else { Ok(()) });
        match cut {
            Ok(()) => self.refuse("append to the log", error),
            Err(cut) => self.fail("take back a write that failed", &cut),
        }
    }

    /// The log is as before; whether it may go on depends on what went wrong.
    fn refuse(&mut self, action: &str, error: &io::Error) -> AppendError {
        if !is_full(error) {
            return self.fail(action, error);
        }
        if self.stats.set_state(State::Full) == State::Ok {
            warn!(path = %self.segment.path.display(), "the file system is full: commits fail until there is room");
        }
        AppendError::Full
    }
}

/// Whether the operating system says that there is no room; a write that ended early says so, too.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::WriteZero
    )
}

/// Makes a segment's file with its header; what cannot be finished is removed.
pub(crate) fn create_segment(
    files: &dyn Files,
    segment: &Segment,
    header: &[u8],
) -> io::Result<Arc<dyn File>> {
    let file = match files.create(&segment.path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Left from a try that found no room; nothing was ever committed to it.
            files.remove(&segment.path)?;
            files.create(&segment.path)?
        }
        other => other?,
    };
    if let Err(error) = file.append(header) {
        if let Err(remove) = files.remove(&segment.path) {
            warn!(path = %segment.path.display(), "cannot remove a segment that could not be begun: {remove}");
        }
        return Err(error);
    }
    Ok(file)
}
