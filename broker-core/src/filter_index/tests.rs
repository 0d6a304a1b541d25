use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasherDefault, Hasher},
};

use proptest::prelude::*;

use super::*;

/// Two bits of hash: nearly all levels collide.
#[derive(Default)]
struct Narrow(u64);

impl Hasher for Narrow {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, &byte| sum + u64::from(byte));
    }

    fn finish(&self) -> u64 {
        self.0 & 3
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(String),
    Remove(usize),
    Match(String),
}

fn name() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["", "a", "b", "c", "ab", "$", "$SYS", "é", " ", "0"]);
    prop::collection::vec(level, 1..6).prop_map(|levels| levels.join("/"))
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec![
        "", "a", "b", "c", "ab", "$", "$SYS", "é", " ", "+", "+", "+",
    ]);
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, open)| {
            if open || levels.is_empty() {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter has at least one character", |filter| !filter.is_empty())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => filter().prop_map(Step::Insert),
        1 => name().prop_filter("not empty", |name| !name.is_empty()).prop_map(Step::Insert),
        3 => any::<usize>().prop_map(Step::Remove),
        4 => name().prop_filter("not empty", |name| !name.is_empty()).prop_map(Step::Match),
    ];
    prop::collection::vec(step, 1..80)
}

fn check<S: BuildHasher>(mut index: FilterIndex<u32, S>, steps: Vec<Step>) {
    let mut model: BTreeMap<String, (FilterId, u32)> = BTreeMap::new();
    for (number, step) in (1..).zip(steps) {
        match step {
            Step::Insert(filter) => {
                let id = index.insert(&filter);
                match model.get(&filter) {
                    Some(&(known, value)) => assert_eq!((known, value), (id, *index.get(id))),
                    None => {
                        assert_eq!(*index.get(id), 0);
                        *index.get_mut(id) = number;
                        model.insert(filter, (id, number));
                    }
                }
            }
            Step::Remove(nth) if !model.is_empty() => {
                let filter = model.keys().nth(nth % model.len()).cloned().unwrap();
                let (id, value) = model.remove(&filter).unwrap();
                assert_eq!(index.remove(id), value);
                assert_eq!(index.find(&filter), None);
            }
            Step::Remove(_) => {}
            Step::Match(topic) => {
                let mut found = Vec::new();
                index.for_each_match(&topic, |id, &value| {
                    found.push((index.name(id).to_owned(), (id, value)))
                });
                found.sort();
                let expected = model.iter().filter(|(filter, _)| topic::matches(filter, &topic));
                let expected: Vec<_> = expected.map(|(filter, &entry)| (filter.clone(), entry)).collect();
                assert_eq!(found, expected, "{topic}");
            }
        }
        assert_eq!(index.len(), model.len());
    }
    for (filter, &(id, value)) in &model {
        assert_eq!(index.find(filter), Some(id));
        assert_eq!((index.name(id), *index.get(id)), (filter.as_str(), value));
    }
    let listed: BTreeSet<FilterId> = index.iter().map(|(id, _)| id).collect();
    assert_eq!(listed, model.values().map(|&(id, _)| id).collect());
    for (id, _) in model.into_values() {
        index.remove(id);
    }
    assert!(index.is_empty());
    assert_eq!(index.trie.live_nodes(), 1, "only the root is left");
}

proptest! {
    #[test]
    fn behaves_like_a_list_of_filters(steps in steps()) {
        check(FilterIndex::with_seed(7), steps);
    }

    #[test]
    fn colliding_hashes_change_nothing(steps in steps()) {
        check(FilterIndex::with_hasher(BuildHasherDefault::<Narrow>::default()), steps);
    }
}

fn matched(index: &FilterIndex<u32>, topic: &str) -> Vec<String> {
    let mut found = Vec::new();
    index.for_each_match(topic, |id, _| found.push(index.name(id).to_owned()));
    found.sort();
    found
}

#[test]
fn a_slot_is_no_larger_than_its_parts() {
    assert_eq!(size_of::<Slot<[u64; 3]>>(), size_of::<Box<str>>() + 24);
}

#[test]
fn leading_wildcards_do_not_match_internal_topics() {
    let mut index = FilterIndex::new();
    for filter in ["#", "+/#", "+/x", "$SYS/#", "$SYS/+", "$SYS/x"] {
        index.insert(filter);
    }
    assert_eq!(matched(&index, "$SYS/x"), ["$SYS/#", "$SYS/+", "$SYS/x"]);
    assert_eq!(matched(&index, "a/x"), ["#", "+/#", "+/x"]);
}

#[test]
fn a_filter_of_65_535_empty_levels_comes_and_goes() {
    let mut index: FilterIndex<u32> = FilterIndex::new();
    let deep = "/".repeat(65_534) + "+";
    let other = "/".repeat(65_534) + "#";
    let ids = [index.insert(&deep), index.insert(&other)];
    assert_eq!(
        matched(&index, &"/".repeat(65_534)),
        [other.as_str(), deep.as_str()]
    );
    assert_eq!(matched(&index, &"/".repeat(65_535)), [other.as_str()]);
    assert_eq!(matched(&index, &"/".repeat(65_532)), [""; 0]);
    index.remove(ids[0]);
    assert_eq!(matched(&index, &"/".repeat(65_534)), [other.as_str()]);
    index.remove(ids[1]);
    assert_eq!(index.trie.live_nodes(), 1);
}

#[test]
fn every_mix_of_wildcards_is_found_once() {
    let mut index = FilterIndex::new();
    for bits in 0..1 << 10_u32 {
        let levels: Vec<&str> = (0..10)
            .map(|level| if bits >> level & 1 == 1 { "+" } else { "a" })
            .collect();
        index.insert(&levels.join("/"));
    }
    let found = matched(&index, &["a"; 10].join("/"));
    assert_eq!(found.len(), 1 << 10);
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 1 << 10);
}

#[test]
fn ids_are_reused() {
    let mut index: FilterIndex<u32> = FilterIndex::new();
    let first = index.insert("a/+");
    *index.get_mut(first) = 5;
    assert_eq!(index.remove(first), 5);
    let second = index.insert("b");
    assert_eq!((second, *index.get(second)), (first, 0));
}

#[test]
#[should_panic(expected = "only while its filter is in the index")]
fn a_stale_id_is_a_bug() {
    let mut index: FilterIndex<u32> = FilterIndex::new();
    let id = index.insert("a");
    index.remove(id);
    index.get(id);
}
