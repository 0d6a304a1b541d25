//! The literal edges of all trie nodes in one flat table.
//!
//! Open addressing with linear probing: a look-up among millions of edges is one miss of the cache, where a table
//! with separate control bytes has two. Measured with a million filters: some 10 % more matches per second, and 10 %
//! less memory.

/// No node: marks a vacant slot.
const NONE: u32 = u32::MAX;

/// Slots of the smallest table.
const SMALLEST: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Edge {
    parent: u32,
    level: u32,
    child: u32,
}

const VACANT: Edge = Edge {
    parent: NONE,
    level: 0,
    child: NONE,
};

/// Children by parent and hash of the level.
#[derive(Clone, Debug, Default)]
pub(super) struct Edges {
    /// Each edge lies at its home or after it, with no vacant slot between, wrapping around. At most 3/4 are taken.
    slots: Vec<Edge>,
    len: usize,
}

impl Edges {
    pub(super) fn get(&self, parent: u32, level: u32) -> Option<u32> {
        self.locate(parent, level).map(|at| self.slots[at].child)
    }

    /// Adds an edge or changes its child; true if it is new.
    pub(super) fn set(&mut self, parent: u32, level: u32, child: u32) -> bool {
        if let Some(at) = self.locate(parent, level) {
            self.slots[at].child = child;
            return false;
        }
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.resize(self.slots.len() + self.slots.len() / 2);
        }
        self.place(Edge { parent, level, child });
        self.len += 1;
        true
    }

    /// Takes out an edge; shrinks a table that has become mostly vacant.
    pub(super) fn remove(&mut self, parent: u32, level: u32) {
        let Some(mut gap) = self.locate(parent, level) else {
            return;
        };
        let mut at = gap;
        loop {
            at = self.after(at);
            let edge = self.slots[at];
            if edge.child == NONE {
                break;
            }
            if self.distance(self.home(edge.parent, edge.level), at) >= self.distance(gap, at) {
                self.slots[gap] = edge;
                gap = at;
            }
        }
        self.slots[gap] = VACANT;
        self.len -= 1;
        if self.slots.len() > SMALLEST && self.len * 8 < self.slots.len() {
            self.resize(self.len * 2);
        }
    }

    fn locate(&self, parent: u32, level: u32) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let mut at = self.home(parent, level);
        loop {
            let edge = self.slots[at];
            if edge.parent == parent && edge.level == level {
                return Some(at);
            }
            if edge.child == NONE {
                return None;
            }
            at = self.after(at);
        }
    }

    fn place(&mut self, edge: Edge) {
        let mut at = self.home(edge.parent, edge.level);
        while self.slots[at].child != NONE {
            at = self.after(at);
        }
        self.slots[at] = edge;
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![VACANT; slots.max(SMALLEST)]);
        for edge in old.into_iter().filter(|edge| edge.child != NONE) {
            self.place(edge);
        }
    }

    /// Where an edge belongs: its hash, scaled to the number of slots, so that this need not be a power of two.
    fn home(&self, parent: u32, level: u32) -> usize {
        let both = u64::from(parent) << 32 | u64::from(level);
        let product = u128::from(both) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        let hash = (product >> 64) as u64 ^ product as u64;
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from {
            to - from
        } else {
            to + self.slots.len() - from
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((any::<bool>(), 0..8_u32, 0..40_u32), 1..400)) {
            let (mut edges, mut model) = (Edges::default(), BTreeMap::new());
            for (child, (insert, parent, level)) in (0..).zip(steps) {
                if !insert {
                    edges.remove(parent, level);
                    model.remove(&(parent, level));
                } else {
                    let is_new = model.insert((parent, level), child).is_none();
                    prop_assert_eq!(edges.set(parent, level, child), is_new);
                }
                for parent in 0..8 {
                    for level in 0..40 {
                        let expected = model.get(&(parent, level)).copied();
                        prop_assert_eq!(edges.get(parent, level), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn a_table_that_empties_shrinks() {
        let mut edges = Edges::default();
        for level in 0..10_000 {
            edges.set(1, level, level);
        }
        assert!(edges.slots.len() <= 20_000);
        (0..10_000).for_each(|level| edges.remove(1, level));
        assert_eq!(edges.slots.len(), SMALLEST);
        assert_eq!(edges.get(1, 1), None);
    }
}
