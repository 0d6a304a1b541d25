//! What is in a store, in figures.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use broker_core::{
    Timestamp,
    store::{Sequence, record_topic},
};

use super::{CompactReport, Done, OpsError, Tell, open_store, read_log};

/// Topics that are counted at a time; with more, those with the fewest bytes are given up now and then.
const TOPICS_MAX: usize = 200_000;

/// The entries whose key begins with one token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// The token.
    pub name: String,
    /// Entries.
    pub entries: u64,
    /// Bytes of their keys.
    pub key_bytes: u64,
    /// Bytes of their values.
    pub value_bytes: u64,
}

/// The records of a topic in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicStats {
    /// The topic.
    pub topic: String,
    /// Records.
    pub records: u64,
    /// Bytes of their data.
    pub bytes: u64,
}

/// What is in a store. Its text is a table for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsReport {
    /// By name.
    pub tables: Vec<TableStats>,
    /// Bytes of the tables' files.
    pub tables_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// The log begins here.
    pub first: Sequence,
    /// And ends before this.
    pub next: Sequence,
    /// Commits in it.
    pub commits: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes of these.
    pub record_bytes: u64,
    /// Time of the first commit and of the last.
    pub times: Option<(Timestamp, Timestamp)>,
    /// When this was counted.
    pub now: Timestamp,
    /// Topics in the log.
    pub topics: u64,
    /// There were too many topics to count all of them: small ones may be missing, or have more records than it says.
    pub is_approximate: bool,
    /// Those with the most records.
    pub top_by_records: Vec<TopicStats>,
    /// Those with the most bytes.
    pub top_by_bytes: Vec<TopicStats>,
}

/// Counts what is in the store in `dir`, with the `top` largest topics.
///
/// # Errors
/// There is no store, or it cannot be opened or read.
pub fn stats(dir: &Path, top: usize, tell: Tell<'_>) -> Result<StatsReport, OpsError> {
    let store = open_store(dir)?;
    store.engine.tables.persist()?;
    let snapshot = store.engine.view.snapshot();
    let size = store.engine.tables.size();
    let mut report = StatsReport {
        tables_bytes: size.bytes,
        segments: snapshot.segments.len() as u64,
        log_bytes: snapshot
            .segments
            .iter()
            .map(|segment| snapshot.len_of(segment))
            .sum(),
        first: snapshot.floor,
        next: snapshot.next,
        now: now(),
        ..StatsReport::default()
    };
    let (entries, _) = store
        .engine
        .tables
        .snapshot()
        .map_err(broker_core::store::Fault::from)?;
    let mut done = 0;
    for entry in entries {
        let entry = entry.map_err(|error| OpsError::Damaged(error.to_string()))?;
        report.count_entry(entry.key.as_str(), entry.value.len());
        done += 1;
        if done % 10_000 == 0 {
            tell(Done {
                what: "reading the entries",
                done,
                total: size.items as u64,
            });
        }
    }
    let mut topics = Topics::default();
    read_log(&store, tell, &mut |header, body| {
        report.commits += 1;
        let first = report.times.map_or(header.time, |(first, _)| first);
        report.times = Some((first, header.time));
        for record in body.records() {
            report.records += 1;
            report.record_bytes += record.data.len() as u64;
            topics.count(
                record_topic(record.data).unwrap_or("(no topic)"),
                record.data.len(),
            );
        }
        Ok(())
    })?;
    report.topics = topics.counts.len() as u64;
    report.is_approximate = topics.is_approximate;
    let all = topics.all();
    report.top_by_records = largest(&all, top, |topic| (topic.records, topic.bytes));
    report.top_by_bytes = largest(&all, top, |topic| (topic.bytes, topic.records));
    Ok(report)
}

