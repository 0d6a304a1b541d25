use std::collections::VecDeque;

use bytes::Bytes;

use super::{Caller, Factory, check_crash, page, text};
use crate::{
    Timestamp,
    shard::Ticket,
    store::{
        DedupId, Extent, Fault, Journal, JournalError, JournalReply, JournalRequest, JournalShard, Retry,
        Sequence,
    },
};

type Answer = Result<JournalReply, JournalError>;

/// A handle, and the time, which its callbacks cannot capture.
struct Timed<S>(S, Timestamp);
type JournalCaller<S> = Caller<Timed<S>, JournalRequest, Answer>;

const A: JournalShard = JournalShard(0);
const B: JournalShard = JournalShard(1);

fn caller<S: Journal>(store: S, now: Timestamp) -> JournalCaller<S> {
    Caller {
        store: Timed(store, now),
        submit: |Timed(store, now), requests| store.submit(*now, requests),
        poll: |Timed(store, now), waker| store.poll(*now, waker),
        tickets: 0,
        done: VecDeque::new(),
    }
}

fn append(shard: JournalShard, id: u128, record: &'static str) -> JournalRequest {
    JournalRequest::Append {
        shard,
        record: text(record),
        dedup: DedupId(id),
    }
}

fn tail(shard: JournalShard, from: Sequence, items_max: u16, wait: bool) -> JournalRequest {
    JournalRequest::Tail {
        shard,
        from,
        page: page(items_max, usize::MAX),
        wait,
    }
}

impl<S: Journal> JournalCaller<S> {
    fn appended(&mut self, ticket: Ticket) -> (Sequence, bool) {
        match self.answer(ticket) {
            Ok(JournalReply::Appended { sequence, duplicate }) => (sequence, duplicate),
            other => panic!("append brought {other:?}"),
        }
    }

    fn append(&mut self, shard: JournalShard, id: u128, record: &'static str) -> (Sequence, bool) {
        let ticket = self.send(append(shard, id, record));
        self.appended(ticket)
    }

    fn head(&mut self, shard: JournalShard) -> Extent {
        match self.ask(JournalRequest::Head(shard)) {
            Ok(JournalReply::Head(extent)) => extent,
            other => panic!("head brought {other:?}"),
        }
    }

    fn trim(&mut self, shard: JournalShard, upto: Sequence) {
        assert_eq!(
            self.ask(JournalRequest::Trim { shard, upto }),
            Ok(JournalReply::Trimmed)
        );
    }

    fn page(answer: Answer) -> (Vec<(Sequence, Bytes)>, Sequence) {
        match answer {
            Ok(JournalReply::Records { records, next }) => {
                let records = records.into_iter().map(|record| (record.sequence, record.data));
                (records.collect(), next)
            }
            other => panic!("tail brought {other:?}"),
        }
    }

    /// Everything from a place to the end, in pages of two.
    fn read(&mut self, shard: JournalShard, mut from: Sequence) -> Vec<(Sequence, Bytes)> {
        let mut all = Vec::new();
        loop {
            let (records, next) = Self::page(self.ask(tail(shard, from, 2, false)));
            if records.is_empty() {
                assert_eq!(next, from);
                return all;
            }
            assert!(records.len() <= 2 && next > records[records.len() - 1].0);
            all.extend(records);
            from = next;
        }
    }
}

/// Everything below.
pub fn journal<F: Factory<Store: Journal>>(factory: &mut F, now: Timestamp) {
    journal_order(factory, now);
    journal_dedup(factory, now);
    journal_tail(factory, now);
    journal_trim(factory, now);
    journal_limits(factory, now);
    journal_in_flight(factory, now);
    journal_crash(factory, now);
}

