use super::{caller, committed, data, put, record, with_id};
use crate::{
    Timestamp,
    store::{
        Journal, JournalRequest, Keep, Revision, Sequence, Value, Write,
        conformance::{
            Factory, check_crash,
            kv::{self, key},
            text,
        },
    },
};

const ALL: Keep = Keep {
    items_max: 0,
    bytes_max: 0,
};

/// What has completed is there after a crash, whole: records in their places, entries with their revisions, ids; and
/// places and revisions go on. A volatile store may decline.
pub fn journal_crash<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let durability = journal.store.0.durability();
    let delete = |name| Write {
        key: key(name),
        value: Value::Delete,
    };
    let writes = vec![put("c.a", "one"), put("c.b", "gone soon")];
    let first = journal.commit(with_id(1, vec![record("a/b", "0"), record("b", "1")], writes));
    let by_record = Write {
        key: key("c.r"),
        value: Value::PutRecord(0),
    };
    let second = journal.commit(with_id(2, vec![record("c", "2")], vec![by_record, delete("c.b")]));
    let last = journal.commit(with_id(3, vec![], vec![put("c.d", "last")]));
    let log = journal.log(Sequence::FIRST);
    drop(journal);
    let mut reopened = factory.crash(store);
    check_crash(durability, reopened.is_none());
    // The second time nothing was written in between, the third time something was.
    for round in 0..3 {
        let Some(store) = reopened else { return };
        let mut journal = caller(factory.journal(&store), now);
        let mut kv = kv::caller(factory.kv(&store), now);
        assert_eq!(journal.log(Sequence::FIRST)[..3], log);
        let found = journal.read_all(&["+", "a/#"], Sequence::FIRST, ALL, 2, usize::MAX);
        assert_eq!(found.0[..3], log, "found by topic too");
        assert_eq!(journal.fetch(&[second]), log[2..]);
        assert_eq!(kv.get("c.a"), Some((Revision(first.0), text("one"))));
        assert_eq!(kv.get("c.b"), None);
        assert_eq!(kv.get("c.r"), Some((Revision(second.0), data("c", "2"))));
        assert_eq!(kv.get("c.d"), Some((Revision(last.0), text("last"))));
        for (id, place) in [(1, first), (2, second), (3, last)] {
            let (again, _, duplicate) = committed(journal.ask(with_id(id, vec![], vec![])));
            assert_eq!((again, duplicate), (place, true), "ids survive");
        }
        let head = journal.head();
        assert!(head.first == Sequence::FIRST && head.next > last);
        if round == 1 {
            let place = journal.commit(with_id(4, vec![record("a/b", "new")], vec![]));
            assert!(place >= head.next);
            let revision = kv.create("c.e", "new");
            assert!(revision > Revision(place.0));
        }
        if round == 2 {
            assert_eq!(journal.log(Sequence::FIRST).len(), 4);
            assert_eq!(kv.get("c.e").map(|(_, value)| value), Some(text("new")));
        }
        drop((journal, kv));
        reopened = factory.crash(store);
    }
}

/// What was in flight is there, whole, or not at all; of one handle's commits the first ones.
pub fn journal_crash_in_flight<F: Factory>(factory: &mut F, now: Timestamp) {
    const COMMITS: usize = 8;
    let store = factory.open();
    let mut handles = [0; 2].map(|_| caller(factory.journal(&store), now));
    let (durability, mut acknowledged) = (handles[0].store.0.durability(), Vec::new());
    for number in 0..COMMITS {
        for (topic, journal) in ["x", "y"].into_iter().zip(&mut handles) {
            let ticket = journal.send(numbered(topic, number));
            if number < 2 {
                acknowledged.push((topic, number, committed(journal.answer(ticket)).0));
            }
        }
    }
    drop(handles);
    let reopened = factory.crash(store);
    check_crash(durability, reopened.is_none());
    let Some(store) = reopened else { return };
    let mut journal = caller(factory.journal(&store), now);
    let mut kv = kv::caller(factory.kv(&store), now);
    let log = journal.log(Sequence::FIRST);
    for (topic, number, place) in acknowledged {
        assert!(log.contains(&(place, data(topic, &format!("{number}")))));
    }
    for topic in ["x", "y"] {
        let (found, _) = journal.read_all(&[topic], Sequence::FIRST, ALL, 100, usize::MAX);
        let executed = found.len() / 2;
        for number in 0..COMMITS {
            let entry = kv.get(&format!("{topic}.{number}"));
            if number >= executed {
                assert_eq!(entry, None, "neither record nor entry");
                continue;
            }
            let (revision, _) = entry.expect("the entry that was committed with a record");
            let place = Sequence(revision.0);
            let [one, two] = [format!("{number}"), format!("{number}, too")].map(|body| data(topic, &body));
            assert_eq!(found[2 * number..][..2], [(place, one), (place.next(), two)]);
        }
        // Who tries again what was not acknowledged does it once.
        for number in 0..COMMITS {
            let (_, _, duplicate) = committed(journal.ask(numbered(topic, number)));
            assert_eq!(duplicate, number < executed);
        }
    }
    assert_eq!(journal.log(Sequence::FIRST).len(), 4 * COMMITS);
}

/// Two records and an entry, with an id.
fn numbered(topic: &str, number: usize) -> JournalRequest {
    let records = vec![
        record(topic, &format!("{number}")),
        record(topic, &format!("{number}, too")),
    ];
    let id = number as u128 | u128::from(topic.as_bytes()[0]) << 64;
    with_id(id, records, vec![put(&format!("{topic}.{number}"), "x")])
}
