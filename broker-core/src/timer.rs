//! Deadlines of one shard.
//!
//! A binary heap of deadlines that are rounded up to slots of 64 ms: a million deadlines cause at most sixteen
//! wake-ups a second, and far ones none before the first of them comes.
//!
//! Why no timer wheel: a million entries, each re-armed once a minute, measured 0.3 µs per re-arm in the heap
//! and 0.02 µs in a map of slots (as good as a wheel gets), that is 0.5 % and 0.03 % of a core. For this difference
//! the heap gives 16 B per entry (keys of 8 B) however the deadlines are spread, an exact next deadline and no
//! cascades; a list per slot costs 100 B per entry where entries are far apart, as expiring sessions are.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::Timestamp;

/// Deadlines are rounded up to a multiple of this many milliseconds.
const SLOT_MS: u64 = 64;

/// A heap with room for fewer entries keeps its memory when it empties.
const SHRINK_FROM: usize = 1024;

/// Many coarse deadlines, each with the key of whom to wake.
///
/// An entry is a hint, not a promise: when it comes out, its owner looks up its real deadline and arms again if
/// that lies in the future. So a deadline that moves away (keep alive, at every packet) costs nothing until the
/// old one comes, and nothing is ever cancelled. The owner must not arm on every move: one entry at or before its
/// real deadline is enough. A key that is armed twice comes out twice.
#[derive(Clone, Debug)]
pub struct TimerQueue<K> {
    heap: BinaryHeap<Reverse<(u64, K)>>,
}

impl<K: Copy + Ord> TimerQueue<K> {
    /// An empty queue; it owns no memory.
    pub fn new() -> TimerQueue<K> {
        TimerQueue {
            heap: BinaryHeap::new(),
        }
    }

    /// Wakes `key` at `at` or less than 64 ms later. [`Timestamp::NEVER`] arms nothing.
    pub fn arm(&mut self, at: Timestamp, key: K) {
        if at < Timestamp::NEVER {
            self.heap.push(Reverse((at.as_millis().div_ceil(SLOT_MS), key)));
        }
    }

    /// When [`TimerQueue::pop_due`] will have something.
    pub fn next(&self) -> Option<Timestamp> {
        let Reverse((slot, _)) = self.heap.peek()?;
        Some(slot_time(*slot))
    }

    /// Takes out one key whose time has come; of keys of the same slot the smallest first.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, key)) = self.heap.pop()?;
        if self.heap.capacity() > SHRINK_FROM && self.heap.len() < self.heap.capacity() / 4 {
            self.heap.shrink_to(self.heap.len() * 2);
        }
        Some(key)
    }

    /// Forgets the entries that `keep` denies, given the time at which each fires, and makes one of equal ones. Looks at
    /// all of them: for a queue of which most entries stand for nothing any more.
    pub fn retain(&mut self, mut keep: impl FnMut(Timestamp, K) -> bool) {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.retain(|&Reverse((slot, key))| keep(slot_time(slot), key));
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to(SHRINK_FROM.max(entries.len() * 2));
        self.heap = entries.into();
    }

    /// Entries armed and not yet popped.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// True if nothing is armed.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<K: Copy + Ord> Default for TimerQueue<K> {
    fn default() -> TimerQueue<K> {
        TimerQueue::new()
    }
}

/// When a deadline fires that is kept elsewhere: as late as it would here, so that all of a slot fire together.
pub(crate) fn coarse(at: Timestamp) -> Timestamp {
    slot_time(at.as_millis().div_ceil(SLOT_MS))
}

/// When the entries of a slot are due: before [`Timestamp::NEVER`], whatever was armed.
fn slot_time(slot: u64) -> Timestamp {
    Timestamp::from_millis(slot.saturating_mul(SLOT_MS).min(u64::MAX - 1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    proptest! {
        #[test]
        fn every_entry_comes_out_once_in_its_slot(
            entries in prop::collection::vec((0..5000_u64, 0..20_u32), 0..200),
            step in 1..700_u64,
        ) {
            let mut queue = TimerQueue::new();
            let mut waiting: BTreeMap<(u64, u32), usize> = BTreeMap::new();
            for &(millis, key) in &entries {
                queue.arm(at(millis), key);
                *waiting.entry((millis.next_multiple_of(64), key)).or_default() += 1;
            }
            prop_assert_eq!(queue.len(), entries.len());
            for now in (0..6000).step_by(step as usize) {
                prop_assert_eq!(queue.next(), waiting.keys().next().map(|&(slot, _)| at(slot)));
                while let Some(key) = queue.pop_due(at(now)) {
                    let mut first = waiting.first_entry().unwrap();
                    prop_assert!(first.key().0 <= now);
                    prop_assert_eq!(first.key().1, key);
                    *first.get_mut() -= 1;
                    if *first.get() == 0 {
                        first.remove();
                    }
                }
                prop_assert!(queue.next().is_none_or(|next| next > at(now)));
            }
        }
    }

    #[test]
    fn never_is_never_and_the_end_of_time_is_not() {
        let mut queue = TimerQueue::new();
        queue.arm(Timestamp::NEVER, 1);
        assert!(queue.is_empty());
        queue.arm(at(u64::MAX - 1), 2);
        assert_eq!(queue.next(), Some(at(u64::MAX - 1)));
        assert_eq!(queue.pop_due(at(u64::MAX - 2)), None);
        assert_eq!(queue.pop_due(at(u64::MAX - 1)), Some(2));
    }

    #[test]
    fn a_queue_that_empties_gives_memory_back() {
        let mut queue = TimerQueue::new();
        (0..100_000_u64).for_each(|key| queue.arm(at(key), key));
        while queue.pop_due(at(100_000)).is_some() {}
        assert!(queue.heap.capacity() <= SHRINK_FROM);
    }

    #[test]
    fn entries_can_be_forgotten() {
        let mut queue = TimerQueue::new();
        (0..10_000_u64).for_each(|key| queue.arm(at(key), key));
        (0..10_000_u64).for_each(|key| queue.arm(at(key), key));
        queue.retain(|fires, key| fires >= at(key) && key % 1000 == 7);
        assert_eq!(queue.len(), 10);
        assert!(queue.heap.capacity() <= SHRINK_FROM);
        assert_eq!(queue.pop_due(at(64)), Some(7));
    }

    #[test]
    fn an_entry_takes_16_bytes() {
        assert_eq!(size_of::<Reverse<(u64, u64)>>(), 16);
    }
}
