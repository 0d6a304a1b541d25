//! A commit as it stands in a segment. All numbers are little-endian.
//!
//! ```text
//! frame   = header body
//! header  = magic u32 · CRC of the rest of the header u32 · length of the body u32 · CRC of the body u32
//!           first sequence u64 · records u32 · writes u32 · time in ms u64 · dedup id u128
//!           bytes from the start of its group u32 · flags u32 (1: has a dedup id)
//! body    = { record } { write }
//! record  = bytes of the data, highest bit: indexed u32 · CRC of sequence and data u32 · data
//! write   = kind u8 (0 put, 1 put record, 2 delete) · length of the key u8 · length of the value or number of the
//!           record u32 · key · value
//! ```
//!
//! The CRC of the body covers the records without their data, and the writes; so a single record can be read and
//! verified by itself, and no byte is summed twice. All CRCs (CRC-32C) start from the identity of the store: bytes that
//! look like a frame inside of somebody's payload are none.

use broker_core::{
    Timestamp,
    store::{DedupId, Key, NewRecord, Sequence, Value, Write},
};
use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

use crate::engine::Resolved;

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes before the data of a record.
pub(crate) const RECORD_OVERHEAD: usize = 8;
const WRITE_OVERHEAD: usize = 6;
/// What every frame starts with.
pub(crate) const MAGIC: [u8; 4] = *b"\xf7TGc";
const INDEXED: u32 = 1 << 31;
const HAS_DEDUP: u32 = 1;

/// What the CRCs of a store start from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(store_id: u64) -> Seed {
        Seed(crc32c(&store_id.to_le_bytes()))
    }

    pub(crate) fn sum(self, bytes: &[u8]) -> u32 {
        crc32c_append(self.0, bytes)
    }

    fn record(self, sequence: Sequence, data: &[u8]) -> u32 {
        crc32c_append(self.sum(&sequence.0.to_le_bytes()), data)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) body_len: u32,
    body_crc: u32,
    pub(crate) first: Sequence,
    pub(crate) records: u32,
    pub(crate) writes: u32,
    pub(crate) time: Timestamp,
    pub(crate) dedup: Option<DedupId>,
    /// Bytes between the start of the group that was written and synced together and this frame.
    pub(crate) group_back: u32,
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Header {
    /// The place after the commit.
    pub(crate) fn next(&self) -> Sequence {
        Sequence(self.first.0.saturating_add(u64::from(self.records.max(1))))
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_len(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.body_len)
    }

    /// `None` if these bytes are no header.
    pub(crate) fn parse(bytes: &[u8], seed: Seed) -> Option<Header> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        if bytes[..4] != MAGIC || u32_at(bytes, 4)? != seed.sum(&bytes[8..]) {
            return None;
        }
        let dedup = u128::from_le_bytes(*bytes[40..].first_chunk()?);
        Some(Header {
            body_len: u32_at(bytes, 8)?,
            body_crc: u32_at(bytes, 12)?,
            first: Sequence(u64_at(bytes, 16)?),
            records: u32_at(bytes, 24)?,
            writes: u32_at(bytes, 28)?,
            time: Timestamp::from_millis(u64_at(bytes, 32)?),
            dedup: (u32_at(bytes, 60)? & HAS_DEDUP != 0).then_some(DedupId(dedup)),
            group_back: u32_at(bytes, 56)?,
        })
    }

    fn write(&self, into: &mut [u8], seed: Seed) {
        into[..4].copy_from_slice(&MAGIC);
        into[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        into[12..16].copy_from_slice(&self.body_crc.to_le_bytes());
        into[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        into[24..28].copy_from_slice(&self.records.to_le_bytes());
        into[28..32].copy_from_slice(&self.writes.to_le_bytes());
        into[32..40].copy_from_slice(&self.time.as_millis().to_le_bytes());
        into[40..56].copy_from_slice(&self.dedup.map_or(0, |id| id.0).to_le_bytes());
        into[56..60].copy_from_slice(&self.group_back.to_le_bytes());
        into[60..64].copy_from_slice(&u32::from(self.dedup.is_some()).to_le_bytes());
        let crc = seed.sum(&into[8..HEADER_BYTES]);
        into[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

/// What is to become a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewFrame<'a> {
    pub(crate) first: Sequence,
    pub(crate) time: Timestamp,
    pub(crate) dedup: Option<DedupId>,
    pub(crate) records: &'a [NewRecord],
    pub(crate) writes: &'a [Write],
}

impl NewFrame<'_> {
    /// Bytes that the frame of these will have.
    pub(crate) fn len(records: &[NewRecord], writes: &[Write]) -> usize {
        let records: usize = records
            .iter()
            .map(|record| RECORD_OVERHEAD + record.data.len())
            .sum();
        let writes: usize = writes
            .iter()
            .map(|write| {
                let value = match &write.value {
                    Value::Put(value) => value.len(),
                    Value::PutRecord(_) | Value::Delete => 0,
                };
                WRITE_OVERHEAD + write.key.as_str().len() + value
            })
            .sum();
        HEADER_BYTES + records + writes
    }

    /// Appends the frame; the group starts at the start of `buffer`, and the caller has checked that its length fits
    /// in 32 bits.
    pub(crate) fn write(&self, buffer: &mut Vec<u8>, seed: Seed) {
        let start = buffer.len();
        buffer.resize(start + HEADER_BYTES, 0);
        let mut body_crc = seed.0;
        let mut sequence = self.first;
        for NewRecord { data, indexed } in self.records {
            let mut prefix = [0; RECORD_OVERHEAD];
            let len = data.len() as u32 | if *indexed { INDEXED } else { 0 };
            prefix[..4].copy_from_slice(&len.to_le_bytes());
            prefix[4..].copy_from_slice(&seed.record(sequence, data).to_le_bytes());
            body_crc = crc32c_append(body_crc, &prefix);
            buffer.extend_from_slice(&prefix);
            buffer.extend_from_slice(data);
            sequence = sequence.next();
        }
        let writes_at = buffer.len();
        for Write { key, value } in self.writes {
            let key = key.as_str().as_bytes();
            let (kind, argument, value): (u8, u32, &[u8]) = match value {
                Value::Put(value) => (0, value.len() as u32, value),
                Value::PutRecord(number) => (1, *number as u32, &[]),
                Value::Delete => (2, 0, &[]),
            };
            buffer.extend_from_slice(&[kind, key.len() as u8]);
            buffer.extend_from_slice(&argument.to_le_bytes());
            buffer.extend_from_slice(key);
            buffer.extend_from_slice(value);
        }
        let header = Header {
            body_len: (buffer.len() - start - HEADER_BYTES) as u32,
            body_crc: crc32c_append(body_crc, &buffer[writes_at..]),
            first: self.first,
            records: self.records.len() as u32,
            writes: self.writes.len() as u32,
            time: self.time,
            dedup: self.dedup,
            group_back: start as u32,
        };
        header.write(&mut buffer[start..], seed);
    }
}

/// A record in the body of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordAt<'a> {
    pub(crate) sequence: Sequence,
    /// From the start of the body to the record, which begins with its length and CRC.
    pub(crate) offset: usize,
    pub(crate) indexed: bool,
    pub(crate) data: &'a [u8],
}

/// The body of a frame, verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body<'a> {
    header: Header,
    bytes: &'a [u8],
    writes_at: usize,
}

