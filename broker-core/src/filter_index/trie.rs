//! Wildcard filters, as a trie of levels.
//!
//! A node is 16 bytes; the edges of all nodes for literal levels lie in one hash table. An edge knows only 32 bits
//! of its level's hash, no text: two levels with the same hash share an edge, and all filters below it come out as
//! *candidates*. The index compares the text of a candidate before it believes it, so a shared edge costs time but
//! never gives a wrong answer; and filters that end in the same place for this reason are kept side by side.

use std::collections::BTreeSet;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::{FilterId, SHRINK_FROM};

/// No node, no filter.
const NONE: u32 = u32::MAX;

/// Set in a slot if there are further filters of this slot in [`Trie::crowd`].
const CROWDED: u32 = 1 << 31;

const ROOT: u32 = 0;

/// Depth up to which a look-up allocates nothing.
const INLINE_LEVELS: usize = 24;

/// One level of a filter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    /// A literal level, by its hash.
    Name(u32),
    /// `+`
    Plus,
    /// `#`, the last one.
    Hash,
}

/// The levels of a topic name, hashed at most once each and only as far as the trie goes.
#[derive(Debug)]
pub(super) struct Names<I> {
    rest: I,
    hashes: SmallVec<[u32; INLINE_LEVELS]>,
}

impl<I: Iterator<Item = u32>> Names<I> {
    pub(super) fn new(levels: I) -> Names<I> {
        Names {
            rest: levels,
            hashes: SmallVec::new(),
        }
    }

    fn at(&mut self, depth: usize) -> Option<u32> {
        while self.hashes.len() <= depth {
            self.hashes.push(self.rest.next()?);
        }
        Some(self.hashes[depth])
    }
}

#[derive(Clone, Debug)]
struct Node {
    /// The node of `+`.
    plus: u32,
    /// The filter that goes on with `#` and so ends.
    hash: u32,
    /// The filter that ends in this node; in a free node the next free one.
    here: u32,
    /// Number of edges that start here.
    edges: u32,
}

impl Node {
    const EMPTY: Node = Node {
        plus: NONE,
        hash: NONE,
        here: NONE,
        edges: 0,
    };

    fn is_empty(&self) -> bool {
        self.plus == NONE && self.hash == NONE && self.here == NONE && self.edges == 0
    }
}

#[derive(Clone, Debug)]
struct Edge {
    parent: u32,
    level: u32,
    child: u32,
}

impl Edge {
    fn key(&self) -> u64 {
        edge_key(self.parent, self.level)
    }
}

/// How a filter ends in its last node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Here,
    Hash,
}

#[derive(Clone, Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    free: u32,
    edges: HashTable<Edge>,
    /// Filters whose slot was taken by another one whose levels have the same hashes.
    crowd: BTreeSet<(u32, Ending, FilterId)>,
}

impl Trie {
    pub(super) fn new() -> Trie {
        Trie {
            nodes: vec![Node::EMPTY],
            free: NONE,
            edges: HashTable::new(),
            crowd: BTreeSet::new(),
        }
    }

    /// Adds a filter that is not in the trie yet.
    pub(super) fn insert(&mut self, levels: impl Iterator<Item = Level>, id: FilterId) {
        let mut node = ROOT;
        for level in levels {
            node = match level {
                Level::Name(level) => self.edge_or_insert(node, level),
                Level::Plus => self.plus_or_insert(node),
                Level::Hash => return self.put(node, Ending::Hash, id),
            };
        }
        self.put(node, Ending::Here, id);
    }

    /// Takes out a filter and the nodes that nobody needs any more.
    pub(super) fn remove(&mut self, levels: impl Iterator<Item = Level>, id: FilterId) {
        let mut path: SmallVec<[(u32, Level, u32); INLINE_LEVELS]> = SmallVec::new();
        let (mut node, mut ending) = (ROOT, Ending::Here);
        for level in levels {
            let child = match level {
                Level::Name(hash) => self.edge(node, hash),
                Level::Plus => self.node(node).plus,
                Level::Hash => {
                    ending = Ending::Hash;
                    break;
                }
            };
            path.push((node, level, child));
            node = child;
        }
        self.take(node, ending, id);
        while let Some((parent, level, child)) = path.pop() {
            if !self.node(child).is_empty() {
                break;
            }
            self.unlink(parent, level);
            self.node_mut(child).here = std::mem::replace(&mut self.free, child);
        }
    }

    /// The filters that end where these levels lead, until `found` says that it is enough.
    pub(super) fn find(
        &self,
        levels: impl Iterator<Item = Level>,
        mut found: impl FnMut(FilterId) -> bool,
    ) -> Option<FilterId> {
        let (mut node, mut ending) = (ROOT, Ending::Here);
        for level in levels {
            node = match level {
                Level::Name(hash) => self.edge(node, hash),
                Level::Plus => self.node(node).plus,
                Level::Hash => {
                    ending = Ending::Hash;
                    break;
                }
            };
            if node == NONE {
                return None;
            }
        }
        self.at(node, ending).find(|&id| found(id))
    }

