//! Writes on their way into the tree, and the memory of the latest changes.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use broker_core::store::{Key, Revision};
use bytes::Bytes;

use crate::engine::Committed;

/// What keys and values take beside their bytes, about: two tree nodes' shares, reference counts.
const WRITE_OVERHEAD: usize = 160;

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The write.
    pub(crate) revision: Revision,
    /// `None`: deleted.
    pub(crate) value: Option<Bytes>,
}

/// Writes by key; the latest of each.
pub(crate) type Writes = BTreeMap<Key, Pending>;

/// The writes that are committed and not, or not known to be, in the tree.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Those that nobody has begun to apply.
    fresh: Writes,
    bytes: usize,
    /// Those that are being applied.
    applying: Arc<Writes>,
    applying_bytes: usize,
}

impl Overlay {
    pub(super) fn insert(&mut self, commit: Committed) {
        let revision = Revision(commit.first.0);
        for write in commit.writes {
            let key_bytes = write.key.as_str().len();
            let value_bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
            let added = value_bytes(&write.value);
            let pending = Pending {
                revision,
                value: write.value,
            };
            let replaced = match self.fresh.insert(write.key, pending) {
                Some(before) => value_bytes(&before.value),
                None => {
                    self.bytes += key_bytes + WRITE_OVERHEAD;
                    0
                }
            };
            self.bytes = self.bytes + added - replaced;
        }
    }

    /// About the memory that all of it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.applying_bytes
    }

    /// About the memory of what nobody has begun to apply.
    pub(super) fn fresh_bytes(&self) -> usize {
        self.bytes
    }

    /// Takes everything to be applied. What was taken before has been.
    pub(super) fn take(&mut self) -> Arc<Writes> {
        self.applying = Arc::new(std::mem::take(&mut self.fresh));
        self.applying_bytes = std::mem::take(&mut self.bytes);
        Arc::clone(&self.applying)
    }

    /// What was taken is in the tree.
    pub(super) fn applied(&mut self) {
        self.applying = Arc::default();
        self.applying_bytes = 0;
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Pending> {
        self.fresh.get(key).or_else(|| self.applying.get(key))
    }

    /// The writes from a key on whose keys begin with `prefix`: those with the `items_max` first keys, or a few more.
    /// The second value is true if these are all.
    pub(super) fn range(&self, from: Bound<&str>, prefix: &str, items_max: usize) -> (Writes, bool) {
        let mut found = Writes::new();
        let mut last_complete: Option<Key> = None;
        for writes in [&*self.applying, &self.fresh] {
            let mut rest = writes
                .range::<str, _>((from, Bound::Unbounded))
                .take_while(|(key, _)| key.as_str().starts_with(prefix));
            let mut last = None;
            for (key, pending) in rest.by_ref().take(items_max) {
                found.insert(key.clone(), pending.clone());
                last = Some(key);
            }
            if rest.next().is_some()
                && let Some(last) = last
                && last_complete.as_ref().is_none_or(|complete| last < complete)
            {
                last_complete = Some(last.clone());
            }
        }
        match last_complete {
            None => (found, true),
            Some(complete) => {
                // Beyond this key one of the two has more.
                found.retain(|key, _| *key <= complete);
                (found, false)
            }
        }
    }
}

/// The latest changes, for watches; values are looked up.
#[derive(Debug)]
pub(super) struct History {
    changes: VecDeque<(Revision, Key, bool)>,
    key_bytes: usize,
    /// Changes up to this one are not, or no longer, known.
    pub(super) forgotten: Revision,
}

impl History {
    /// Changes that are remembered.
    pub(super) const CHANGES_MAX: usize = 8192;
    /// Bytes of their keys.
    const KEY_BYTES_MAX: usize = 512 << 10;

    pub(super) fn new(forgotten: Revision) -> History {
        History {
            changes: VecDeque::new(),
            key_bytes: 0,
            forgotten,
        }
    }

    pub(super) fn push(&mut self, commit: &Committed) {
        let revision = Revision(commit.first.0);
        for write in &commit.writes {
            self.key_bytes += write.key.as_str().len();
            self.changes
                .push_back((revision, write.key.clone(), write.value.is_none()));
        }
        while self.changes.len() > Self::CHANGES_MAX || self.key_bytes > Self::KEY_BYTES_MAX {
            // Whole commits: a part of one cannot be told.
            let Some((gone, ..)) = self.changes.front() else {
                break;
            };
            self.forgotten = *gone;
            while let Some((_, key, _)) = self
                .changes
                .pop_front_if(|(revision, ..)| *revision == self.forgotten)
            {
                self.key_bytes -= key.as_str().len();
            }
        }
    }

    /// The changes after a revision, oldest first: revision, key, and whether the key was deleted.
    pub(super) fn after(&self, after: Revision) -> impl Iterator<Item = &(Revision, Key, bool)> {
        let start = self.changes.partition_point(|(revision, ..)| *revision <= after);
        self.changes.range(start..)
    }
}

#[cfg(test)]
mod tests {
    use broker_core::store::Sequence;

    use super::*;
    use crate::engine::Resolved;

    fn commit(first: u64, names: &[&str]) -> Committed {
        let writes = names.iter().map(|name| Resolved {
            key: Key::new(name).unwrap(),
            value: Some(Bytes::from_static(b"value")),
        });
        Committed {
            first: Sequence(first),
            next: Sequence(first + 1),
            writes: writes.collect(),
        }
    }

    #[test]
    fn a_range_says_how_far_it_is_complete() {
        let mut overlay = Overlay::default();
        overlay.insert(commit(1, &["k.1", "k.3", "k.5", "k.7", "k.9"]));
        overlay.take();
        overlay.insert(commit(2, &["k.2", "k.3", "x"]));
        let range = |from, items_max| {
            let (found, is_complete) = overlay.range(from, "k.", items_max);
            let found = found
                .into_iter()
                .map(|(key, pending)| (key.as_str()[2..].to_owned(), pending.revision.0));
            (found.collect::<Vec<_>>(), is_complete)
        };
        let pairs = |pairs: &[(&str, u64)]| {
            pairs
                .iter()
                .map(|(name, revision)| ((*name).to_owned(), *revision))
                .collect::<Vec<_>>()
        };
        let all = pairs(&[("1", 1), ("2", 2), ("3", 2), ("5", 1), ("7", 1), ("9", 1)]);
        assert_eq!(range(Bound::Included("k."), 100), (all.clone(), true));
        // The older writes are cut off after k.3, the newer ones are all there.
        assert_eq!(
            range(Bound::Included("k."), 2),
            (pairs(&[("1", 1), ("2", 2), ("3", 2)]), false)
        );
        // Cut off after k.1 and after k.2: what is known beyond k.1 is not complete.
        assert_eq!(range(Bound::Included("k."), 1), (pairs(&[("1", 1)]), false));
        assert_eq!(range(Bound::Excluded("k.3"), 3), (all[3..].to_vec(), true));
    }

    #[test]
    fn memory_is_counted_and_given_back() {
        let mut overlay = Overlay::default();
        overlay.insert(commit(1, &["k.1", "k.2"]));
        let two = overlay.bytes();
        assert!(two > 2 * "k.1value".len());
        overlay.insert(commit(2, &["k.1"]));
        assert_eq!(overlay.bytes(), two, "a write in place of another");
        overlay.take();
        assert_eq!((overlay.bytes(), overlay.fresh_bytes()), (two, 0));
        overlay.applied();
        assert_eq!(overlay.bytes(), 0);
    }
}
