//! The log by itself: the two ways to find records find the same, and the oldest records go at its limit.

use std::num::NonZeroU16;

use super::{super::log::Log, Bytes};
use crate::store::{Interest, JournalReply, Keep, NewRecord, Page, Sequence};

/// Everything of interest, page by page, and how much was passed over.
fn read_all(read: impl Fn(Sequence) -> JournalReply, mut from: Sequence) -> (Vec<Sequence>, u64) {
    let (mut all, mut total) = (Vec::new(), 0);
    loop {
        let JournalReply::Found {
            records,
            next,
            at_end,
            passed_over,
        } = read(from)
        else {
            panic!("a read finds");
        };
        assert!(at_end || next > from);
        all.extend(records.iter().map(|record| record.sequence));
        total += passed_over;
        if at_end {
            return (all, total);
        }
        from = next;
    }
}

/// 40 000 records, most of them on few topics, so that a page of what is passed over is not all of it.
fn log() -> (Log, Sequence) {
    let mut log = Log::default();
    let mut place = Sequence::FIRST;
    for number in 0..40_000_usize {
        let topic = match number % 97 {
            0 => format!("rare/{}", number % 5),
            other => format!("often/{}", other % 3),
        };
        let topic = [&(topic.len() as u16).to_be_bytes(), topic.as_bytes()].concat();
        let data = [topic, vec![0; number % 11]].concat().into();
        let indexed = number % 13 != 0;
        log.push(place, &NewRecord { data, indexed });
        place.0 += 1 + (number % 3) as u64;
    }
    log.trim(Sequence(1000));
    (log, place)
}

#[test]
fn by_topic_and_through_the_log_the_same_is_found() {
    let (log, end) = log();
    let interests: [&[&str]; 5] = [
        &["#"],
        &["rare/+"],
        &["often/1", "rare/#"],
        &["rare/2"],
        &["none"],
    ];
    for filters in interests {
        let filters = filters.iter().map(|filter| Box::from(*filter)).collect();
        let interest = Interest { filters };
        for (items_max, bytes_max) in [(0, 0), (10, 0), (30_000, 0), (0, 50_000), (400, 4000)] {
            let keep = Keep { items_max, bytes_max };
            let page = Page {
                items_max: NonZeroU16::new(700).unwrap(),
                bytes_max: 10_000,
            };
            for from in [Sequence::FIRST, Sequence(50_000), end] {
                let by_topic = |from| {
                    let matches = log.index().matches(&interest, from, usize::MAX).unwrap();
                    log.read_topics(matches, keep, page, end)
                };
                let by_log = |from| log.read_everything(&interest, from, keep, page, end);
                let found = read_all(by_topic, from);
                assert_eq!(read_all(by_log, from), found, "{interest:?} {keep:?}");
                assert_eq!(
                    read_all(|from| log.read(&interest, from, keep, page, end), from),
                    found
                );
            }
        }
    }
}

#[test]
fn filters_that_may_match_too_many_topics_go_through_the_log() {
    let mut log = Log::default();
    for number in 0..2000_u64 {
        let topic = format!("{number:04}/x");
        let data = [&6_u16.to_be_bytes(), topic.as_bytes()].concat().into();
        log.push(Sequence(number + 1), &NewRecord { data, indexed: true });
    }
    let matches = |filter: &str| {
        let filters = [Box::from(filter)].into();
        log.index().matches(&Interest { filters }, Sequence::FIRST, 1024)
    };
    assert!(matches("+/x").is_none());
    assert!(matches("0007/#").is_some());
    assert_eq!(matches("0007/x").map(|matches| matches.items()), Some(1));
}

#[test]
fn the_oldest_records_go_at_the_limit_of_bytes() {
    let mut log = Log::default();
    for sequence in 1..=5 {
        let data = Bytes::from_static(b"\x00\x01t89");
        log.push(Sequence(sequence), &NewRecord { data, indexed: true });
        log.keep_within(11);
    }
    assert_eq!((log.first(), log.bytes(), log.dropped()), (Sequence(4), 10, 3));
    let interest = Interest {
        filters: ["t".into()].into(),
    };
    let found = log.index().matches(&interest, Sequence::FIRST, 9);
    let found = found.and_then(|found| found.peek());
    assert_eq!(found, Some(Sequence(4)), "the index forgets them, too");
    log.keep_within(0);
    assert_eq!(
        (log.first(), log.dropped()),
        (Sequence(5), 4),
        "the last one stays"
    );
}
