use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Wake, Waker},
    thread::{self, Thread},
};

use broker_core::{
    Timestamp,
    shard::Ticket,
    store::{
        Journal, JournalReply, JournalRequest, Key, Kv, KvReply, KvRequest, NewRecord, Page, Prefix,
        Sequence, Value, Write,
    },
};
use bytes::Bytes;

use super::*;
use crate::{JournalHandle, KvHandle};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

fn ask(journal: &mut JournalHandle, request: JournalRequest) -> JournalReply {
    journal.submit(NOW, &mut VecDeque::from([(Ticket(1), request)]));
    loop {
        if let Some((_, answer)) = journal.poll(NOW, &waker()) {
            return answer.unwrap();
        }
        thread::park();
    }
}

fn scan(kv: &mut KvHandle) -> BTreeMap<String, (u64, String)> {
    let (mut found, mut after) = (BTreeMap::new(), None);
    loop {
        let request = KvRequest::Scan {
            prefix: Prefix::all(),
            after: after.take(),
            page: page(),
        };
        kv.submit(NOW, &mut VecDeque::from([(Ticket(1), request)]));
        let answer = loop {
            if let Some((_, answer)) = kv.poll(NOW, &waker()) {
                break answer.unwrap();
            }
            thread::park();
        };
        let KvReply::Scanned { entries, next, .. } = answer else {
            panic!("{answer:?}");
        };
        found.extend(entries.into_iter().map(|entry| {
            let value = String::from_utf8(entry.value.to_vec()).unwrap();
            (entry.key.as_str().to_owned(), (entry.revision.0, value))
        }));
        after = next;
        if after.is_none() {
            return found;
        }
    }
}

fn page() -> Page {
    Page {
        items_max: 100.try_into().unwrap(),
        bytes_max: usize::MAX,
    }
}

fn put(key: &str, value: &str) -> Write {
    Write {
        key: Key::new(key).unwrap(),
        value: Value::Put(Bytes::copy_from_slice(value.as_bytes())),
    }
}

fn record(topic: &str, payload: &str) -> NewRecord {
    let len = u16::try_from(topic.len()).unwrap().to_be_bytes();
    NewRecord {
        data: [&len[..], topic.as_bytes(), payload.as_bytes()].concat().into(),
        indexed: true,
    }
}

fn commit(journal: &mut JournalHandle, records: Vec<NewRecord>, writes: Vec<Write>) -> (u64, u64) {
    let request = JournalRequest::Commit {
        records,
        writes,
        dedup: None,
    };
    match ask(journal, request) {
        JournalReply::Committed { first, next, .. } => (first.0, next.0),
        other => panic!("{other:?}"),
    }
}

/// Commit `number` as the tests write it: what it says can be told from the number alone.
fn numbered(number: u64) -> (Vec<NewRecord>, Vec<Write>) {
    let text = number.to_string();
    let records = vec![record(
        &format!("t/{}", number % 5),
        &format!("{text} {}", "x".repeat(100)),
    )];
    let writes = vec![
        put("last", &text),
        put(&format!("k.{}", number % 50), &text),
        match number % 3 {
            0 => Write {
                key: Key::new("sometimes").unwrap(),
                value: Value::Delete,
            },
            _ => put("sometimes", &text),
        },
    ];
    (records, writes)
}

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.segment_bytes = 16 << 10;
    options.tables_backlog_bytes = 1 << 20;
    options.tables_cache_bytes = 1 << 20;
    options
}

/// A store with a few segments and tables.
fn filled(dir: &Path, commits: u64) {
    let store = Store::open(options(dir)).unwrap();
    let mut journal = store.journal();
    for number in 1..=commits {
        let (records, writes) = numbered(number);
        commit(&mut journal, records, writes);
    }
}

fn payloads(journal: &mut JournalHandle, from: Sequence) -> Vec<String> {
    let (mut found, mut from) = (Vec::new(), from);
    loop {
        let request = JournalRequest::Tail {
            from,
            page: page(),
            wait: false,
        };
        let JournalReply::Records { records, next } = ask(journal, request) else {
            panic!("a tail brings records");
        };
        if records.is_empty() {
            return found;
        }
        found.extend(records.iter().map(|record| {
            let text = String::from_utf8_lossy(&record.data[5..]).into_owned();
            text.split(' ').next().unwrap_or_default().to_owned()
        }));
        from = next;
    }
}

