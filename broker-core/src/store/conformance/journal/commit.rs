use bytes::Bytes;

use super::{append, caller, commit, committed, data, put, record};
use crate::{
    Timestamp,
    store::{
        Extent, Fault, Journal, JournalError, NewRecord, Revision, Sequence, Value, Write,
        conformance::{
            Factory,
            kv::{self, change, key},
            text,
        },
    },
};

/// One order for all handles; each commit's records stand together, in theirs; commits of one handle complete in the
/// order in which they were submitted, also the failed ones.
pub fn journal_order<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let empty = Extent {
        first: Sequence::FIRST,
        next: Sequence::FIRST,
        bytes: 0,
    };
    assert_eq!(journal.head(), empty);
    assert_eq!(journal.log(empty.first), []);
    let mut other = caller(factory.journal(&store), now);
    let bytes = journal.store.0.limits().record_bytes_max + 1;
    let bodies = ["one", "two", "three", "", "five"];
    let mut tickets = Vec::new();
    for body in bodies {
        tickets.push(journal.send(commit(vec![record("a", body), record("b", body)], vec![])));
        other.send_append("of another handle");
        let too_large = NewRecord {
            data: Bytes::from(vec![0; bytes]),
            indexed: false,
        };
        tickets.push(journal.send(commit(vec![too_large], vec![])));
    }
    let completed = journal.completions(tickets.len());
    let order: Vec<_> = completed.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(order, tickets, "completed in the order of submission");
    other.completions(bodies.len());
    let mut expected = Vec::new();
    let mut answers = completed.into_iter().map(|(_, answer)| answer);
    for body in bodies {
        let (first, next, duplicate) = committed(answers.next().expect("as many as tickets"));
        assert!(!duplicate);
        assert!(expected.last().is_none_or(|(last, _)| first > *last));
        assert!(next >= Sequence(first.0 + 2), "a place for each record");
        expected.push((first, data("a", body)));
        expected.push((first.next(), data("b", body)));
        let bytes_max = bytes - 1;
        let error = JournalError::Fault(Fault::TooLarge { bytes, bytes_max });
        assert_eq!(answers.next(), Some(Err(error)));
    }
    let mut found = other.log(Sequence::FIRST);
    assert_eq!(found.len(), 15);
    found.retain(|(_, data)| !data.ends_with(b"of another handle"));
    assert_eq!(found, expected);
    let head = journal.head();
    assert!(head.first == Sequence::FIRST && head.next > expected[9].0);
}

/// A commit is done as a whole or not at all.
pub fn journal_atomic<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let mut kv = kv::caller(factory.kv(&store), now);
    let before = journal.head();
    let bytes = journal.store.0.limits().record_bytes_max + 1;
    let too_large = Bytes::from(vec![0; bytes]);
    let large_record = NewRecord {
        data: too_large.clone(),
        indexed: false,
    };
    let large_write = Write {
        key: key("a.2"),
        value: Value::Put(too_large),
    };
    for (records, writes) in [
        (vec![record("t", "x"), large_record], vec![put("a.1", "x")]),
        (vec![record("t", "x")], vec![put("a.1", "x"), large_write]),
    ] {
        assert!(journal.ask(commit(records, writes)).is_err());
        assert_eq!(kv.get("a.1"), None);
        assert_eq!(journal.log(before.first), []);
    }
    // Whoever sees one half sees the other.
    let mut reader = caller(factory.journal(&store), now);
    for number in 0..20 {
        let name = format!("n.{number}");
        let ticket = journal.send(commit(vec![record("t", "x")], vec![put(&name, "x")]));
        let is_written = kv.get(&name).is_some();
        let records = reader.log(before.first).len();
        assert!(records == number + 1 || (records == number && !is_written));
        assert!(records == number || kv.get(&name).is_some());
        committed(journal.answer(ticket));
    }
}

/// The writes of a commit: in order, with its first place as their revision, a record's data by its number; seen by
/// every handle when the commit has completed, and by those who watch.
pub fn journal_entries<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let mut kv = kv::caller(factory.kv(&store), now);
    let created = kv.create("e.old", "before");
    let delete = |name| Write {
        key: key(name),
        value: Value::Delete,
    };
    let records = vec![record("t", "zero"), record("t", "one")];
    let writes = vec![
        put("e.a", "not the last"),
        put("e.a", "the last"),
        put("e.gone", "x"),
        delete("e.gone"),
        delete("e.never"),
        put("e.old", "replaced"),
        Write {
            key: key("e.record"),
            value: Value::PutRecord(1),
        },
    ];
    let first = journal.commit(commit(records, writes));
    let revision = Revision(first.0);
    assert!(revision > created, "one order of revisions");
    assert_eq!(kv.get("e.a"), Some((revision, text("the last"))));
    assert_eq!(kv.get("e.old"), Some((revision, text("replaced"))));
    assert_eq!(kv.get("e.record"), Some((revision, data("t", "one"))));
    for name in ["e.gone", "e.never"] {
        assert_eq!(kv.get(name), None);
    }

    // The changes of one commit are told together, however small the page.
    let mut told = kv.watch("e", created, 1);
    told.retain(|change| change.value.is_some());
    told.sort_by(|a, b| a.key.cmp(&b.key));
    let expected = [
        change("e.a", revision, Some(text("the last"))),
        change("e.old", revision, Some(text("replaced"))),
        change("e.record", revision, Some(data("t", "one"))),
    ];
    assert_eq!(told, expected);

    // A commit without records has a place too, and one without anything.
    let second = journal.commit(commit(vec![], vec![delete("e.a"), put("e.b", "")]));
    assert!(second > first.next());
    let nothing = journal.commit(commit(vec![], vec![]));
    assert!(nothing > second);
    let third = journal.commit(append("x"));
    assert!(third > nothing);
    let log = journal.log(Sequence::FIRST);
    let places: Vec<_> = log.iter().map(|(place, _)| *place).collect();
    assert_eq!(places, [first, first.next(), third]);

    // Compare-and-set goes on from there.
    let next = kv.update("e.b", Revision(second.0), "two");
    assert!(next > Revision(third.0));
    assert_eq!(kv.get("e.b"), Some((next, text("two"))));
}
