//! The index from topic filters to values: the heart of routing.
//!
//! Filters without a wildcard are found by one hash look-up of the whole topic name; the others lie in a trie of
//! levels with `+` and `#` as fields of the node. Without wildcard filters a match is that one look-up, and a topic
//! whose first level no wildcard filter shares pays one more.
//!
//! Memory: per filter 16 B + the value + the filter's text; about 13 B more for an exact one (hash table); for wildcard
//! filters about 20 B where they part from the others, and 16 to 36 B per level that two or more share. Slots and
//! nodes of removed filters are reused, not given back; the hash tables shrink.
//!
//! A match is a chain of cache misses. `examples/index_speed.rs` shows what it costs on the machine at hand.

mod edges;
mod trie;

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::topic;
use trie::{Level, Names, Trie};

/// Tables smaller than this keep their memory when they empty.
const SHRINK_FROM: usize = 1024;

/// No slot.
const NONE: u32 = u32::MAX;

/// Names a filter of one [`FilterIndex`] for as long as the filter is in it; may then name another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterId(u32);

impl FilterId {
    /// The number of the filter's slot: small, dense, below 2^31. For tables beside the index.
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// Topic filters (MQTT 5 §4.7), each with a value, to be matched with topic names.
///
/// All filters given to it must be valid ([`topic::is_valid_filter`]). It knows no shared subscriptions: a
/// `$share/…` prefix is a literal level like any other. It holds fewer than 2^31 filters.
///
/// `S` makes the hashes. Results never depend on them, only the time and the order of matches do.
#[derive(Clone, Debug)]
pub struct FilterIndex<V, S = FixedState> {
    slots: Vec<Slot<V>>,
    free: u32,
    len: usize,
    exact: HashTable<Exact>,
    trie: Trie,
    hasher: S,
}

#[derive(Clone, Debug)]
enum Slot<V> {
    /// The next free slot.
    Free(u32),
    Used(Box<str>, V),
}

/// An exact filter. Its hash is kept so that the table grows without touching the filters.
#[derive(Clone, Debug)]
struct Exact {
    hash: u32,
    id: FilterId,
}

impl Exact {
    fn key(&self) -> u64 {
        spread(self.hash)
    }
}

impl<V> FilterIndex<V> {
    /// An empty index with a fixed seed: for filters that no stranger chooses.
    pub fn new() -> FilterIndex<V> {
        FilterIndex::with_seed(0)
    }

    /// An empty index. Who does not know the seed cannot choose filters whose hashes collide.
    pub fn with_seed(seed: u64) -> FilterIndex<V> {
        FilterIndex::with_hasher(FixedState::with_seed(seed))
    }
}

impl<V> Default for FilterIndex<V> {
    fn default() -> FilterIndex<V> {
        FilterIndex::new()
    }
}

impl<V, S: BuildHasher> FilterIndex<V, S> {
    /// An empty index with hashes of `hasher`.
    pub fn with_hasher(hasher: S) -> FilterIndex<V, S> {
        FilterIndex {
            slots: Vec::new(),
            free: NONE,
            len: 0,
            exact: HashTable::new(),
            trie: Trie::new(),
            hasher,
        }
    }

    /// The filter's id; if it is not in the index, it is added with the default value.
    pub fn insert(&mut self, filter: &str) -> FilterId
    where
        V: Default,
    {
        if let Some(id) = self.find(filter) {
            return id;
        }
        let id = self.allocate(Slot::Used(filter.into(), V::default()));
        if topic::has_wildcard(filter) {
            let (slots, hasher) = (&self.slots, &self.hasher);
            self.trie.insert(levels(hasher, filter), id, |other| {
                levels(hasher, entry(slots, other).0)
            });
        } else {
            let exact = Exact {
                hash: hash(&self.hasher, filter.as_bytes()),
                id,
            };
            self.exact.insert_unique(exact.key(), exact, Exact::key);
        }
        self.len += 1;
        id
    }

    /// The filter's id, if it is in the index.
    pub fn find(&self, filter: &str) -> Option<FilterId> {
        if topic::has_wildcard(filter) {
            self.trie
                .find(levels(&self.hasher, filter), |id| self.name(id) == filter)
        } else {
            self.find_exact(filter)
        }
    }

    /// The filter's text.
    ///
    /// # Panics
    /// If `id` does not name a filter of this index; so do [`FilterIndex::get`], [`FilterIndex::get_mut`] and
    /// [`FilterIndex::remove`].
    pub fn name(&self, id: FilterId) -> &str {
        self.entry(id).0
    }

    /// The filter's value.
    pub fn get(&self, id: FilterId) -> &V {
        self.entry(id).1
    }

    /// The filter's value, to be changed.
    pub fn get_mut(&mut self, id: FilterId) -> &mut V {
        match &mut self.slots[id.0 as usize] {
            Slot::Used(_, value) => value,
            Slot::Free(_) => unknown(),
        }
    }

