use std::{collections::VecDeque, num::NonZeroU16, task::Waker, time::Duration};

use bytes::Bytes;

use super::*;
use crate::store::{
    DedupId, Durability, Fabric, FabricCommand, FabricError, FabricEvent, FabricLimits, Fault, Journal,
    JournalError, JournalLimits, JournalReply, JournalRequest, JournalShard, Key, Kv, KvError, KvLimits,
    KvReply, KvRequest, Page, Prefix, Revision, conformance,
};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const LIMITS: MemoryLimits = MemoryLimits {
    bytes_max: 4096,
    item_bytes_max: 1000,
    in_flight_max: 16,
    history_max: 16,
    dedup_window: Duration::from_secs(60),
    dedup_ids_max: 4,
};

struct Kvs;

impl conformance::Factory for Kvs {
    type Store = MemoryKv;

    fn open(&mut self) -> MemoryKv {
        MemoryKv::new(LIMITS)
    }

    fn share(&mut self, store: &MemoryKv) -> MemoryKv {
        store.clone()
    }

    fn crash(&mut self, _: MemoryKv) -> Option<MemoryKv> {
        None
    }
}

struct Journals;

impl conformance::Factory for Journals {
    type Store = MemoryJournal;

    fn open(&mut self) -> MemoryJournal {
        MemoryJournal::new(2, LIMITS)
    }

    fn share(&mut self, store: &MemoryJournal) -> MemoryJournal {
        store.clone()
    }

    fn crash(&mut self, _: MemoryJournal) -> Option<MemoryJournal> {
        None
    }
}

const FABRIC_LIMITS: FabricLimits = FabricLimits {
    frame_bytes_max: 100,
    requests_max: 4,
    inbox_frames_max: 8,
};

struct Nodes(MemoryHub);

impl conformance::FabricFactory for Nodes {
    type Fabric = MemoryFabric;

    fn reset(&mut self) {
        self.0 = MemoryHub::new(FABRIC_LIMITS);
    }

    fn join(&mut self, name: &str) -> MemoryFabric {
        self.0.join(name)
    }
}

/// A store outlives one handle's end here, so it can stand for a durable one: the suite's own crash checks run.
struct Kept<S>(S);

impl Kv for Kept<MemoryKv> {
    fn limits(&self) -> KvLimits {
        self.0.limits()
    }

    fn durability(&self) -> Durability {
        Durability::Async
    }

    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, KvRequest)>) {
        self.0.submit(now, requests);
    }

    fn poll(&mut self, now: Timestamp, waker: &Waker) -> Option<(Ticket, Result<KvReply, KvError>)> {
        self.0.poll(now, waker)
    }
}

impl Journal for Kept<MemoryJournal> {
    fn limits(&self) -> JournalLimits {
        self.0.limits()
    }

    fn durability(&self) -> Durability {
        Durability::Async
    }

    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, JournalRequest)>) {
        self.0.submit(now, requests);
    }

    fn poll(
        &mut self,
        now: Timestamp,
        waker: &Waker,
    ) -> Option<(Ticket, Result<JournalReply, JournalError>)> {
        self.0.poll(now, waker)
    }
}

struct KeptBy<F>(F);

impl<F: conformance::Factory<Store: Clone>> conformance::Factory for KeptBy<F> {
    type Store = Kept<F::Store>;

    fn open(&mut self) -> Self::Store {
        Kept(self.0.open())
    }

    fn share(&mut self, store: &Self::Store) -> Self::Store {
        Kept(store.0.clone())
    }

    fn crash(&mut self, store: Self::Store) -> Option<Self::Store> {
        Some(Kept(store.0.clone()))
    }
}

#[test]
fn a_store_that_is_kept_passes_the_crash_checks() {
    conformance::kv_crash(&mut KeptBy(Kvs), NOW);
    conformance::journal_crash(&mut KeptBy(Journals), NOW);
}

