use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{ClientInfo, MessageParts, topic};

fn message(topic: &str, expiry_secs: Option<u32>) -> Message {
    let parts = MessageParts {
        expiry_interval: expiry_secs,
        retain: true,
        ..MessageParts::new(topic, b"payload")
    };
    let now = Timestamp::from_millis(0);
    parts.publish_absolute(now, ClientInfo::system()).unwrap()
}

fn names(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(Message::topic).collect()
}

fn level() -> impl Strategy<Value = &'static str> {
    // Bytes on both sides of `/`, `$` and of each other.
    prop::sample::select(vec![
        "", "a", "b", "a b", "a0", "a.", "ab", "$", "$a", "%", "!", "é", "a$", "0",
    ])
}

fn name() -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/"));
    levels.prop_filter("not empty", |name| !name.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, open)| {
            if open || levels.is_empty() {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("not empty", |filter| !filter.is_empty())
}

#[derive(Clone, Debug)]
enum Step {
    Insert(String, Option<u32>),
    Remove(String),
    Expire(u64, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (name(), prop::option::of(0..20_u32)).prop_map(|(name, secs)| Step::Insert(name, secs)),
        1 => name().prop_map(Step::Remove),
        1 => (0..20_u64, 0..5_usize).prop_map(|(secs, budget)| Step::Expire(secs, budget)),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn pages_hold_what_a_naive_scan_finds(
        topics in prop::collection::btree_set(name(), 0..60),
        filter in filter(),
        limit in 0..5_usize,
        scan_limit in 0..9_usize,
    ) {
        let mut store = RetainedStore::new();
        for topic in &topics {
            prop_assert!(store.insert(message(topic, None)).is_none());
        }
        let (mut out, mut after) = (Vec::new(), None);
        loop {
            let before = out.len();
            let page = store.page(&filter, after.as_deref(), limit, &mut { scan_limit }, &mut out);
            prop_assert!(out.len() - before <= limit.max(1).min(scan_limit.max(1)));
            match page {
                Page::Done => break,
                Page::More(topic) => {
                    prop_assert!(after.is_none_or(|after| after < topic), "every page makes progress");
                    after = Some(topic);
                }
            }
        }
        let expected: Vec<_> = topics.iter().filter(|topic| topic::matches(&filter, topic)).collect();
        prop_assert_eq!(names(&out), expected, "{}", filter);
    }

    #[test]
    fn the_books_are_kept(steps in steps()) {
        let mut store = RetainedStore::new();
        let mut model: BTreeMap<String, Message> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert(topic, secs) => {
                    let new = message(&topic, secs);
                    let old = store.insert(new.clone()).map(|old| old.expires());
                    prop_assert_eq!(old, model.insert(topic, new).map(|old| old.expires()));
                }
                Step::Remove(topic) => {
                    prop_assert_eq!(store.remove(&topic).is_some(), model.remove(&topic).is_some());
                }
                Step::Expire(secs, budget) => {
                    let now = Timestamp::from_millis(secs * 1000);
                    let expired = model.values().filter(|message| message.is_expired(now)).count();
                    prop_assert_eq!(store.expire(now, budget).len(), expired.min(budget));
                    model.retain(|topic, _| store.get(topic).is_some());
                }
            }
            prop_assert_eq!(store.len(), model.len());
            prop_assert_eq!(store.bytes(), model.values().map(Message::weight).sum::<usize>());
            let next = model.values().map(Message::expires).filter(|&at| at < Timestamp::NEVER).min();
            prop_assert_eq!(store.next_expiry(), next);
            for (topic, message) in &model {
                prop_assert_eq!(store.get(topic).map(Message::expires), Some(message.expires()));
            }
        }
    }
}

#[test]
fn the_first_to_expire_goes_first() {
    let mut store = RetainedStore::new();
    for (topic, secs) in [("a", 3), ("b", 1), ("c", 2)] {
        store.insert(message(topic, Some(secs)));
    }
    store.insert(message("d", None));
    assert_eq!(store.expire(Timestamp::from_millis(3000), 2).len(), 2);
    assert!(store.get("a").is_some() && store.get("b").is_none() && store.get("c").is_none());
    assert_eq!(store.next_expiry(), Some(Timestamp::from_millis(3000)));
    assert_eq!(store.expire(Timestamp::from_millis(3000), 2).len(), 1);
    assert_eq!((store.len(), store.next_expiry()), (1, None));
}

/// 100 devices, each with 1000 topics.
fn large() -> RetainedStore {
    let mut store = RetainedStore::new();
    for device in 0..100 {
        for sensor in 0..1000 {
            store.insert(message(&format!("dev/{device:03}/s{sensor:04}/value"), None));
        }
    }
    store
}

/// Topics that are looked at until the end: pages of one topic each.
fn work(store: &RetainedStore, filter: &str) -> (usize, usize) {
    let (mut out, mut after) = (Vec::new(), None);
    let mut pages = 1;
    while let Page::More(topic) = store.page(filter, after.as_deref(), 1, &mut 1, &mut out) {
        after = Some(topic);
        pages += 1;
    }
    (pages, out.len())
}

#[test]
fn a_scan_seeks_over_what_cannot_match() {
    let store = large();
    let mut out = Vec::new();
    for (filter, found, most_scanned) in [
        ("dev/042/#", 1000, 1001),
        ("dev/042/s0007/value", 1, 2),
        ("dev/+/s0500/value", 100, 500),
        ("dev/+/s0500/+", 100, 500),
        ("dev/+/s0500/#", 100, 500),
        ("+/042/s0500/#", 1, 8),
        ("+", 0, 4),
        ("dev/+", 0, 300),
        ("+/+/none/#", 0, 300),
        ("x/#", 0, 1),
        ("$SYS/#", 0, 2),
    ] {
        out.clear();
        let page = store.page(filter, None, usize::MAX, &mut { most_scanned }, &mut out);
        assert_eq!((page, out.len()), (Page::Done, found), "{filter}");
    }
}

#[test]
fn a_page_of_one_topic_makes_progress() {
    let mut store = RetainedStore::new();
    for topic in ["a", "a b", "a/x", "a0", "b"] {
        store.insert(message(topic, None));
    }
    assert_eq!(work(&store, "#"), (5, 5));
    assert_eq!(work(&store, "a/#").1, 2);
}

#[test]
fn a_page_goes_on_behind_a_topic_that_has_gone() {
    let mut store = RetainedStore::new();
    for topic in ["a/1", "a/2", "a/3"] {
        store.insert(message(topic, None));
    }
    let mut out = Vec::new();
    assert_eq!(
        store.page("a/+", None, 1, &mut 10, &mut out),
        Page::More("a/1".to_owned())
    );
    store.remove("a/1");
    store.remove("a/2");
    assert_eq!(store.page("a/+", Some("a/1"), 1, &mut 10, &mut out), Page::Done);
    assert_eq!(names(&out), ["a/1", "a/3"]);
}
