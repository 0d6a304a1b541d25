mod bad_days;
mod size;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    task::{Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use broker_core::{
    shard::Ticket,
    store::{Entry, Fault, Key, KvError, KvReply, Page, Prefix, Revision, ScanCursor, Sequence},
};
use bytes::Bytes;

use super::{Query, Question, Tables};
use crate::{
    engine::{Committed, KvAnswer, Resolved, Slot},
    options::OpenError,
    stats::StoreStats,
};

const CACHE: u64 = 1 << 20;

fn open(dir: &Path) -> Result<(Tables, Sequence), OpenError> {
    Tables::open(dir, 1 << 20, CACHE, Arc::new(StoreStats::default()))
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// A commit at `first` without records.
fn commit(first: u64, writes: &[(&str, Option<&str>)]) -> Committed {
    let writes = writes.iter().map(|(name, value)| Resolved {
        key: key(name),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
    });
    Committed {
        first: Sequence(first),
        next: Sequence(first + 1),
        writes: writes.collect(),
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn ask(tables: &Tables, question: Question) -> KvAnswer {
    let slot = Arc::new(Slot::new());
    tables.ask(Query {
        slot: Arc::clone(&slot),
        ticket: Ticket(1),
        question,
    });
    answer(&slot)
}

fn answer(slot: &Slot<KvAnswer>) -> KvAnswer {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut taken = std::collections::VecDeque::new();
    loop {
        slot.take(&mut taken, &waker);
        if let Some((_, answer)) = taken.pop_front() {
            return answer;
        }
        thread::park();
    }
}

fn page(items_max: u16) -> Page {
    Page {
        items_max: items_max.try_into().unwrap(),
        bytes_max: usize::MAX,
    }
}

fn scan_page(tables: &Tables, prefix: &Prefix, after: Option<ScanCursor>, items_max: u16) -> KvAnswer {
    let question = Question::Scan {
        prefix: prefix.clone(),
        after,
        page: page(items_max),
    };
    ask(tables, question)
}

/// All entries below a prefix: key, revision, value.
fn scan(tables: &Tables, prefix: &Prefix, items_max: u16) -> Vec<(String, u64, String)> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let Ok(KvReply::Scanned { entries, next, .. }) = scan_page(tables, prefix, after, items_max) else {
            panic!("a scan failed");
        };
        assert!(entries.len() <= usize::from(items_max));
        assert!(!entries.is_empty() || next.is_none());
        found.extend(entries.into_iter().map(|entry| {
            let value = String::from_utf8(entry.value.to_vec()).unwrap();
            (entry.key.as_str().to_owned(), entry.revision.0, value)
        }));
        after = next;
        if after.is_none() {
            return found;
        }
    }
}

fn all(tables: &Tables) -> Vec<(String, u64, String)> {
    scan(tables, &Prefix::all(), 7)
}

fn entries(entries: &[(&str, u64, &str)]) -> Vec<(String, u64, String)> {
    let owned = |(key, revision, value): &(&str, u64, &str)| ((*key).into(), *revision, (*value).into());
    entries.iter().map(owned).collect()
}

/// The files as they are at one time, also if they are replaced meanwhile.
fn copy_dir(from: &Path, to: &Path) {
    let current = || fs::read(from.join("current")).ok();
    loop {
        let before = current();
        let copied = try_copy(from, to);
        if copied.is_ok() && before == current() {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
}

fn try_copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            try_copy(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
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

#[test]
fn writes_are_seen_at_once_and_survive_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let (tables, from) = open(dir.path()).unwrap();
    assert_eq!(from, Sequence::FIRST);
    tables.begin(Sequence::FIRST);
    tables.committed(vec![
        commit(1, &[("s.a", Some("one")), ("s.b", Some(""))]),
        commit(2, &[("s.a", Some("two")), ("t", Some("x")), ("t", None)]),
    ]);
    let expected = entries(&[("s.a", 2, "two"), ("s.b", 1, "")]);
    assert_eq!(all(&tables), expected);
    assert_eq!(tables.current(&key("s.a")), Ok(Some(Revision(2))));
    assert_eq!(tables.current(&key("t")), Ok(None));
    assert_eq!(tables.persist(), Ok(Sequence(3)));
    assert_eq!(all(&tables), expected, "the same from files");
    assert_eq!(tables.current(&key("s.b")), Ok(Some(Revision(1))));
    tables.committed(vec![commit(3, &[("s.b", None), ("u", Some("y"))])]);
    drop(tables);

    let (tables, from) = open(dir.path()).unwrap();
    assert_eq!(from, Sequence(4));
    assert_eq!(all(&tables), entries(&[("s.a", 2, "two"), ("u", 3, "y")]));
    assert!(matches!(
        ask(&tables, Question::Get(key("s.b"))),
        Ok(KvReply::Entry(None))
    ));
}

#[test]
fn a_scan_merges_what_is_on_its_way_with_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let (tables, _) = open(dir.path()).unwrap();
    tables.begin(Sequence::FIRST);
    let names: Vec<_> = (0..40).map(|number| format!("s.{number:02}")).collect();
    let put: Vec<_> = names.iter().map(|name| (name.as_str(), Some("old"))).collect();
    tables.committed(vec![
        commit(1, &put),
        commit(2, &[("r", Some("before")), ("sa.x", Some("behind"))]),
    ]);
    tables.persist().unwrap();
    // Every third is deleted, every fourth replaced; some are new, at both ends too.
    let mut expected = Vec::new();
    let mut writes = vec![
        ("s.-", Some("new")),
        ("s.10.a", Some("new")),
        ("s.z", Some("new")),
    ];
    for (number, name) in names.iter().enumerate() {
        if number % 3 == 0 {
            writes.push((name, None));
        } else if number % 4 == 0 {
            writes.push((name, Some("newer")));
            expected.push((name.clone(), 3, "newer".to_owned()));
        } else {
            expected.push((name.clone(), 1, "old".to_owned()));
        }
    }
    expected.extend(["s.-", "s.10.a", "s.z"].map(|name| (name.to_owned(), 3, "new".to_owned())));
    expected.sort();
    tables.committed(vec![commit(3, &writes)]);
    for items_max in [1, 2, 3, 7, 40, 1000] {
        let found = scan(&tables, &Prefix::below(&key("s")), items_max);
        assert_eq!(found, expected, "{items_max} at a time");
    }
    // Only deletions before the end: the last page is empty, and is the last.
    let gone: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
    tables.committed(vec![commit(4, &gone)]);
    assert_eq!(
        scan(&tables, &Prefix::below(&key("s")), 1),
        entries(&[("s.-", 3, "new"), ("s.10.a", 3, "new"), ("s.z", 3, "new")])
    );
}

/// The tables as they were on disk at any time, with the log from what they ask for on, become what they were at the
/// end; also if some of the log is applied twice.
#[test]
fn any_earlier_state_and_the_log_make_the_latest() {
    let dir = tempfile::tempdir().unwrap();
    let (live, states) = (dir.path().join("live"), dir.path().join("states"));
    let (tables, _) = open(&live).unwrap();
    tables.begin(Sequence::FIRST);
    let mut log = Vec::new();
    copy_dir(&live, &states.join("0"));
    for first in 1..=60 {
        let names = [
            format!("k.{}", first % 7),
            format!("k.{}", first * 5 % 11),
            "k.x".into(),
        ];
        let value = first.to_string();
        let made = commit(
            first,
            &[
                (names[0].as_str(), Some(value.as_str())),
                (names[1].as_str(), (first % 3 != 0).then_some("v")),
                (names[2].as_str(), (first % 2 != 0).then_some(value.as_str())),
            ],
        );
        log.push(made.clone());
        tables.committed(vec![made]);
        if first % 4 == 0 {
            tables.persist().unwrap();
        }
        copy_dir(&live, &states.join(first.to_string()));
    }
    let expected = all(&tables);
    assert!(expected.len() > 5);
    for state in fs::read_dir(&states).unwrap() {
        let state = state.unwrap().path();
        for backwards in [0, 3] {
            let (tables, from) = open(&state).unwrap();
            let start = from.0.saturating_sub(backwards).max(1);
            for commit in &log[usize::try_from(start - 1).unwrap()..] {
                tables.replay(commit).unwrap();
            }
            tables.begin(Sequence(61));
            assert!(all(&tables) == expected, "{}", state.display());
        }
    }
}

#[test]
fn a_snapshot_holds_the_state_after_a_commit_while_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (tables, _) = open(dir.path()).unwrap();
    tables.begin(Sequence::FIRST);
    let names: Vec<_> = (0..500).map(|number| format!("k.{number}")).collect();
    let write_all = |first: u64| {
        let value = first.to_string();
        let writes: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), Some(value.as_str())))
            .collect();
        tables.committed(vec![commit(first, &writes)]);
    };
    write_all(1);
    tables.persist().unwrap();
    for round in 0..10 {
        let (snapshot, position) = tables.snapshot().unwrap();
        for first in 0..5 {
            write_all(2 + round * 5 + first);
        }
        tables.persist().unwrap();
        tables.shared.tree.compact_all().unwrap();
        let found: Vec<Entry> = snapshot.map(Result::unwrap).collect();
        assert_eq!(found.len(), names.len());
        for entry in found {
            assert_eq!(entry.revision.0, position.0 - 1, "all of it of one commit");
        }
    }
}

