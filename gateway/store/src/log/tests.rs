//! The log after every possible cut and flipped byte.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use broker_core::{
    Timestamp,
    store::{DedupId, Key, NewRecord, Sequence, Value, Write, record_topic},
};
use bytes::Bytes;
use proptest::prelude::*;

use super::{
    frame::{NewFrame, Seed},
    index::{DiskIndex, Index, IndexFile, MatchCache, MemoryIndex, PageCache},
    recover::{Recovered, Recovery},
    scan::{Scanned, Scanner},
    segment::{Totals, segment_path},
    writer::LogWriter,
};
use crate::{
    engine::Committed,
    files::{Fault, FaultyFiles, File, Files, Operation},
    stats::StoreStats,
};

const STORE_ID: u64 = 11;

fn dir() -> PathBuf {
    PathBuf::from("/data/log")
}

fn seed() -> Seed {
    Seed::new(STORE_ID)
}

/// Keys with their values.
type Writes = Vec<(String, Option<Bytes>)>;

/// What recovery found: each commit with its writes, and the records of all segments.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Contents {
    commits: Vec<(u64, Writes)>,
    records: Vec<(u64, Bytes)>,
}

fn recover(files: &FaultyFiles, stats: &StoreStats) -> (Recovered, Contents) {
    let mut commits = Vec::new();
    let recovered = Recovery {
        files,
        dir: &dir(),
        store_id: STORE_ID,
        seed: seed(),
        applied: Sequence::FIRST,
        dedup_window_millis: 1000,
        dedup_ids_max: 100,
        stats,
        replay: &mut |commit: &Committed| {
            let writes = commit.writes.iter();
            let writes = writes.map(|write| (write.key.as_str().to_owned(), write.value.clone()));
            commits.push((commit.first.0, writes.collect()));
            Ok(())
        },
        progress: &mut |_| {},
    }
    .run()
    .unwrap();
    let mut records = Vec::new();
    for segment in &recovered.segments {
        let file = files.open(&segment.path).unwrap();
        let len = file.len().unwrap();
        let mut scanner = Scanner::new(file, len, len.min(64), segment.base, seed());
        loop {
            match scanner.step().unwrap() {
                Scanned::Frame(_, _, body) => records.extend(
                    body.records()
                        .map(|record| (record.sequence.0, Bytes::copy_from_slice(record.data))),
                ),
                Scanned::Lost(..) => {}
                Scanned::End => break,
            }
        }
    }
    (recovered, Contents { commits, records })
}

fn log_writer(files: &FaultyFiles, recovered: &Recovered, segment_bytes: u64) -> LogWriter {
    LogWriter {
        files: Arc::new(files.clone()),
        dir: dir(),
        store_id: STORE_ID,
        seed: seed(),
        segment_bytes,
        sync: true,
        stats: Arc::default(),
        segment: Arc::clone(recovered.segments.last().unwrap()),
        number: recovered.number,
        file: Arc::clone(&recovered.file),
        len: recovered.len,
        next: recovered.next,
        totals: recovered.totals,
        last: recovered.last,
        dir_dirty: true,
        roll_due: false,
        failed: None,
    }
}

/// A commit of the script: where its frame stands, the start of its group, and what it holds.
#[derive(Clone, Debug)]
struct Scripted {
    segment: PathBuf,
    frame: std::ops::Range<usize>,
    group: std::ops::Range<usize>,
    first: u64,
    writes: Writes,
    records: Vec<(u64, Bytes)>,
}

fn record(topic: &str, body: &str) -> Bytes {
    let len = u16::try_from(topic.len()).unwrap();
    [&len.to_be_bytes(), topic.as_bytes(), body.as_bytes()]
        .concat()
        .into()
}

