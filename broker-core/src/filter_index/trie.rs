//! Wildcard filters, as a trie of levels.
//!
//! A node is 16 bytes; the edges of all nodes for literal levels lie in one hash table. Where only one filter goes on,
//! there is no further node: the edge leads to the filter itself. An edge knows only 32 bits of its level's hash, no
//! text: two levels with the same hash share an edge. So what comes out of a look-up are *candidates*; the index
//! compares their text before it believes them. A shared edge costs time but never gives a wrong answer, and filters
//! that end in the same place because of it are kept side by side.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::{FilterId, edges::Edges};

/// No node, no filter.
const NONE: u32 = u32::MAX;

/// Set in the slot of a filter if there are further ones of this slot in [`Trie::crowd`].
const CROWDED: u32 = 1 << 31;

/// Set in a child that is not a node but the one filter that goes on here.
const LEAF: u32 = 1 << 31;

const ROOT: u32 = 0;

/// Depth up to which a look-up allocates nothing.
const INLINE_LEVELS: usize = 24;

/// One level of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The child for `+`.
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
    edges: Edges,
    /// Filters whose slot was taken by another one whose levels have the same hashes.
    crowd: BTreeSet<(u32, Ending, FilterId)>,
}

impl Trie {
    pub(super) fn new() -> Trie {
        Trie {
            nodes: vec![Node::EMPTY],
            free: NONE,
            edges: Edges::default(),
            crowd: BTreeSet::new(),
        }
    }

    /// Adds a filter that is not in the trie yet. `levels_of` tells the levels of another one.
    pub(super) fn insert<L: Iterator<Item = Level>>(
        &mut self,
        mut levels: impl Iterator<Item = Level>,
        id: FilterId,
        levels_of: impl FnOnce(FilterId) -> L,
    ) {
        let (mut node, mut depth) = (ROOT, 0);
        let (mut level, other) = loop {
            let level = levels.next();
            depth += 1;
            match level.map_or(NONE, |level| self.child(node, level)) {
                NONE => return self.place(node, level, id),
                leaf if leaf & LEAF != 0 => break (level, FilterId(leaf & !LEAF)),
                child => node = child,
            }
        };
        // The other filter was alone here: both go down to where their ways part.
        let mut its_levels = levels_of(other).skip(depth);
        while let Some(common) = level {
            let child = self.allocate();
            self.set_child(node, common, child);
            node = child;
            let (mine, its) = (levels.next(), its_levels.next());
            level = mine.filter(|&level| mine == its && level != Level::Hash);
            if level.is_none() {
                self.place(node, its, other);
                self.place(node, mine, id);
            }
        }
    }

    /// Takes out a filter and the nodes that nobody needs any more.
    pub(super) fn remove(&mut self, levels: impl Iterator<Item = Level>, id: FilterId) {
        let mut path: SmallVec<[(u32, Level, u32); INLINE_LEVELS]> = SmallVec::new();
        let (mut node, mut ending) = (ROOT, Some(Ending::Here));
        for level in levels {
            if level == Level::Hash {
                ending = Some(Ending::Hash);
                break;
            }
            let child = self.child(node, level);
            if child & LEAF != 0 {
                self.unlink(node, level);
                ending = None;
                break;
            }
            path.push((node, level, child));
            node = child;
        }
        if let Some(ending) = ending {
            self.take(node, ending, id);
        }
        while let Some((parent, level, child)) = path.pop() {
            if !self.node(child).is_empty() {
                break;
            }
            self.unlink(parent, level);
            self.node_mut(child).here = std::mem::replace(&mut self.free, child);
        }
    }

    /// The one filter of those that end where these levels lead which is the right one.
    pub(super) fn find(
        &self,
        levels: impl Iterator<Item = Level>,
        is_right: impl Fn(FilterId) -> bool,
    ) -> Option<FilterId> {
        let (mut node, mut ending) = (ROOT, Ending::Here);
        for level in levels {
            if level == Level::Hash {
                ending = Ending::Hash;
                break;
            }
            node = match self.child(node, level) {
                NONE => return None,
                leaf if leaf & LEAF != 0 => return Some(FilterId(leaf & !LEAF)).filter(|&id| is_right(id)),
                child => child,
            };
        }
        let slot = match ending {
            Ending::Here => self.node(node).here,
            Ending::Hash => self.node(node).hash,
        };
        let mut found = None;
        self.visit(slot, (node, ending), &mut |id| {
            if is_right(id) {
                found = Some(id);
            }
        });
        found
    }

    /// Calls `candidate` for every filter that can match the names: those that do, and some others.
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
            if wildcards {
                self.visit(node.hash, (index, Ending::Hash), &mut candidate);
            }
            let (mut plus, mut literal) = (NONE, NONE);
            if node.edges > 0 || node.plus != NONE || node.here != NONE {
                match names.at(depth) {
                    None => self.visit(node.here, (index, Ending::Here), &mut candidate),
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
            for child in [&mut literal, &mut plus] {
                if *child != NONE && *child & LEAF != 0 {
                    candidate(FilterId(*child & !LEAF));
                    *child = NONE;
                }
            }
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

    /// Calls `candidate` for the filters of a slot.
    fn visit(&self, slot: u32, (node, ending): (u32, Ending), candidate: &mut impl FnMut(FilterId)) {
        if slot == NONE {
            return;
        }
        candidate(FilterId(slot & !CROWDED));
        if slot & CROWDED != 0 {
            self.crowd
                .range(crowd_of(node, ending))
                .for_each(|&(_, _, id)| candidate(id));
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
        self.edges.get(parent, level).unwrap_or(NONE)
    }

    fn child(&self, parent: u32, level: Level) -> u32 {
        match level {
            Level::Name(hash) => self.edge(parent, hash),
            Level::Plus => self.node(parent).plus,
            Level::Hash => NONE,
        }
    }

    /// Makes `child` the child of `parent` for a literal level or `+`.
    fn set_child(&mut self, parent: u32, level: Level, child: u32) {
        match level {
            Level::Name(hash) if self.edges.set(parent, hash, child) => self.node_mut(parent).edges += 1,
            Level::Name(_) | Level::Hash => {}
            Level::Plus => self.node_mut(parent).plus = child,
        }
    }

    /// Adds a filter to a node in which nobody goes on in the same way.
    fn place(&mut self, node: u32, next: Option<Level>, id: FilterId) {
        match next {
            None => self.put(node, Ending::Here, id),
            Some(Level::Hash) => self.put(node, Ending::Hash, id),
            Some(level) => self.set_child(node, level, id.0 | LEAF),
        }
    }

    fn allocate(&mut self) -> u32 {
        if self.free == NONE {
            let index = u32::try_from(self.nodes.len()).ok().filter(|&index| index < LEAF);
            let index = index.expect("2^31 nodes do not fit into memory");
            self.nodes.push(Node::EMPTY);
            return index;
        }
        let index = self.free;
        self.free = std::mem::replace(self.node_mut(index), Node::EMPTY).here;
        index
    }

    fn unlink(&mut self, parent: u32, level: Level) {
        match level {
            Level::Name(level) => {
                self.edges.remove(parent, level);
                self.node_mut(parent).edges -= 1;
            }
            _ => self.node_mut(parent).plus = NONE,
        }
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