    /// Calls `candidate` for every filter whose levels match the names by their hashes.
    ///
    /// `internal`: the topic starts with `$`, so a wildcard in the first level does not match it [MQTT-4.7.2-1].
    ///
    /// Depth first: at most one postponed `+` branch per level of the topic, so the stack is as deep as the topic.
    /// No node is visited twice. A topic of n levels can reach 2^n nodes if there are filters for all of them, and
    /// never more than there are nodes.
    pub(super) fn for_each_candidate(
        &self,
        internal: bool,
        names: &mut Names<impl Iterator<Item = u32>>,
        mut candidate: impl FnMut(FilterId),
    ) {
        let mut postponed: SmallVec<[(u32, usize); INLINE_LEVELS]> = SmallVec::new();
        let mut next = Some((ROOT, 0));
        let mut wildcards = !internal;
        while let Some((index, depth)) = next {
            let node = self.node(index);
            if wildcards && node.hash != NONE {
                self.at(index, Ending::Hash).for_each(&mut candidate);
            }
            let (mut plus, mut literal) = (NONE, NONE);
            if node.edges > 0 || node.plus != NONE || node.here != NONE {
                match names.at(depth) {
                    None => self.at(index, Ending::Here).for_each(&mut candidate),
                    Some(level) => {
                        plus = if wildcards { node.plus } else { NONE };
                        literal = if node.edges > 0 {
                            self.edge(index, level)
                        } else {
                            NONE
                        };
                    }
                }
            }
            wildcards = true;
            next = match (literal, plus) {
                (NONE, NONE) => postponed.pop(),
                (NONE, plus) => Some((plus, depth + 1)),
                (literal, plus) => {
                    if plus != NONE {
                        postponed.push((plus, depth + 1));
                    }
                    Some((literal, depth + 1))
                }
            };
        }
    }

    #[cfg(test)]
    pub(super) fn live_nodes(&self) -> usize {
        let mut free = self.free;
        let mut count = self.nodes.len();
        while free != NONE {
            count -= 1;
            free = self.node(free).here;
        }
        count
    }

    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize]
    }

    fn slot_mut(&mut self, node: u32, ending: Ending) -> &mut u32 {
        let node = self.node_mut(node);
        match ending {
            Ending::Here => &mut node.here,
            Ending::Hash => &mut node.hash,
        }
    }

    fn edge(&self, parent: u32, level: u32) -> u32 {
        self.edges
            .find(edge_key(parent, level), |edge| {
                edge.parent == parent && edge.level == level
            })
            .map_or(NONE, |edge| edge.child)
    }

    fn edge_or_insert(&mut self, parent: u32, level: u32) -> u32 {
        let known = self.edge(parent, level);
        if known != NONE {
            return known;
        }
        let child = self.allocate();
        let edge = Edge { parent, level, child };
        self.edges.insert_unique(edge.key(), edge, Edge::key);
        self.node_mut(parent).edges += 1;
        child
    }

    fn plus_or_insert(&mut self, parent: u32) -> u32 {
        if self.node(parent).plus == NONE {
            self.node_mut(parent).plus = self.allocate();
        }
        self.node(parent).plus
    }

    fn allocate(&mut self) -> u32 {
        if self.free == NONE {
            let index =
                u32::try_from(self.nodes.len()).expect("the nodes of 2^31 filters do not fit into memory");
            self.nodes.push(Node::EMPTY);
            return index;
        }
        let index = self.free;
        self.free = std::mem::replace(self.node_mut(index), Node::EMPTY).here;
        index
    }

    fn unlink(&mut self, parent: u32, level: Level) {
        let Level::Name(level) = level else {
            self.node_mut(parent).plus = NONE;
            return;
        };
        let found = self.edges.find_entry(edge_key(parent, level), |edge| {
            edge.parent == parent && edge.level == level
        });
        if let Ok(entry) = found {
            entry.remove();
            self.node_mut(parent).edges -= 1;
        }
        if self.edges.capacity() > SHRINK_FROM && self.edges.len() < self.edges.capacity() / 8 {
            self.edges.shrink_to(self.edges.len() * 2, Edge::key);
        }
    }

    fn at(&self, node: u32, ending: Ending) -> impl Iterator<Item = FilterId> {
        let slot = match ending {
            Ending::Here => self.node(node).here,
            Ending::Hash => self.node(node).hash,
        };
        let first = (slot != NONE).then_some(FilterId(slot & !CROWDED));
        let crowded = slot != NONE && slot & CROWDED != 0;
        let more = crowded.then(|| self.crowd.range(crowd_of(node, ending)).map(|&(_, _, id)| id));
        first.into_iter().chain(more.into_iter().flatten())
    }

    fn put(&mut self, node: u32, ending: Ending, id: FilterId) {
        let slot = self.slot_mut(node, ending);
        if *slot == NONE {
            *slot = id.0;
        } else {
            *slot |= CROWDED;
            self.crowd.insert((node, ending, id));
        }
    }

    fn take(&mut self, node: u32, ending: Ending, id: FilterId) {
        let slot = *self.slot_mut(node, ending);
        if slot & CROWDED == 0 {
            *self.slot_mut(node, ending) = NONE;
            return;
        }
        let mut first = slot & !CROWDED;
        if first == id.0 {
            let heir = self.crowd.range(crowd_of(node, ending)).next().copied();
            let heir = heir.expect("a crowded slot has a crowd");
            first = heir.2.0;
            self.crowd.remove(&heir);
        } else {
            self.crowd.remove(&(node, ending, id));
        }
        let crowded = self.crowd.range(crowd_of(node, ending)).next().is_some();
        *self.slot_mut(node, ending) = first | if crowded { CROWDED } else { 0 };
    }
}

fn crowd_of(node: u32, ending: Ending) -> std::ops::RangeInclusive<(u32, Ending, FilterId)> {
    (node, ending, FilterId(0))..=(node, ending, FilterId(u32::MAX))
}

/// A full-width hash of two values, one of which already is a hash: both halves of a product, folded.
fn edge_key(parent: u32, level: u32) -> u64 {
    let product = u128::from(u64::from(parent) << 32 | u64::from(level)) * 0x9e37_79b9_7f4a_7c15_f39c_u128;
    (product >> 64) as u64 ^ product as u64
}
