use std::sync::Arc;

use super::*;

const NOTED: bool = true;

/// Registers the names and notes them.
fn registered(names: &[&str]) -> (Topics, Vec<(u16, Bytes)>) {
    let mut topics = Topics::default();
    let mut notes: Vec<(u16, Bytes)> = Vec::new();
    for name in names {
        topics.add(name, u16::MAX).expect("there is room");
    }
    while let Some((number, page)) = topics.next_note() {
        notes.retain(|(other, _)| *other != number);
        notes.push((number, page));
        topics.noted(number, NOTED, Timestamp::default());
    }
    (topics, notes)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("topic/{}", n * 7919 % 1000)).collect()
}

#[test]
fn a_name_keeps_its_id_and_an_id_its_name() {
    let names = names(100);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (topics, notes) = registered(&names);
    let again = Topics::restore(&notes, false);
    for topics in [topics, again] {
        for (at, name) in (FIRST..).zip(&names) {
            let found = topics.find(name).expect("registered");
            assert_eq!(
                (found.id, found.is_noted, found.is_confirmed),
                (TopicId(at), true, false)
            );
            assert_eq!(topics.name(TopicId(at)), Some(*name));
        }
        for id in [0, 1, FIRST - 1, FIRST + 100, 0xFFFF] {
            assert_eq!(topics.name(TopicId(id)), None);
        }
        assert_eq!(topics.find("topic/x"), None);
    }
}

#[test]
fn an_id_is_of_no_use_before_it_is_noted() {
    let mut topics = Topics::default();
    let id = topics.add("a", 10).expect("there is room");
    assert_eq!(topics.name(id), None);
    let (number, _) = topics.next_note().expect("to be noted");
    assert_eq!(topics.next_note(), None, "one note at a time");
    let later = topics.add("b", 10).expect("there is room");
    topics.noted(number, true, Timestamp::default());
    assert_eq!((topics.name(id), topics.name(later)), (Some("a"), None));
    let (number, page) = topics.next_note().expect("b is to be noted");
    topics.noted(number, false, Timestamp::default());
    assert_eq!((topics.find("b"), topics.next_note()), (None, None));
    assert_eq!(Topics::restore(&[(number, page)], false).name(later), Some("b"));
    assert_eq!(topics.add("c", 10), Some(later), "the id was promised to nobody");
}

#[test]
fn there_are_no_more_ids_than_the_limit_or_the_session_can_note() {
    let mut topics = Topics::default();
    assert!(topics.add("a", 1).is_some());
    assert_eq!(topics.add("b", 1), None);
    let names: Vec<String> = (0..IDS_MAX).map(|n| format!("{n:05}")).collect();
    let mut topics = Topics::default();
    let fitting: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .take_while(|name| topics.add(name, u16::MAX).is_some())
        .collect();
    let (mut topics, notes) = registered(&fitting);
    let pages: std::collections::BTreeMap<u16, usize> =
        notes.iter().map(|(number, page)| (*number, page.len())).collect();
    let bytes: usize = pages.values().map(|len| len + NOTE_BYTES).sum();
    assert!(bytes <= PAGES_BYTES_MAX && bytes + 3 + 5 + NOTE_BYTES > PAGES_BYTES_MAX);
    assert_eq!(topics.add("one more than there is room for", u16::MAX), None);
    assert_eq!(Topics::restore(&notes, true).bytes, bytes);
}

#[test]
fn a_client_that_slept_knows_what_it_knew_and_one_that_connects_nothing() {
    let (mut topics, mut notes) = registered(&["a", "b", "c"]);
    topics.confirm(TopicId(FIRST), true);
    topics.confirm(TopicId(FIRST + 2), true);
    topics.confirm(TopicId(FIRST + 2), false);
    topics.confirm(TopicId(FIRST + 99), true);
    notes = {
        let stale = topics.stale_notes();
        assert_eq!(stale.len(), notes.len());
        stale
    };
    assert!(topics.stale_notes().is_empty(), "nothing has changed");
    let known =
        |topics: &Topics| ["a", "b", "c"].map(|name| topics.find(name).expect("registered").is_confirmed);
    assert_eq!(known(&Topics::restore(&notes, true)), [true, false, false]);
    let mut connected = Topics::restore(&notes, false);
    assert_eq!(known(&connected), [false; 3]);
    assert_eq!(
        connected.stale_notes().len(),
        1,
        "the note says more than it knows"
    );
}

#[test]
fn pages_that_nobody_here_has_written_are_left_alone() {
    let (_, notes) = registered(&["a", "b"]);
    let page = notes[0].1.clone();
    for broken in [
        page.slice(..page.len() - 1),
        page.slice(1..),
        Bytes::from_static(&[1, 0, 1, 0xFF]),
    ] {
        assert!(Topics::restore(&[(FIRST_PAGE, broken)], true).is_empty());
    }
    assert!(
        Topics::restore(&[(FIRST_PAGE + 1, page.clone())], true).is_empty(),
        "the first page is missing"
    );
    assert!(
        Topics::restore(&[(0, page.clone()), (1, page)], true).is_empty(),
        "other notes are not pages"
    );
}

#[test]
fn a_client_s_own_predefined_topics_go_before_the_global_ones() {
    let topic = |id, name: &str| (TopicId(id), Arc::from(name));
    let predefined = Predefined {
        global: [topic(1, "one"), topic(2, "two")].into(),
        clients: [("c".into(), [topic(1, "own"), topic(3, "two")].into())].into(),
    };
    assert_eq!(predefined.name("c", TopicId(1)), Some("own"));
    assert_eq!(predefined.name("d", TopicId(1)), Some("one"));
    assert_eq!(predefined.name("d", TopicId(3)), None);
    assert_eq!(
        predefined.id("c", "one"),
        None,
        "its id means something else to this client"
    );
    assert_eq!(predefined.id("c", "two"), Some(TopicId(3)));
    assert_eq!(predefined.id("d", "two"), Some(TopicId(2)));
    assert_eq!(predefined.id("d", "own"), None);
}