/// Entries as they are after the first `commits` commits.
fn expected_entries(commits: u64) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    for number in 1..=commits {
        for write in numbered(number).1 {
            match write.value {
                Value::Put(value) => {
                    let value = String::from_utf8(value.to_vec()).unwrap();
                    entries.insert(write.key.as_str().to_owned(), value);
                }
                _ => {
                    entries.remove(write.key.as_str());
                }
            }
        }
    }
    entries
}

/// Every commit up to some number is there, and nothing of a later one; returns the number.
fn check_prefix(dir: &Path) -> u64 {
    let store = Store::open(options(dir)).unwrap();
    let entries = scan(&mut store.kv());
    let commits: u64 = entries.get("last").map_or(0, |(_, value)| value.parse().unwrap());
    let values: BTreeMap<_, _> = entries
        .into_iter()
        .map(|(key, (_, value))| (key, value))
        .collect();
    assert!(
        values == expected_entries(commits),
        "the entries are those after commit {commits}"
    );
    let records = payloads(&mut store.journal(), Sequence::FIRST);
    let numbers: Vec<_> = (1..=commits).map(|number| number.to_string()).collect();
    assert!(
        records == numbers,
        "{} records after {commits} commits",
        records.len()
    );
    commits
}

fn quiet(_: Done) {}

fn worst(dir: &Path, repair: bool) -> CheckReport {
    check(dir, repair, &mut quiet).unwrap()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = files_below(&dir.join("log"));
    files.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    files
}

#[test]
fn a_backup_of_a_working_store_is_a_prefix_of_its_commits() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let store = Store::open(options(&live)).unwrap();
    let (is_done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut journal = store.journal();
            for number in 1.. {
                let (records, writes) = numbered(number);
                commit(&mut journal, records, writes);
                written.store(number, Ordering::Release);
                if is_done.load(Ordering::Acquire) {
                    return;
                }
            }
        });
        for round in 0..4 {
            let before = written.load(Ordering::Acquire);
            let archive = dir.path().join(format!("backup{round}.tar"));
            let report = store
                .backup(&archive, &BackupOptions::default(), &mut quiet)
                .unwrap();
            assert!(report.archive_bytes == fs::metadata(&archive).unwrap().len());
            let restored = dir.path().join(format!("restored{round}"));
            let again = restore(&archive, &restored, &mut quiet).unwrap();
            assert_eq!(again, report);
            let commits = check_prefix(&restored);
            assert!(commits >= before, "{commits} of at least {before}");
            assert!(commits <= written.load(Ordering::Acquire) + 1);
        }
        is_done.store(true, Ordering::Release);
    });
}

#[test]
fn a_restored_store_goes_on_where_the_backup_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (live, restored) = (dir.path().join("live"), dir.path().join("restored"));
    filled(&live, 300);
    let archive = dir.path().join("backup.tar");
    let store = Store::open(options(&live)).unwrap();
    // The oldest segments are gone: the entries that they made are in the tables alone.
    let mut journal = store.journal();
    let trimmed = ask(&mut journal, JournalRequest::Trim { upto: Sequence(200) });
    assert_eq!(trimmed, JournalReply::Trimmed);
    let (first, _) = commit(&mut journal, vec![record("t", "the last")], vec![put("new", "1")]);
    let report = store
        .backup(&archive, &BackupOptions::default(), &mut quiet)
        .unwrap();
    let entries = scan(&mut store.kv());
    assert_eq!(report.next.0, first + 1);
    drop((journal, store));

    fs::create_dir(&restored).unwrap();
    restore(&archive, &restored, &mut quiet).unwrap();
    let report = worst(&restored, false);
    assert!(
        report.worst.is_none_or(|worst| worst == Severity::Note),
        "{report}"
    );
    let store = Store::open(options(&restored)).unwrap();
    assert!(scan(&mut store.kv()) == entries, "with their revisions");
    let (next, _) = commit(&mut store.journal(), vec![record("t", "after")], vec![]);
    assert_eq!(next, first + 1);
    let last = payloads(&mut store.journal(), Sequence(first));
    assert_eq!(last.len(), 2);
}

