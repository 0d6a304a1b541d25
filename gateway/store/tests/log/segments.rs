//! A log of many segments: trimming, limits, damage, and backlogs read from files.

use std::{path::Path, sync::Arc, sync::atomic::Ordering::Relaxed};

use crate::client::{Client, commit, page, record};
use broker_core::{
    store::{JournalError, JournalReply, JournalRequest, Keep, Record, Sequence},
    topic,
};
use store::{Options, Store, files::FaultyFiles};
use tempfile::TempDir;

fn options(dir: &Path, files: &FaultyFiles) -> Options {
    let mut options = Options::new(dir);
    options.reserve_bytes = Some(0);
    options.files = Arc::new(files.clone());
    options.segment_bytes = 4 << 10;
    options.ring_bytes = 0;
    options.index_bytes = 0;
    options.read_work_max = 1;
    options
}

fn open(dir: &TempDir, files: &FaultyFiles) -> Store {
    Store::open(options(dir.path(), files)).unwrap()
}

/// Numbers without pattern, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Some records on some topics, in commits of one to five.
fn fill(client: &mut Client, numbers: &mut Numbers, commits: usize) -> Vec<(String, Record)> {
    let mut all = Vec::new();
    for _ in 0..commits {
        let topics: Vec<_> = (0..=numbers.below(4))
            .map(|_| match numbers.below(10) {
                0 => "rare".to_owned(),
                1 => format!("$SYS/{}", numbers.below(3)),
                2..6 => format!("plant/{}/temperature", numbers.below(300)),
                _ => format!("plant/{}/state", numbers.below(5)),
            })
            .collect();
        let records: Vec<_> = topics
            .iter()
            .map(|topic| record(topic, &"b".repeat(numbers.below(40) as usize)))
            .collect();
        match client.ask(commit(records.clone(), vec![])) {
            Ok(JournalReply::Committed { first, .. }) => {
                all.extend(
                    topics
                        .into_iter()
                        .zip((first.0..).zip(records))
                        .map(|(topic, (place, new))| {
                            (
                                topic,
                                Record {
                                    sequence: Sequence(place),
                                    data: new.data,
                                },
                            )
                        }),
                );
            }
            other => panic!("{other:?}"),
        }
    }
    all
}

fn expected(model: &[(String, Record)], filters: &[&str], from: Sequence, keep: Keep) -> (Vec<Record>, u64) {
    let matching = model.iter().filter(|(name, record)| {
        record.sequence >= from && filters.iter().any(|filter| topic::matches(filter, name))
    });
    let mut found: Vec<Record> = matching.map(|(_, record)| record.clone()).collect();
    let (mut kept, mut bytes) = (0, 0);
    for record in found.iter().rev() {
        bytes += record.data.len() as u64;
        let over =
            (keep.items_max > 0 && kept == keep.items_max) || (keep.bytes_max > 0 && bytes > keep.bytes_max);
        if kept > 0 && over {
            break;
        }
        kept += 1;
    }
    let passed = found.len() as u64 - kept;
    (found.split_off(passed as usize), passed)
}

const FILTERS: [&[&str]; 8] = [
    &["rare"],
    &["#"],
    &["plant/+/temperature"],
    &["plant/7/#", "plant/+/state"],
    &["$SYS/#", "rare", "+"],
    &["plant/12/temperature", "plant/13/temperature"],
    &["nothing"],
    &["+/+/+", "plant/#"],
];

fn check_backlogs(client: &mut Client, model: &[(String, Record)]) {
    let last = model.last().unwrap().1.sequence;
    for filters in FILTERS {
        for from in [
            Sequence::FIRST,
            model[model.len() / 2].1.sequence,
            last,
            last.next(),
        ] {
            for (items_max, bytes_max) in [(0, 0), (1, 0), (25, 0), (700, 0), (0, 500), (100, 2000)] {
                let keep = Keep { items_max, bytes_max };
                let found = client.backlog(filters, from, keep, 64);
                assert_eq!(
                    found,
                    expected(model, filters, from, keep),
                    "{filters:?} {from:?} {keep:?}"
                );
            }
        }
    }
}

/// The smallest segments, and some with more topics than are read one by one.
const SEGMENT_BYTES: [(u64, usize); 2] = [(4 << 10, 400), (24 << 10, 600)];

#[test]
fn backlogs_are_found_wherever_their_index_is() {
    for (segment_bytes, commits) in SEGMENT_BYTES {
        check_indexes(segment_bytes, commits);
    }
}

