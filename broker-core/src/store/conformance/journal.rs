//! What a journal has to pass, and what a test asks of one.

mod commit;
mod crash;
mod dedup;
mod limits;
mod read;
mod tail;
mod trim;

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Caller, Factory, kv::key, page};
use crate::{
    Timestamp,
    shard::Ticket,
    store::{
        DedupId, Extent, Journal, JournalError, JournalReply, JournalRequest, NewRecord, Record, Sequence,
        Value, Write,
    },
};

pub use commit::{journal_atomic, journal_entries, journal_order};
pub use crash::{journal_crash, journal_crash_in_flight};
pub use dedup::journal_dedup;
pub use limits::{journal_in_flight, journal_limits};
pub use read::{journal_read, journal_read_after_commit, journal_read_keep};
pub use tail::{journal_tail, journal_tail_waits};
pub use trim::journal_trim;

type Answer = Result<JournalReply, JournalError>;

/// A handle, and the time, which its callbacks cannot capture.
struct Timed<S>(S, Timestamp);
type JournalCaller<S> = Caller<Timed<S>, JournalRequest, Answer>;

/// Everything below.
pub fn journal<F: Factory>(factory: &mut F, now: Timestamp) {
    journal_order(factory, now);
    journal_atomic(factory, now);
    journal_entries(factory, now);
    journal_dedup(factory, now);
    journal_tail(factory, now);
    journal_tail_waits(factory, now);
    journal_read(factory, now);
    journal_read_keep(factory, now);
    journal_read_after_commit(factory, now);
    journal_trim(factory, now);
    journal_limits(factory, now);
    journal_in_flight(factory, now);
    journal_crash(factory, now);
    journal_crash_in_flight(factory, now);
}

fn caller<S: Journal>(store: S, now: Timestamp) -> JournalCaller<S> {
    Caller {
        store: Timed(store, now),
        submit: |Timed(store, now), requests| store.submit(*now, requests),
        poll: |Timed(store, now), waker| store.poll(*now, waker),
        tickets: 0,
        done: VecDeque::new(),
    }
}

/// The bytes of a record: its topic, and something behind it.
fn data(topic: &str, body: &str) -> Bytes {
    let len = u16::try_from(topic.len()).expect("the tests use short topics");
    [&len.to_be_bytes(), topic.as_bytes(), body.as_bytes()]
        .concat()
        .into()
}

/// An indexed record.
fn record(topic: &str, body: &str) -> NewRecord {
    NewRecord {
        data: data(topic, body),
        indexed: true,
    }
}

fn put(name: &str, value: &'static str) -> Write {
    Write {
        key: key(name),
        value: Value::Put(Bytes::from_static(value.as_bytes())),
    }
}

fn commit(records: Vec<NewRecord>, writes: Vec<Write>) -> JournalRequest {
    JournalRequest::Commit {
        records,
        writes,
        dedup: None,
    }
}

/// A commit of one record on the topic `t`.
fn append(body: &str) -> JournalRequest {
    commit(vec![record("t", body)], vec![])
}

fn with_id(id: u128, records: Vec<NewRecord>, writes: Vec<Write>) -> JournalRequest {
    JournalRequest::Commit {
        records,
        writes,
        dedup: Some(DedupId(id)),
    }
}

fn tail(from: Sequence, items_max: u16, wait: bool) -> JournalRequest {
    JournalRequest::Tail {
        from,
        page: page(items_max, usize::MAX),
        wait,
    }
}

/// The places and bytes of records.
fn seen(records: Vec<Record>) -> Vec<(Sequence, Bytes)> {
    records
        .into_iter()
        .map(|record| (record.sequence, record.data))
        .collect()
}

/// What a commit brought: its places, and whether it had been done before.
fn committed(answer: Answer) -> (Sequence, Sequence, bool) {
    match answer {
        Ok(JournalReply::Committed {
            first,
            next,
            duplicate,
        }) => {
            assert!(next > first, "a commit takes a place");
            (first, next, duplicate)
        }
        other => panic!("commit brought {other:?}"),
    }
}

/// What a tail brought.
fn tailed(answer: Answer) -> (Vec<(Sequence, Bytes)>, Sequence) {
    match answer {
        Ok(JournalReply::Records { records, next }) => (seen(records), next),
        other => panic!("tail brought {other:?}"),
    }
}

impl<S: Journal> JournalCaller<S> {
    /// Commits, and returns the first place.
    fn commit(&mut self, request: JournalRequest) -> Sequence {
        let (first, _, duplicate) = committed(self.ask(request));
        assert!(!duplicate);
        first
    }

    /// Sends a commit and does not wait for it.
    fn send_append(&mut self, body: &str) -> Ticket {
        self.send(append(body))
    }

    fn head(&mut self) -> Extent {
        match self.ask(JournalRequest::Head) {
            Ok(JournalReply::Head(extent)) => extent,
            other => panic!("head brought {other:?}"),
        }
    }

    fn trim(&mut self, upto: Sequence) {
        assert_eq!(self.ask(JournalRequest::Trim { upto }), Ok(JournalReply::Trimmed));
    }

    fn fetch(&mut self, places: &[Sequence]) -> Vec<(Sequence, Bytes)> {
        match self.ask(JournalRequest::Fetch(places.to_vec())) {
            Ok(JournalReply::Fetched(records)) => seen(records),
            other => panic!("fetch brought {other:?}"),
        }
    }

    /// Every record from a place to the end, in pages of two.
    fn log(&mut self, mut from: Sequence) -> Vec<(Sequence, Bytes)> {
        let mut all: Vec<(Sequence, Bytes)> = Vec::new();
        loop {
            let (records, next) = tailed(self.ask(tail(from, 2, false)));
            assert!(next >= from && records.len() <= 2);
            if records.is_empty() {
                return all;
            }
            for found in records {
                assert!(
                    found.0 >= from && found.0 < next,
                    "a page lies from `from` to `next`"
                );
                assert!(all.last().is_none_or(|last| last.0 < found.0));
                all.push(found);
            }
            from = next;
        }
    }
}
