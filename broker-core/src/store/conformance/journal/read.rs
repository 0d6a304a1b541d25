use std::sync::Arc;

use bytes::Bytes;

use super::{JournalCaller, caller, commit, data, record, seen};
use crate::{
    Timestamp,
    store::{
        Interest, Journal, JournalError, JournalReply, JournalRequest, Keep, NewRecord, Page, Sequence,
        conformance::{Factory, page},
    },
    topic,
};

const TOPICS: [&str; 14] = [
    "a", "a/b", "a/b/c", "a b", "a-b/c", "ab", "b", "b/", "/b", "$SYS/a", "$SYS/b/c", "$", "a/$x", "é/b",
];

const INTERESTS: [&[&str]; 19] = [
    &["a"],
    &["a/b"],
    &["+"],
    &["#"],
    &["a/#"],
    &["a/+"],
    &["+/b"],
    &["+/b/#"],
    &["+/+"],
    &["/+"],
    &["b/#"],
    &["$SYS/#"],
    &["$SYS/+"],
    &["$/#"],
    &["é/#"],
    &["nothing/+/here", "c"],
    &["a/b", "a/+", "#", "a/#", "+/b"],
    &["$SYS/a", "a/b/c", "b"],
    &[],
];

const ALL: Keep = Keep {
    items_max: 0,
    bytes_max: 0,
};

impl<S: Journal> JournalCaller<S> {
    fn read(&mut self, filters: &[&str], from: Sequence, keep: Keep, page: Page) -> super::Answer {
        let filters = filters.iter().map(|filter| Box::from(*filter)).collect();
        self.ask(JournalRequest::Read {
            interest: Arc::new(Interest { filters }),
            from,
            keep,
            page,
        })
    }

    /// Everything that is of interest, page by page, and how much was passed over.
    pub(super) fn read_all(
        &mut self,
        filters: &[&str],
        mut from: Sequence,
        keep: Keep,
        items_max: u16,
        bytes_max: usize,
    ) -> (Vec<(Sequence, Bytes)>, u64) {
        let (mut all, mut total) = (Vec::new(), 0);
        loop {
            let page = page(items_max, bytes_max);
            let (records, next, at_end) = match self.read(filters, from, keep, page) {
                Ok(JournalReply::Found {
                    records,
                    next,
                    at_end,
                    passed_over,
                }) => {
                    total += passed_over;
                    (seen(records), next, at_end)
                }
                other => panic!("read brought {other:?}"),
            };
            assert!(at_end || next > from, "a page brings its reader on");
            assert!(records.len() <= usize::from(items_max));
            let sizes = records.iter().rev().skip(1).map(|(_, data)| data.len());
            assert!(
                records.len() < 2 || sizes.sum::<usize>() < bytes_max,
                "nothing is added once the bytes are reached"
            );
            for found in records {
                assert!(
                    found.0 >= from && found.0 < next,
                    "a page lies from `from` to `next`"
                );
                assert!(
                    all.last().is_none_or(|(last, _)| *last < found.0),
                    "each once, in order"
                );
                all.push(found);
            }
            if at_end {
                return (all, total);
            }
            from = next;
        }
    }
}