/// Merges all files of the tables of the store in `dir`, leaving out what was replaced or deleted.
///
/// # Errors
/// There is no store, it cannot be opened, or there is no room for the new files beside the old.
pub fn compact(dir: &Path, tell: Tell<'_>) -> Result<CompactReport, OpsError> {
    let store = open_store(dir)?;
    let tables = &store.engine.tables;
    tables.persist()?;
    let bytes_before = tables.size().bytes;
    tell(Done {
        what: "compacting the tables",
        done: 0,
        total: bytes_before,
    });
    tables.compact_all()?;
    Ok(CompactReport {
        bytes_before,
        bytes_after: tables.size().bytes,
    })
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl StatsReport {
    /// Entries come by key.
    fn count_entry(&mut self, key: &str, value_bytes: usize) {
        let name = key.split('.').next().unwrap_or(key);
        let at = match self
            .tables
            .binary_search_by(|table| table.name.as_str().cmp(name))
        {
            Ok(at) => at,
            Err(at) => {
                let table = TableStats {
                    name: name.to_owned(),
                    ..TableStats::default()
                };
                self.tables.insert(at, table);
                at
            }
        };
        let table = &mut self.tables[at];
        table.entries += 1;
        table.key_bytes += key.len() as u64;
        table.value_bytes += value_bytes as u64;
    }
}

#[derive(Default)]
struct Topics {
    counts: HashMap<String, (u64, u64)>,
    is_approximate: bool,
}

impl Topics {
    fn count(&mut self, topic: &str, bytes: usize) {
        if let Some((records, total)) = self.counts.get_mut(topic) {
            *records += 1;
            *total += bytes as u64;
            return;
        }
        if self.counts.len() >= 2 * TOPICS_MAX {
            self.is_approximate = true;
            let mut sizes: Vec<u64> = self.counts.values().map(|(_, bytes)| *bytes).collect();
            let (_, limit, _) = sizes.select_nth_unstable(TOPICS_MAX);
            let limit = *limit;
            self.counts.retain(|_, (_, bytes)| *bytes > limit);
        }
        self.counts.insert(topic.to_owned(), (1, bytes as u64));
    }

    fn all(&self) -> Vec<TopicStats> {
        let stats = self.counts.iter().map(|(topic, (records, bytes))| TopicStats {
            topic: topic.clone(),
            records: *records,
            bytes: *bytes,
        });
        stats.collect()
    }
}

fn largest(all: &[TopicStats], top: usize, size: fn(&TopicStats) -> (u64, u64)) -> Vec<TopicStats> {
    let mut topics: Vec<&TopicStats> = all.iter().collect();
    topics.sort_by_key(|topic| (Reverse(size(topic)), &topic.topic));
    topics.into_iter().take(top).cloned().collect()
}

impl fmt::Display for StatsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24} {:>12} {:>14} {:>14}",
            "table", "entries", "key bytes", "value bytes"
        )?;
        for table in &self.tables {
            writeln!(
                f,
                "{:<24} {:>12} {:>14} {:>14}",
                table.name, table.entries, table.key_bytes, table.value_bytes
            )?;
        }
        writeln!(f, "files of the tables: {} bytes", self.tables_bytes)?;
        writeln!(
            f,
            "log: {} segments, {} bytes, sequences {} to {}",
            self.segments,
            self.log_bytes,
            self.first.0,
            self.next.0.saturating_sub(1)
        )?;
        write!(
            f,
            "     {} commits, {} records, {} bytes of data",
            self.commits, self.records, self.record_bytes
        )?;
        if let Some((first, last)) = self.times {
            let age = |time: Timestamp| self.now.since(time).as_secs();
            write!(
                f,
                "\n     the first is {} s old, the last {} s",
                age(first),
                age(last)
            )?;
        }
        let about = if self.is_approximate { "at least " } else { "" };
        write!(f, "\ntopics: {about}{}", self.topics)?;
        for (title, topics) in [
            ("most records", &self.top_by_records),
            ("most bytes", &self.top_by_bytes),
        ] {
            if !topics.is_empty() {
                write!(f, "\n{title:<48} {:>12} {:>14}", "records", "bytes")?;
            }
            for topic in topics {
                // A topic may have line feeds and worse.
                let name = topic.topic.escape_debug().to_string();
                write!(f, "\n{name:<48} {:>12} {:>14}", topic.records, topic.bytes)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_topics_the_large_ones_stay() {
        let mut topics = Topics::default();
        for round in 0..3 {
            for number in 0..TOPICS_MAX {
                topics.count(&format!("{round}/{number}"), 1);
            }
            for _ in 0..10 {
                topics.count("large", 100);
            }
        }
        assert!(topics.is_approximate);
        assert!(topics.counts.len() <= 2 * TOPICS_MAX);
        let top = largest(&topics.all(), 1, |topic| (topic.bytes, topic.records));
        assert_eq!(
            (top[0].topic.as_str(), top[0].records, top[0].bytes),
            ("large", 30, 3000)
        );
    }
}
