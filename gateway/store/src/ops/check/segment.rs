//! The log: segments, frames, and index files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use broker_core::store::{Entry, Sequence};

use super::{BY_ITSELF, Check, RESTORE};
use crate::{
    files::{File, Files, RealFiles},
    log::{
        frame::{Body, HEADER_BYTES, Header},
        index::{self, MemoryIndex},
        scan::{Scanned, Scanner},
        segment::{SEGMENT_HEADER_BYTES, SegmentHeader},
    },
    ops::{Done, OpsError, Severity},
};

/// Between two segments.
#[derive(Clone, Copy, Default)]
struct Before {
    /// After the last commit.
    next: Sequence,
    /// Of the segment, if its header is whole.
    number: Option<u32>,
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

impl Check<'_> {
    /// Goes through the log; returns the next sequence.
    pub(super) fn segments(&mut self, segments: &[(Sequence, PathBuf)]) -> Result<Sequence, OpsError> {
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
        Ok(before.next.max(first))
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
                    return self.unusable_tables(&what);
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
        // That there is none is usual: it is made when the index has to leave memory.
        if found.is_some() {
            let bytes = fs::read(&path).map_err(OpsError::io("read", &path))?;
            if bytes == index::encode(index, segment.len, self.seed) {
                return Ok(());
            }
            let what = "it is not the index of its segment";
            self.report.add(Severity::Warning, &path, what, BY_ITSELF);
        }
        if self.repair {
            index::write(index, segment.len, &RealFiles, &path, self.seed)
                .map_err(OpsError::io("write", &path))?;
            self.report.repaired += 1;
        }
        Ok(())
    }
}