impl<'a> Body<'a> {
    /// `None` unless every byte is as it was written.
    pub(crate) fn verify(header: &Header, bytes: &'a [u8], seed: Seed) -> Option<Body<'a>> {
        let mut crc = seed.0;
        let mut at = 0;
        let mut sequence = header.first;
        for _ in 0..header.records {
            let (data, end) = record_at(bytes, at, sequence, seed)?;
            crc = crc32c_append(crc, &bytes[at..end - data.len()]);
            at = end;
            sequence = sequence.next();
        }
        let writes_at = at;
        if crc32c_append(crc, &bytes[at..]) != header.body_crc {
            return None;
        }
        let body = Body {
            header: *header,
            bytes,
            writes_at,
        };
        // A CRC that fits by chance must not lead to half a commit.
        let mut writes = 0;
        for write in body.raw_writes() {
            write?;
            writes += 1;
        }
        (writes == header.writes).then_some(body)
    }

    /// The records in order.
    pub(crate) fn records(self) -> impl Iterator<Item = RecordAt<'a>> {
        let mut at = 0;
        let mut sequence = self.header.first;
        (0..self.header.records).map_while(move |_| {
            let prefix = u32_at(self.bytes, at)?;
            let start = at + RECORD_OVERHEAD;
            let data = self.bytes.get(start..start + (prefix & !INDEXED) as usize)?;
            let record = RecordAt {
                sequence,
                offset: at,
                indexed: prefix & INDEXED != 0,
                data,
            };
            at = start + data.len();
            sequence = sequence.next();
            Some(record)
        })
    }

