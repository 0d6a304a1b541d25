//! Files that are read in pages, each with its own CRC.

use std::{collections::VecDeque, io, sync::Arc};

use hashbrown::HashMap;

use crate::{files::File, log::frame::Seed};

/// Bytes of a page in the file.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Bytes of a page that are content; the rest is its CRC.
pub(crate) const CONTENT_BYTES: usize = PAGE_BYTES - 4;

type PageKey = (u64, u32);

/// Pages of files, within a bound of bytes. What was used since it came to the front of the queue gets another turn.
pub(crate) struct PageCache {
    pages: HashMap<PageKey, (Arc<[u8]>, bool), foldhash::fast::RandomState>,
    queue: VecDeque<PageKey>,
    pages_max: usize,
}

impl PageCache {
    pub(crate) fn new(bytes_max: usize) -> PageCache {
        PageCache {
            pages: HashMap::default(),
            queue: VecDeque::new(),
            pages_max: (bytes_max / PAGE_BYTES).max(16),
        }
    }

    /// The content of a page of the file that is known as `file_key`.
    pub(crate) fn page(
        &mut self,
        file_key: u64,
        file: &dyn File,
        number: u32,
        seed: Seed,
    ) -> io::Result<Arc<[u8]>> {
        let key = (file_key, number);
        if let Some((page, used)) = self.pages.get_mut(&key) {
            *used = true;
            return Ok(Arc::clone(page));
        }
        let mut bytes = [0; PAGE_BYTES];
        file.read_at(&mut bytes, u64::from(number) * PAGE_BYTES as u64)?;
        if bytes[CONTENT_BYTES..] != page_sum(&bytes[..CONTENT_BYTES], number, seed) {
            return Err(super::damaged());
        }
        let page: Arc<[u8]> = bytes[..CONTENT_BYTES].into();
        self.pages.insert(key, (Arc::clone(&page), false));
        self.queue.push_back(key);
        while self.pages.len() > self.pages_max
            && let Some(oldest) = self.queue.pop_front()
        {
            match self.pages.get_mut(&oldest) {
                Some((_, used)) if *used => {
                    *used = false;
                    self.queue.push_back(oldest);
                }
                _ => {
                    self.pages.remove(&oldest);
                }
            }
        }
        Ok(page)
    }

    /// Forgets the pages of a file.
    pub(crate) fn forget(&mut self, file_key: u64) {
        self.pages.retain(|key, _| key.0 != file_key);
        self.queue.retain(|key| key.0 != file_key);
    }
}

/// The CRC of a page; its number is part of it, so that pages cannot change places.
pub(crate) fn page_sum(content: &[u8], number: u32, seed: Seed) -> [u8; 4] {
    crc32c::crc32c_append(seed.sum(&number.to_le_bytes()), content).to_le_bytes()
}

/// Makes a paged file in memory.
pub(crate) struct PageWriter {
    seed: Seed,
    bytes: Vec<u8>,
}

impl PageWriter {
    pub(crate) fn new(seed: Seed) -> PageWriter {
        PageWriter {
            seed,
            bytes: Vec::new(),
        }
    }

    /// Adds content.
    pub(crate) fn write(&mut self, mut content: &[u8]) {
        while !content.is_empty() {
            let room = CONTENT_BYTES - self.bytes.len() % PAGE_BYTES;
            let (now, later) = content.split_at(room.min(content.len()));
            self.bytes.extend_from_slice(now);
            content = later;
            if now.len() == room {
                self.end_page();
            }
        }
    }

    /// The file.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let open = self.bytes.len() % PAGE_BYTES;
        if open != 0 {
            self.bytes.resize(self.bytes.len() + CONTENT_BYTES - open, 0);
            self.end_page();
        }
        self.bytes
    }

    fn end_page(&mut self) {
        let start = self.bytes.len() - CONTENT_BYTES;
        let number = (start / PAGE_BYTES) as u32;
        let sum = page_sum(&self.bytes[start..], number, self.seed);
        self.bytes.extend_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::files::{FaultyFiles, Files};

    fn read(bytes: Vec<u8>, number: u32) -> io::Result<Arc<[u8]>> {
        let files = FaultyFiles::new();
        let path = Path::new("/x");
        files.put(path, bytes);
        PageCache::new(0).page(1, &*files.open(path)?, number, Seed::new(1))
    }

    #[test]
    fn a_page_is_as_it_was_written_and_where_it_was_written() {
        let mut writer = PageWriter::new(Seed::new(1));
        let content: Vec<u8> = (0..CONTENT_BYTES + 9).map(|at| at as u8).collect();
        content.chunks(13).for_each(|piece| writer.write(piece));
        let bytes = writer.finish();
        assert_eq!(bytes.len(), 2 * PAGE_BYTES);
        assert_eq!(read(bytes.clone(), 0).unwrap()[..], content[..CONTENT_BYTES]);
        assert_eq!(read(bytes.clone(), 1).unwrap()[..9], content[CONTENT_BYTES..]);
        assert!(read(bytes.clone(), 2).is_err());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(read(flipped, (at / PAGE_BYTES) as u32).is_err(), "byte {at}");
        }
        let swapped = [&bytes[PAGE_BYTES..], &bytes[..PAGE_BYTES]].concat();
        assert!(read(swapped.clone(), 0).is_err() && read(swapped, 1).is_err());
    }
}
