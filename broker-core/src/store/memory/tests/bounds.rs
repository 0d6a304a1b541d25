//! What the store holds, forgets and gives back.

use super::*;
use crate::store::{DedupId, Extent, NewRecord, Sequence, Value, Write};

fn ask(
    journal: &mut MemoryJournal,
    now: Timestamp,
    request: JournalRequest,
) -> Result<JournalReply, JournalError> {
    journal.submit(now, &mut VecDeque::from([(Ticket(0), request)]));
    journal.poll(now, Waker::noop()).unwrap().1
}

fn append(topic: &str, bytes: usize, id: Option<u128>) -> JournalRequest {
    let topic = [&(topic.len() as u16).to_be_bytes(), topic.as_bytes()].concat();
    let data = [topic, vec![7; bytes]].concat().into();
    JournalRequest::Commit {
        records: vec![NewRecord { data, indexed: true }],
        writes: vec![],
        dedup: id.map(DedupId),
    }
}

fn head(journal: &mut MemoryJournal) -> Extent {
    match ask(journal, NOW, JournalRequest::Head) {
        Ok(JournalReply::Head(extent)) => extent,
        other => panic!("{other:?}"),
    }
}

fn trim_all(journal: &mut MemoryJournal) {
    let upto = head(journal).next;
    ask(journal, NOW, JournalRequest::Trim { upto }).unwrap();
}

const FULL: Result<JournalReply, JournalError> = Err(JournalError::Fault(Fault::Full));

/// As many records as fit; the store holds less than it may, but not much less.
fn fill(journal: &mut MemoryJournal, bytes: usize) -> usize {
    for number in 0.. {
        let topic = format!("topic/{number}");
        if ask(journal, NOW, append(&topic, bytes, None)) == FULL {
            return number;
        }
    }
    unreachable!("no store is without end")
}

#[test]
fn a_full_store_takes_no_more_until_it_is_trimmed() {
    let store = MemoryStore::new(LIMITS);
    let mut journal = store.journal();
    let count = fill(&mut journal, 900);
    let bytes_max = usize::try_from(LIMITS.bytes_max).unwrap();
    assert!((bytes_max / 1300..bytes_max / 900).contains(&count), "{count}");
    let full = head(&mut journal);
    for round in 0..3 {
        trim_all(&mut journal);
        assert_eq!(head(&mut journal).bytes, 0);
        assert_eq!(
            fill(&mut journal, 900),
            count,
            "round {round}: everything was freed"
        );
        assert_eq!(head(&mut journal).bytes, full.bytes);
    }
    assert!(fill(&mut journal, 1) <= 4, "what is small fits a little longer");
}

#[test]
fn a_failed_commit_takes_along_what_was_submitted_behind_it() {
    let store = MemoryStore::new(LIMITS);
    let (mut journal, mut other) = (store.journal(), store.journal());
    fill(&mut journal, 900);
    let upto = Sequence::FIRST.next();
    ask(&mut journal, NOW, JournalRequest::Trim { upto }).unwrap();
    let small = append("topic", 1, None);
    let JournalRequest::Commit { records, .. } = append("topic", 900, None) else {
        panic!("a commit");
    };
    let large = JournalRequest::Commit {
        records: vec![records[0].clone(); 3],
        writes: vec![],
        dedup: None,
    };
    let mut requests = VecDeque::new();
    for (ticket, request) in [
        (1, large.clone()),
        (2, JournalRequest::Head),
        (3, small.clone()),
        (4, small.clone()),
    ] {
        requests.push_back((Ticket(ticket), request));
    }
    journal.submit(NOW, &mut requests);
    let mut next = || journal.poll(NOW, Waker::noop());
    assert_eq!(next(), Some((Ticket(1), FULL)));
    assert!(matches!(next(), Some((_, Ok(JournalReply::Head(_))))));
    assert!(ask(&mut other, NOW, small.clone()).is_ok(), "of another handle");
    assert_eq!(next(), Some((Ticket(3), FULL)));
    // Not all that failed is known yet.
    journal.submit(NOW, &mut VecDeque::from([(Ticket(5), small.clone())]));
    let mut next = || journal.poll(NOW, Waker::noop());
    assert_eq!(next(), Some((Ticket(4), FULL)));
    assert_eq!(next(), Some((Ticket(5), FULL)));
    assert!(ask(&mut journal, NOW, small).is_ok());
}

