//! Files in memory that fail when they are told to, and lose what was not synced.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use super::{File, Files};

/// What is done with files, as far as it can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Files::create`]
    Create,
    /// [`Files::remove`]
    Remove,
    /// [`Files::sync_dir`]
    SyncDir,
    /// [`File::append`]
    Append,
    /// [`File::sync`]
    Sync,
    /// [`File::read_at`]
    Read,
    /// [`File::truncate`]
    Truncate,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What fails.
    pub operation: Operation,
    /// Calls before it that do not.
    pub after: u64,
    /// What the caller is told.
    pub kind: io::ErrorKind,
    /// Bytes that an append writes nevertheless.
    pub written: usize,
    /// Once, or from then on.
    pub lasting: bool,
}

/// A file at the moment of a crash.
#[derive(Clone, Copy, Debug)]
pub struct AtCrash<'a> {
    /// Its name.
    pub path: &'a Path,
    /// Bytes that were synced.
    pub synced: usize,
    /// Bytes that were written.
    pub len: usize,
    /// These bytes.
    pub bytes: &'a [u8],
    /// Whether its directory was synced since it was made.
    pub name_synced: bool,
}

/// Files in memory. A clone is the same files.
#[derive(Clone, Default)]
pub struct FaultyFiles {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    faults: Vec<Fault>,
    /// Bytes that can still be appended.
    room: Option<usize>,
    /// Syncs wait.
    held: bool,
    /// Syncs that wait.
    waiting: usize,
    counts: Counts,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of [`File::append`].
    pub appends: u64,
    /// Calls of [`File::sync`].
    pub syncs: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
    name_synced: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultyFiles {
    /// No files, no faults.
    pub fn new() -> FaultyFiles {
        FaultyFiles::default()
    }

    /// Adds a fault.
    pub fn fail(&self, fault: Fault) {
        lock(&self.shared.state).faults.push(fault);
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        let mut state = lock(&self.shared.state);
        state.faults.clear();
        state.room = None;
    }

    /// So many more bytes can be appended, in all; then there is no room.
    pub fn set_room(&self, bytes: usize) {
        lock(&self.shared.state).room = Some(bytes);
    }

    /// From now on syncs wait (`true`), or go on (`false`).
    pub fn hold_syncs(&self, held: bool) {
        lock(&self.shared.state).held = held;
        self.shared.changed.notify_all();
    }

    /// Waits until a sync waits.
    pub fn wait_for_held_sync(&self) {
        let mut state = lock(&self.shared.state);
        while state.waiting == 0 {
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        lock(&self.shared.state).counts
    }

    /// The names of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        lock(&self.shared.state).files.keys().cloned().collect()
    }

    /// What a file holds.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let file = self.content(path).ok()?;
        let content = lock(&file);
        Some(content.bytes.clone())
    }

    /// Puts a file there, synced.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let content = Content {
            synced: bytes.len(),
            bytes,
            name_synced: true,
        };
        let mut state = lock(&self.shared.state);
        state.files.insert(path.to_owned(), Arc::new(Mutex::new(content)));
    }

    /// Other files, as they may be found after a loss of power: `keep` says how many bytes are left of each; `None`:
    /// it is gone.
    pub fn crash(&self, mut keep: impl FnMut(AtCrash<'_>) -> Option<usize>) -> FaultyFiles {
        let after = FaultyFiles::new();
        for (path, content) in &lock(&self.shared.state).files {
            let content = lock(content);
            let found = AtCrash {
                path,
                synced: content.synced,
                len: content.bytes.len(),
                bytes: &content.bytes,
                name_synced: content.name_synced,
            };
            if let Some(len) = keep(found) {
                after.put(path, content.bytes[..len.min(content.bytes.len())].to_vec());
            }
        }
        after
    }

    fn content(&self, path: &Path) -> io::Result<Arc<Mutex<Content>>> {
        let state = lock(&self.shared.state);
        state
            .files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The fault that is due.
    fn check(&self, operation: Operation) -> Result<(), Fault> {
        let mut state = lock(&self.shared.state);
        let mut due = None;
        state.faults.retain_mut(|fault| {
            if fault.operation != operation || due.is_some() {
                return true;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return true;
            }
            due = Some(*fault);
            fault.lasting
        });
        due.map_or(Ok(()), Err)
    }

    fn handle(&self, content: Arc<Mutex<Content>>) -> Arc<dyn File> {
        Arc::new(FaultyFile {
            files: self.clone(),
            content,
        })
    }
}

fn told(fault: Fault) -> io::Error {
    fault.kind.into()
}

impl Files for FaultyFiles {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.handle(self.content(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check(Operation::Create).map_err(told)?;
        let content = Arc::default();
        let mut state = lock(&self.shared.state);
        if state.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.insert(path.to_owned(), Arc::clone(&content));
        drop(state);
        Ok(self.handle(content))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = lock(&self.shared.state);
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(Operation::Remove).map_err(told)?;
        let mut state = lock(&self.shared.state);
        let removed = state.files.remove(path).ok_or(io::ErrorKind::NotFound)?;
        let freed = lock(&removed).bytes.len();
        state.room = state.room.map(|room| room + freed);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = lock(&self.shared.state);
        Ok(state
            .files
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .cloned()
            .collect())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check(Operation::SyncDir).map_err(told)?;
        for (path, content) in &lock(&self.shared.state).files {
            if path.parent() == Some(dir) {
                lock(content).name_synced = true;
            }
        }
        Ok(())
    }
}

struct FaultyFile {
    files: FaultyFiles,
    content: Arc<Mutex<Content>>,
}

impl File for FaultyFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.files.shared.state);
        state.counts.appends += 1;
        let room = state.room;
        let fits = bytes.len().min(room.unwrap_or(usize::MAX));
        state.room = room.map(|room| room - fits);
        drop(state);
        let mut content = lock(&self.content);
        if let Err(fault) = self.files.check(Operation::Append) {
            content
                .bytes
                .extend_from_slice(&bytes[..fault.written.min(bytes.len())]);
            return Err(told(fault));
        }
        content.bytes.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.files.shared.state);
        state.counts.syncs += 1;
        state.waiting += 1;
        self.files.shared.changed.notify_all();
        while state.held {
            state = self
                .files
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        drop(state);
        self.files.check(Operation::Sync).map_err(told)?;
        let mut content = lock(&self.content);
        content.synced = content.bytes.len();
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.files.check(Operation::Read).map_err(told)?;
        lock(&self.files.shared.state).counts.bytes_read += buffer.len() as u64;
        let content = lock(&self.content);
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = start
            .checked_add(buffer.len())
            .and_then(|end| content.bytes.get(start..end));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.content).bytes.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = lock(&self.files.shared.state);
        let mut content = lock(&self.content);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let freed = content.bytes.len().saturating_sub(len);
        state.room = state.room.map(|room| room + freed);
        drop(state);
        self.files.check(Operation::Truncate).map_err(told)?;
        content.bytes.truncate(len);
        content.synced = content.synced.min(len);
        Ok(())
    }
}
