//! Back ends that forget everything with their process: durability "none", and the reference for the others.

mod content;
mod dedup;
mod fabric;
mod index;
mod journal;
mod kv;
mod log;
mod table;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use super::Page;
use crate::{Timestamp, shard::Ticket};
use content::Content;

pub use fabric::{MemoryFabric, MemoryHub};
pub use journal::MemoryJournal;
pub use kv::MemoryKv;

/// Bounds of a [`MemoryStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Bytes of keys, values and records in all, each with what it takes to hold it (about 100 bytes); beyond,
    /// what makes the store larger fails with [`Fault::Full`](super::Fault::Full). Default: 256 MiB.
    pub bytes_max: u64,
    /// When the records have more bytes than this, the oldest are dropped, also if somebody still wants them. Default:
    /// no limit.
    pub log_bytes_max: Option<u64>,
    /// Bytes of one value or record. Default: 2 MiB.
    pub item_bytes_max: usize,
    /// Requests of one handle submitted and not polled. Default: 4096.
    pub in_flight_max: usize,
    /// Changes that a watch may be behind. Default: 65 536, which take 2 MiB and the text of their keys.
    pub history_max: usize,
    /// How long a dedup id is remembered. Default: two minutes.
    pub dedup_window: Duration,
    /// Dedup ids remembered. Default: 65 536, about 6 MiB.
    pub dedup_ids_max: usize,
}

impl Default for MemoryLimits {
    fn default() -> MemoryLimits {
        MemoryLimits {
            bytes_max: 256 << 20,
            log_bytes_max: None,
            item_bytes_max: 2 << 20,
            in_flight_max: 4096,
            history_max: 65_536,
            dedup_window: Duration::from_secs(120),
            dedup_ids_max: 65_536,
        }
    }
}

/// A store in memory; a clone has the same content, which ends with the last clone and handle.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
    limits: MemoryLimits,
}

impl MemoryStore {
    /// A store without content.
    pub fn new(limits: MemoryLimits) -> MemoryStore {
        let shared = Shared {
            content: Content::new(limits),
            handles: 0,
            wakers: [BTreeMap::new(), BTreeMap::new()],
        };
        MemoryStore {
            shared: Arc::new(Mutex::new(shared)),
            limits,
        }
    }

    /// A handle on the log and, by its commits, on the entries.
    pub fn journal(&self) -> MemoryJournal {
        MemoryJournal::new(self)
    }

    /// A handle on the entries.
    pub fn kv(&self) -> MemoryKv {
        MemoryKv::new(self)
    }

    /// Records dropped because of [`MemoryLimits::log_bytes_max`].
    pub fn records_dropped(&self) -> u64 {
        lock(&self.shared).content.log.dropped()
    }
}

/// What a request waits for, if it waits.
#[derive(Clone, Copy)]
enum WaitFor {
    /// Another record.
    Record,
    /// Another change of an entry.
    Change,
}

/// How many records and changes there have been, by [`WaitFor`].
type Progress = [u64; 2];

/// A request to a store in memory.
trait Request {
    type Answer;
    const WAITS_FOR: WaitFor;

    /// Executes it; `None`: it reads and has to wait for a write.
    fn execute(&mut self, now: Timestamp, content: &mut Content) -> Option<Self::Answer>;

    /// The answer of one behind a failed one, see [`Journal`](super::Journal).
    fn taken_along(&self, _failed: &Self::Answer) -> Option<Self::Answer> {
        None
    }
}

/// What all handles of a store share.
struct Shared {
    content: Content,
    handles: u64,
    /// Of the handles with waiting requests, by [`WaitFor`] and number.
    wakers: [BTreeMap<u64, Waker>; 2],
}

/// One handle: requests are executed as they are submitted, except for those that wait.
struct Handle<Q: Request> {
    shared: Arc<Mutex<Shared>>,
    number: u64,
    in_flight_max: usize,
    done: VecDeque<(Ticket, Q::Answer)>,
    waiting: Vec<(Ticket, Q)>,
    /// The progress that `waiting` has seen.
    seen: u64,
    /// The last one in `done` that takes along those behind it.
    failed: Option<(Ticket, Q::Answer)>,
}

impl<Q: Request> Handle<Q> {
    fn new(store: &MemoryStore) -> Handle<Q> {
        let mut shared = lock(&store.shared);
        let number = shared.handles;
        shared.handles += 1;
        Handle {
            shared: Arc::clone(&store.shared),
            number,
            in_flight_max: store.limits.in_flight_max,
            done: VecDeque::new(),
            waiting: Vec::new(),
            seen: 0,
            failed: None,
        }
    }

    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, Q)>) {
        let mut shared = lock(&self.shared);
        let before = shared.content.progress();
        while self.done.len() + self.waiting.len() < self.in_flight_max
            && let Some((ticket, mut request)) = requests.pop_front()
        {
            let failed = self.failed.as_ref();
            let answer = failed
                .and_then(|(_, failed)| request.taken_along(failed))
                .or_else(|| request.execute(now, &mut shared.content));
            let Some(answer) = answer else {
                self.waiting.push((ticket, request));
                continue;
            };
            if let Some(failed) = request.taken_along(&answer) {
                self.failed = Some((ticket, failed));
            }
            self.done.push_back((ticket, answer));
        }
        let woken = shared.take_wakers(before);
        drop(shared);
        woken
            .into_iter()
            .flat_map(BTreeMap::into_values)
            .for_each(Waker::wake);
    }

    fn poll(&mut self, now: Timestamp, waker: &Waker) -> Option<(Ticket, Q::Answer)> {
        if self.done.is_empty() && !self.waiting.is_empty() {
            let mut shared = lock(&self.shared);
            let progress = shared.content.progress()[Q::WAITS_FOR as usize];
            if self.seen != progress {
                self.seen = progress;
                let done = &mut self.done;
                self.waiting.retain_mut(|(ticket, request)| {
                    match request.execute(now, &mut shared.content) {
                        Some(answer) => {
                            done.push_back((*ticket, answer));
                            false
                        }
                        None => true,
                    }
                });
            }
            if self.done.is_empty() {
                shared.wakers[Q::WAITS_FOR as usize].insert(self.number, waker.clone());
            }
        }
        let completion = self.done.pop_front()?;
        if self
            .failed
            .as_ref()
            .is_some_and(|(ticket, _)| *ticket == completion.0)
        {
            self.failed = None;
        }
        Some(completion)
    }
}

impl<Q: Request> Drop for Handle<Q> {
    fn drop(&mut self) {
        lock(&self.shared).wakers[Q::WAITS_FOR as usize].remove(&self.number);
    }
}

impl Shared {
    /// The wakers of those who wait for what there is more of than `before`.
    fn take_wakers(&mut self, before: Progress) -> [BTreeMap<u64, Waker>; 2] {
        let progress = self.content.progress();
        let mut taken = [BTreeMap::new(), BTreeMap::new()];
        for kind in [WaitFor::Record, WaitFor::Change] {
            let kind = kind as usize;
            if progress[kind] != before[kind] {
                taken[kind] = std::mem::take(&mut self.wakers[kind]);
            }
        }
        taken
    }
}

/// A panic elsewhere does not spoil the content: no operation leaves it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True if a page that holds so many items and bytes takes one more.
fn has_room(page: Page, items: usize, bytes: usize) -> bool {
    items < usize::from(page.items_max.get()) && (items == 0 || bytes < page.bytes_max)
}

#[cfg(test)]
mod tests;