#[test]
fn small_records_on_many_topics_are_counted_with_what_holds_them() {
    let mut journal = MemoryStore::new(LIMITS).journal();
    let count = fill(&mut journal, 0);
    assert!((count as u64) < LIMITS.bytes_max / 250, "{count}");
    trim_all(&mut journal);
    assert_eq!(fill(&mut journal, 0), count, "topics without records are gone");
}

#[test]
fn a_full_store_takes_what_makes_it_smaller() {
    let store = MemoryStore::new(LIMITS);
    let (mut journal, mut kv) = (store.journal(), store.kv());
    let key = |name| Key::new(name).unwrap();
    let value = Bytes::from(vec![7; 1000]);
    super::ask(&mut kv, KvRequest::Create(key("a"), value.clone())).unwrap();
    fill(&mut journal, 900);
    fill(&mut journal, 0);
    let Ok(KvReply::Entry(Some(entry))) = super::ask(&mut kv, KvRequest::Get(key("a"))) else {
        panic!("it was created");
    };
    let full = Err(KvError::Fault(Fault::Full));
    assert_eq!(
        super::ask(&mut kv, KvRequest::Create(key("b"), value.clone())),
        full
    );
    let same = KvRequest::Update(key("a"), entry.revision, value.clone());
    let same = super::ask(&mut kv, same);
    assert!(matches!(same, Ok(KvReply::Written(_))), "{same:?}");
    // A record takes the place of an entry.
    let JournalRequest::Commit { records, .. } = append("t", 400, None) else {
        panic!("a commit");
    };
    let writes = vec![Write {
        key: key("a"),
        value: Value::Delete,
    }];
    let dedup = None;
    let swap = JournalRequest::Commit {
        records,
        writes,
        dedup,
    };
    assert!(matches!(
        ask(&mut journal, NOW, swap),
        Ok(JournalReply::Committed { .. })
    ));
    // Of several writes to one key the last counts, for the size too.
    let write = |value| Write { key: key("c"), value };
    let writes = vec![write(Value::Put(value)), write(Value::Delete)];
    let nothing = JournalRequest::Commit {
        records: vec![],
        writes,
        dedup,
    };
    assert!(matches!(
        ask(&mut journal, NOW, nothing),
        Ok(JournalReply::Committed { .. })
    ));
}

#[test]
fn dedup_ids_are_forgotten_by_time_and_by_number() {
    let mut journal = MemoryStore::new(LIMITS).journal();
    let mut is_duplicate = |now, id| match ask(&mut journal, now, append("t", 1, Some(id))) {
        Ok(JournalReply::Committed { duplicate, .. }) => duplicate,
        other => panic!("{other:?}"),
    };
    let end = NOW.after(LIMITS.dedup_window);
    assert!(!is_duplicate(NOW, 1));
    assert!(is_duplicate(end, 1));
    let later = end.after_secs(1);
    assert!(!is_duplicate(later, 1));
    let count = LIMITS.dedup_ids_max as u128;
    for id in 2..=count {
        assert!(!is_duplicate(later, id));
    }
    assert!(is_duplicate(later, 1));
    assert!(!is_duplicate(later, count + 1));
    assert!(!is_duplicate(later, 1));
}

#[test]
fn places_go_on_after_everything_was_trimmed() {
    let mut journal = MemoryStore::new(LIMITS).journal();
    for place in 1..=5 {
        let answer = ask(&mut journal, NOW, append("t", 1, None));
        let (first, next) = (Sequence(place), Sequence(place + 1));
        let duplicate = false;
        assert_eq!(
            answer,
            Ok(JournalReply::Committed {
                first,
                next,
                duplicate
            })
        );
        trim_all(&mut journal);
        let bytes = 0;
        assert_eq!(
            head(&mut journal),
            Extent {
                first: next,
                next,
                bytes
            }
        );
    }
}
