//! The store passes what every back end has to pass, whether its records lie in one segment or in many, in memory or
//! in files.

#![allow(clippy::unwrap_used, reason = "a test fails where it is not as expected")]

use std::time::Duration;

use broker_core::{
    Timestamp,
    store::{
        Durability,
        conformance::{self, Factory},
    },
};
use store::{JournalHandle, KvHandle, Options, Store};
use tempfile::TempDir;

struct Directories {
    durability: Durability,
    segment_bytes: u64,
    ring_bytes: usize,
    index_bytes: usize,
    read_work_max: u64,
}

impl Directories {
    fn open(&self, dir: &TempDir) -> Store {
        let mut options = Options::new(dir.path());
        options.durability = self.durability;
        options.segment_bytes = self.segment_bytes;
        options.ring_bytes = self.ring_bytes;
        options.index_bytes = self.index_bytes;
        options.read_work_max = self.read_work_max;
        options.record_bytes_max = 64 << 10;
        options.in_flight_max = 32;
        options.dedup_window = Duration::from_secs(10);
        options.dedup_ids_max = 16;
        Store::open(options).unwrap()
    }
}

impl Factory for Directories {
    type Store = (Store, TempDir);
    type Journal = JournalHandle;
    type Kv = KvHandle;

    fn open(&mut self) -> (Store, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Directories::open(self, &dir), dir)
    }

    fn journal(&mut self, store: &(Store, TempDir)) -> JournalHandle {
        store.0.journal()
    }

    fn kv(&mut self, store: &(Store, TempDir)) -> KvHandle {
        store.0.kv()
    }

    fn crash(&mut self, (store, dir): (Store, TempDir)) -> Option<(Store, TempDir)> {
        store.kill();
        Some((Directories::open(self, &dir), dir))
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

/// Everything is in memory.
fn large() -> Directories {
    Directories {
        durability: Durability::Sync,
        segment_bytes: 64 << 20,
        ring_bytes: 32 << 20,
        index_bytes: 64 << 20,
        read_work_max: 100_000,
    }
}

/// Segments of a few records, nothing stays in memory.
fn small() -> Directories {
    Directories {
        durability: Durability::Async,
        segment_bytes: 4 << 10,
        ring_bytes: 0,
        index_bytes: 0,
        read_work_max: 1,
    }
}

#[test]
fn journal_in_memory() {
    conformance::journal(&mut large(), now());
}

#[test]
fn journal_in_files() {
    conformance::journal(&mut small(), now());
}

#[test]
fn kv() {
    conformance::kv(&mut large(), now());
}
