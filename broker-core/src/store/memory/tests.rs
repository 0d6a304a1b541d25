mod bounds;
mod log;

use std::{collections::VecDeque, num::NonZeroU16, task::Waker, time::Duration};

use bytes::Bytes;

use super::*;
use crate::store::{
    Durability, Fabric, FabricCommand, FabricError, FabricEvent, FabricLimits, Fault, Journal, JournalError,
    JournalLimits, JournalReply, JournalRequest, Key, Kv, KvError, KvLimits, KvReply, KvRequest, Prefix,
    Revision, conformance,
};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const LIMITS: MemoryLimits = MemoryLimits {
    bytes_max: 1 << 20,
    log_bytes_max: None,
    item_bytes_max: 1000,
    in_flight_max: 16,
    history_max: 16,
    dedup_window: Duration::from_secs(60),
    dedup_ids_max: 16,
};

struct Memory;

impl conformance::Factory for Memory {
    type Store = MemoryStore;
    type Journal = MemoryJournal;
    type Kv = MemoryKv;

    fn open(&mut self) -> MemoryStore {
        MemoryStore::new(LIMITS)
    }

    fn journal(&mut self, store: &MemoryStore) -> MemoryJournal {
        store.journal()
    }

    fn kv(&mut self, store: &MemoryStore) -> MemoryKv {
        store.kv()
    }

    fn crash(&mut self, _: MemoryStore) -> Option<MemoryStore> {
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

/// `forgets`: it claims to be durable, and is not.
struct KeptStores {
    forgets: bool,
}

impl conformance::Factory for KeptStores {
    type Store = MemoryStore;
    type Journal = Kept<MemoryJournal>;
    type Kv = Kept<MemoryKv>;

    fn open(&mut self) -> MemoryStore {
        MemoryStore::new(LIMITS)
    }

    fn journal(&mut self, store: &MemoryStore) -> Kept<MemoryJournal> {
        Kept(store.journal())
    }

    fn kv(&mut self, store: &MemoryStore) -> Kept<MemoryKv> {
        Kept(store.kv())
    }

    fn crash(&mut self, store: MemoryStore) -> Option<MemoryStore> {
        (!self.forgets).then_some(store)
    }
}

#[test]
fn a_store_that_is_kept_passes_the_crash_checks() {
    let stores = &mut KeptStores { forgets: false };
    conformance::kv_crash(stores, NOW);
    conformance::journal_crash(stores, NOW);
    conformance::journal_crash_in_flight(stores, NOW);
}

#[test]
#[should_panic = "survives the end of its process"]
fn a_store_that_claims_to_be_durable_may_not_decline() {
    conformance::kv_crash(&mut KeptStores { forgets: true }, NOW);
}

#[test]
fn kv_conforms() {
    conformance::kv(&mut Memory, NOW);
}

#[test]
fn journal_conforms() {
    conformance::journal(&mut Memory, NOW);
}

#[test]
fn fabric_conforms() {
    conformance::fabric(&mut Nodes(MemoryHub::new(FABRIC_LIMITS)), NOW);
}

fn ask(kv: &mut MemoryKv, request: KvRequest) -> Result<KvReply, KvError> {
    kv.submit(NOW, &mut VecDeque::from([(Ticket(0), request)]));
    kv.poll(NOW, Waker::noop()).unwrap().1
}

#[test]
fn a_watch_too_far_behind_scans_anew() {
    let mut kv = MemoryStore::new(LIMITS).kv();
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
    let mut kv = MemoryStore::new(LIMITS).kv();
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
