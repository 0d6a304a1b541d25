//! Deadlines of one shard.
//!
//! A binary heap of deadlines rounded up to slots of 64 ms, so that a million deadlines cause at most sixteen
//! wake-ups a second, and none while only far ones are armed.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::Timestamp;

/// Deadlines are rounded up to a multiple of this many milliseconds.
const SLOT_MS: u64 = 64;

/// Lists shorter than this keep their memory.
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

fn slot_time(slot: u64) -> Timestamp {
    Timestamp::from_millis(slot.saturating_mul(SLOT_MS).min(u64::MAX - 1))
}
