//! A full disk, and the room that is kept for it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::client::{Client, commit};
use broker_core::store::{Fault, JournalError, Keep, Key, Sequence, Value, Write};
use bytes::Bytes;
use store::{Options, State, Store, files::FaultyFiles};
use tempfile::TempDir;

const RESERVE: usize = 64 << 10;
const FULL: Result<Sequence, JournalError> = Err(JournalError::Fault(Fault::Full));

fn open(dir: &TempDir, files: &FaultyFiles) -> Store {
    open_with(dir, files, 8 << 10)
}

fn open_with(dir: &TempDir, files: &FaultyFiles, segment_bytes: u64) -> Store {
    let mut options = Options::new(dir.path());
    options.files = Arc::new(files.clone());
    options.segment_bytes = segment_bytes;
    options.reserve_bytes = Some(RESERVE as u64);
    Store::open(options).unwrap()
}

fn path(dir: &TempDir) -> PathBuf {
    dir.path().join("reserve")
}

fn len(files: &FaultyFiles, path: &Path) -> Option<usize> {
    files.bytes(path).map(|bytes| bytes.len())
}

/// Waits for another thread.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::yield_now();
    }
}

fn until_made(store: &Store) {
    let stats = store.stats();
    until("the reserve is made", || {
        stats.reserve_bytes.load(Relaxed) == RESERVE as u64
    });
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// Commits an entry.
fn put(client: &mut Client, name: &str) -> Result<(), JournalError> {
    let write = Write {
        key: key(name),
        value: Value::Put(Bytes::from(vec![b'v'; 100])),
    };
    client.ask(commit(vec![], vec![write])).map(|_| ())
}

/// Commits records until one is refused; returns how many were taken.
fn fill(client: &mut Client) -> usize {
    let body = "x".repeat(1000);
    let mut taken = 0;
    while client.append("t", &body).is_ok() {
        taken += 1;
        assert!(taken < 10_000, "the disk is full at some time");
    }
    taken
}

/// A store with a reserve, whose disk is full.
fn full(dir: &TempDir, files: &FaultyFiles) -> (Store, Client, usize) {
    let store = open(dir, files);
    until_made(&store);
    let mut client = Client::new(store.journal());
    files.set_room(100_000);
    let taken = fill(&mut client);
    assert!(taken > 80, "{taken}");
    assert_eq!(store.stats().state(), State::Full);
    (store, client, taken)
}

#[test]
fn a_full_disk_takes_entries_and_after_a_trim_records_again() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let (store, mut client, taken) = full(&dir, &files);
    assert_eq!(len(&files, &path(&dir)), Some(0));
    let refused = store.stats().commits_refused_full.load(Relaxed);
    let appended = store.stats().bytes_appended.load(Relaxed);
    for _ in 0..10 {
        assert_eq!(client.append("t", "x"), FULL);
    }
    assert_eq!(store.stats().commits_refused_full.load(Relaxed), refused + 10);
    assert_eq!(store.stats().bytes_appended.load(Relaxed), appended);
    for number in 0..100 {
        assert_eq!(put(&mut client, &format!("session-{number}")), Ok(()));
        assert_eq!(store.stats().state(), State::Full);
    }
    assert_eq!(client.append("t", "x"), FULL, "entries make no room for records");
    let (backlog, _) = client.backlog(&["t"], Sequence::FIRST, Keep::default(), 1000);
    assert_eq!(backlog.len(), taken);
    let next = client.head().next;
    client.trim(next);
    until_made(&store);
    assert_eq!(client.append("t", "again").map(|at| at >= next), Ok(true));
    assert_eq!(store.stats().state(), State::Ok);
    assert_eq!(len(&files, &path(&dir)), Some(RESERVE));
    assert!(
        fill(&mut client) > RESERVE / 4 / 1100,
        "it is not given up at once"
    );
}

#[test]
fn the_only_segment_goes_too() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open_with(&dir, &files, 64 << 10);
    until_made(&store);
    let mut client = Client::new(store.journal());
    client.append("t", &"x".repeat(30_000)).unwrap();
    files.set_room(2000);
    assert_eq!(client.append("t", &"x".repeat(3000)), FULL);
    assert_eq!(store.stats().segments.load(Relaxed), 1);
    put(&mut client, "cursor").unwrap();
    assert_eq!(store.stats().segments.load(Relaxed), 2);
    let next = client.head().next;
    client.trim(next);
    until_made(&store);
    assert!(client.append("t", "again").is_ok());
}

#[test]
fn the_first_that_finds_no_room_is_taken_if_it_has_no_records() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    until_made(&store);
    let mut client = Client::new(store.journal());
    files.set_room(10);
    assert_eq!(put(&mut client, "session"), Ok(()));
    assert_eq!(store.stats().state(), State::Full);
    assert_eq!(client.append("t", "x"), FULL);
}

#[test]
fn a_reserve_that_is_used_up_takes_nothing_more_until_somebody_makes_room() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let (store, mut client, _) = full(&dir, &files);
    let mut taken = 0;
    while put(&mut client, &format!("session-{taken}")).is_ok() {
        taken += 1;
        assert!(taken < 10_000);
    }
    assert!(taken > RESERVE / 300, "{taken}");
    assert_eq!(client.append("t", "x"), FULL);
    files.heal();
    until_made(&store);
    assert!(client.append("t", "x").is_ok());
}

#[test]
fn a_reserve_that_was_given_up_is_known_to_the_next_process() {
    for is_killed in [false, true] {
        let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
        let (store, mut client, taken) = full(&dir, &files);
        put(&mut client, "session").unwrap();
        drop(client);
        if is_killed {
            store.kill();
        } else {
            drop(store);
        }
        let store = open(&dir, &files);
        let mut client = Client::new(store.journal());
        assert_eq!(store.stats().state(), State::Full);
        assert_eq!(client.append("t", "x"), FULL);
        assert_eq!(put(&mut client, "other"), Ok(()));
        assert_eq!(client.log(Sequence::FIRST).len(), taken);
        let next = client.head().next;
        client.trim(next);
        until_made(&store);
        assert!(client.append("t", "x").is_ok());
        assert_eq!(store.stats().state(), State::Ok);
    }
}

#[test]
fn a_reserve_that_is_there_is_not_written_again() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    until_made(&store);
    drop(store);
    let appends = files.counts().appends;
    let store = open(&dir, &files);
    assert_eq!(store.stats().reserve_bytes.load(Relaxed), RESERVE as u64);
    drop(store);
    assert_eq!(files.counts().appends, appends);
    // A crash while it was made.
    files.put(&path(&dir), vec![1; 100]);
    let store = open(&dir, &files);
    until_made(&store);
    assert_eq!(len(&files, &path(&dir)), Some(RESERVE));
}

#[test]
fn without_room_for_a_reserve_every_commit_is_tried() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    files.set_room(RESERVE / 2);
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    assert!(fill(&mut client) > 20);
    assert_eq!(store.stats().state(), State::Full);
    assert_eq!(len(&files, &path(&dir)), None);
    files.set_room(2000);
    assert!(client.append("t", "x").is_ok());
    assert_eq!(store.stats().state(), State::Ok);
    drop(client);
    drop(store);
    let store = open(&dir, &files);
    assert_ne!(store.stats().state(), State::Full);
}

#[test]
fn the_reserve_is_made_again_also_while_nobody_commits() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let (store, _client, _) = full(&dir, &files);
    files.heal();
    until_made(&store);
    assert_eq!(store.stats().state(), State::Ok);
}