/// Records of one handle stand in the order they were appended; shards do not mix.
pub fn journal_order<F: Factory<Store: Journal>>(factory: &mut F, now: Timestamp) {
    let mut journal = caller(factory.open(), now);
    let empty = journal.head(A);
    assert_eq!(
        (empty.first, empty.next, empty.bytes),
        (Sequence(1), Sequence(1), 0)
    );
    assert_eq!(journal.read(A, empty.first), []);
    let records = ["one", "two", "three", "", "five"];
    // All in flight together, with another shard between.
    let tickets: Vec<_> = (1..)
        .zip(records)
        .map(|(id, record)| {
            journal.send(append(B, id, "other"));
            journal.send(append(A, id, record))
        })
        .collect();
    let mut expected = Vec::new();
    for (ticket, record) in tickets.into_iter().zip(records) {
        let (sequence, duplicate) = journal.appended(ticket);
        assert!(!duplicate);
        assert!(expected.last().is_none_or(|(last, _)| sequence > *last));
        expected.push((sequence, text(record)));
    }
    let mut reader = caller(factory.share(&journal.store.0), now);
    assert_eq!(reader.read(A, Sequence(1)), expected);
    assert_eq!(reader.read(A, expected[2].0), expected[2..]);
    assert_eq!(reader.read(B, Sequence(1)).len(), 5);
    let head = reader.head(A);
    assert!(head.first == Sequence(1) && head.next > expected[4].0);
    assert_eq!(head.bytes, 15);
}

/// An id is appended once per shard, by whichever handle.
pub fn journal_dedup<F: Factory<Store: Journal>>(factory: &mut F, now: Timestamp) {
    let mut journal = caller(factory.open(), now);
    let (first, _) = journal.append(A, 7, "once");
    assert_eq!(journal.append(A, 7, "once"), (first, true));
    let (second, duplicate) = journal.append(A, 8, "once");
    assert!(second > first && !duplicate, "the id counts, not the record");
    let mut other = caller(factory.share(&journal.store.0), now);
    assert_eq!(other.append(A, 7, "once"), (first, true));
    assert!(!other.append(B, 7, "once").1, "each shard has its own ids");
    let tickets = [0; 3].map(|_| journal.send(append(A, u128::MAX, "together")));
    let answers = tickets.map(|ticket| journal.appended(ticket));
    let place = answers[0].0;
    assert_eq!(answers, [(place, false), (place, true), (place, true)]);
    assert_eq!(journal.read(A, Sequence(1)).len(), 3);
    journal.trim(A, second);
    assert_eq!(
        journal.append(A, 7, "once"),
        (first, true),
        "also after it was trimmed"
    );
}

/// A tail waits at the end, and is woken by whoever appends.
pub fn journal_tail<F: Factory<Store: Journal>>(factory: &mut F, now: Timestamp) {
    let mut journal = caller(factory.open(), now);
    let mut writer = caller(factory.share(&journal.store.0), now);
    let waiting = journal.send(tail(A, Sequence(1), 10, true));
    writer.append(B, 1, "another shard");
    journal.head(A);
    assert!(!journal.has_answered(waiting));
    let (first, _) = journal.check_wake(|| writer.append(A, 1, "one"));
    let (records, next) = JournalCaller::<F::Store>::page(journal.answer(waiting));
    assert_eq!(records, [(first, text("one"))]);
    let waiting = journal.send(tail(A, next, 10, true));
    let (second, _) = journal.append(A, 2, "two");
    let (records, next) = JournalCaller::<F::Store>::page(journal.answer(waiting));
    assert_eq!(records, [(second, text("two"))], "its own records too");
    assert!(next <= journal.head(A).next);

    let request = JournalRequest::Tail {
        shard: A,
        from: first,
        page: page(10, 1),
        wait: true,
    };
    let (records, _) = JournalCaller::<F::Store>::page(journal.ask(request));
    assert_eq!(records, [(first, text("one"))], "a page ends where its bytes do");
}

