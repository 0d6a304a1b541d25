//! The tree of sorted files that holds the entries.
//!
//! One tree holds everything: `key → revision (8 bytes, the higher first) · value`. A further key that no entry can
//! have, [`POSITION`], holds the first sequence of the log that is not applied. It is written with each flush, so the
//! files always are the state after some commit, whenever the process ends.

use std::{
    any::Any,
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use broker_core::store::{Entry, Fault, Key, Revision, Sequence};
use bytes::Bytes;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, DescriptorTable, Guard as _, IterGuardImpl, SeqNo,
    SequenceNumberCounter, Slice, compaction::Leveled,
};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

use super::overlay::Writes;
use crate::options::OpenError;

/// No entry has this key: keys are made of letters, digits, `-`, `_`, `=` and dots.
const POSITION: [u8; 1] = [0];
/// The file whose presence says that there is a tree.
const CURRENT: &str = "current";
/// Where the tree has its files.
const FILES: &str = "tables";
/// Files that are held open.
const OPEN_FILES_MAX: usize = 64;
/// Bytes of the files that compaction makes, so that it needs little room at a time.
const FILE_BYTES: u64 = 16 << 20;
/// The same for a compaction of everything, which an operator asks for.
const MAJOR_FILE_BYTES: u64 = 64 << 20;

/// Why something could not be done with the tree.
#[derive(Clone, Debug, Error)]
pub(crate) enum TreeError {
    /// No room on the file system.
    #[error("no room: {0}")]
    Full(Arc<str>),
    /// A file is damaged or missing.
    #[error("damaged: {0}")]
    Damaged(Arc<str>),
    /// The operating system refused.
    #[error("{0}")]
    Io(Arc<str>),
}

impl From<lsm_tree::Error> for TreeError {
    fn from(error: lsm_tree::Error) -> TreeError {
        match &error {
            lsm_tree::Error::Io(io) => match io.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => TreeError::Full(io.to_string().into()),
                // A file that ends too early or is not there was damaged.
                ErrorKind::UnexpectedEof | ErrorKind::NotFound | ErrorKind::InvalidData => {
                    TreeError::Damaged(io.to_string().into())
                }
                _ => TreeError::Io(io.to_string().into()),
            },
            _ => TreeError::Damaged(format!("{error:?}").into()),
        }
    }
}

impl From<TreeError> for Fault {
    fn from(error: TreeError) -> Fault {
        match error {
            TreeError::Full(_) => Fault::Full,
            error => Fault::Failed(format!("tables: {error}").into()),
        }
    }
}

/// The tree takes the order of its files for granted and panics where damaged ones contradict it.
fn guarded<T>(run: impl FnOnce() -> Result<T, TreeError>) -> Result<T, TreeError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(damaged(&panic_text(&*panic))))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("the files contradict each other")
        .to_owned()
}

fn damaged(what: &str) -> TreeError {
    TreeError::Damaged(what.into())
}

/// What the files of a tree say about its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TreeSize {
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Files.
    pub(crate) files: usize,
    /// Runs of files that overlap and wait for compaction.
    pub(crate) runs: usize,
    /// Keys with their older versions and deletions.
    pub(crate) items: usize,
}

/// The tree. Writes come from one thread; everything else may be called from any.
pub(crate) struct EntryTree {
    tree: AnyTree,
    /// Numbers the tree's own versions; nothing to do with the log's sequences.
    next: SequenceNumberCounter,
    visible: SequenceNumberCounter,
    strategy: Arc<Leveled>,
    /// Held while a batch is written, while a snapshot is taken, and while the version is read before which nothing
    /// needs to be kept: so a snapshot sees whole batches, and nothing that it needs goes away before it holds it.
    /// The first sequence that is not in the tree.
    gate: Mutex<Sequence>,
    /// Where the files are.
    files: PathBuf,
    /// Numbers of the files that were a part of the tree at some time.
    known: Mutex<BTreeSet<u64>>,
    /// Shared by what makes files; whoever removes what is left of a failure has it alone.
    making: RwLock<()>,
}