fn check_indexes(segment_bytes: u64, commits: usize) {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let mut numbers = Numbers(1);
    let mut small = options(dir.path(), &files);
    small.segment_bytes = segment_bytes;
    let store = Store::open(small).unwrap();
    let mut client = Client::new(store.journal());
    let mut model = fill(&mut client, &mut numbers, commits);
    assert!(store.stats().segments.load(Relaxed) > 3);
    check_backlogs(&mut client, &model);
    assert!(
        store.stats().index_bytes_written.load(Relaxed) > 0,
        "indexes have moved to files"
    );
    model.extend(fill(&mut client, &mut numbers, 60));
    check_backlogs(&mut client, &model);
    drop((client, store));

    // The same after a start, with all memory and with none.
    for index_bytes in [0, 64 << 20] {
        let mut options = options(dir.path(), &files);
        options.index_bytes = index_bytes;
        options.ring_bytes = index_bytes;
        options.segment_bytes = segment_bytes;
        options.read_work_max = 1 + index_bytes as u64;
        let store = Store::open(options).unwrap();
        let mut client = Client::new(store.journal());
        check_backlogs(&mut client, &model);
        model.extend(fill(&mut client, &mut numbers, 60));
        check_backlogs(&mut client, &model);
        let log: Vec<_> = model.iter().map(|(_, record)| record.clone()).collect();
        assert_eq!(client.log(Sequence::FIRST), log);
        let some: Vec<_> = model
            .iter()
            .step_by(7)
            .map(|(_, record)| record.clone())
            .collect();
        let places = some.iter().map(|record| record.sequence).collect();
        assert_eq!(
            client.ask(JournalRequest::Fetch(places)),
            Ok(JournalReply::Fetched(some))
        );
    }
}

#[test]
fn damaged_and_missing_indexes_are_made_again() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    let model = fill(&mut client, &mut Numbers(2), 300);
    check_backlogs(&mut client, &model);
    drop((client, store));
    let paths = files.paths();
    let indexes: Vec<_> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "idx"))
        .collect();
    assert!(indexes.len() > 4);
    for (number, path) in indexes.into_iter().enumerate() {
        let mut bytes = files.bytes(path).unwrap();
        match number % 4 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes.fill(0xff),
            2 => bytes.clear(),
            _ => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
        }
        files.put(path, bytes);
    }
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    check_backlogs(&mut client, &model);
    assert!(store.stats().indexes_rebuilt.load(Relaxed) > 3);
}

#[test]
fn a_damaged_record_is_passed_over() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    let mut model = fill(&mut client, &mut Numbers(3), 300);
    check_backlogs(&mut client, &model);
    drop((client, store));
    // A byte of a record in the middle of the log, whose index is whole.
    let victim = model
        .iter()
        .position(|(_, record)| record.data.len() > 30 && record.sequence.0 > 200)
        .unwrap();
    let data = model[victim].1.data.clone();
    let logs = files
        .paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "log"));
    let (path, at) = logs
        .filter_map(|path| {
            let bytes = files.bytes(&path).unwrap();
            let at = bytes.windows(data.len()).position(|window| window == &data[..])?;
            Some((path, at))
        })
        .next()
        .unwrap();
    let mut bytes = files.bytes(&path).unwrap();
    bytes[at + data.len() - 1] ^= 1;
    files.put(&path, bytes);
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    model.remove(victim);
    let found = client.backlog(&["#", "$SYS/#"], Sequence::FIRST, Keep::default(), 100);
    let expected: Vec<_> = model.iter().map(|(_, record)| record.clone()).collect();
    // Another record may have had the same bytes before it.
    assert_eq!(found.0.len(), expected.len());
    assert!(store.stats().corrupt_frames.load(Relaxed) > 0);
}

#[test]
fn a_missing_segment_costs_its_own_records() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    let model = fill(&mut client, &mut Numbers(4), 300);
    drop((client, store));
    let mut logs: Vec<_> = files
        .paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    let base = |path: &Path| {
        path.file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    logs.sort();
    let (from, to) = (base(&logs[3]), base(&logs[4]));
    let without = files.crash(|file| (file.path != logs[3]).then_some(file.len));
    let store = open(&dir, &without);
    let mut client = Client::new(store.journal());
    let left: Vec<_> = model
        .iter()
        .map(|(_, record)| record.clone())
        .filter(|record| record.sequence.0 < from || record.sequence.0 >= to)
        .collect();
    assert!(left.len() < model.len());
    assert_eq!(client.log(Sequence::FIRST), left);
    assert!(store.stats().corrupt_frames.load(Relaxed) > 0);
}

