//! Room that is kept for a full disk, so that the store can empty itself.
//!
//! What frees room needs some first: sessions commit how far they have read, and the tables are flushed before a
//! segment of the log goes. So a file that holds nothing of use is kept, and given up when the disk is full. From
//! then on records are refused, and everything else has its room.
//!
//! | file `reserve` | means |
//! |---|---|
//! | has bytes | this much is kept |
//! | is empty | it was given up; records are refused until it could be made again, also by a later process |
//! | is missing | there never was room for it; the store works, but may need the operator when the disk is full |
//!
//! It is never synced: it only has to be there while the file system counts it. A new one gets its name with its first
//! bytes, so that a process that is killed meanwhile leaves none that is empty.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tracing::{debug, info, warn};

use crate::{
    files::{File, Files},
    options::Options,
    stats::{State, StoreStats, set},
};

/// Its name in the data directory.
pub(crate) const NAME: &str = "reserve";
const BYTES_MIN: u64 = 4 << 20;
const BYTES_MAX: u64 = 64 << 20;
/// Bytes written at a time: more than a file system compresses together.
const BLOCK_BYTES: usize = 256 << 10;

/// What was done for somebody who has found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GaveWay {
    /// The reserve was just being made: the room that this took is free again, so it is worth another try.
    Stopped,
    /// The reserve was given up.
    Freed,
    /// There is none.
    Nothing,
}

/// The file that is given up when the disk is full.
pub(crate) struct Reserve {
    files: Arc<dyn Files>,
    path: PathBuf,
    /// Its size; 0: the store has none.
    bytes: u64,
    stats: Arc<StoreStats>,
    held: Mutex<Held>,
    /// As in `held`, for those who cannot wait.
    is_spent: AtomicBool,
    /// Grows when an attempt to make it begins and when it ends; odd: one is under way.
    tries: AtomicU64,
    /// The attempt that is under way shall end.
    is_room_wanted: AtomicBool,
    is_closing: AtomicBool,
}

#[derive(Clone, Copy, Default)]
struct Held {
    bytes: u64,
    /// It was given up, and not made since.
    is_spent: bool,
}