/// Trimmed records are gone, their places are not used again, and a tail that wants them is told.
pub fn journal_trim<F: Factory<Store: Journal>>(factory: &mut F, now: Timestamp) {
    let mut journal = caller(factory.open(), now);
    let places = [1, 2, 3].map(|id| journal.append(A, id, "record").0);
    journal.append(B, 1, "untouched");
    journal.trim(A, places[1]);
    let head = journal.head(A);
    assert_eq!((head.first, head.bytes), (places[1], 12));
    let error = JournalError::OutOfRange(head);
    assert_eq!(error.retry(), Retry::Refresh);
    assert_eq!(journal.ask(tail(A, places[0], 1, true)), Err(error));
    assert_eq!(journal.read(A, places[1]).len(), 2);
    journal.trim(A, places[0]);
    assert_eq!(journal.head(A), head, "trimming what is trimmed changes nothing");

    let beyond = Sequence(head.next.0 + 1);
    let error = Err(JournalError::OutOfRange(head));
    assert_eq!(
        journal.ask(JournalRequest::Trim {
            shard: A,
            upto: beyond
        }),
        error
    );
    assert_eq!(
        journal.ask(tail(A, beyond, 1, true)),
        error,
        "a place of another journal"
    );
    journal.trim(A, head.next);
    let empty = journal.head(A);
    assert_eq!((empty.first, empty.next, empty.bytes), (head.next, head.next, 0));
    assert!(journal.append(A, 4, "next").0 >= head.next);
    assert_eq!(journal.read(B, Sequence(1)).len(), 1);
}

/// The largest record fits and one byte more does not; a shard that is not there is named.
pub fn journal_limits<F: Factory<Store: Journal>>(factory: &mut F, now: Timestamp) {
    let mut journal = caller(factory.open(), now);
    let limits = journal.store.0.limits();
    let bytes_max = limits.record_bytes_max;
    let record = |bytes| JournalRequest::Append {
        shard: A,
        record: Bytes::from(vec![7; bytes]),
        dedup: DedupId(bytes as u128),
    };
    let bytes = bytes_max + 1;
    let error = JournalError::Fault(Fault::TooLarge { bytes, bytes_max });
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(journal.ask(record(bytes)), Err(error));
    assert!(matches!(
        journal.ask(record(bytes_max)),
        Ok(JournalReply::Appended { duplicate: false, .. })
    ));
    assert_eq!(journal.head(A).bytes, bytes_max as u64);
    let missing = JournalShard(limits.shards);
    for request in [
        append(missing, 1, "x"),
        tail(missing, Sequence(1), 1, true),
        JournalRequest::Head(missing),
        JournalRequest::Trim {
            shard: missing,
            upto: Sequence(1),
        },
    ] {
        assert_eq!(journal.ask(request), Err(JournalError::NoSuchShard));
    }
}

/// A handle takes as many requests as it says, and leaves the others.
pub fn journal_in_flight<F: Factory<Store: Journal>>(factory: &mut F, now: Timestamp) {
    let mut journal = caller(factory.open(), now);
    let in_flight_max = journal.store.0.limits().in_flight_max;
    journal.check_in_flight(in_flight_max, || JournalRequest::Head(A));
}

/// What completed is there after a crash, in its place, with its id; what was in flight is there whole, in order
/// and without holes, or not at all. A volatile journal may decline.
pub fn journal_crash<F: Factory<Store: Journal>>(factory: &mut F, now: Timestamp) {
    let mut journal = caller(factory.open(), now);
    let durability = journal.store.0.durability();
    let (first, _) = journal.append(A, 1, "acknowledged");
    let (second, _) = journal.append(A, 2, "too");
    let in_flight = ["in", "flight"];
    for (id, record) in (3..).zip(in_flight) {
        journal.send(append(A, id, record));
    }
    let reopened = factory.crash(journal.store.0);
    check_crash(durability, reopened.is_none());
    let Some(store) = reopened else { return };
    let mut journal = caller(store, now);
    let found = journal.read(A, Sequence(1));
    assert_eq!(found[..2], [(first, text("acknowledged")), (second, text("too"))]);
    let rest: Vec<_> = found[2..].iter().map(|(_, record)| record.clone()).collect();
    assert!(rest.iter().eq(&in_flight[..rest.len()]), "{rest:?}");
    assert_eq!(journal.append(A, 2, "too"), (second, true), "ids survive");
    let again = journal.append(A, 3, "in");
    assert_eq!(again.1, !rest.is_empty());
    assert!(again.0 > second);
    assert_eq!(journal.head(A).first, Sequence(1));
}
