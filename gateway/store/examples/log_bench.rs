//! What a commit costs: `cargo run --release -p store --example log_bench [directory] [seconds per line]`.
//!
//! One handle commits records of 100 bytes, in commits of one record and so many of them in flight at a time; then the
//! records are read back as one backlog. Printed per line: commits and records per second, processor time of the
//! whole process per record, syncs per record, bytes written per byte of payload.

use std::{
    collections::VecDeque,
    error::Error,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use broker_core::{
    Timestamp,
    shard::Ticket,
    store::{Durability, Interest, Journal, JournalReply, JournalRequest, Keep, NewRecord, Page, Sequence},
};
use bytes::Bytes;
use store::{JournalHandle, Options, Store};

const PAYLOAD: usize = 100;
const TOPICS: usize = 10_000;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments
        .next()
        .map_or_else(|| std::env::temp_dir().join("store-log-bench"), PathBuf::from);
    let seconds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    println!(
        "{:>10} {:>6} {:>8} {:>10} {:>10} {:>10} {:>12} {:>10} {:>10}",
        "durability",
        "commit",
        "flight",
        "commits/s",
        "records/s",
        "us cpu/rec",
        "syncs/rec",
        "bytes/byte",
        "group"
    );
    for durability in [Durability::Sync, Durability::Async] {
        for (per_commit, in_flight) in [
            (1, 1),
            (1, 10),
            (1, 100),
            (1, 1000),
            (10, 100),
            (100, 100),
            (1000, 10),
        ] {
            run(
                &dir,
                durability,
                per_commit,
                in_flight,
                Duration::from_secs(seconds),
            )?;
        }
    }
    Ok(())
}

fn run(
    dir: &std::path::Path,
    durability: Durability,
    per_commit: usize,
    in_flight: usize,
    duration: Duration,
) -> Result<(), Box<dyn Error>> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    let mut options = Options::new(dir);
    options.durability = durability;
    let store = Store::open(options)?;
    let stats = store.stats();
    let mut journal = store.journal();
    let records = records();
    let (wall, cpu) = (Instant::now(), cpu_seconds()?);
    let commits = append(&mut journal, &records, per_commit, in_flight, duration)?;
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let done = commits as f64 * per_commit as f64;
    let written = stats.bytes_appended.load(Relaxed) + stats.index_bytes_written.load(Relaxed);
    println!(
        "{:>10} {per_commit:>6} {in_flight:>8} {:>10.0} {:>10.0} {:>10.3} {:>12.6} {:>10.3} {:>10.1}",
        format!("{durability:?}"),
        commits as f64 / wall,
        done / wall,
        cpu / done * 1e6,
        stats.fsyncs.load(Relaxed) as f64 / done,
        written as f64 / (done * PAYLOAD as f64),
        commits as f64 / stats.groups.load(Relaxed).max(1) as f64,
    );
    if per_commit == 1000 {
        read_back(&mut journal)?;
    }
    drop((journal, store));
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn records() -> Vec<Bytes> {
    let records = (0..TOPICS).map(|number| {
        let topic = format!("plant/{number:05}/temperature");
        let mut data = (topic.len() as u16).to_be_bytes().to_vec();
        data.extend_from_slice(topic.as_bytes());
        data.resize(PAYLOAD, b'x');
        Bytes::from(data)
    });
    records.collect()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(since.as_millis() as u64)
}

/// Keeps `in_flight` commits under way; returns how many were completed.
fn append(
    journal: &mut JournalHandle,
    records: &[Bytes],
    per_commit: usize,
    in_flight: usize,
    duration: Duration,
) -> Result<u64, Box<dyn Error>> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let start = Instant::now();
    let (mut sent, mut done, mut topic) = (0_u64, 0_u64, 0_usize);
    let mut requests = VecDeque::new();
    loop {
        let running = start.elapsed() < duration;
        while running && sent - done < in_flight as u64 {
            let records = (0..per_commit).map(|_| {
                topic = (topic + 7919) % records.len();
                NewRecord {
                    data: records[topic].clone(),
                    indexed: true,
                }
            });
            let commit = JournalRequest::Commit {
                records: records.collect(),
                writes: Vec::new(),
                dedup: None,
            };
            sent += 1;
            requests.push_back((Ticket(sent), commit));
        }
        journal.submit(now(), &mut requests);
        let before = done;
        while let Some((_, answer)) = journal.poll(now(), &waker) {
            answer?;
            done += 1;
        }
        if !running && sent == done {
            return Ok(done);
        }
        if before == done {
            thread::park();
        }
    }
}

/// Reads everything as the backlog of one session.
fn read_back(journal: &mut JournalHandle) -> Result<(), Box<dyn Error>> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    for (name, filter) in [("all topics", "#"), ("one topic", "plant/00042/temperature")] {
        let interest = Arc::new(Interest {
            filters: [filter.into()].into(),
        });
        let (start, cpu) = (Instant::now(), cpu_seconds()?);
        let (mut from, mut count) = (Sequence::FIRST, 0);
        loop {
            let read = JournalRequest::Read {
                interest: Arc::clone(&interest),
                from,
                keep: Keep::default(),
                page: Page {
                    items_max: 1000.try_into()?,
                    bytes_max: 1 << 20,
                },
            };
            journal.submit(now(), &mut VecDeque::from([(Ticket(0), read)]));
            let answer = loop {
                match journal.poll(now(), &waker) {
                    Some((_, answer)) => break answer?,
                    None => thread::park(),
                }
            };
            let JournalReply::Found {
                records,
                next,
                at_end,
                ..
            } = answer
            else {
                return Err("a read was answered with something else".into());
            };
            count += records.len();
            from = next;
            if at_end {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "backlog of {name}: {count} records in {seconds:.2} s, {:.0} records/s, {:.3} us cpu/record",
            count as f64 / seconds,
            (cpu_seconds()? - cpu) / count as f64 * 1e6
        );
    }
    Ok(())
}

/// Processor time of this process, in the kernel too.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().ok_or("no fields")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || -> Result<f64, Box<dyn Error>> { Ok(fields.next().ok_or("no field")?.parse()?) };
    // The kernel tells this in hundredths of a second, whatever its own clock is.
    Ok((ticks()? + ticks()?) / 100.0)
}