#[test]
#[should_panic = "survives the end of its process"]
fn a_store_that_claims_to_be_durable_may_not_decline() {
    struct Forgetful;

    impl conformance::Factory for Forgetful {
        type Store = Kept<MemoryKv>;

        fn open(&mut self) -> Self::Store {
            Kept(MemoryKv::new(LIMITS))
        }

        fn share(&mut self, store: &Self::Store) -> Self::Store {
            Kept(store.0.clone())
        }

        fn crash(&mut self, _: Self::Store) -> Option<Self::Store> {
            None
        }
    }

    conformance::kv_crash(&mut Forgetful, NOW);
}

#[test]
fn kv_conforms() {
    conformance::kv(&mut Kvs, NOW);
}

#[test]
fn journal_conforms() {
    conformance::journal(&mut Journals, NOW);
}

#[test]
fn fabric_conforms() {
    conformance::fabric(&mut Nodes(MemoryHub::new(FABRIC_LIMITS)), NOW);
}

fn ask(kv: &mut MemoryKv, request: KvRequest) -> Result<KvReply, KvError> {
    kv.submit(NOW, &mut VecDeque::from([(Ticket(0), request)]));
    kv.poll(NOW, Waker::noop()).unwrap().1
}

fn append(journal: &mut MemoryJournal, now: Timestamp, id: u128) -> Result<JournalReply, JournalError> {
    let request = JournalRequest::Append {
        shard: JournalShard(0),
        record: Bytes::from(vec![7; 1000]),
        dedup: DedupId(id),
    };
    journal.submit(now, &mut VecDeque::from([(Ticket(0), request)]));
    journal.poll(now, Waker::noop()).unwrap().1
}

