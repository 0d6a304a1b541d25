//! Bad days: no room, a sync that fails, a disk that takes its time, a loss of power.

use std::{io::ErrorKind, path::Path, sync::Arc};

use crate::client::{Client, commit, record};
use broker_core::store::{Durability, Fault as StoreFault, JournalError, JournalReply, Keep, Sequence};
use store::{
    Options, State, Store,
    files::{Fault, FaultyFiles, Operation},
};
use tempfile::TempDir;

fn options(dir: &Path, files: &FaultyFiles) -> Options {
    let mut options = Options::new(dir);
    options.reserve_bytes = Some(0);
    options.files = Arc::new(files.clone());
    options.segment_bytes = 8 << 10;
    options
}

fn open(dir: &TempDir, files: &FaultyFiles) -> Store {
    Store::open(options(dir.path(), files)).unwrap()
}

fn bodies(client: &mut Client) -> Vec<String> {
    let log = client.log(Sequence::FIRST);
    let body = |data: &[u8]| String::from_utf8(data[3..].to_vec()).unwrap();
    log.iter().map(|record| body(&record.data)).collect()
}

fn once(operation: Operation, kind: ErrorKind) -> Fault {
    Fault {
        operation,
        after: 0,
        kind,
        written: 0,
        lasting: false,
    }
}

#[test]
fn without_room_commits_fail_and_the_rest_goes_on() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    client.append("t", "before").unwrap();
    let head = client.head();
    for room in [0, 1, 50, 80] {
        files.set_room(room);
        for _ in 0..2 {
            assert_eq!(
                client.append("t", "without room"),
                Err(JournalError::Fault(StoreFault::Full))
            );
            assert_eq!(store.stats().state(), State::Full);
        }
        assert_eq!(client.head(), head);
        assert_eq!(bodies(&mut client), ["before"]);
        let (found, _) = client.backlog(&["#"], Sequence::FIRST, Keep::default(), 10);
        assert_eq!(found.len(), 1);
    }
    files.heal();
    client.append("t", "after").unwrap();
    assert_eq!(store.stats().state(), State::Ok);
    drop(client);
    store.kill();
    let store = open(&dir, &files);
    assert_eq!(bodies(&mut Client::new(store.journal())), ["before", "after"]);
}

#[test]
fn a_failed_commit_takes_along_those_behind_it() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    let mut other = Client::new(store.journal());
    let full = Err(JournalError::Fault(StoreFault::Full));
    files.set_room(0);
    let first = client.send(commit(vec![record("t", "without room")], vec![]));
    // Its answer comes after that of the first, which nobody has looked at.
    assert!(other.append("t", "neither").is_err());
    files.heal();
    let second = client.send(commit(vec![record("t", "behind it")], vec![]));
    other.append("t", "of another handle").unwrap();
    assert_eq!(client.answer(first), full);
    assert_eq!(client.answer(second), full);
    client.append("t", "after").unwrap();
    assert_eq!(bodies(&mut other), ["of another handle", "after"]);
}

#[test]
fn without_room_for_a_new_segment_commits_fail_until_there_is() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    let large = "x".repeat(5000);
    client.append("t", &large).unwrap();
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        files.fail(once(Operation::Create, kind));
        assert_eq!(
            client.append("t", &large),
            Err(JournalError::Fault(StoreFault::Full))
        );
    }
    // The header fits, what follows does not; and then not even the header.
    for room in [100, 20] {
        files.set_room(room);
        assert_eq!(
            client.append("t", &large),
            Err(JournalError::Fault(StoreFault::Full))
        );
    }
    files.heal();
    client.append("t", &large).unwrap();
    client.append("t", "small").unwrap();
    drop(client);
    drop(store);
    let store = open(&dir, &files);
    assert_eq!(
        bodies(&mut Client::new(store.journal())),
        [&large, &large, "small"]
    );
}

#[test]
fn a_failed_sync_is_final() {
    for operation in [Operation::Sync, Operation::SyncDir] {
        let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
        let store = open(&dir, &files);
        let mut client = Client::new(store.journal());
        if operation == Operation::Sync {
            client.append("t", "0").unwrap();
        }
        files.fail(once(operation, ErrorKind::Other));
        let syncs = files.counts().syncs;
        for _ in 0..3 {
            let answer = client.append("t", "never acknowledged");
            assert!(
                matches!(answer, Err(JournalError::Fault(StoreFault::Failed(_)))),
                "{answer:?}"
            );
        }
        assert_eq!(files.counts().syncs, syncs + 1, "it is not tried again");
        assert_eq!(store.stats().state(), State::Failed);
        let known = bodies(&mut client).len();
        assert_eq!(
            known,
            usize::from(operation == Operation::Sync),
            "what was committed can be read"
        );
        drop(client);
        drop(store);
        let store = open(&dir, &files);
        let mut client = Client::new(store.journal());
        assert!(bodies(&mut client).len() >= known);
        client.append("t", "goes on").unwrap();
        assert_eq!(store.stats().state(), State::Ok);
    }
}

