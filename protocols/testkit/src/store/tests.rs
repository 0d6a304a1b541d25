use std::time::Duration;

use broker_core::store::{
    Key, Kv, KvReply, KvRequest, NewRecord, Sequence, Value, Write,
    conformance::{self, Factory},
};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const LIMITS: MemoryLimits = MemoryLimits {
    bytes_max: 1 << 20,
    log_bytes_max: None,
    item_bytes_max: 1000,
    in_flight_max: 20,
    history_max: 16,
    dedup_window: Duration::from_secs(60),
    dedup_ids_max: 64,
};

/// Stores that crash. Commits wait until their handle is polled, so that a crash finds some in flight.
struct Crashing(Random);

struct Slow(TestStore, TestJournal);

impl Journal for Slow {
    fn limits(&self) -> JournalLimits {
        self.1.limits()
    }

    fn durability(&self) -> Durability {
        self.1.durability()
    }

    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, JournalRequest)>) {
        self.1.submit(now, requests);
    }

    fn poll(&mut self, now: Timestamp, waker: &Waker) -> Option<(Ticket, Answer)> {
        let answer = self.1.poll(now, waker);
        if answer.is_some() || !self.0.complete_one() {
            return answer;
        }
        self.1.poll(now, waker).or_else(|| {
            waker.wake_by_ref();
            None
        })
    }
}

impl Factory for Crashing {
    type Store = TestStore;
    type Journal = Slow;
    type Kv = MemoryKv;

    fn open(&mut self) -> TestStore {
        let store = TestStore::new(LIMITS);
        store.hold(true);
        store
    }

    fn journal(&mut self, store: &TestStore) -> Slow {
        Slow(store.clone(), store.journal())
    }

    fn kv(&mut self, store: &TestStore) -> MemoryKv {
        store.kv()
    }

    fn crash(&mut self, store: TestStore) -> Option<TestStore> {
        store.crash_anywhere(&mut self.0);
        Some(store)
    }
}

#[test]
fn it_conforms() {
    let stores = &mut Crashing(Random::new(1));
    conformance::journal_order(stores, NOW);
    conformance::journal_atomic(stores, NOW);
    conformance::journal_dedup(stores, NOW);
    conformance::journal_read_after_commit(stores, NOW);
    conformance::journal_in_flight(stores, NOW);
    for seed in 0..50 {
        let stores = &mut Crashing(Random::new(seed));
        conformance::journal_crash(stores, NOW);
        conformance::journal_crash_in_flight(stores, NOW);
    }
}

fn commit(number: u64) -> (Ticket, JournalRequest) {
    let record = NewRecord {
        data: [&[0, 1], &b"t"[..], &number.to_be_bytes()].concat().into(),
        indexed: true,
    };
    let write = Write {
        key: Key::new("last").unwrap(),
        value: Value::PutRecord(0),
    };
    let request = JournalRequest::Commit {
        records: vec![record],
        writes: vec![write],
        dedup: None,
    };
    (Ticket(number), request)
}

fn submit(journal: &mut TestJournal, number: u64) {
    journal.submit(NOW, &mut VecDeque::from([commit(number)]));
}

fn completed(journal: &mut TestJournal) -> Vec<(u64, bool)> {
    std::iter::from_fn(|| journal.poll(NOW, Waker::noop()))
        .map(|(ticket, answer)| (ticket.0, answer.is_ok()))
        .collect()
}

/// The number of the last commit that was executed, and how many were.
fn executed(store: &TestStore) -> (Option<u8>, u64) {
    let (mut kv, mut journal) = (store.kv(), store.journal());
    let get = KvRequest::Get(Key::new("last").unwrap());
    kv.submit(NOW, &mut VecDeque::from([(Ticket(0), get)]));
    journal.submit(NOW, &mut VecDeque::from([(Ticket(0), JournalRequest::Head)]));
    let Some((_, Ok(KvReply::Entry(entry)))) = kv.poll(NOW, Waker::noop()) else {
        panic!("a get brings an entry");
    };
    let Some((_, Ok(JournalReply::Head(head)))) = journal.poll(NOW, Waker::noop()) else {
        panic!("a journal has a head");
    };
    let last = entry.and_then(|entry| entry.value.last().copied());
    (last, head.next.0 - Sequence::FIRST.0)
}

#[test]
fn commits_wait_for_the_test() {
    let store = TestStore::new(LIMITS);
    let mut handles = [store.journal(), store.journal()];
    submit(&mut handles[0], 1);
    assert_eq!(completed(&mut handles[0]), [(1, true)], "at once");
    store.hold(true);
    for number in 2..6 {
        submit(&mut handles[(number % 2) as usize], number);
    }
    assert_eq!((store.pending(), executed(&store)), (4, (Some(1), 1)));
    assert!(store.complete_one());
    assert_eq!(completed(&mut handles[1]), []);
    assert_eq!(completed(&mut handles[0]), [(2, true)]);
    assert_eq!(executed(&store), (Some(2), 2));
    store.fail(Some(Fault::Full));
    assert!(store.complete_one());
    assert_eq!(completed(&mut handles[1]), [(3, false)]);
    submit(&mut handles[1], 6);
    store.fail(None);
    store.hold(false);
    assert_eq!(completed(&mut handles[0]), [(4, true)]);
    assert_eq!(
        completed(&mut handles[1]),
        [(5, false), (6, false)],
        "5 was submitted before 3 was known to have failed, 6 before 5 was"
    );
    submit(&mut handles[1], 7);
    assert_eq!(completed(&mut handles[1]), [(7, true)]);
    assert_eq!(executed(&store), (Some(7), 4), "a failed commit was not executed");
    assert!(!store.complete_one());
}

#[test]
fn a_crash_executes_the_first_of_what_waits() {
    for count in 0..=3 {
        let store = TestStore::new(LIMITS);
        let mut journal = store.journal();
        store.hold(true);
        for number in 1..=3 {
            submit(&mut journal, number);
        }
        store.crash(count);
        let last = u8::try_from(count).ok().filter(|last| *last > 0);
        assert_eq!(executed(&store), (last, count as u64));
        assert_eq!(completed(&mut journal), [], "nobody is told");
        submit(&mut journal, 9);
        store.complete_all();
        assert_eq!(executed(&store), (last, count as u64), "its process has ended");
        let mut journal = store.journal();
        submit(&mut journal, 4);
        store.complete_all();
        assert_eq!(completed(&mut journal), [(4, true)]);
    }
}
