//! Reading a segment from front to back, over what is damaged.

use std::{io, sync::Arc};

use broker_core::store::Sequence;

use super::frame::{Body, HEADER_BYTES, Header, MAGIC, Seed};
use crate::files::File;

/// Bytes read at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// What stands next in a segment.
pub(crate) enum Scanned<'a> {
    /// A commit as it was written, at this offset.
    Frame(u64, Header, Body<'a>),
    /// No commit can be read from the first offset up to the second.
    Lost(u64, u64),
    /// Nothing.
    End,
}

/// Goes through the frames of a segment.
pub(crate) struct Scanner {
    file: Arc<dyn File>,
    /// Bytes of the file that count.
    len: u64,
    seed: Seed,
    at: u64,
    /// No later frame may begin before this.
    expected: Sequence,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl Scanner {
    /// From the offset `at`, where a frame begins whose sequence is `expected` or later.
    pub(crate) fn new(file: Arc<dyn File>, len: u64, at: u64, expected: Sequence, seed: Seed) -> Scanner {
        Scanner {
            file,
            len,
            seed,
            at,
            expected,
            buffer: Vec::new(),
            buffer_at: 0,
        }
    }

    /// The next frame or gap.
    pub(crate) fn step(&mut self) -> io::Result<Scanned<'_>> {
        let from = self.at;
        while self.at < self.len {
            match self.frame_at(self.at)? {
                Some((header, true)) if self.at == from => {
                    self.at = from + header.frame_len();
                    self.expected = header.next();
                    let start = (from - self.buffer_at) as usize;
                    let bytes = &self.buffer[start + HEADER_BYTES..start + header.frame_len() as usize];
                    let body = Body::verify(&header, bytes, self.seed);
                    return Ok(match body {
                        Some(body) => Scanned::Frame(from, header, body),
                        None => Scanned::Lost(from, self.at),
                    });
                }
                Some((_, true)) => break,
                Some((header, false)) => self.at = (self.at + header.frame_len()).min(self.len),
                None => self.at = self.find_magic(self.at + 1)?,
            }
        }
        Ok(if from == self.at {
            Scanned::End
        } else {
            Scanned::Lost(from, self.at)
        })
    }

    /// The header at an offset, and whether the frame is whole; afterwards a whole frame is in the buffer.
    fn frame_at(&mut self, at: u64) -> io::Result<Option<(Header, bool)>> {
        if self.len - at < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let seed = self.seed;
        let Some(header) = Header::parse(self.window(at, HEADER_BYTES as u64)?, seed) else {
            return Ok(None);
        };
        // A frame from before would bring back what was superseded.
        if header.first < self.expected {
            return Ok(Some((header, false)));
        }
        if header.frame_len() > self.len - at {
            return Ok(Some((header, false)));
        }
        let bytes = self.window(at, header.frame_len())?;
        let whole = Body::verify(&header, &bytes[HEADER_BYTES..], seed).is_some();
        Ok(Some((header, whole)))
    }

    /// The first offset from `at` on where a frame may begin.
    fn find_magic(&mut self, mut at: u64) -> io::Result<u64> {
        while at + HEADER_BYTES as u64 <= self.len {
            let bytes = self.window(at, (self.len - at).min(CHUNK_BYTES))?;
            if let Some(found) = bytes.windows(MAGIC.len()).position(|bytes| bytes == MAGIC) {
                return Ok(at + found as u64);
            }
            // The magic may lie across the end of the window.
            at += (bytes.len() - (MAGIC.len() - 1)) as u64;
        }
        Ok(self.len)
    }

    /// These bytes, which the file has.
    fn window(&mut self, at: u64, len: u64) -> io::Result<&[u8]> {
        let buffered = self.buffer_at..self.buffer_at + self.buffer.len() as u64;
        if !(buffered.contains(&at) && at + len <= buffered.end) {
            let wanted = len.max(CHUNK_BYTES).min(self.len - at);
            self.buffer.clear();
            self.buffer.resize(wanted as usize, 0);
            self.buffer_at = at;
            self.file
                .read_at(&mut self.buffer, at)
                .inspect_err(|_| self.buffer.clear())?;
        }
        let start = (at - self.buffer_at) as usize;
        Ok(&self.buffer[start..start + len as usize])
    }
}