fn is_duplicate(answer: Result<JournalReply, JournalError>) -> bool {
    match answer.unwrap() {
        JournalReply::Appended { duplicate, .. } => duplicate,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_watch_too_far_behind_scans_anew() {
    let mut kv = MemoryKv::new(LIMITS);
    let key = Key::new("a").unwrap();
    let mut revision = Revision(1);
    ask(&mut kv, KvRequest::Create(key.clone(), Bytes::new())).unwrap();
    for _ in 0..17 {
        ask(&mut kv, KvRequest::Update(key.clone(), revision, Bytes::new())).unwrap();
        revision.0 += 1;
    }
    let watch = |after| KvRequest::Watch {
        prefix: Prefix::all(),
        after: Revision(after),
        page: Page {
            items_max: NonZeroU16::MIN,
            bytes_max: 1,
        },
    };
    assert_eq!(ask(&mut kv, watch(1)), Err(KvError::HistoryGone));
    let Ok(KvReply::Changed { changes, watch_after }) = ask(&mut kv, watch(2)) else {
        panic!("sixteen changes are known");
    };
    assert_eq!(changes.len(), 1, "replaced values are left out");
    assert_eq!((changes[0].revision, watch_after), (revision, revision));
}

#[test]
fn a_key_deleted_and_created_again_shows_its_last_state() {
    let mut kv = MemoryKv::new(LIMITS);
    let key = Key::new("a").unwrap();
    let create = KvRequest::Create(key.clone(), Bytes::new());
    for request in [
        create.clone(),
        KvRequest::Delete(key.clone(), Revision(1)),
        create,
        KvRequest::Delete(key, Revision(3)),
    ] {
        ask(&mut kv, request).unwrap();
    }
    let page = Page {
        items_max: NonZeroU16::MAX,
        bytes_max: usize::MAX,
    };
    let (prefix, after) = (Prefix::all(), Revision(0));
    let Ok(KvReply::Changed { changes, .. }) = ask(&mut kv, KvRequest::Watch { prefix, after, page }) else {
        panic!("four changes are known");
    };
    let seen: Vec<_> = changes
        .iter()
        .map(|change| (change.revision.0, &change.value))
        .collect();
    assert_eq!(
        seen,
        [(2, &None), (4, &None)],
        "no creation is told as a deletion"
    );
}

#[test]
fn a_full_store_says_so_until_there_is_room() {
    let mut kv = MemoryKv::new(LIMITS);
    let value = Bytes::from(vec![7; 1000]);
    let create = |name| KvRequest::Create(Key::new(name).unwrap(), value.clone());
    for name in ["a", "b", "c", "d"] {
        ask(&mut kv, create(name)).unwrap();
    }
    assert_eq!(ask(&mut kv, create("e")), Err(KvError::Fault(Fault::Full)));
    let a = || Key::new("a").unwrap();
    let smaller = ask(&mut kv, KvRequest::Update(a(), Revision(1), Bytes::new()));
    assert_eq!(smaller, Ok(KvReply::Written(Revision(5))));
    ask(&mut kv, create("e")).unwrap();

    let mut journal = MemoryJournal::new(1, LIMITS);
    for id in 0..4 {
        append(&mut journal, NOW, id).unwrap();
    }
    assert_eq!(
        append(&mut journal, NOW, 4),
        Err(JournalError::Fault(Fault::Full))
    );
    let request = JournalRequest::Trim {
        shard: JournalShard(0),
        upto: crate::store::Sequence(2),
    };
    journal.submit(NOW, &mut VecDeque::from([(Ticket(1), request)]));
    assert!(journal.poll(NOW, Waker::noop()).unwrap().1.is_ok());
    append(&mut journal, NOW, 4).unwrap();
}

#[test]
fn dedup_ids_are_forgotten_by_time_and_by_number() {
    let limits = MemoryLimits {
        bytes_max: u64::MAX,
        ..LIMITS
    };
    let mut journal = MemoryJournal::new(1, limits);
    let end = NOW.after(LIMITS.dedup_window);
    assert!(!is_duplicate(append(&mut journal, NOW, 1)));
    assert!(is_duplicate(append(&mut journal, end, 1)));
    assert!(!is_duplicate(append(&mut journal, end.after_secs(1), 1)));
    for id in 2..5 {
        append(&mut journal, end.after_secs(1), id).unwrap();
    }
    assert!(is_duplicate(append(&mut journal, end.after_secs(1), 1)));
    append(&mut journal, end.after_secs(1), 5).unwrap();
    assert!(!is_duplicate(append(&mut journal, end.after_secs(1), 1)));
}

#[test]
fn a_full_inbox_drops_frames_and_refuses_requests() {
    let hub = MemoryHub::new(FABRIC_LIMITS);
    let (mut a, mut b) = (hub.join("a"), hub.join("b"));
    let (to, frame) = (b.node().clone(), Bytes::new());
    let mut commands: VecDeque<_> = (0..9)
        .map(|_| FabricCommand::SendAll { frame: frame.clone() })
        .collect();
    commands.push_back(FabricCommand::Request {
        ticket: Ticket(1),
        to,
        frame,
        deadline: Timestamp::NEVER,
    });
    a.submit(NOW, &mut commands);
    assert_eq!(b.dropped(), 2);
    let poll = |node: &mut MemoryFabric| node.poll(NOW, Waker::noop());
    assert!(matches!(poll(&mut a), Some(FabricEvent::Joined(_))));
    let reply = Err(FabricError::Busy);
    let ticket = Ticket(1);
    assert_eq!(poll(&mut a), Some(FabricEvent::Replied { ticket, reply }));
    assert!(matches!(poll(&mut b), Some(FabricEvent::Joined(_))));
    for _ in 0..8 {
        assert!(matches!(poll(&mut b), Some(FabricEvent::Frame { .. })));
    }
    assert_eq!(poll(&mut b), None);
    a.submit(
        NOW,
        &mut VecDeque::from([FabricCommand::SendAll { frame: Bytes::new() }]),
    );
    assert!(poll(&mut b).is_some(), "there is room again");
}