/// Groups of one to three commits with records, writes and ids, in segments of `segment_bytes`.
fn script(files: &FaultyFiles, groups: usize, segment_bytes: u64) -> Vec<Scripted> {
    let stats = StoreStats::default();
    let (recovered, _) = recover(files, &stats);
    let mut log = log_writer(files, &recovered, segment_bytes);
    let mut all = Vec::new();
    for number in 0..groups {
        let mut buffer = Vec::new();
        let mut next = log.next;
        let mut group = Vec::new();
        for step in 0..=number % 3 {
            let name = format!("k.{number}-{step}");
            let data: Vec<_> = (0..(number + step) % 3)
                .map(|at| record("a/b", &format!("{name}-{at}")))
                .collect();
            let records: Vec<_> = data
                .iter()
                .map(|data| NewRecord {
                    data: data.clone(),
                    indexed: true,
                })
                .collect();
            let value = Bytes::from(name.clone());
            let mut writes = vec![Write {
                key: Key::new(&name).unwrap(),
                value: Value::Put(value.clone()),
            }];
            let mut expected = vec![(name.clone(), Some(value))];
            if let Some(data) = data.first() {
                writes.push(Write {
                    key: Key::new("r").unwrap(),
                    value: Value::PutRecord(0),
                });
                expected.push(("r".to_owned(), Some(data.clone())));
            }
            let start = buffer.len();
            NewFrame {
                first: next,
                time: Timestamp::from_millis(number as u64),
                dedup: (step == 0).then_some(DedupId(number as u128)),
                records: &records,
                writes: &writes,
            }
            .write(&mut buffer, seed());
            group.push((
                start..buffer.len(),
                next,
                expected,
                (next.0..).zip(data).collect::<Vec<_>>(),
            ));
            next = Sequence(next.0 + (records.len() as u64).max(1));
        }
        log.make_room(buffer.len() as u64, Timestamp::default()).unwrap();
        let at = log.len as usize;
        log.append(&buffer).unwrap();
        log.next = next;
        for (frame, first, writes, records) in group {
            all.push(Scripted {
                segment: log.segment.path.clone(),
                frame: at + frame.start..at + frame.end,
                group: at..at + buffer.len(),
                first: first.0,
                writes,
                records,
            });
        }
    }
    all
}

fn contents<'a>(commits: impl Iterator<Item = &'a Scripted>) -> Contents {
    let mut contents = Contents {
        commits: Vec::new(),
        records: Vec::new(),
    };
    for commit in commits {
        contents.commits.push((commit.first, commit.writes.clone()));
        contents.records.extend(commit.records.clone());
    }
    contents
}

/// The files as they are when everything from `cut` of this segment on is lost.
fn cut_at(files: &FaultyFiles, segment: &Path, cut: usize) -> FaultyFiles {
    files.crash(|file| match file.path.cmp(segment) {
        std::cmp::Ordering::Less => Some(file.len),
        std::cmp::Ordering::Equal => Some(cut),
        std::cmp::Ordering::Greater => None,
    })
}

#[test]
fn a_log_cut_anywhere_keeps_what_was_synced_and_shows_nothing_by_halves() {
    let files = FaultyFiles::new();
    let script = script(&files, 14, 800);
    assert!(files.paths().len() > 3, "several segments");
    let last = script.last().unwrap();
    let highest = last.first + last.records.len() as u64;
    for path in files.paths() {
        let len = files.bytes(&path).unwrap().len();
        for cut in 0..=len {
            let after = cut_at(&files, &path, cut);
            let stats = StoreStats::default();
            let (recovered, found) = recover(&after, &stats);
            let is_whole = |commit: &&Scripted| {
                commit.segment < path || (commit.segment == path && commit.frame.end <= cut)
            };
            assert_eq!(
                found,
                contents(script.iter().filter(is_whole)),
                "{} cut at {cut}",
                path.display()
            );
            // No place that was written is used again, whether anybody was told or not.
            for commit in &script {
                let written = commit.segment < path || (commit.segment == path && commit.frame.start < cut);
                assert!(
                    !written || recovered.next.0 > commit.first,
                    "{} cut at {cut}",
                    path.display()
                );
            }
            // Once more, and then it goes on after everything that was ever there in this file.
            let (again, found_again) = recover(&after, &stats);
            assert_eq!(found_again, found);
            let mut log = log_writer(&after, &again, 800);
            log.next = recovered.next;
            let mut frame = Vec::new();
            NewFrame {
                first: log.next,
                time: Timestamp::default(),
                dedup: None,
                records: &[],
                writes: &[],
            }
            .write(&mut frame, seed());
            log.make_room(frame.len() as u64, Timestamp::default()).unwrap();
            log.append(&frame).unwrap();
            let (third, found) = recover(&after, &stats);
            assert_eq!(found, found_again);
            assert!(third.next > again.next && third.next.0 <= highest + len as u64);
        }
    }
}