impl EntryTree {
    /// Opens the tree in `dir`, which is made if it does not exist, and says which sequence it needs first.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<(EntryTree, Sequence), OpenError> {
        let failed = |error: &TreeError| OpenError::Tables {
            path: dir.to_owned(),
            reason: error.to_string(),
        };
        fs::create_dir_all(dir).map_err(|error| OpenError::io("make the directory", dir, error))?;
        check_list(dir)?;
        let opened = guarded(|| Ok(EntryTree::open_files(dir, cache_bytes)?));
        let tree = opened.map_err(|error| failed(&error))?;
        let position = tree.read_position().map_err(|error| failed(&error))?;
        *tree.gate() = position;
        tree.remember_files().map_err(|error| failed(&error))?;
        Ok((tree, position))
    }

    fn open_files(dir: &Path, cache_bytes: u64) -> lsm_tree::Result<EntryTree> {
        let (next, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let tree = Config::new(dir, next.clone(), visible.clone())
            .use_cache(Arc::new(Cache::with_capacity_bytes(cache_bytes)))
            .use_descriptor_table(Some(Arc::new(DescriptorTable::new(OPEN_FILES_MAX))))
            .open()?;
        let first_free = tree.get_highest_seqno().map_or(0, |highest| highest + 1);
        next.fetch_max(first_free);
        visible.fetch_max(first_free);
        Ok(EntryTree {
            tree,
            next,
            visible,
            strategy: Arc::new(Leveled::default().with_table_target_size(FILE_BYTES)),
            gate: Mutex::new(Sequence::FIRST),
            files: dir.join(FILES),
            known: Mutex::default(),
            making: RwLock::default(),
        })
    }

    fn read_position(&self) -> Result<Sequence, TreeError> {
        let found = guarded(|| Ok(self.tree.get(POSITION, SeqNo::MAX)?))?;
        match found {
            Some(value) => {
                let bytes =
                    <[u8; 8]>::try_from(&*value).map_err(|_| damaged("the position has no 8 bytes"))?;
                Ok(Sequence(u64::from_be_bytes(bytes)))
            }
            None if self.tree.table_count() == 0 => Ok(Sequence::FIRST),
            None => Err(damaged("there are entries, but not how far they are")),
        }
    }

    fn gate(&self) -> MutexGuard<'_, Sequence> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies writes, in memory. Nothing before `position` is missing then.
    pub(crate) fn apply(&self, writes: &Writes, position: Sequence) -> Result<(), TreeError> {
        guarded(|| {
            let mut gate = self.gate();
            let version = self.next.next();
            for (key, pending) in writes {
                let key = key.as_str().as_bytes();
                match &pending.value {
                    Some(value) => self.tree.insert(key, encode(pending.revision, value), version),
                    None => self.tree.remove(key, version),
                };
            }
            self.visible.fetch_max(version + 1);
            *gate = position;
            Ok(())
        })
    }

    /// Bytes of the writes that are applied and not flushed.
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.tree.active_memtable().size()
    }

    /// Writes what is applied to files and syncs them. Returns the first sequence that is not in them.
    pub(crate) fn flush(&self) -> Result<Sequence, TreeError> {
        guarded(|| {
            let position = {
                let gate = self.gate();
                let version = self.next.next();
                self.tree.insert(POSITION, gate.0.to_be_bytes(), version);
                self.visible.fetch_max(version + 1);
                self.tree.rotate_memtable();
                *gate
            };
            let needed = self.oldest_needed();
            let _making = self.making.read().unwrap_or_else(PoisonError::into_inner);
            // What a flush that failed has left in memory is written along.
            self.tree.flush(&self.tree.get_flush_lock(), needed)?;
            self.remember_files()?;
            Ok(position)
        })
    }

    /// One step of compaction; false if there was nothing to do.
    pub(crate) fn compact(&self) -> Result<bool, TreeError> {
        guarded(|| {
            let before = self.size();
            let _making = self.making.read().unwrap_or_else(PoisonError::into_inner);
            self.tree
                .compact(Arc::clone(&self.strategy) as _, self.oldest_needed())?;
            self.remember_files()?;
            Ok(self.size() != before)
        })
    }

    /// Merges all files, leaving out what was replaced or deleted.
    pub(crate) fn compact_all(&self) -> Result<(), TreeError> {
        guarded(|| {
            let _making = self.making.read().unwrap_or_else(PoisonError::into_inner);
            self.tree.major_compact(MAJOR_FILE_BYTES, self.oldest_needed())?;
            self.remember_files()
        })
    }

    fn remember_files(&self) -> Result<(), TreeError> {
        let version = guarded(|| Ok(self.tree.current_version()))?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(version.iter_tables().map(lsm_tree::Table::id));
        Ok(())
    }

    /// Removes the files that a flush or compaction has begun and not finished: the tree leaves them where they are,
    /// and on a full disk every further attempt would take more room.
    pub(crate) fn remove_leftovers(&self) -> io::Result<()> {
        let _alone = self.making.write().unwrap_or_else(PoisonError::into_inner);
        let mut present = BTreeSet::new();
        for file in fs::read_dir(&self.files)? {
            let name = file?.file_name();
            present.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for leftover in present.difference(&known) {
            fs::remove_file(self.files.join(leftover.to_string()))?;
        }
        known.retain(|number| present.contains(number));
        Ok(())
    }

    fn oldest_needed(&self) -> SeqNo {
        let _gate = self.gate();
        self.visible.get()
    }

    pub(crate) fn size(&self) -> TreeSize {
        TreeSize {
            bytes: self.tree.disk_space(),
            files: self.tree.table_count(),
            runs: self.tree.l0_run_count(),
            items: self.tree.approximate_len(),
        }
    }

    /// The latest value of a key.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Entry>, TreeError> {
        guarded(|| {
            let found = self.tree.get(key.as_str().as_bytes(), SeqNo::MAX)?;
            found
                .map(|value| {
                    let (revision, value) = decode(&value)?;
                    Ok(Entry {
                        key: key.clone(),
                        revision,
                        value,
                    })
                })
                .transpose()
        })
    }

    /// The entries from a key on, as they are when they are reached.
    pub(crate) fn range(&self, from: Bound<&str>) -> Result<Entries, TreeError> {
        guarded(|| Ok(self.entries(from, SeqNo::MAX)))
    }

    /// All entries after some commit, and the first sequence that they do not know.
    pub(crate) fn snapshot(&self) -> Result<(Entries, Sequence), TreeError> {
        guarded(|| {
            let gate = self.gate();
            Ok((self.entries(Bound::Unbounded, self.visible.get()), *gate))
        })
    }

    fn entries(&self, from: Bound<&str>, version: SeqNo) -> Entries {
        let from = match from {
            Bound::Included("") | Bound::Unbounded => Bound::Excluded(&POSITION[..]),
            from => from.map(str::as_bytes),
        };
        Entries {
            items: self
                .tree
                .range::<&[u8], _>((from, Bound::Unbounded), version, None),
        }
    }
}

