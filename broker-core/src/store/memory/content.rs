use bytes::Bytes;
use hashbrown::HashMap;

use super::{MemoryLimits, Progress, dedup::DedupIds, log::Log, table::Table};
use crate::{
    Timestamp,
    store::{
        DedupId, Extent, Fault, JournalError, JournalReply, Key, KvError, KvReply, NewRecord, Revision,
        Sequence, Value, Write,
    },
};

/// The log and the entries, which change together.
pub(super) struct Content {
    limits: MemoryLimits,
    /// The place of the next commit.
    next: Sequence,
    pub(super) log: Log,
    pub(super) table: Table,
    ids: DedupIds,
    records: u64,
    changes: u64,
}

impl Content {
    pub(super) fn new(limits: MemoryLimits) -> Content {
        Content {
            limits,
            next: Sequence::FIRST,
            log: Log::default(),
            table: Table::default(),
            ids: DedupIds::default(),
            records: 0,
            changes: 0,
        }
    }

    /// How many records and changes there have been.
    pub(super) fn progress(&self) -> Progress {
        [self.records, self.changes]
    }

    pub(super) fn extent(&self) -> Extent {
        Extent {
            first: self.log.first(),
            next: self.next,
            bytes: self.log.bytes(),
        }
    }

    /// The latest revision there has been.
    pub(super) fn revision(&self) -> Revision {
        Revision(self.next.0 - 1)
    }

    pub(super) fn commit(
        &mut self,
        now: Timestamp,
        records: &[NewRecord],
        writes: &[Write],
        dedup: Option<DedupId>,
    ) -> Result<JournalReply, JournalError> {
        let known = dedup.and_then(|id| self.ids.find(now, id, &self.limits));
        if let Some((first, next)) = known {
            return Ok(JournalReply::Committed {
                first,
                next,
                duplicate: true,
            });
        }
        let (first, next) = self.apply(records, writes)?;
        if let Some(id) = dedup {
            self.ids.insert(now, id, (first, next), &self.limits);
        }
        Ok(JournalReply::Committed {
            first,
            next,
            duplicate: false,
        })
    }

    /// Writes one entry if its revision is the expected one.
    pub(super) fn write(
        &mut self,
        key: &Key,
        expected: Option<Revision>,
        value: Value,
    ) -> Result<KvReply, KvError> {
        let write = Write {
            key: key.clone(),
            value,
        };
        self.check_sizes(&[], std::slice::from_ref(&write))?;
        let current = self.table.revision(key);
        if current != expected {
            return Err(KvError::Conflict { current });
        }
        let (first, _) = self.apply(&[], &[write])?;
        Ok(KvReply::Written(Revision(first.0)))
    }

    /// All of it or, if it fails, nothing.
    fn apply(&mut self, records: &[NewRecord], writes: &[Write]) -> Result<(Sequence, Sequence), Fault> {
        self.check_sizes(records, writes)?;
        // Of several writes to one key the last counts.
        let last: HashMap<&Key, usize, foldhash::quality::RandomState> =
            (0..).zip(writes).map(|(at, write)| (&write.key, at)).collect();
        let last = (0..).zip(writes).filter(|(at, write)| last[&write.key] == *at);
        let changes: Vec<(&Key, Option<&Bytes>)> = last
            .map(|(_, write)| (&write.key, value(records, &write.value)))
            .collect();
        let added = self.log.growth(records);
        let (put, freed) = self.table.growth(&changes);
        let held = self.log.charge() + self.table.charge();
        if added + put > freed && held + added + put > self.limits.bytes_max.saturating_add(freed) {
            return Err(Fault::Full);
        }
        let first = self.next;
        self.next.0 += (records.len() as u64).max(1);
        for (sequence, record) in (first.0..).zip(records) {
            self.log.push(Sequence(sequence), record);
        }
        if let Some(bytes_max) = self.limits.log_bytes_max {
            self.log.keep_within(bytes_max);
        }
        self.records += records.len() as u64;
        self.changes += changes.len() as u64;
        for (key, value) in changes {
            self.table
                .set(key, Revision(first.0), value, self.limits.history_max);
        }
        Ok((first, self.next))
    }

    fn check_sizes(&self, records: &[NewRecord], writes: &[Write]) -> Result<(), Fault> {
        let values = writes.iter().filter_map(|write| match &write.value {
            Value::Put(value) => Some(value),
            Value::PutRecord(_) | Value::Delete => None,
        });
        let bytes_max = self.limits.item_bytes_max;
        let mut sizes = records
            .iter()
            .map(|record| &record.data)
            .chain(values)
            .map(Bytes::len);
        match sizes.find(|bytes| *bytes > bytes_max) {
            Some(bytes) => Err(Fault::TooLarge { bytes, bytes_max }),
            None => Ok(()),
        }
    }
}

fn value<'a>(records: &'a [NewRecord], value: &'a Value) -> Option<&'a Bytes> {
    match value {
        Value::Put(value) => Some(value),
        Value::PutRecord(number) => Some(&records[*number].data),
        Value::Delete => None,
    }
}
