use std::{collections::VecDeque, num::NonZeroU16, sync::Arc, task::Waker};

use broker_core::{
    ShardId, Timestamp,
    shard::{Common, Shard, ShardSettings, Ticket},
    store::{
        Entry, Journal, JournalError, JournalReply, JournalRequest, Kv, KvReply, KvRequest, Page, Prefix,
    },
};

use crate::{TestJournal, TestStore};

/// A shard with its handle on the store.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shard: Shard,
    journal: TestJournal,
    /// What the journal has not taken yet.
    requests: VecDeque<(Ticket, JournalRequest)>,
}

impl Worker {
    pub(super) fn new(id: ShardId, shards: u16, common: &Arc<Common>, store: &TestStore) -> Worker {
        let settings = ShardSettings {
            id,
            shards,
            common: Arc::clone(common),
            seed: 1,
        };
        Worker {
            shard: Shard::new(settings),
            journal: store.journal(),
            requests: VecDeque::new(),
        }
    }

    /// Submits what the shard asks of the store. True if there was something, and there was room for it.
    pub(super) fn submit(&mut self, now: Timestamp) -> bool {
        self.shard.take_store_requests(&mut self.requests);
        let before = self.requests.len();
        self.journal.submit(now, &mut self.requests);
        self.requests.len() < before
    }

    /// The next answer of the store.
    pub(super) fn poll(&mut self, now: Timestamp) -> Option<(Ticket, Result<JournalReply, JournalError>)> {
        self.journal.poll(now, Waker::noop())
    }
}

/// All entries of a store, from pages of the size that a node would use.
pub(super) fn entries(store: &TestStore, now: Timestamp) -> Vec<Entry> {
    let (mut kv, mut all, mut after) = (store.kv(), Vec::new(), None);
    loop {
        let request = KvRequest::Scan {
            prefix: Prefix::all(),
            after,
            page: Page {
                items_max: NonZeroU16::new(100).expect("a hundred"),
                bytes_max: 1 << 20,
            },
        };
        kv.submit(now, &mut VecDeque::from([(Ticket(0), request)]));
        let Some((_, Ok(KvReply::Scanned { entries, next, .. }))) = kv.poll(now, Waker::noop()) else {
            panic!("a scan in memory brings entries at once");
        };
        all.extend(entries);
        if next.is_none() {
            return all;
        }
        after = next;
    }
}