/// Entries by increasing key.
pub(crate) struct Entries {
    items: Box<dyn DoubleEndedIterator<Item = IterGuardImpl> + Send>,
}

impl Iterator for Entries {
    type Item = Result<Entry, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = guarded(|| {
            let Some(item) = self.items.next() else {
                return Ok(None);
            };
            let (key, value) = item.into_inner()?;
            let (revision, value) = decode(&value)?;
            let key = std::str::from_utf8(&key).ok().and_then(Key::new);
            Ok(Some(Entry {
                key: key.ok_or_else(|| damaged("a key that no entry can have"))?,
                revision,
                value,
            }))
        });
        next.transpose()
    }
}

fn encode(revision: Revision, value: &Bytes) -> Slice {
    [&revision.0.to_be_bytes()[..], value].concat().into()
}

fn decode(stored: &[u8]) -> Result<(Revision, Bytes), TreeError> {
    let (revision, value) = stored
        .split_first_chunk()
        .ok_or_else(|| damaged("a value of less than 8 bytes"))?;
    // Copied, so that a short value does not keep a whole block in memory.
    Ok((
        Revision(u64::from_be_bytes(*revision)),
        Bytes::copy_from_slice(value),
    ))
}

/// The tree does not look whether its list of files is whole, and would take files without a list for nothing.
fn check_list(dir: &Path) -> Result<(), OpenError> {
    let io = |error| OpenError::io("read", dir, error);
    let damaged = |reason: String| OpenError::Tables {
        path: dir.to_owned(),
        reason,
    };
    let current = match fs::read(dir.join(CURRENT)) {
        Ok(current) => current,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let files = dir.join(FILES);
            let has_files =
                files.try_exists().map_err(io)? && fs::read_dir(&files).map_err(io)?.next().is_some();
            return if has_files {
                Err(damaged(format!("the file {CURRENT} is missing")))
            } else {
                Ok(())
            };
        }
        Err(error) => return Err(io(error)),
    };
    // The number of the list, its checksum, and the kind of the checksum.
    let Some((number, rest)) = current.split_first_chunk() else {
        return Err(damaged(format!("the file {CURRENT} is too short")));
    };
    let list = dir.join(format!("v{}", u64::from_le_bytes(*number)));
    let bytes = match fs::read(&list) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(damaged(format!("{} is missing", list.display())));
        }
        Err(error) => return Err(io(error)),
    };
    if *rest != [&xxh3_128(&bytes).to_le_bytes()[..], &[0]].concat() {
        return Err(damaged(format!("{} or {CURRENT} is damaged", list.display())));
    }
    Ok(())
}