#[test]
fn backups_and_restores_overwrite_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (live, archive) = (dir.path().join("live"), dir.path().join("backup.tar"));
    filled(&live, 10);
    let store = Store::open(options(&live)).unwrap();
    store
        .backup(&archive, &BackupOptions::default(), &mut quiet)
        .unwrap();
    let again = store.backup(&archive, &BackupOptions::default(), &mut quiet);
    assert!(matches!(again, Err(OpsError::Exists(_))), "{again:?}");
    let full = restore(&archive, &live, &mut quiet);
    assert!(matches!(full, Err(OpsError::Exists(_))), "{full:?}");
    let nowhere = dir.path().join("no/such/backup.tar");
    assert!(
        store
            .backup(&nowhere, &BackupOptions::default(), &mut quiet)
            .is_err()
    );
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "nothing is left behind"
    );
}

#[test]
fn an_archive_that_was_changed_or_cut_off_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (live, archive) = (dir.path().join("live"), dir.path().join("backup.tar"));
    filled(&live, 200);
    let store = Store::open(options(&live)).unwrap();
    store
        .backup(&archive, &BackupOptions::default(), &mut quiet)
        .unwrap();
    drop(store);
    let bytes = fs::read(&archive).unwrap();
    let broken = dir.path().join("broken.tar");
    let target = dir.path().join("target");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&broken, bytes).unwrap();
        match restore(&broken, &target, &mut quiet) {
            Ok(_) => {
                // Some bytes of a tar header and the padding of a member mean nothing.
                assert_eq!(check_prefix(&target), 200, "{what}");
                fs::remove_dir_all(&target).unwrap();
                0
            }
            Err(error) => {
                assert!(matches!(error, OpsError::Archive { .. }), "{what}: {error}");
                assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{what}");
                1
            }
        }
    };
    let mut count = 0;
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        count += refused(&changed, &format!("byte {at}"));
    }
    assert!(count > 50, "{count}");
    for len in (0..bytes.len() - 1024).step_by(bytes.len() / 20) {
        assert_eq!(refused(&bytes[..len], &format!("{len} bytes")), 1);
    }
    let mut strange = Vec::new();
    tar::write_header(&mut strange, "../../evil", 4).unwrap();
    strange.extend_from_slice(b"evil");
    tar::pad(&mut strange, 4).unwrap();
    strange.extend_from_slice(&bytes);
    assert_eq!(refused(&strange, "a name that leads elsewhere"), 1);
}

#[test]
fn a_whole_store_passes_the_check() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 500);
    let report = worst(dir.path(), false);
    assert!(
        report.worst.is_none_or(|worst| worst == Severity::Note),
        "{report}"
    );
    assert_eq!((report.commits, report.records), (500, 500));
    assert_eq!(report.entries, expected_entries(500).len() as u64);
    assert!(report.segments > 3);
}

#[test]
fn what_is_no_store_or_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    assert!(matches!(
        check(&missing, true, &mut quiet),
        Err(OpsError::NoStore(_))
    ));
    assert!(!missing.exists());
    assert!(matches!(
        stats(dir.path(), 1, &mut quiet),
        Err(OpsError::NoStore(_))
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let store = Store::open(options(dir.path())).unwrap();
    let used = check(dir.path(), false, &mut quiet);
    assert!(
        matches!(used, Err(OpsError::Open(OpenError::Locked(_)))),
        "{used:?}"
    );
    drop(store);
}

#[test]
fn a_torn_end_is_told_and_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20);
    let last = segment_files(dir.path()).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    let mut torn = whole.clone();
    torn.extend_from_slice(&whole[64..140]);
    fs::write(&last, &torn).unwrap();
    let report = worst(dir.path(), false);
    assert_eq!(report.worst, Some(Severity::Warning), "{report}");
    assert_eq!(fs::read(&last).unwrap(), torn, "a check changes nothing");
    assert_eq!(worst(dir.path(), true).repaired, 1);
    assert_eq!(fs::read(&last).unwrap(), whole);
    assert_eq!(worst(dir.path(), false).findings, []);
    assert_eq!(check_prefix(dir.path()), 20);
}

#[test]
fn damage_and_loss_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    filled(&whole, 400);
    let after = |harm: &dyn Fn()| {
        let _ = fs::remove_dir_all(&broken);
        copy_dir(&whole, &broken);
        harm();
        let report = worst(&broken, false);
        report.worst
    };
    let segments = segment_files(&whole);
    let segment = |at: usize| broken.join(segments[at].strip_prefix(&whole).unwrap());
    assert!(after(&|| ()).is_none_or(|worst| worst == Severity::Note));
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    for at in [0, 40, 64, 100, 2000] {
        assert_eq!(
            after(&|| flip(&segment(1), at)),
            Some(Severity::Error),
            "byte {at}"
        );
    }
    assert_eq!(
        after(&|| fs::remove_file(segment(1)).unwrap()),
        Some(Severity::Error)
    );
    // A log that begins later was trimmed, as far as anybody can tell.
    assert_eq!(
        after(&|| fs::remove_file(segment(0)).unwrap()),
        Some(Severity::Note)
    );
    assert_eq!(
        after(&|| fs::remove_file(segment(segments.len() - 1)).unwrap()),
        Some(Severity::Error),
        "the tables know that there was more"
    );
    assert_eq!(
        after(&|| fs::remove_file(broken.join("tables/current")).unwrap()),
        Some(Severity::Error)
    );
}