#[test]
fn watches_tell_whole_commits_and_say_what_they_forgot() {
    let dir = tempfile::tempdir().unwrap();
    let (tables, _) = open(dir.path()).unwrap();
    tables.begin(Sequence(10));
    let watch = |after, items_max| Question::Watch {
        prefix: Prefix::below(&key("w")),
        after: Revision(after),
        page: page(items_max),
    };
    let slot = Arc::new(Slot::new());
    tables.ask(Query {
        slot: Arc::clone(&slot),
        ticket: Ticket(1),
        question: watch(9, 1),
    });
    tables.committed(vec![commit(10, &[("other", Some("x"))])]);
    tables.committed(vec![
        commit(11, &[("w.a", Some("1")), ("w.b", Some("1")), ("w.a", None)]),
        commit(12, &[("w.b", Some("2")), ("w.c", Some("2"))]),
    ]);
    let told = |answer: KvAnswer| match answer {
        Ok(KvReply::Changed { changes, watch_after }) => {
            let changes: Vec<_> = changes
                .into_iter()
                .map(|change| {
                    (
                        change.key.as_str().to_owned(),
                        change.revision.0,
                        change.value.is_some(),
                    )
                })
                .collect();
            (changes, watch_after.0)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(told(answer(&slot)), (vec![("w.a".to_owned(), 11, false)], 11));
    assert_eq!(
        told(ask(&tables, watch(11, 1))),
        (
            vec![("w.b".to_owned(), 12, true), ("w.c".to_owned(), 12, true)],
            12
        ),
        "more than asked for, but not half of a commit"
    );
    for unknown in [8, 13] {
        assert_eq!(
            ask(&tables, watch(unknown, 1)),
            Err(KvError::HistoryGone),
            "{unknown}"
        );
    }
    for first in 13..10_000 {
        tables.committed(vec![commit(first, &[("w.a", Some("x"))])]);
    }
    assert_eq!(ask(&tables, watch(12, 1)), Err(KvError::HistoryGone));
    assert_eq!(
        told(ask(&tables, watch(5000, 9))),
        (vec![("w.a".to_owned(), 9999, true)], 9999)
    );
}

#[test]
fn what_waits_is_answered_when_the_tables_close() {
    let dir = tempfile::tempdir().unwrap();
    let (tables, _) = open(dir.path()).unwrap();
    tables.begin(Sequence::FIRST);
    let slot = Arc::new(Slot::new());
    tables.ask(Query {
        slot: Arc::clone(&slot),
        ticket: Ticket(1),
        question: Question::Watch {
            prefix: Prefix::all(),
            after: Revision(0),
            page: page(1),
        },
    });
    tables.close();
    assert_eq!(answer(&slot), Err(Fault::Unavailable.into()));
}
