use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use hashbrown::HashMap;

use super::log::give_back;
use crate::{
    store::{Interest, Sequence},
    topic,
};

/// Bytes that a topic takes beyond its text, with a place of its own in both orders.
const TOPIC_OVERHEAD: u64 = 176;

/// Where the records of each topic stand.
#[derive(Default)]
pub(super) struct Index {
    topics: HashMap<Arc<str>, Topic, foldhash::quality::RandomState>,
    /// The topics in byte order, for filters with wildcards.
    sorted: BTreeSet<Arc<str>>,
    charge: u64,
}

#[derive(Default)]
struct Topic {
    /// Each record's place, and the bytes of those before it.
    places: VecDeque<(Sequence, u64)>,
    /// Bytes of all records that the topic has had since it came.
    bytes: u64,
}

impl Index {
    /// What the topics take, in bytes.
    pub(super) fn charge(&self) -> u64 {
        self.charge
    }

    /// By how much the next record of `topic` makes the charge larger.
    pub(super) fn growth(&self, topic: &str) -> u64 {
        if self.topics.contains_key(topic) {
            0
        } else {
            charge(topic)
        }
    }

    pub(super) fn push(&mut self, topic: &str, place: Sequence, bytes: usize) {
        if !self.topics.contains_key(topic) {
            let name: Arc<str> = topic.into();
            self.sorted.insert(Arc::clone(&name));
            self.topics.insert(name, Topic::default());
            self.charge += charge(topic);
        }
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.places.push_back((place, topic.bytes));
            topic.bytes += bytes as u64;
        }
    }

    /// Takes out the oldest record of `topic`.
    pub(super) fn pop(&mut self, topic: &str) {
        let Some(places) = self.topics.get_mut(topic).map(|topic| &mut topic.places) else {
            return;
        };
        places.pop_front();
        give_back(places);
        if places.is_empty() {
            self.topics.remove(topic);
            self.sorted.remove(topic);
            self.charge -= charge(topic);
        }
    }

    /// The records from a place on whose topics match a filter, by increasing place. `None`: more than `budget`
    /// topics would have to be looked at.
    pub(super) fn matches(
        &self,
        interest: &Interest,
        from: Sequence,
        mut budget: usize,
    ) -> Option<Matches<'_>> {
        let mut names = BTreeSet::new();
        for filter in &interest.filters {
            self.find(filter, &mut budget, &mut names)?;
        }
        let mut matches = Matches {
            lists: Vec::with_capacity(names.len()),
            heads: BinaryHeap::new(),
            items: 0,
            bytes: 0,
        };
        for name in names {
            let topic = &self.topics[name];
            let start = topic.places.partition_point(|(place, _)| *place < from);
            if let Some((place, before)) = topic.places.get(start) {
                matches.items += (topic.places.len() - start) as u64;
                matches.bytes += topic.bytes - before;
                matches.heads.push(Reverse((*place, matches.lists.len())));
                matches.lists.push((topic, start));
            }
        }
        Some(matches)
    }

    /// Adds the topics that match `filter`. `None`: the budget does not suffice.
    fn find<'a>(&'a self, filter: &str, budget: &mut usize, names: &mut BTreeSet<&'a str>) -> Option<()> {
        // `a/#` stands for `a` and what starts with `a/`, between which others lie.
        let exact = filter.strip_suffix("/#").unwrap_or(filter);
        *budget = budget.checked_sub(1)?;
        names.extend(self.sorted.get(exact).map(|name| &**name));
        let Some(wildcard) = filter.find(['+', '#']) else {
            return Some(());
        };
        let prefix = &filter[..wildcard];
        let range = (Bound::Included(prefix), Bound::Unbounded);
        for name in self.sorted.range::<str, _>(range) {
            if !name.starts_with(prefix) {
                break;
            }
            *budget = budget.checked_sub(1)?;
            if topic::matches(filter, name) {
                names.insert(name);
            }
        }
        Some(())
    }
}

fn charge(topic: &str) -> u64 {
    TOPIC_OVERHEAD + topic.len() as u64
}

/// The records of several topics, merged by place.
pub(super) struct Matches<'a> {
    /// Each topic, and the first of its places that is not yet taken.
    lists: Vec<(&'a Topic, usize)>,
    /// That place, and the number of the list.
    heads: BinaryHeap<Reverse<(Sequence, usize)>>,
    items: u64,
    bytes: u64,
}

impl Matches<'_> {
    /// Records not yet taken.
    pub(super) fn items(&self) -> u64 {
        self.items
    }

    /// Bytes of their data.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn peek(&self) -> Option<Sequence> {
        self.heads.peek().map(|Reverse((place, _))| *place)
    }

    pub(super) fn next(&mut self) -> Option<Sequence> {
        let Reverse((place, number)) = self.heads.pop()?;
        let (topic, at) = &mut self.lists[number];
        let before = topic.places[*at].1;
        *at += 1;
        let after = match topic.places.get(*at) {
            Some((next, after)) => {
                self.heads.push(Reverse((*next, number)));
                *after
            }
            None => topic.bytes,
        };
        self.items -= 1;
        self.bytes -= after - before;
        Some(place)
    }
}