/// What is to be found: every record in the log, with its topic, `None` if it is not indexed.
type Model = Vec<(Sequence, Bytes, Option<&'static str>)>;

/// Sixty records of different sizes on all topics, some of them not indexed, with gaps between.
fn fill<S: Journal>(journal: &mut JournalCaller<S>) -> Model {
    let mut model = Vec::new();
    for number in 0..20 {
        let records: Vec<_> = (0..3)
            .map(|step| {
                let name = TOPICS[(number * 3 + step * 5) % TOPICS.len()];
                let data = data(name, &"x".repeat(number % 7 * 3));
                let indexed = (number + step) % 9 != 4;
                (name, NewRecord { data, indexed })
            })
            .collect();
        let first = journal.commit(commit(
            records.iter().map(|(_, record)| record.clone()).collect(),
            vec![],
        ));
        model.extend(
            (first.0..).zip(records).map(|(place, (name, record))| {
                (Sequence(place), record.data, record.indexed.then_some(name))
            }),
        );
        if number % 4 == 0 {
            journal.commit(commit(vec![], vec![]));
        }
    }
    model
}

fn matching(model: &Model, filters: &[&str], from: Sequence) -> Vec<(Sequence, Bytes)> {
    let is_meant = |name: &str| filters.iter().any(|filter| topic::matches(filter, name));
    model
        .iter()
        .filter(|(place, _, name)| *place >= from && name.is_some_and(is_meant))
        .map(|(place, data, _)| (*place, data.clone()))
        .collect()
}

/// The part of a backlog that is kept.
fn kept(mut backlog: Vec<(Sequence, Bytes)>, keep: Keep) -> (Vec<(Sequence, Bytes)>, u64) {
    let mut passed_over = 0;
    loop {
        let bytes: usize = backlog.iter().map(|(_, data)| data.len()).sum();
        let is_over = |value: usize, max| max != 0 && value as u64 > max;
        let exceeds = is_over(backlog.len(), keep.items_max) || is_over(bytes, keep.bytes_max);
        if backlog.len() < 2 || !exceeds {
            return (backlog, passed_over);
        }
        backlog.remove(0);
        passed_over += 1;
    }
}

/// The indexed records whose topics match, each once, by any filters, from any place, in pages of any size.
pub fn journal_read<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    assert_eq!(journal.read_all(&["#"], Sequence::FIRST, ALL, 9, 9), (vec![], 0));
    let model = fill(&mut journal);
    for filters in INTERESTS {
        for from in [
            Sequence::FIRST,
            model[0].0.next(),
            model[31].0,
            model[59].0.next(),
        ] {
            let expected = matching(&model, filters, from);
            for (items_max, bytes_max) in [(1, 0), (2, usize::MAX), (7, 40), (100, usize::MAX)] {
                let found = journal.read_all(filters, from, ALL, items_max, bytes_max);
                assert_eq!(found, (expected.clone(), 0), "{filters:?} from {from:?}");
            }
        }
    }
    let head = journal.head();
    let error = JournalError::OutOfRange(head);
    let beyond = journal.read(&["#"], head.next.next(), ALL, page(1, 1));
    assert_eq!(beyond, Err(error), "a place of another journal");

    let places: Vec<_> = [59, 3, 17, 4].map(|at| model[at].0).into();
    let expected: Vec<_> = [59, 3, 17, 4].map(|at| (model[at].0, model[at].1.clone())).into();
    assert_eq!(journal.fetch(&places), expected, "in the order asked for");
    assert_eq!(
        journal.fetch(&[Sequence::END, places[0], head.next]),
        expected[..1]
    );
    assert_eq!(journal.fetch(&[]), []);
}

/// Of a backlog the last records and bytes are kept, and the others counted, exactly.
pub fn journal_read_keep<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut journal = caller(factory.journal(&store), now);
    let model = fill(&mut journal);
    for filters in INTERESTS {
        for (items_max, bytes_max) in [
            (1, 0),
            (5, 0),
            (1000, 0),
            (0, 1),
            (0, 60),
            (0, 100_000),
            (4, 50),
            (9, 300),
        ] {
            let keep = Keep { items_max, bytes_max };
            for from in [Sequence::FIRST, model[31].0] {
                let expected = kept(matching(&model, filters, from), keep);
                for items_max in [1, 4, 100] {
                    let found = journal.read_all(filters, from, keep, items_max, usize::MAX);
                    assert_eq!(found, expected, "{filters:?} from {from:?} {keep:?}");
                }
            }
        }
    }
}

/// A read that follows a completed commit finds it, through every handle, and goes on where the last one ended.
pub fn journal_read_after_commit<F: Factory>(factory: &mut F, now: Timestamp) {
    let store = factory.open();
    let mut writers = [0; 2].map(|_| caller(factory.journal(&store), now));
    let mut reader = caller(factory.journal(&store), now);
    let mut from = Sequence::FIRST;
    for round in 0..20 {
        let body = format!("{round}");
        let writer = &mut writers[round % 2];
        let place = writer.commit(commit(vec![record("a/b", &body), record("c", &body)], vec![]));
        let expected = vec![(place, data("a/b", &body))];
        assert_eq!(writer.read_all(&["a/+"], from, ALL, 1, 1), (expected.clone(), 0));
        match reader.read(&["a/b"], from, ALL, page(10, usize::MAX)) {
            Ok(JournalReply::Found { records, next, .. }) => {
                assert_eq!(seen(records), expected);
                from = next;
            }
            other => panic!("read brought {other:?}"),
        }
        assert_eq!(reader.fetch(&[place]), expected);
        assert_eq!(reader.log(place).len(), 2);
    }
}
