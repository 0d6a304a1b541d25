use super::{append, caller, commit, data, put, tail, tailed};
use crate::{
    Timestamp,
    store::{
        JournalError, JournalRequest, NewRecord, Retry, Sequence,
        conformance::{Factory, kv, page},
    },
};

/// All records from a place on, in pages; places of another journal are refused.
pub fn journal_tail<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let mut places: Vec<_> = ["0", "1", "2"].map(|body| journal.commit(append(body))).into();
    journal.commit(commit(vec![], vec![put("a.b", "leaves a gap")]));
    let not_indexed = NewRecord {
        data: data("t", "3"),
        indexed: false,
    };
    places.push(journal.commit(commit(vec![not_indexed], vec![])));
    let expected: Vec<_> = (0..)
        .zip(places)
        .map(|(number, place)| (place, data("t", &format!("{number}"))))
        .collect();
    for start in 0..expected.len() {
        let (records, next) = tailed(journal.ask(tail(expected[start].0, 100, start % 2 == 0)));
        assert_eq!(records, expected[start..]);
        assert!(next <= journal.head().next);
        assert_eq!(tailed(journal.ask(tail(next, 1, false))), (vec![], next));
    }
    assert_eq!(journal.log(Sequence::FIRST), expected, "in pages of two");
    let gap = expected[2].0.next();
    assert_eq!(tailed(journal.ask(tail(gap, 9, true))).0, expected[3..]);

    let one = data("t", "0").len();
    for (bytes_max, count) in [(0, 1), (1, 1), (one, 1), (one + 1, 2), (usize::MAX, 3)] {
        let request = JournalRequest::Tail {
            from: Sequence::FIRST,
            page: page(3, bytes_max),
            wait: true,
        };
        let (records, next) = tailed(journal.ask(request));
        assert_eq!(records, expected[..count], "a page ends where its bytes do");
        assert!(next > expected[count - 1].0 && next <= expected[count].0);
    }

    let head = journal.head();
    let error = JournalError::OutOfRange(head);
    assert_eq!(error.retry(), Retry::Refresh);
    assert_eq!(journal.ask(tail(head.next.next(), 1, true)), Err(error));
}

/// At the end a tail waits for a record, whoever appends it, and wakes its owner.
pub fn journal_tail_waits<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let mut writer = caller(factory.journal(&store), now);
    let mut kv = kv::caller(factory.kv(&store), now);
    let waiting = journal.send(tail(Sequence::FIRST, 10, true));
    let second = journal.send(tail(Sequence::FIRST, 10, true));
    kv.create("a.b", "is no record");
    writer.commit(commit(vec![], vec![put("a.c", "nor is this")]));
    journal.head();
    assert!(!journal.has_answered(waiting));
    let first = journal.check_wake(|| writer.commit(append("one")));
    for ticket in [waiting, second] {
        let (records, next) = tailed(journal.answer(ticket));
        assert_eq!(records, [(first, data("t", "one"))]);
        assert!(next > first && next <= journal.head().next);
    }

    let waiting = journal.send(tail(first.next(), 10, true));
    let own = journal.commit(append("two"));
    let (records, next) = tailed(journal.answer(waiting));
    assert_eq!(records, [(own, data("t", "two"))], "its own records too");

    // One that waits while entries change and the log is trimmed has missed nothing.
    let waiting = journal.send(tail(next, 10, true));
    kv.create("a.d", "x");
    let end = writer.head().next;
    writer.trim(end);
    let third = writer.commit(append("three"));
    let (records, _) = tailed(journal.answer(waiting));
    assert_eq!(records, [(third, data("t", "three"))]);
}