    /// The writes in order, with their bytes.
    pub(crate) fn writes(self) -> Vec<Resolved> {
        // Memory for what is there, not for what the header claims: each one was verified.
        let mut resolved = Vec::with_capacity(self.header.writes as usize);
        let records: Vec<&[u8]> = if self.header.writes == 0 {
            Vec::new()
        } else {
            self.records().map(|record| record.data).collect()
        };
        for (key, value) in self.raw_writes().flatten() {
            let value = match value {
                RawValue::Put(value) => Some(Bytes::copy_from_slice(value)),
                RawValue::Record(number) => match records.get(number) {
                    Some(data) => Some(Bytes::copy_from_slice(data)),
                    None => continue,
                },
                RawValue::Delete => None,
            };
            resolved.push(Resolved { key, value });
        }
        resolved
    }

    fn raw_writes(self) -> impl Iterator<Item = Option<(Key, RawValue<'a>)>> {
        let mut at = self.writes_at;
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed || at == self.bytes.len() {
                return None;
            }
            let parsed = raw_write(self.bytes, at);
            failed = parsed.is_none();
            Some(parsed.map(|(key, value, end)| {
                at = end;
                (key, value)
            }))
        })
    }
}

enum RawValue<'a> {
    Put(&'a [u8]),
    Record(usize),
    Delete,
}

fn raw_write(bytes: &[u8], at: usize) -> Option<(Key, RawValue<'_>, usize)> {
    let [kind, key_len] = *bytes.get(at..)?.first_chunk()?;
    let argument = u32_at(bytes, at + 2)? as usize;
    let key_at = at + WRITE_OVERHEAD;
    let value_at = key_at + usize::from(key_len);
    let key = Key::new(std::str::from_utf8(bytes.get(key_at..value_at)?).ok()?)?;
    match kind {
        0 => {
            let end = value_at.checked_add(argument)?;
            Some((key, RawValue::Put(bytes.get(value_at..end)?), end))
        }
        1 => Some((key, RawValue::Record(argument), value_at)),
        2 => Some((key, RawValue::Delete, value_at)),
        _ => None,
    }
}

/// The data of the record that starts at `at`, and where the record ends; `None` if it is not as it was written.
pub(crate) fn record_at(bytes: &[u8], at: usize, sequence: Sequence, seed: Seed) -> Option<(&[u8], usize)> {
    let len = (u32_at(bytes, at)? & !INDEXED) as usize;
    let crc = u32_at(bytes, at + 4)?;
    let start = at + RECORD_OVERHEAD;
    let data = bytes.get(start..start.checked_add(len)?)?;
    (crc == seed.record(sequence, data)).then_some((data, start + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        Seed::new(42)
    }

    fn frame(buffer: &mut Vec<u8>) {
        let record = |data: &'static [u8], indexed| NewRecord {
            data: Bytes::from_static(data),
            indexed,
        };
        let write = |key, value| Write {
            key: Key::new(key).unwrap(),
            value,
        };
        NewFrame {
            first: Sequence(7),
            time: Timestamp::from_millis(99),
            dedup: Some(DedupId(5)),
            records: &[record(b"\0\x01aone", true), record(b"", false)],
            writes: &[
                write("s.a", Value::Put(Bytes::from_static(b"value"))),
                write("s.b", Value::PutRecord(0)),
                write("s.c", Value::Delete),
            ],
        }
        .write(buffer, seed());
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let mut bytes = vec![1, 2, 3];
        frame(&mut bytes);
        let header = Header::parse(&bytes[3..], seed()).unwrap();
        assert_eq!(
            (header.first, header.next(), header.dedup, header.group_back),
            (Sequence(7), Sequence(9), Some(DedupId(5)), 3)
        );
        assert_eq!(header.frame_len(), bytes.len() as u64 - 3);
        let body = Body::verify(&header, &bytes[3 + HEADER_BYTES..], seed()).unwrap();
        let records: Vec<_> = body
            .records()
            .map(|record| (record.sequence.0, record.indexed, record.data))
            .collect();
        assert_eq!(records, [(7, true, &b"\0\x01aone"[..]), (8, false, b"")]);
        let writes: Vec<_> = body
            .writes()
            .into_iter()
            .map(|write| (write.key.as_str().to_owned(), write.value))
            .collect();
        assert_eq!(
            writes,
            [
                ("s.a".to_owned(), Some(Bytes::from_static(b"value"))),
                ("s.b".to_owned(), Some(Bytes::from_static(b"\0\x01aone"))),
                ("s.c".to_owned(), None),
            ]
        );
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let mut bytes = Vec::new();
        frame(&mut bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = Header::parse(&bytes, seed())
                .and_then(|header| Body::verify(&header, &bytes[HEADER_BYTES..], seed()).map(|_| ()));
            assert!(read.is_none(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_frame_of_another_store_is_none() {
        let mut bytes = Vec::new();
        frame(&mut bytes);
        assert!(Header::parse(&bytes, seed()).is_some());
        assert!(Header::parse(&bytes, Seed::new(43)).is_none());
    }
}
