//! Back ends that forget everything with their process: durability "none", and the reference for the others.

mod fabric;
mod journal;
mod kv;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use crate::{Timestamp, shard::Ticket};

pub use fabric::{MemoryFabric, MemoryHub};
pub use journal::MemoryJournal;
pub use kv::MemoryKv;

/// Bounds of a [`MemoryKv`] or [`MemoryJournal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Bytes of keys, values and records in all; beyond, writes fail with [`Fault::Full`](super::Fault::Full).
    /// Default: 256 MiB.
    pub bytes_max: u64,
    /// Bytes of one value or record. Default: 2 MiB.
    pub item_bytes_max: usize,
    /// Requests of one handle submitted and not polled. Default: 4096.
    pub in_flight_max: usize,
    /// Changes that a watch may be behind. Default: 65 536, which take 1.5 MiB and the text of their keys.
    pub history_max: usize,
    /// How long a dedup id is remembered. Default: two minutes.
    pub dedup_window: Duration,
    /// Dedup ids remembered per journal shard. Default: 65 536, about 6 MiB.
    pub dedup_ids_max: usize,
}

impl Default for MemoryLimits {
    fn default() -> MemoryLimits {
        MemoryLimits {
            bytes_max: 256 << 20,
            item_bytes_max: 2 << 20,
            in_flight_max: 4096,
            history_max: 65_536,
            dedup_window: Duration::from_secs(120),
            dedup_ids_max: 65_536,
        }
    }
}

/// The content that all handles of a store share.
trait Content {
    type Request;
    type Answer;

    /// Executes the request; `None`: it reads and has to wait for a write.
    fn execute(&mut self, now: Timestamp, request: &mut Self::Request) -> Option<Self::Answer>;

    /// Counts the writes that may end a wait.
    fn writes(&self) -> u64;
}

struct Shared<C> {
    content: C,
    handles: u64,
    /// Of the handles with waiting requests.
    wakers: BTreeMap<u64, Waker>,
}

/// One handle: requests are executed as they are submitted, except for those that wait.
struct Handle<C: Content> {
    shared: Arc<Mutex<Shared<C>>>,
    number: u64,
    in_flight_max: usize,
    done: VecDeque<(Ticket, C::Answer)>,
    waiting: Vec<(Ticket, C::Request)>,
    /// The writes that `waiting` has seen.
    seen: u64,
}

impl<C: Content> Handle<C> {
    fn new(content: C, in_flight_max: usize) -> Handle<C> {
        let shared = Shared {
            content,
            handles: 1,
            wakers: BTreeMap::new(),
        };
        Handle {
            shared: Arc::new(Mutex::new(shared)),
            number: 0,
            in_flight_max,
            done: VecDeque::new(),
            waiting: Vec::new(),
            seen: 0,
        }
    }

    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, C::Request)>) {
        let mut shared = lock(&self.shared);
        let before = shared.content.writes();
        while self.done.len() + self.waiting.len() < self.in_flight_max
            && let Some((ticket, mut request)) = requests.pop_front()
        {
            match shared.content.execute(now, &mut request) {
                Some(answer) => self.done.push_back((ticket, answer)),
                None => self.waiting.push((ticket, request)),
            }
        }
        let woken = if shared.content.writes() == before {
            BTreeMap::new()
        } else {
            std::mem::take(&mut shared.wakers)
        };
        drop(shared);
        woken.into_values().for_each(Waker::wake);
    }

    fn poll(&mut self, now: Timestamp, waker: &Waker) -> Option<(Ticket, C::Answer)> {
        if self.done.is_empty() && !self.waiting.is_empty() {
            let mut shared = lock(&self.shared);
            if self.seen != shared.content.writes() {
                self.seen = shared.content.writes();
                let done = &mut self.done;
                self.waiting
                    .retain_mut(|(ticket, request)| match shared.content.execute(now, request) {
                        Some(answer) => {
                            done.push_back((*ticket, answer));
                            false
                        }
                        None => true,
                    });
            }
            if self.done.is_empty() {
                shared.wakers.insert(self.number, waker.clone());
            }
        }
        self.done.pop_front()
    }
}

impl<C: Content> Clone for Handle<C> {
    /// Another handle on the same content, with nothing in flight.
    fn clone(&self) -> Handle<C> {
        let mut shared = lock(&self.shared);
        let number = shared.handles;
        shared.handles += 1;
        drop(shared);
        Handle {
            shared: Arc::clone(&self.shared),
            number,
            in_flight_max: self.in_flight_max,
            done: VecDeque::new(),
            waiting: Vec::new(),
            seen: 0,
        }
    }
}

impl<C: Content> Drop for Handle<C> {
    fn drop(&mut self) {
        lock(&self.shared).wakers.remove(&self.number);
    }
}

/// A panic elsewhere does not spoil the content: no operation leaves it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