fn segments(files: &FaultyFiles) -> usize {
    let ends_with = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "log");
    files.paths().iter().filter(|path| ends_with(path)).count()
}

#[test]
fn files_of_no_use_are_removed() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    drop(open(&dir, &files));
    let log = dir.path().join("log");
    for name in [
        "00000000000000000007.idx",
        "00000000000000000001.tmp",
        "notes.txt",
    ] {
        files.put(&log.join(name), vec![1]);
    }
    drop(open(&dir, &files));
    let names: Vec<_> = files
        .paths()
        .iter()
        .map(|path| path.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["00000000000000000001.log", "notes.txt"]);
}

#[test]
fn trimming_drops_files_and_no_place_is_used_again() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    let model = fill(&mut client, &mut Numbers(5), 300);
    let before = segments(&files);
    let middle = model[model.len() / 2].1.sequence;
    client.trim(middle);
    assert_eq!(client.head().first, middle);
    let rest: Vec<_> = model
        .iter()
        .map(|(_, record)| record.clone())
        .filter(|record| record.sequence >= middle)
        .collect();
    assert_eq!(client.log(middle), rest);
    let bytes: usize = rest.iter().map(|record| record.data.len()).sum();
    let head = client.head();
    assert!(
        head.bytes >= bytes as u64 && head.bytes <= bytes as u64 + 4096,
        "{head:?} {bytes}"
    );
    drop(client);
    drop(store);
    assert!(segments(&files) <= before / 2 + 2, "the keeper has removed files");
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    let end = client.head().next;
    client.trim(end);
    assert_eq!((client.head().first, client.head().bytes), (end, 0));
    assert_eq!(store.stats().trimmed_by_size.load(Relaxed), 0);
    drop((client, store));
    assert_eq!(
        files.paths().len(),
        1,
        "the last segment stays: {:?}",
        files.paths()
    );
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    assert!(client.append("t", "next").unwrap() >= end);
}

#[test]
fn limits_drop_the_oldest_and_say_so() {
    for by_age in [false, true] {
        let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
        let mut options = options(dir.path(), &files);
        if by_age {
            options.max_age = Some(std::time::Duration::from_secs(3600));
        } else {
            options.max_bytes = Some(20 << 10);
        }
        let store = Store::open(options).unwrap();
        let stats = store.stats();
        // As long ago as the computer's time goes.
        let mut client = Client::new(store.journal()).at(1000);
        let model = fill(&mut client, &mut Numbers(6), 400);
        drop((client, store));
        let counter = if by_age {
            &stats.trimmed_by_age
        } else {
            &stats.trimmed_by_size
        };
        let dropped = counter.load(Relaxed) as usize;
        assert!(dropped > 100);
        assert_eq!(stats.trimmed_by_cursor.load(Relaxed), 0);
        assert!(by_age || stats.log_bytes.load(Relaxed) <= 24 << 10);
        let store = open(&dir, &files);
        let mut client = Client::new(store.journal());
        let head = client.head();
        assert_eq!(head.first, model[dropped].1.sequence);
        let tail = JournalRequest::Tail {
            from: Sequence::FIRST,
            page: page(1),
            wait: true,
        };
        assert_eq!(client.ask(tail), Err(JournalError::OutOfRange(head)));
        check_backlogs(&mut client, &model[dropped..]);
    }
}

#[test]
fn a_start_reads_only_what_it_has_to() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    let model = fill(&mut client, &mut Numbers(7), 600);
    drop((client, store));
    let total: usize = files
        .paths()
        .iter()
        .map(|path| files.bytes(path).unwrap().len())
        .sum();
    let before = files.counts().bytes_read;
    let store = open(&dir, &files);
    let read = files.counts().bytes_read - before;
    assert!(read < total as u64 / 4, "{read} of {total}");
    let log: Vec<_> = model.into_iter().map(|(_, record)| record).collect();
    assert_eq!(Client::new(store.journal()).log(Sequence::FIRST), log);
}

#[test]
fn a_commit_larger_than_a_segment_has_one_of_its_own() {
    let (dir, files) = (tempfile::tempdir().unwrap(), FaultyFiles::new());
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    client.append("a", "small").unwrap();
    let large = client.append("a", &"x".repeat(100_000)).unwrap();
    client.append("a", "small again").unwrap();
    assert_eq!(store.stats().segments.load(Relaxed), 3);
    drop((client, store));
    let store = open(&dir, &files);
    let mut client = Client::new(store.journal());
    let log = client.log(Sequence::FIRST);
    assert_eq!(
        (log.len(), log[1].sequence, log[1].data.len()),
        (3, large, 100_003)
    );
}