#[test]
fn a_flipped_byte_loses_its_commit_and_nothing_else() {
    let files = FaultyFiles::new();
    let script = script(&files, 9, 1500);
    assert!(files.paths().len() > 1, "several segments");
    let last_group = script
        .last()
        .map(|commit| (commit.segment.clone(), commit.group.clone()))
        .unwrap();
    for path in files.paths() {
        let bytes = files.bytes(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let after = files.crash(|file| Some(file.len));
            after.put(&path, flipped);
            let stats = StoreStats::default();
            let (_, found) = recover(&after, &stats);
            // At the very end nobody can tell a flipped byte from a torn write: the rest of the group goes with it.
            let torn = last_group.0 == path && last_group.1.contains(&at);
            let survives = |commit: &&Scripted| {
                let hit = commit.segment == path && commit.frame.contains(&at);
                let behind = torn && commit.segment == path && commit.frame.start > at;
                !hit && !behind
            };
            assert_eq!(
                found,
                contents(script.iter().filter(survives)),
                "{} at {at}",
                path.display()
            );
            let counted = stats.corrupt_frames.into_inner() + stats.torn_bytes.into_inner();
            assert!(counted > 0, "{} at {at}", path.display());
        }
    }
}

#[test]
fn a_torn_group_comes_back_without_holes() {
    // The disk wrote the end of the last group and not its beginning.
    let files = FaultyFiles::new();
    let script = script(&files, 3, 1 << 20);
    let path = &script[0].segment;
    let group: Vec<_> = script
        .iter()
        .filter(|commit| commit.group == script.last().unwrap().group)
        .collect();
    assert_eq!(group.len(), 3);
    let mut bytes = files.bytes(path).unwrap();
    bytes[group[0].frame.clone()].fill(0);
    files.put(path, bytes);
    let (_, found) = recover(&files, &StoreStats::default());
    assert_eq!(found, contents(script[..script.len() - 3].iter()));
}

#[test]
fn ids_and_totals_are_recovered() {
    let files = FaultyFiles::new();
    let script = script(&files, 14, 800);
    let (recovered, found) = recover(&files, &StoreStats::default());
    let ids: Vec<_> = recovered.ids.iter().map(|known| known.id.0).collect();
    assert_eq!(ids, (0..14).collect::<Vec<_>>());
    let place = script
        .iter()
        .find(|commit| commit.writes[0].0 == "k.5-0")
        .unwrap()
        .first;
    assert_eq!(recovered.ids[5].first.0, place);
    // The script's segments do not count, so the last one alone is known.
    let last: Vec<_> = found
        .records
        .iter()
        .filter(|(place, _)| *place >= recovered.segments.last().unwrap().base.0)
        .collect();
    assert_eq!(
        recovered.totals,
        Totals {
            records: last.len() as u64,
            record_bytes: last.iter().map(|(_, data)| data.len() as u64).sum(),
            dedups: recovered
                .ids
                .iter()
                .filter(|known| known.first >= recovered.segments.last().unwrap().base)
                .count() as u64,
        }
    );
}

#[test]
fn a_write_that_fails_is_taken_back() {
    let files = FaultyFiles::new();
    script(&files, 2, 1 << 20);
    let (recovered, before) = recover(&files, &StoreStats::default());
    let mut log = log_writer(&files, &recovered, 1 << 20);
    let path = segment_path(&dir(), Sequence::FIRST);
    let bytes = files.bytes(&path).unwrap();
    for written in [0, 1, 64, 100] {
        files.fail(Fault {
            operation: Operation::Append,
            after: 0,
            kind: std::io::ErrorKind::StorageFull,
            written,
            lasting: false,
        });
        assert_eq!(log.append(&[7; 200]), Err(super::writer::AppendError::Full));
        assert_eq!(files.bytes(&path).unwrap(), bytes);
    }
    assert_eq!(recover(&files, &StoreStats::default()).1, before);
}