#[test]
fn tables_that_are_damaged_are_made_again_while_the_log_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 50);
    fs::write(dir.path().join("tables/current"), "nonsense").unwrap();
    assert_eq!(worst(dir.path(), false).worst, Some(Severity::Error));
    assert!(matches!(
        Store::open(options(dir.path())),
        Err(OpenError::Tables { .. })
    ));
    assert_eq!(worst(dir.path(), true).repaired, 1);
    assert_eq!(check_prefix(dir.path()), 50);
    assert_eq!(
        worst(dir.path(), false).worst,
        Some(Severity::Note),
        "what was moved aside"
    );
}

#[test]
fn index_files_are_compared_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 400);
    // Made where they are missing, so that there are some.
    worst(dir.path(), true);
    let mut indexes = files_below(&dir.path().join("log"));
    indexes.retain(|file| file.extension().is_some_and(|extension| extension == "idx"));
    assert!(indexes.len() > 2);
    let bytes = fs::read(&indexes[0]).unwrap();
    for at in [0, 50, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&indexes[0], changed).unwrap();
        let report = worst(dir.path(), true);
        assert_eq!(
            (report.worst, report.repaired),
            (Some(Severity::Warning), 1),
            "byte {at}"
        );
        assert_eq!(fs::read(&indexes[0]).unwrap(), bytes, "byte {at}");
    }
    let stray = indexes[0].with_file_name("00000000000000099999.idx");
    fs::write(&stray, "").unwrap();
    assert_eq!(worst(dir.path(), true).repaired, 1);
    assert!(!stray.exists());
    assert_eq!(check_prefix(dir.path()), 400);
}

#[test]
fn an_export_has_everything_in_lines() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60);
    let mut out = Vec::new();
    let report = export(dir.path(), &mut out, &mut quiet).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(report.bytes, text.len() as u64);
    let entries = expected_entries(60).len() as u64;
    assert_eq!((report.entries, report.records), (entries, 60));
    assert_eq!(text.lines().count() as u64, entries + 60);
    assert!(
        text.contains("{\"entry\":\"last\",\"revision\":60,\"value\":\"NjA=\"}\n"),
        "{text}"
    );
    let first = "{\"record\":1,\"time\":1700000000000,\"indexed\":true,\"topic\":\"t/1\",\"data\":\"AAN0LzEx";
    assert!(text.contains(first), "{text}");
}

#[test]
fn statistics_count_tables_and_topics() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 101);
    let report = stats(dir.path(), 2, &mut quiet).unwrap();
    let tables: Vec<_> = report
        .tables
        .iter()
        .map(|table| (table.name.as_str(), table.entries))
        .collect();
    assert_eq!(tables, [("k", 50), ("last", 1), ("sometimes", 1)]);
    assert_eq!((report.commits, report.records, report.topics), (101, 101, 5));
    assert_eq!((report.first, report.next), (Sequence(1), Sequence(102)));
    assert_eq!(report.times, Some((NOW, NOW)));
    let top: Vec<_> = report
        .top_by_records
        .iter()
        .map(|topic| (topic.topic.as_str(), topic.records))
        .collect();
    assert_eq!(top, [("t/1", 21), ("t/0", 20)]);
    assert!(report.to_string().contains("t/1"));
}

#[test]
fn a_compaction_loses_nothing_but_room() {
    let dir = tempfile::tempdir().unwrap();
    for commits in [100, 200] {
        let store = Store::open(options(dir.path())).unwrap();
        let mut journal = store.journal();
        for number in commits - 99..=commits {
            let (records, writes) = numbered(number);
            commit(&mut journal, records, writes);
        }
    }
    let report = compact(dir.path(), &mut quiet).unwrap();
    assert!(report.bytes_after <= report.bytes_before, "{report}");
    assert_eq!(check_prefix(dir.path()), 200);
}
