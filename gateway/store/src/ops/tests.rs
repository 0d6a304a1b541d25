mod backup;
mod check;

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
    let JournalReply::Head(extent) = ask(&mut store.journal(), JournalRequest::Head) else {
        panic!("a head is told");
    };
    let records = payloads(&mut store.journal(), extent.first);
    let numbers = (extent.first.0..=commits).map(|number| number.to_string());
    assert!(
        records == numbers.collect::<Vec<_>>(),
        "{} records from {} after {commits} commits",
        records.len(),
        extent.first.0
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