proptest! {
    #[test]
    fn any_bytes_are_a_segment(mut bytes in prop::collection::vec(any::<u8>(), 0..600), magic in prop::collection::vec(0..600_usize, 0..4)) {
        for at in magic {
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&super::frame::MAGIC);
            }
        }
        let files = FaultyFiles::new();
        files.put(&segment_path(&dir(), Sequence(1)), bytes);
        let (recovered, found) = recover(&files, &StoreStats::default());
        prop_assert!(found.commits.is_empty() && found.records.is_empty());
        prop_assert!(recovered.next >= Sequence::FIRST);
    }

    /// Pages with good checksums and any content: a hostile disk, or a bug of the writer.
    #[test]
    fn any_pages_are_an_index(numbers in prop::collection::vec(any::<u32>(), 4), small in prop::collection::vec(0..40_u32, 4), content in prop::collection::vec(any::<u8>(), 0..3000), is_small in any::<bool>()) {
        let mut writer = super::index::PageWriter::new(seed());
        writer.write(b"TGIDX\0\0\x01");
        writer.write(&1_u64.to_le_bytes());
        writer.write(&99_u64.to_le_bytes());
        for number in if is_small { small } else { numbers } {
            writer.write(&number.to_le_bytes());
        }
        writer.write(&content);
        let files = FaultyFiles::new();
        let path = dir().join("1.idx");
        files.put(&path, writer.finish());
        let mut pages = PageCache::new(0);
        let file: Arc<dyn File> = files.open(&path).unwrap();
        let Ok(index) = IndexFile::open(file, Sequence(1), 99, seed(), &mut pages) else { return Ok(()) };
        let mut index = DiskIndex { index: &index, pages: &mut pages };
        let _ = index.lookup("a");
        let _ = index.lower_bound(Sequence(5));
        let mut count = 0;
        let _ = index.scan("", &mut |_, _| count += 1);
        for number in [0, 1, 7, u32::MAX] {
            let _ = index.sums(number);
            let _ = index.posting(number, number);
            let _ = index.entry(number);
            let _ = index.postings_before(number, 3);
            let mut entries = Vec::new();
            let _ = index.entries(number, 300, &mut entries);
        }
        let interest = Arc::new(broker_core::store::Interest { filters: ["#".into(), "a".into()].into() });
        if let Ok(mut matched) = MatchCache::new(0).take(&interest, &mut index) {
            let _ = matched.sums(&mut index);
            let _ = matched.after(&mut index, 0, 10, &mut Vec::new());
            let _ = matched.count(&mut index, 0, 9);
            let _ = matched.before(&mut index, 9, &mut |_| true);
        }
    }
}

#[test]
fn a_memory_index_grows_while_it_is_asked() {
    let mut index = MemoryIndex::new(Sequence(1));
    let mut cache = MatchCache::new(1 << 20);
    let interest = Arc::new(broker_core::store::Interest {
        filters: ["t/+/x".into()].into(),
    });
    let mut expected = Vec::new();
    for number in 0..6000_u32 {
        let topic = format!("t/{}/{}", number % 4000, if number % 3 == 0 { "x" } else { "y" });
        let data = record(&topic, "");
        assert_eq!(record_topic(&data), Some(&*topic));
        index.push(Sequence(1 + u64::from(number)), number, true, &data);
        if number % 3 == 0 {
            expected.push(number);
        }
        if number % 500 == 7 || number == 5999 {
            let mut matched = cache.take(&interest, &mut index).unwrap();
            let (mut hits, mut at) = (Vec::new(), 0);
            while at < index.records() {
                at = matched.after(&mut index, at, usize::MAX, &mut hits).unwrap();
            }
            let ordinals: Vec<_> = hits.iter().map(|(ordinal, _)| *ordinal).collect();
            assert_eq!(ordinals, expected);
            assert_eq!(matched.sums(&mut index).unwrap().0, expected.len() as u64);
            let mut back = Vec::new();
            let below = index.records();
            matched
                .before(&mut index, below, &mut |(ordinal, _)| {
                    back.push(ordinal);
                    back.len() < 100
                })
                .unwrap();
            assert!(back.iter().eq(expected.iter().rev().take(100)));
            let from = index.records() / 2;
            let half = expected.iter().filter(|ordinal| **ordinal >= from).count() as u64;
            assert_eq!(matched.count(&mut index, from, below).unwrap(), half);
            cache.put(&interest, Sequence(1), matched);
        }
    }
}