    /// Takes the filter out of the index and returns its value. Its id may come back as that of another filter.
    pub fn remove(&mut self, id: FilterId) -> V {
        let slot = &mut self.slots[id.0 as usize];
        if matches!(slot, Slot::Free(_)) {
            unknown();
        }
        let slot = std::mem::replace(slot, Slot::Free(self.free));
        let Slot::Used(filter, value) = slot else {
            unknown()
        };
        self.free = id.0;
        self.len -= 1;
        if topic::has_wildcard(&filter) {
            self.trie.remove(levels(&self.hasher, &filter), id);
        } else {
            let key = spread(hash(&self.hasher, filter.as_bytes()));
            if let Ok(entry) = self.exact.find_entry(key, |exact| exact.id == id) {
                entry.remove();
            }
            if self.exact.capacity() > SHRINK_FROM && self.exact.len() < self.exact.capacity() / 8 {
                self.exact.shrink_to(self.exact.len() * 2, Exact::key);
            }
        }
        value
    }

    /// Number of filters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is no filter.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All filters, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = (FilterId, &V)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| match slot {
            Slot::Used(_, value) => Some((FilterId(index), value)),
            Slot::Free(_) => None,
        })
    }

    /// Calls `f` once for every filter that matches the valid topic name `topic` (§4.7).
    ///
    /// Allocates nothing for topics of up to 24 levels. Time: linear in the topic's length for each trie node that
    /// is reached by its levels. These are at most 2^n for n levels and only if there are wildcard filters for
    /// all of them (`a/b/…`, `+/b/…`, `a/+/…`, …), so never more than there are nodes: who wants to slow down others
    /// has to pay with subscriptions.
    pub fn for_each_match(&self, topic: &str, mut f: impl FnMut(FilterId, &V)) {
        if let Some(id) = self.find_exact(topic) {
            f(id, self.get(id));
        }
        let mut names = Names::new(topic_levels(&self.hasher, topic));
        self.trie
            .for_each_candidate(topic.starts_with('$'), &mut names, |id| {
                let (filter, value) = self.entry(id);
                if confirms(filter.as_bytes(), topic.as_bytes()) {
                    f(id, value);
                }
            });
    }

    fn find_exact(&self, filter: &str) -> Option<FilterId> {
        if self.exact.is_empty() {
            return None;
        }
        let hash = hash(&self.hasher, filter.as_bytes());
        self.exact
            .find(spread(hash), |exact| {
                exact.hash == hash && self.name(exact.id) == filter
            })
            .map(|exact| exact.id)
    }

    fn entry(&self, id: FilterId) -> (&str, &V) {
        entry(&self.slots, id)
    }

    fn allocate(&mut self, slot: Slot<V>) -> FilterId {
        if let Some(free) = self.slots.get_mut(self.free as usize) {
            let id = FilterId(self.free);
            if let Slot::Free(next) = std::mem::replace(free, slot) {
                self.free = next;
            }
            return id;
        }
        let index = u32::try_from(self.slots.len())
            .ok()
            .filter(|&index| index < NONE >> 1);
        self.slots.push(slot);
        FilterId(index.expect("2^31 filters do not fit into memory"))
    }
}

fn entry<V>(slots: &[Slot<V>], id: FilterId) -> (&str, &V) {
    match &slots[id.0 as usize] {
        Slot::Used(filter, value) => (filter, value),
        Slot::Free(_) => unknown(),
    }
}

fn levels<S: BuildHasher>(hasher: &S, filter: &str) -> impl Iterator<Item = Level> {
    filter.split('/').map(|level| match level {
        "+" => Level::Plus,
        "#" => Level::Hash,
        name => Level::Name(hash(hasher, name.as_bytes())),
    })
}

fn topic_levels<S: BuildHasher>(hasher: &S, topic: &str) -> impl Iterator<Item = u32> {
    let mut rest = Some(topic.as_bytes());
    std::iter::from_fn(move || {
        let bytes = rest?;
        let end = level_len(bytes);
        rest = bytes.get(end + 1..);
        Some(hash(hasher, &bytes[..end]))
    })
}

/// Bytes up to the next `/`.
fn level_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| byte == b'/').unwrap_or(bytes.len())
}

/// True if a candidate of the trie matches the topic. Not a full match: that wildcards in the first level match no
/// topic that starts with `$` was seen to by the trie.
fn confirms(mut filter: &[u8], mut topic: &[u8]) -> bool {
    loop {
        match (filter, topic) {
            ([b'+', rest @ ..], _) => {
                filter = rest;
                topic = &topic[level_len(topic)..];
            }
            ([b'#'], _) | (b"/#", []) | ([], []) => return true,
            ([wanted, more @ ..], [byte, rest @ ..]) if wanted == byte => {
                filter = more;
                topic = rest;
            }
            _ => return false,
        }
    }
}

fn hash<S: BuildHasher>(hasher: &S, bytes: &[u8]) -> u32 {
    let mut hasher = hasher.build_hasher();
    hasher.write(bytes);
    let hash = hasher.finish();
    (hash ^ hash >> 32) as u32
}

/// The table takes its bucket from the low and its tag from the high bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cold]
fn unknown() -> ! {
    panic!("a filter id is used only while its filter is in the index")
}