#[test]
fn a_write_that_cannot_be_taken_back_is_final() {
    for operation in [Operation::Truncate, Operation::Sync] {
        let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
        let store = open(&dir, &files);
        let mut client = Client::new(store.journal());
        client.append("t", "0").unwrap();
        files.set_room(30);
        files.fail(once(operation, ErrorKind::Other));
        for _ in 0..2 {
            let answer = client.append("t", "torn");
            assert!(
                matches!(answer, Err(JournalError::Fault(StoreFault::Failed(_)))),
                "{answer:?}"
            );
            files.heal();
        }
        drop(client);
        store.kill();
        let store = open(&dir, &files);
        let mut client = Client::new(store.journal());
        assert_eq!(bodies(&mut client), ["0"]);
        client.append("t", "1").unwrap();
    }
}

#[test]
fn a_slow_sync_holds_up_commits_and_nobody_else() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    let mut writer = Client::new(store.journal());
    let mut reader = Client::new(store.journal());
    writer.append("t", "0").unwrap();
    let before = files.counts();
    files.hold_syncs(true);
    let mut tickets = vec![writer.send(commit(vec![record("t", "1")], vec![]))];
    files.wait_for_held_sync();
    // These gather while the first is under way.
    for number in 2..50 {
        tickets.push(writer.send(commit(vec![record("t", &number.to_string())], vec![])));
    }
    assert_eq!(bodies(&mut reader), ["0"]);
    assert_eq!(
        reader
            .backlog(&["t"], Sequence::FIRST, Keep::default(), 9)
            .0
            .len(),
        1
    );
    assert!(tickets.iter().all(|ticket| !writer.has_answer(*ticket)));
    files.hold_syncs(false);
    for ticket in tickets {
        assert!(matches!(
            writer.answer(ticket),
            Ok(JournalReply::Committed { .. })
        ));
    }
    assert!(store.stats().write_under_way().is_zero());
    assert_eq!(bodies(&mut reader).len(), 50);
    let after = files.counts();
    let (appends, syncs) = (after.appends - before.appends, after.syncs - before.syncs);
    assert_eq!(
        (appends, syncs),
        (2, 2),
        "one write and one sync for all that waited"
    );
}

#[test]
fn without_sync_nothing_is_synced_but_what_is_sealed() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let mut options = options(dir.path(), &files);
    options.durability = Durability::Async;
    let store = Store::open(options).unwrap();
    let before = files.counts().syncs;
    let mut client = Client::new(store.journal());
    for number in 0..20 {
        client.append("t", &number.to_string()).unwrap();
    }
    assert_eq!(files.counts().syncs, before);
}

#[test]
fn a_loss_of_power_takes_nothing_that_was_acknowledged() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    let large = "y".repeat(3000);
    let mut acknowledged = Vec::new();
    for number in 0..6 {
        let body = format!("{number}{large}");
        client.append("t", &body).unwrap();
        acknowledged.push(body);
    }
    files.hold_syncs(true);
    client.send(commit(vec![record("t", "in flight"), record("t", "too")], vec![]));
    files.wait_for_held_sync();
    let version = std::fs::read(dir.path().join("VERSION")).unwrap();
    for step in 0..20 {
        // Elsewhere, with the same identity and empty tables.
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("VERSION"), &version).unwrap();
        let moved = FaultyFiles::new();
        let log = other.path().join("log");
        files.crash(|file| {
            let keep = file.synced + (file.len - file.synced) * step / 19;
            if file.name_synced || step > 0 {
                moved.put(
                    &log.join(file.path.file_name().unwrap()),
                    file.bytes[..keep].to_vec(),
                );
            }
            None
        });
        let store = open(&other, &moved);
        let found = bodies(&mut Client::new(store.journal()));
        assert_eq!(found[..acknowledged.len()], acknowledged);
        let rest = &found[acknowledged.len()..];
        assert!(
            rest.is_empty() || (step == 19 && rest == ["in flight", "too"]),
            "{step}: {rest:?}"
        );
    }
    files.hold_syncs(false);
}