impl Reserve {
    /// Looks what there is; makes nothing yet.
    pub(crate) fn open(options: &Options, stats: Arc<StoreStats>) -> Reserve {
        let by_default = options.segment_bytes.clamp(BYTES_MIN, BYTES_MAX);
        let bytes = options.reserve_bytes.unwrap_or(by_default);
        let path = options.dir.join(NAME);
        let found = match options.files.open(&path).and_then(|file| file.len()) {
            Ok(len) => Some(len),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), "the reserve for a full disk cannot be examined: {error}");
                None
            }
        };
        let held = Held {
            bytes: found.unwrap_or(0),
            is_spent: bytes > 0 && found == Some(0),
        };
        if held.is_spent {
            stats.set_state(State::Full);
        }
        set(&stats.reserve_bytes, held.bytes);
        Reserve {
            files: Arc::clone(&options.files),
            path,
            bytes,
            stats,
            held: Mutex::new(held),
            is_spent: AtomicBool::new(held.is_spent),
            tries: AtomicU64::new(0),
            is_room_wanted: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
        }
    }

    /// True while records are refused.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent.load(Ordering::Acquire)
    }

    /// True if there is less of it than there should be.
    pub(crate) fn is_short(&self) -> bool {
        let held = self.lock();
        held.bytes < self.bytes
    }

    /// What [`give_way`](Self::give_way) is to be told: taken before something is written.
    pub(crate) fn tries(&self) -> u64 {
        self.tries.load(Ordering::Acquire)
    }

    /// Frees what it can for somebody who has found no room.
    pub(crate) fn give_way(&self, tries_before: u64) -> GaveWay {
        if self.bytes == 0 {
            return GaveWay::Nothing;
        }
        self.is_room_wanted.store(true, Ordering::Release);
        let mut held = self.lock();
        self.is_room_wanted.store(false, Ordering::Release);
        if tries_before % 2 == 1 || self.tries() != tries_before {
            return GaveWay::Stopped;
        }
        if held.bytes == 0 {
            return GaveWay::Nothing;
        }
        if let Err(error) = self.files.open(&self.path).and_then(|file| file.truncate(0)) {
            warn!(path = %self.path.display(), "the reserve for a full disk cannot be given up: {error}");
            return GaveWay::Nothing;
        }
        warn!(
            path = %self.path.display(), bytes = held.bytes,
            "the file system is full: its reserve was given up; no more messages are stored until sessions have \
             taken theirs, or somebody has made room"
        );
        *held = Held {
            bytes: 0,
            is_spent: true,
        };
        self.tell(*held);
        self.stats.set_state(State::Full);
        GaveWay::Freed
    }

    /// Makes it as large as it should be, if there is room.
    pub(crate) fn make(&self) {
        let mut held = self.lock();
        if held.bytes >= self.bytes || self.is_closing.load(Ordering::Acquire) {
            return;
        }
        self.tries.fetch_add(1, Ordering::AcqRel);
        let made = self.fill(*held);
        match &made {
            Ok(()) => {
                let was_spent = std::mem::take(&mut held.is_spent);
                held.bytes = self.bytes;
                self.tell(*held);
                if was_spent && self.stats.set_state(State::Ok) == State::Full {
                    info!("there is room again: the store takes messages");
                }
            }
            Err(error) => self.take_back(*held, error),
        }
        self.tries.fetch_add(1, Ordering::AcqRel);
    }

    /// A commit has found room.
    pub(crate) fn committed(&self) {
        if self.stats.state() != State::Full || self.is_spent() {
            return;
        }
        // Whoever gives it up says so under this lock, too.
        let held = self.lock();
        if !held.is_spent && self.stats.set_state(State::Ok) == State::Full {
            info!("there is room again: the store takes commits");
        }
    }

    /// Nothing is made any more.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    fn fill(&self, held: Held) -> io::Result<()> {
        let block = noise();
        let file = match self.files.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.begin(&block)?,
            other => other?,
        };
        // If it was given up, records must find some room as well, or it would be given up again at once.
        let room = if held.is_spent { self.bytes / 4 } else { 0 };
        let mut missing = (self.bytes + room).saturating_sub(file.len()?);
        while missing > 0 {
            if self.is_room_wanted.load(Ordering::Acquire) || self.is_closing.load(Ordering::Acquire) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let part = block.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
            file.append(&block[..part])?;
            missing -= part as u64;
        }
        if room > 0 {
            file.truncate(self.bytes)?;
        }
        Ok(())
    }

    /// The file with its first bytes.
    fn begin(&self, block: &[u8]) -> io::Result<Arc<dyn File>> {
        let unnamed = self.path.with_extension("new");
        let file = match self.files.open(&unnamed) {
            // Of a process that was killed here.
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.files.create(&unnamed)?,
            Err(error) => return Err(error),
        };
        let first = block.len().min(usize::try_from(self.bytes).unwrap_or(usize::MAX));
        let named = file
            .truncate(0)
            .and_then(|()| file.append(&block[..first]))
            .and_then(|()| self.files.rename(&unnamed, &self.path));
        if let Err(error) = named {
            // What it took is needed by others; if even this fails, the next attempt begins with what is left.
            let _ = self.files.remove(&unnamed);
            return Err(error);
        }
        Ok(file)
    }

    /// An attempt has failed: the room that it took is needed by others.
    fn take_back(&self, held: Held, error: &io::Error) {
        let taken_back = if held.bytes == 0 && !held.is_spent {
            self.files.remove(&self.path)
        } else {
            let file = self.files.open(&self.path);
            file.and_then(|file| file.truncate(held.bytes))
        };
        if let Err(error) = taken_back
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(path = %self.path.display(), "the reserve for a full disk cannot be cut back: {error}");
        }
        if held.is_spent || error.kind() == io::ErrorKind::Interrupted {
            debug!("the reserve for a full disk could not be made again: {error}");
        } else {
            warn!(
                path = %self.path.display(), bytes = self.bytes,
                "the reserve for a full disk cannot be made, the store goes on without it: {error}"
            );
        }
    }

    fn tell(&self, held: Held) {
        self.is_spent.store(held.is_spent, Ordering::Release);
        set(&self.stats.reserve_bytes, held.bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that no file system makes smaller.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(BLOCK_BYTES / 8).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Fault, FaultyFiles, Operation};

    const BYTES: usize = 600 << 10;

    fn open(files: &FaultyFiles) -> (Reserve, Arc<StoreStats>) {
        let mut options = Options::new("d");
        options.files = Arc::new(files.clone());
        options.reserve_bytes = Some(BYTES as u64);
        let stats = Arc::new(StoreStats::default());
        (Reserve::open(&options, Arc::clone(&stats)), stats)
    }

    /// Killed behind any write: from there on nothing is written, and nothing is cleaned up.
    #[test]
    fn a_process_that_is_killed_while_it_is_made_has_not_given_it_up() {
        for after in 0..3 {
            let files = FaultyFiles::new();
            for (operation, after) in [(Operation::Append, after), (Operation::Remove, 0)] {
                files.fail(Fault {
                    operation,
                    after,
                    lasting: true,
                    kind: io::ErrorKind::Other,
                    written: 0,
                });
            }
            let (killed, _) = open(&files);
            killed.make();
            files.heal();
            let (next, stats) = open(&files);
            assert!(!next.is_spent() && stats.state() != State::Full, "{after}");
            next.make();
            assert_eq!(files.paths(), [PathBuf::from("d/reserve")]);
            assert_eq!(files.bytes(&next.path).map(|bytes| bytes.len()), Some(BYTES));
        }
    }
}
