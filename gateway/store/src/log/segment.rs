//! The files of the log.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use broker_core::{Timestamp, store::Sequence};

use super::frame::{Seed, u32_at, u64_at};

/// Bytes before the first frame of a segment.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;
const MAGIC: [u8; 8] = *b"TGSEG\0\0\x01";

/// Sums over everything ever appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    /// Bytes of their data.
    pub(crate) record_bytes: u64,
    /// Commits with a dedup id.
    pub(crate) dedups: u64,
}

/// What a segment starts with: magic, identity of the store, base, time, totals (three times u64), number of the segment u32, CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) base: Sequence,
    /// When it was begun, and the segment before it ended.
    pub(crate) created: Timestamp,
    /// Sums over what stands before it.
    pub(crate) before: Totals,
    /// Counts the segments, so that a missing one is seen.
    pub(crate) number: u32,
}

impl SegmentHeader {
    pub(crate) fn bytes(&self, store_id: u64, seed: Seed) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        let Totals {
            records,
            record_bytes,
            dedups,
        } = self.before;
        let numbers = [
            store_id,
            self.base.0,
            self.created.as_millis(),
            records,
            record_bytes,
            dedups,
        ];
        for (at, number) in numbers.into_iter().enumerate() {
            bytes[8 + at * 8..16 + at * 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[56..60].copy_from_slice(&self.number.to_le_bytes());
        let crc = seed.sum(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if these bytes do not begin a segment of this store.
    pub(crate) fn parse(bytes: &[u8], seed: Seed) -> Option<SegmentHeader> {
        let bytes = bytes.first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>()?;
        if bytes[..8] != MAGIC || u32_at(bytes, 60)? != seed.sum(&bytes[..60]) {
            return None;
        }
        Some(SegmentHeader {
            base: Sequence(u64_at(bytes, 16)?),
            created: Timestamp::from_millis(u64_at(bytes, 24)?),
            before: Totals {
                records: u64_at(bytes, 32)?,
                record_bytes: u64_at(bytes, 40)?,
                dedups: u64_at(bytes, 48)?,
            },
            number: u32_at(bytes, 56)?,
        })
    }
}

/// A segment, open for commits or sealed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: Sequence,
    pub(crate) path: PathBuf,
    pub(crate) before: Totals,
    /// Set when it is sealed.
    pub(crate) end: OnceLock<SegmentEnd>,
}

/// What is known of a segment when it is sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentEnd {
    /// After its last commit.
    pub(crate) next: Sequence,
    /// Bytes of the file.
    pub(crate) len: u64,
    /// Sums up to its end.
    pub(crate) totals: Totals,
    /// No commit in it is later.
    pub(crate) last: Timestamp,
}

impl Segment {
    pub(crate) fn new(dir: &Path, base: Sequence, before: Totals) -> Segment {
        Segment {
            base,
            path: segment_path(dir, base),
            before,
            end: OnceLock::new(),
        }
    }

    /// Its index file.
    pub(crate) fn index_path(&self) -> PathBuf {
        self.path.with_extension("idx")
    }
}

/// The file of the segment with this base.
pub(crate) fn segment_path(dir: &Path, base: Sequence) -> PathBuf {
    dir.join(format!("{:020}.log", base.0))
}

/// The base of a segment; `None`: it is no segment's name.
pub(crate) fn segment_base(path: &Path) -> Option<Sequence> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    let digits = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
    Some(Sequence(digits.then(|| name.parse().ok())??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written_or_not_at_all() {
        let header = SegmentHeader {
            base: Sequence(9),
            created: Timestamp::from_millis(8),
            before: Totals {
                records: 7,
                record_bytes: 6,
                dedups: 5,
            },
            number: 4,
        };
        let seed = Seed::new(3);
        let mut bytes = header.bytes(3, seed);
        assert_eq!(SegmentHeader::parse(&bytes, seed), Some(header));
        assert_eq!(SegmentHeader::parse(&bytes[..63], seed), None);
        for at in 0..bytes.len() {
            bytes[at] ^= 0x10;
            assert_eq!(SegmentHeader::parse(&bytes, seed), None, "byte {at}");
            bytes[at] ^= 0x10;
        }
    }

    #[test]
    fn names_are_twenty_digits() {
        let path = segment_path(Path::new("x"), Sequence(u64::MAX));
        assert_eq!(segment_base(&path), Some(Sequence(u64::MAX)));
        for other in [
            "1.log",
            "00000000000000000001.idx",
            "0000000000000000000a.log",
            "99999999999999999999.log",
        ] {
            assert_eq!(segment_base(Path::new(other)), None, "{other}");
        }
    }
}
