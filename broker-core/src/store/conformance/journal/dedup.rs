use bytes::Bytes;

use super::{caller, committed, put, record, with_id};
use crate::{
    Timestamp,
    store::{
        Journal, NewRecord, Sequence,
        conformance::{Factory, kv, text},
    },
};

/// What has an id is committed once, by whichever handle, and answered alike.
pub fn journal_dedup<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let mut kv = kv::caller(factory.kv(&store), now);
    let once = || {
        with_id(
            7,
            vec![record("t", "a"), record("t", "b")],
            vec![put("a.b", "one")],
        )
    };
    let (first, next, duplicate) = committed(journal.ask(once()));
    assert!(!duplicate);
    assert_eq!(committed(journal.ask(once())), (first, next, true));
    let second = journal.commit(with_id(8, vec![record("t", "a")], vec![]));
    assert!(second >= next, "the id counts, not the record");
    let mut other = caller(factory.journal(&store), now);
    let changed = with_id(7, vec![], vec![put("a.b", "two"), put("a.c", "two")]);
    assert_eq!(committed(other.ask(changed)), (first, next, true));
    assert_eq!(kv.get("a.b").map(|(_, value)| value), Some(text("one")));
    assert_eq!(kv.get("a.c"), None);

    let tickets = [0; 3].map(|_| journal.send(with_id(u128::MAX, vec![record("t", "c")], vec![])));
    let answers = tickets.map(|ticket| committed(journal.answer(ticket)));
    let (first, next, _) = answers[0];
    assert_eq!(
        answers,
        [(first, next, false), (first, next, true), (first, next, true)]
    );
    assert_eq!(journal.log(Sequence::FIRST).len(), 4);

    let data = Bytes::from(vec![0; journal.store.0.limits().record_bytes_max + 1]);
    let too_large = NewRecord { data, indexed: true };
    assert!(journal.ask(with_id(9, vec![too_large], vec![])).is_err());
    let place = journal.commit(with_id(9, vec![record("t", "d")], vec![]));
    let end = journal.head().next;
    journal.trim(end);
    let (again, _, duplicate) = committed(journal.ask(with_id(9, vec![], vec![])));
    assert_eq!((again, duplicate), (place, true), "also after it was trimmed");
}
